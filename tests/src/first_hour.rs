//! `docs/first-hour.md`: a first hour with the tool, told by a real cluster. Here it is played; what is
//! different each time (times, positions, ports, numbers of operations) is made the same by
//! `normal::Normal`.
//!
//! What is shown as typed is what an operator of four hosts would type; the cluster stands on loopback.

mod normal;

use crate::harness::process::command;
use crate::harness::{Cluster, binaries};
use anyhow::{Context as _, Result, ensure};
use normal::{Detail, Normal};
use shared::api::{NodeStatus, Status};
use tokio::process::Command;

/// Where it is written to.
pub const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/first-hour.md");

const BEGINNING: &str = "\
# A first hour

Four hosts: the monitor is `10.0.0.10`, the data hosts are `10.0.0.11` to `10.0.0.13`. What follows was typed, and
answered by a real cluster: `make first-hour` plays it and writes this page, and a test plays it again and compares.
Times, WAL positions and the numbers of events are not those of the day.
";

/// The story so far.
struct Play<'a> {
    cluster: &'a Cluster,
    text: String,
}

impl Play<'_> {
    fn chapter(&mut self, title: &str, prose: &str) {
        self.text += &format!("\n## {title}\n\n{prose}\n\n");
    }

    fn prose(&mut self, prose: &str) {
        self.text += &format!("\n{prose}\n\n");
    }

    /// Something that is typed at a prompt and done by other means.
    fn typed(&mut self, line: &str) {
        self.text += &format!("    $ {line}\n");
    }

    /// A command of the operator, and what it answers when every report is as new as the group.
    async fn ask(&mut self, line: &str, detail: Detail) -> Result<()> {
        self.cluster.wait_until("reports of what there is now", is_reported).await?;
        let shown = self.answer(line).await?;
        self.typed(&format!("pgtandem {line}"));
        self.tell(&shown, detail);
        Ok(())
    }

    fn tell(&mut self, shown: &str, detail: Detail) {
        for line in Normal::of(self.cluster, detail).text(shown).lines() {
            self.text += format!("    {line}").trim_end();
            self.text.push('\n');
        }
    }

    async fn answer(&self, line: &str) -> Result<String> {
        let mut command = Command::from(command(&binaries::ours("pgtandem")?));
        command.env("PGTANDEM_MONITOR", self.cluster.monitor().url());
        command.args(line.split(' ')).kill_on_drop(true);
        let output = command.output().await?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "pgtandem {line}: {}: {said}", output.status);
        Ok(String::from_utf8(output.stdout)?)
    }
}

/// Who streams is on the primary's timeline, and has the role in the primary's eyes that it shall have.
fn is_reported(status: &Status) -> bool {
    let primary = status.nodes.iter().find(|node| Some(&node.name) == status.primary.as_ref());
    let mut standbys = status
        .nodes
        .iter()
        .filter(|node| node.pg_running && Some(&node.name) != status.primary.as_ref());
    standbys.all(|node| {
        let role = if status.sync.members.contains(&node.name) { "quorum" } else { "async" };
        let timeline = primary.and_then(|primary| primary.timeline);
        node.sync_state.as_deref() == Some(role) && node.timeline == timeline
    })
}

/// Plays it all; returns the page.
pub async fn play() -> Result<String> {
    let cluster =
        Cluster::builder().nodes(3).starting(&[]).start().await.context("no cluster for it")?;
    let mut play = Play { cluster: &cluster, text: BEGINNING.to_owned() };
    create(&mut play).await?;
    look(&mut play).await?;
    hand_over(&mut play).await?;
    kill(&mut play).await?;
    maintain(&mut play).await?;
    drop_node(&mut play).await?;
    let text = play.text;
    cluster.judge().without_workload().await?;
    Ok(text)
}

async fn create(play: &mut Play<'_>) -> Result<()> {
    play.chapter("Install", "On each host; PostgreSQL is there already.");
    play.typed("make install");
    play.ask("--version", Detail::All).await?;
    play.chapter("Create", "On the monitor's host, and then on the first data host:");
    play.typed("pgtandem-monitor systemd --data-dir /var/lib/pgtandem-monitor \\");
    play.tell("    > /etc/systemd/system/pgtandem-monitor.service", Detail::All);
    play.typed("systemctl enable --now pgtandem-monitor");
    play.text.push('\n');
    keeper(play, "node1");
    play.cluster.node("node1")?.start_keeper()?;
    play.cluster.settled().await?;
    play.prose("From anywhere, with `PGTANDEM_MONITOR` set to the monitor's address:");
    play.ask("status", Detail::Volatile).await?;
    play.prose("The same on the other two. They are copied from the first, and from then on commits wait for them.");
    keeper(play, "node2");
    keeper(play, "node3");
    for name in ["node2", "node3"] {
        play.cluster.node(name)?.start_keeper()?;
        play.cluster.settled().await?;
    }
    play.text.push('\n');
    play.ask("status", Detail::Volatile).await
}

