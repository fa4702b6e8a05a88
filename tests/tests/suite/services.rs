//! The programs as services: what they tell systemd, the units that they print, and what they owe to a
//! container whose first process they are.

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use shared::api::NodeStatus;
use shared::state::NodeState;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};
use tests::harness::process::{Daemon, command, is_alive, signal, working_in};
use tests::harness::wait::{DEADLINE, eventually};
use tests::harness::{Cluster, Node, NodeOptions, binaries};
use tokio::net::UnixDatagram;

/// What the service manager waits for a sign of life.
const PATIENCE: Duration = Duration::from_secs(8);
/// So many of them are listened to.
const SIGNS: usize = 4;

/// The end of a program's line that is systemd's.
struct Manager {
    path: PathBuf,
    socket: UnixDatagram,
    heard: Vec<String>,
}

impl Manager {
    fn listen(cluster: &Cluster) -> Result<Self> {
        let path = cluster.sandbox().root().join("notify");
        let socket = UnixDatagram::bind(&path)?;
        Ok(Self { path, socket, heard: Vec::new() })
    }

    /// As systemd starts a service.
    fn start(&self, cluster: &Cluster, name: &str, mut command: Command) -> Result<Daemon> {
        command.env("NOTIFY_SOCKET", &self.path);
        command.env("WATCHDOG_USEC", PATIENCE.as_micros().to_string());
        Daemon::start(name, command, &cluster.sandbox().log(name))
    }

    async fn hears(&mut self, what: &str) -> Result<()> {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        loop {
            let mut message = [0; 512];
            let received = self.socket.recv(&mut message);
            let received = tokio::time::timeout_at(deadline, received).await;
            let said = format!("'{what}' was never said, but {:?}", self.heard);
            let length = received.context(said)??;
            let text = String::from_utf8_lossy(message.get(..length).unwrap_or_default());
            let text = text.trim_end().to_owned();
            self.heard.push(text.clone());
            if text == what {
                return Ok(());
            }
        }
    }