fn keeper(play: &mut Play<'_>, name: &str) {
    let number = name.trim_start_matches("node");
    play.typed("export PGTANDEM_MONITOR=http://10.0.0.10:7432");
    play.typed(&format!("pgtandem-keeper systemd --name {name} --host 10.0.0.1{number} \\"));
    play.tell("    --pgdata /var/lib/postgresql/tandem \\", Detail::All);
    play.tell("    > /etc/systemd/system/pgtandem-keeper.service", Detail::All);
    play.typed("systemctl enable --now pgtandem-keeper");
}

async fn look(play: &mut Play<'_>) -> Result<()> {
    play.chapter("Look", "What your applications connect to, and what each commit waits for:");
    play.ask("uri --dbname app", Detail::All).await?;
    play.ask("sync", Detail::Volatile).await?;
    play.prose("All settings, with the values in force. `node-timeout` is the one to set, the others follow:");
    play.ask("settings", Detail::All).await?;
    play.prose(
        "`node3` stands in another building. It shall be the primary only when nobody else can:",
    );
    play.ask("set node node3 candidate-priority 10", Detail::Volatile).await
}

async fn hand_over(play: &mut Play<'_>) -> Result<()> {
    play.chapter("Switchover", "Planned, without loss; writes wait for a moment:");
    play.cluster.settled().await?;
    play.ask("switchover --to node2", Detail::Volatile).await?;
    play.cluster.settled().await?;
    play.ask("status", Detail::Volatile).await
}

async fn kill(play: &mut Play<'_>) -> Result<()> {
    play.chapter(
        "Kill",
        "The primary dies, on `node2`, and its keeper with it; nobody starts them again for a while:",
    );
    play.typed("systemctl mask --runtime pgtandem-keeper");
    play.typed("pkill -KILL 'pgtandem-keeper|postgres'");
    let dead = play.cluster.node("node2")?;
    dead.kill_both()?;
    play.cluster.settled().await?;
    let gone = |node: &NodeStatus| node.health == "bad";
    play.cluster.wait_for_node("node2", "seen to be dead", gone).await?;
    play.prose("Nobody has to do anything:");
    play.ask("status", Detail::Volatile).await?;
    play.prose("Why? Each change has an event, with the rule that it follows from:");
    let events = play.answer("events --count 500").await?;
    let rules = [" primary-dead ", " elected ", " promoted "];
    let told = events.lines().filter(|line| rules.iter().any(|rule| line.contains(rule)));
    let told: Vec<_> = told.collect();
    let last = told.iter().rposition(|line| line.contains(" primary-dead ")).unwrap_or_default();
    play.typed("pgtandem events | grep -E ' (primary-dead|elected|promoted) '");
    for line in told.iter().skip(last) {
        // Which sign of it comes first is a matter of milliseconds.
        let (line, rest) = line.split_once(" it is dead: ").unwrap_or((line, ""));
        let cut = if rest.is_empty() { "" } else { " it is dead: ..." };
        play.tell(&format!("{line}{cut}"), Detail::Volatile);
    }
    play.ask("explain node2", Detail::Volatile).await?;
    play.prose("When it runs again it follows the new primary:");
    play.typed("systemctl unmask --runtime pgtandem-keeper && systemctl start pgtandem-keeper");
    dead.start_keeper()?;
    play.cluster.settled().await?;
    play.ask("status", Detail::Volatile).await
}

async fn maintain(play: &mut Play<'_>) -> Result<()> {
    play.chapter("Maintenance", "`node3` gets more memory. It leaves the sync set first:");
    play.ask("maintenance on node3", Detail::Volatile).await?;
    play.ask("sync", Detail::Volatile).await?;
    play.ask("maintenance off node3", Detail::Volatile).await?;
    play.cluster.settled().await?;
    play.ask("sync", Detail::Volatile).await
}

async fn drop_node(play: &mut Play<'_>) -> Result<()> {
    play.chapter(
        "Drop",
        "It is needed elsewhere. PostgreSQL is stopped there for good; the data stays:",
    );
    play.ask("drop node node3", Detail::Volatile).await?;
    let status = play.cluster.node("node3")?.keeper_ends().await?;
    ensure!(status.success(), "the keeper of the dropped node: {status}");
    play.cluster.settled().await?;
    play.ask("status", Detail::Volatile).await
}