    /// A program from its start to its planned end.
    async fn hears_all(&mut self, mut program: Daemon) -> Result<()> {
        self.hears("READY=1").await?;
        self.hears("WATCHDOG=1").await?;
        for _ in 0..SIGNS {
            let last = Instant::now();
            self.hears("WATCHDOG=1").await?;
            let pause = last.elapsed();
            ensure!(pause < PATIENCE, "systemd would have killed it: no sign for {pause:?}");
        }
        program.signal(Signal::TERM)?;
        self.hears("STOPPING=1").await?;
        let status = program.wait().await?;
        ensure!(status.success(), "{status}");
        // PostgreSQL has a line of its own to systemd, which is not to be mistaken for ours.
        let said_ready = self.heard.iter().filter(|text| *text == "READY=1").count();
        ensure!(said_ready == 1, "{:?}", self.heard);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_keeper_tells_systemd_how_it_is() -> Result<()> {
    let cluster = Cluster::builder().nodes(1).starting(&[]).start().await?;
    let mut manager = Manager::listen(&cluster)?;
    let node = cluster.node("node1")?;
    let keeper = manager.start(&cluster, "keeper", node.keeper_command()?)?;
    cluster
        .wait_for_node("node1", "serving", |node| node.reported_state == NodeState::Single)
        .await?;
    manager.hears_all(keeper).await?;
    ensure!(manager.heard.iter().any(|text| text == "STATUS=single"), "{:?}", manager.heard);
    ensure!(!node.has_postgres(), "its Postgres is running");
    cluster.judge().logs_only()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_monitor_tells_systemd_how_it_is() -> Result<()> {
    let cluster = Cluster::builder().start().await?;
    ensure!(cluster.monitor().stop().await?.success());
    let mut manager = Manager::listen(&cluster)?;
    let monitor = manager.start(&cluster, "monitor-service", cluster.monitor().command()?)?;
    manager.hears_all(monitor).await?;
    cluster.judge().logs_only()
}

/// `systemctl reload`: what an operator has written into the files of his own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_of_the_keeper_is_one_of_postgres() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let node = cluster.node("node1")?;
    let before = node.postmaster()?;
    let path = node.pgdata().join("postgresql.conf");
    fs::write(&path, format!("work_mem = '7MB'\n{}", fs::read_to_string(&path)?))?;
    node.signal_keeper(Signal::HUP)?;
    eventually("another work_mem", DEADLINE, async || {
        let shown: String = node.sql().await?.value("show work_mem", &[]).await?;
        Ok(if shown == "7MB" { Ok(()) } else { Err(shown) })
    })
    .await?;
    ensure!(node.postmaster()? == before, "Postgres was restarted");
    cluster.judge().without_workload().await
}

fn run(program: &str, arguments: &[&str]) -> Result<Output> {
    Ok(command(&binaries::ours(program)?).args(arguments).output()?)
}

fn unit(program: &str, arguments: &[&str]) -> Result<String> {
    let output = run(program, &[&["systemd"], arguments].concat())?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} systemd: {}: {said}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

/// `systemd-analyze verify` says what it does not like, and ends well for all that.
fn is_good(name: &str, text: &str) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join(format!("{name}.service"));
    fs::write(&path, text)?;
    let mut verify = Command::new("systemd-analyze");
    // Pages of the manual come with `make install`.
    let output = match verify.args(["verify", "--man=no"]).arg(&path).output() {
        // Where systemd is not installed there is nobody to ask.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        output => output?,
    };
    let said = String::from_utf8_lossy(&output.stderr);
    let about_it: Vec<_> = said.lines().filter(|line| line.contains(name)).collect();
    ensure!(output.status.success() && about_it.is_empty(), "{said}\n{text}");
    Ok(())
}

const KEEPER: [&str; 8] = [
    "--monitor",
    "http://10.0.0.10:7432",
    "--name",
    "node1",
    "--host",
    "10.0.0.11",
    "--pgdata",
    "/srv/pg/a data directory",
];

#[test]
fn units_are_what_systemd_takes() -> Result<()> {
    let keeper = unit("pgtandem-keeper", &KEEPER)?;
    is_good("pgtandem-keeper", &keeper)?;
    let expected = r#"run --monitor=http://10.0.0.10:7432 "--pgdata=/srv/pg/a data directory" "#;
    ensure!(keeper.contains(expected), "{keeper}");
    let as_root = unit("pgtandem-keeper", &[&KEEPER[..], &["--user", "root"]].concat())?;
    is_good("pgtandem-keeper", &as_root)?;
    ensure!(as_root.contains("\nUser=root\n") && !as_root.contains("--user"), "{as_root}");
    let monitor = unit("pgtandem-monitor", &["--data-dir", "/srv/monitor"])?;
    is_good("pgtandem-monitor", &monitor)?;
    ensure!(monitor.contains("pgtandem-monitor run --data-dir=/srv/monitor\n"), "{monitor}");
    Ok(())
}

/// What is verified can be found wanting.
#[test]
fn a_bad_unit_is_none() {
    let unit = "[Service]\nType=notify\nExecStart=relative/path\n";
    let there = Command::new("systemd-analyze").arg("--version").output().is_ok();
    assert_eq!(is_good("pgtandem-bad", unit).is_err(), there);
}

#[test]
fn secrets_are_in_no_unit() -> Result<()> {
    let token = ["--join-token", "very-secret"];
    let output = run("pgtandem-keeper", &[&["systemd"], &KEEPER[..], &token].concat())?;
    ensure!(output.status.code() == Some(1) && output.stdout.is_empty(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(said.contains("--config") && !said.contains("very-secret"), "{said}");
    Ok(())
}

/// A process of the container loses its parent.
struct Orphan(i32);

impl Orphan {
    /// Started in the process table of `first`, which takes it in.
    async fn of(first: i32) -> Result<Self> {
        let mut enter = Command::new("nsenter");
        let target = first.to_string();
        enter.args(["--target", &target, "--pid", "--mount", "sh", "-c", "sleep 1000 & exit"]);
        let before = children(first)?;
        ensure!(enter.status()?.success(), "cannot enter the process table of {first}");
        let pid = eventually("an orphan", DEADLINE, async || {
            let new = children(first)?.into_iter().find(|pid| !before.contains(pid));
            Ok(new.ok_or_else(|| "nobody was taken in".to_owned()))
        });
        Ok(Self(pid.await?))
    }

    /// Somebody has to wait for it, or it stays for ever.
    async fn ends(&self) -> Result<()> {
        signal(self.0, Signal::KILL)?;
        eventually("the last of an orphan", DEADLINE, async || {
            let path = format!("/proc/{}/stat", self.0);
            Ok(fs::read_to_string(path).map_or(Ok(()), Err))
        })
        .await
    }
}

fn children(parent: i32) -> Result<Vec<i32>> {
    let text = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"))?;
    Ok(text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect())
}

fn copies_of(node: &Node) -> Vec<i32> {
    let name = |pid: i32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let all = working_in(node.dir()).into_iter();
    all.filter(|pid| name(*pid).trim_end() == "pg_basebackup" && is_alive(*pid)).collect()
}

/// A program as the first process of a container.
fn first_process(name: &str, program: &Command, log: &Path) -> Result<Daemon> {
    let mut contained = command("unshare".as_ref());
    contained.args(["--pid", "--fork", "--mount-proc", "--kill-child=KILL"]);
    contained.arg(program.get_program()).args(program.get_args());
    for (name, value) in program.get_envs() {
        if let Some(value) = value {
            contained.env(name, value);
        }
    }
    Daemon::start(name, contained, log)
}

async fn first_of(container: &Daemon) -> Result<i32> {
    let outside = container.pid()?;
    eventually("a first process", DEADLINE, async || {
        let first = children(outside)?.into_iter().find(|pid| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            name.starts_with("pgtandem")
        });
        Ok(first.ok_or_else(|| "unshare has no child yet".to_owned()))
    })
    .await
}

/// The keeper's own children, here a copy, are not waited for by the first process in its place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_keeper_as_the_first_process_takes_in_orphans() -> Result<()> {
    let slow = NodeOptions {
        arguments: ["--max-rate", "4M"].map(str::to_owned).to_vec(),
        ..NodeOptions::default()
    };
    let cluster = Cluster::builder().nodes(1).node(slow).starting(&[1]).start().await?;
    let node = cluster.node("node2")?;
    let log = cluster.sandbox().log("contained");
    let mut container = first_process("contained", &node.keeper_command()?, &log)?;
    let first = first_of(&container).await?;
    let copy = eventually("a copy", DEADLINE, async || {
        Ok(copies_of(node).first().copied().ok_or_else(|| "there is none".to_owned()))
    })
    .await?;
    Orphan::of(first).await?.ends().await?;
    ensure!(is_alive(copy), "the copy was too fast");
    signal(copy, Signal::KILL)?;
    let told = |node: &NodeStatus| node.warnings.iter().any(|w| w.contains("signal: 9"));
    cluster.wait_for_node("node2", "a copy that was killed", told).await?;
    let follows = |node: &NodeStatus| node.reported_state == NodeState::Secondary;
    cluster.wait_for_node("node2", "another copy", follows).await?;
    Orphan::of(first).await?.ends().await?;
    signal(first, Signal::TERM)?;
    let status = container.wait().await?;
    ensure!(status.success() && !node.has_postgres(), "{status}");
    cluster.judge().logs_only()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_monitor_as_the_first_process_takes_in_orphans() -> Result<()> {
    let cluster = Cluster::builder().start().await?;
    ensure!(cluster.monitor().stop().await?.success());
    let log = cluster.sandbox().log("contained");
    let mut container = first_process("contained", &cluster.monitor().command()?, &log)?;
    let first = first_of(&container).await?;
    let ready = eventually("a monitor that is ready", DEADLINE, async || {
        Ok(cluster.monitor().status().await.map_err(|error| format!("{error:#}")))
    });
    ready.await?;
    Orphan::of(first).await?.ends().await?;
    signal(first, Signal::TERM)?;
    let status = container.wait().await?;
    ensure!(status.success(), "{status}");
    cluster.judge().logs_only()
}
