//! Every command of the three programs: that it does what it is there for, that it refuses what cannot be,
//! its exit codes, and its JSON. The rows are compared with the programs' own definitions, so that no
//! command is forgotten: a new one takes its row.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::Duration;
use tests::harness::process::command;
use tests::harness::{Cluster, Node, NodeOptions, binaries};
use tokio::process::Command;

/// Longer than the commands' own patience.
const LIMIT: Duration = Duration::from_secs(90);

/// What a command does when it does what it is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    /// Shows something as JSON, and changes nothing.
    Looks,
    /// Prints what is read by another program than ours, and changes nothing.
    Writes,
    /// Changes something; what it says is JSON.
    Changes,
    /// Does not end by itself; shows something first.
    GoesOn,
    /// Takes a minute, and is shown by this module of the suite.
    Elsewhere(&'static str),
}

/// A command; words in braces are filled in.
struct Row {
    command: &'static str,
    does: Does,
    /// The arguments with which it ends well.
    done: &'static str,
    /// The arguments that are refused, and the exit code.
    refused: (&'static str, i32),
}

const fn row(
    command: &'static str,
    does: Does,
    done: &'static str,
    refused: (&'static str, i32),
) -> Row {
    Row { command, does, done, refused }
}

use Does::{Changes, Elsewhere, GoesOn, Looks, Writes};

/// In this order, since some need what others have made. `nowhere` is no formation, node9 no node, node4 a
/// node that has not joined before, node5 one that never does.
const ROWS: &[Row] = &[
    row("pgtandem status", Looks, "", ("--formation nowhere", 1)),
    row("pgtandem watch", GoesOn, "", ("--formation nowhere", 1)),
    row("pgtandem events", Looks, "--count 5", ("--count some", 1)),
    row("pgtandem explain", Looks, "node2", ("node9", 1)),
    row("pgtandem uri", Looks, "--role standby", ("--role none", 1)),
    row("pgtandem sync", Looks, "", ("--formation nowhere", 1)),
    row("pgtandem timelines", Looks, "", ("--formation nowhere", 1)),
    row("pgtandem settings", Looks, "", ("--monitor http://127.0.0.1:1", 4)),
    row("pgtandem fsm", Looks, "", ("--nonsense", 1)),
    row("pgtandem get node", Looks, "node1", ("node9", 1)),
    row("pgtandem get formation", Looks, "node-timeout", ("no-such-key", 1)),
    row("pgtandem set node", Changes, "node3 zone east", ("node1 candidate-priority 101", 1)),
    row("pgtandem set formation", Changes, "restart-budget 2s", ("lease 1h", 1)),
    row("pgtandem switchover", Changes, "--to node2", ("--to node9", 1)),
    row("pgtandem failover", Changes, "", ("--timeout soon", 1)),
    row("pgtandem promote", Changes, "node1", ("node9", 1)),
    row("pgtandem maintenance on", Changes, "node3", ("node1", 3)),
    row("pgtandem maintenance off", Changes, "node3", ("node9", 1)),
    row("pgtandem restart", Changes, "node3", ("node9", 1)),
    row("pgtandem reinit", Changes, "node3", ("node1", 3)),
    row("pgtandem accept timeline", Elsewhere("timelines"), "", ("99 --reason none", 3)),
    row("pgtandem pause", Changes, "", ("--formation nowhere", 1)),
    row("pgtandem resume", Changes, "", ("--formation nowhere", 1)),
    row("pgtandem config show", Looks, "", ("node9", 1)),
    row("pgtandem config set", Changes, "work_mem=8MB", ("no_such_setting=1", 1)),
    row("pgtandem config unset", Changes, "work_mem", ("--node node9 work_mem", 1)),
    row("pgtandem config edit", Elsewhere("config, in ctl/tests"), "", ("--node node9", 1)),
    row("pgtandem formation list", Looks, "", ("--config /nonexistent", 2)),
    row("pgtandem formation create", Changes, "reports", ("not/a/name", 1)),
    row("pgtandem formation drop", Changes, "reports", ("default", 3)),
    row("pgtandem completions", Writes, "bash", ("sh", 1)),
    row("pgtandem man", Writes, "", ("--dir /dev/null/man", 2)),
    row("pgtandem demo", Elsewhere("demo"), "", ("--nodes 1", 1)),
    row("pgtandem-keeper status", Looks, "{node1}", ("", 2)),
    row("pgtandem-keeper rules", Looks, "", ("--nonsense", 1)),
    row("pgtandem-keeper systemd", Writes, "{node1}", ("{node1} --candidate-priority 101", 1)),
    row("pgtandem-keeper completions", Writes, "zsh", ("sh", 1)),
    row("pgtandem-keeper man", Writes, "", ("--dir /dev/null/man", 2)),
    row("pgtandem-keeper create", Changes, "{node4}", ("{node4} --rest-listen nowhere", 1)),
    row("pgtandem-keeper detach", Changes, "{node4} --force", ("{node5}", 3)),
    row("pgtandem-keeper attach", Changes, "{node4}", ("{node4} --monitor nowhere:port", 1)),
    row("pgtandem-keeper drop", Changes, "{node4}", ("{node5}", 3)),
    row("pgtandem-keeper run", Elsewhere("stops"), "", ("{node4}", 3)),
    row(
        "pgtandem-keeper wal-push",
        Elsewhere("backups"),
        "",
        ("--state-dir /nowhere /etc/passwd", 4),
    ),
    row("pgtandem-keeper wal-get", Elsewhere("backups"), "", ("--state-dir /nowhere some some", 4)),
    row("pgtandem token create", Changes, "", ("--formation nowhere", 1)),
    row("pgtandem token list", Looks, "", ("--formation nowhere", 1)),
    row("pgtandem token revoke", Changes, "{token}", ("no-such-token", 1)),
    row("pgtandem drop node", Changes, "node3", ("node9", 1)),
    row("pgtandem-monitor rules", Looks, "", ("--nonsense", 1)),
    row("pgtandem-monitor systemd", Writes, "{monitor}", ("{monitor} --lease 1h", 1)),
    row("pgtandem-monitor completions", Writes, "fish", ("sh", 1)),
    row("pgtandem-monitor man", Writes, "", ("--dir /dev/null/man", 2)),
    row("pgtandem-monitor init", Changes, "{monitor}", ("{monitor} --node-timeout soon", 1)),
    row("pgtandem-monitor run", Elsewhere("stops"), "", ("", 2)),
];

/// The commands below this one that are no groups of others.
fn leaves(command: &clap::Command, path: &str) -> Vec<String> {
    let path = format!("{path} {}", command.get_name()).trim().to_owned();
    let below: Vec<_> = command.get_subcommands().filter(|c| c.get_name() != "help").collect();
    if below.is_empty() {
        return vec![path];
    }
    below.into_iter().flat_map(|command| leaves(command, &path)).collect()
}

#[test]
fn every_command_has_a_row() {
    let programs = [ctl::cli::definition(), keeper::cli::definition(), monitor::cli::definition()];
    let commands = programs.iter().flat_map(|program| leaves(program, ""));
    let commands: BTreeSet<_> = commands.collect();
    let rows: BTreeSet<_> = ROWS.iter().map(|row| row.command.to_owned()).collect();
    assert_eq!(rows.len(), ROWS.len(), "a command has two rows");
    assert_eq!(rows, commands, "the rows, and the commands that there are");
}

/// How a command ended.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

/// Where the rows are tried.
struct Stage<'a> {
    cluster: &'a Cluster,
    token: String,
}

impl Stage<'_> {
    fn command(&self, row: &Row, words: &str) -> Result<Command> {
        let (program, names) = row.command.split_once(' ').context("a program and a command")?;
        let mut command = command(&binaries::ours(program)?);
        command.args(names.split(' ')).arg("--json");
        if program == "pgtandem" && !words.contains("--monitor") {
            command.env("PGTANDEM_MONITOR", self.cluster.monitor().url());
        }
        for word in words.split(' ').filter(|word| !word.is_empty()) {
            match word.strip_prefix('{').and_then(|word| word.strip_suffix('}')) {
                None => command.arg(word),
                Some("token") => command.arg(&self.token),
                Some("monitor") => {
                    command.arg("--data-dir").arg(self.cluster.sandbox().dir("another")?)
                }
                Some(node) => command.args(options_of(self.cluster.node(node)?)?),
            };
        }
        Ok(Command::from(command))
    }

    async fn run(&self, row: &Row, words: &str) -> Result<Ended> {
        let mut command = self.command(row, words)?;
        command.kill_on_drop(true).process_group(0);
        let output = tokio::time::timeout(LIMIT, command.output()).await;
        let output = output.with_context(|| format!("{} {words} does not end", row.command))??;
        Ok(Ended {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Until it has shown something.
    async fn begins(&self, row: &Row) -> Result<String> {
        use tokio::io::{AsyncBufReadExt as _, BufReader};
        let mut command = self.command(row, row.done)?;
        command.kill_on_drop(true).stdout(std::process::Stdio::piped());
        let mut child = command.spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("no output")?).lines();
        let line = tokio::time::timeout(LIMIT, lines.next_line()).await;
        let line = line.with_context(|| format!("{} shows nothing", row.command))??;
        child.kill().await?;
        line.with_context(|| format!("{} ends", row.command))
    }

    async fn is_refused(&self, row: &Row) -> Result<()> {
        let (words, code) = row.refused;
        let ended = self.run(row, words).await?;
        ensure!(ended.code == Some(code), "not refused with {code}: {ended:?}");
        let said = || format!("{}{}", ended.stdout, ended.stderr);
        let error: Value = serde_json::from_str(&ended.stdout).with_context(said)?;
        ensure!(error.get("code") == Some(&code.into()), "{error}");
        for field in ["reason", "message"] {
            let text = error.get(field).and_then(Value::as_str).unwrap_or_default();
            ensure!(!text.is_empty() && text.lines().count() == 1, "{field}: {error}");
        }
        ensure!(error.get("nodes").is_some_and(Value::is_array), "{error}");
        Ok(())
    }

    async fn is_done(&mut self, row: &Row) -> Result<()> {
        let shown = match row.does {
            Elsewhere(_) => return Ok(()),
            GoesOn => self.begins(row).await?,
            Looks | Writes | Changes => {
                let ended = self.run(row, row.done).await?;
                ensure!(ended.code == Some(0), "{ended:?}");
                ended.stdout
            }
        };
        if row.does == Writes {
            ensure!(shown.lines().count() > 5, "{shown}");
            return Ok(());
        }
        let values = serde_json::Deserializer::from_str(&shown).into_iter::<Value>();
        let values = values.collect::<Result<Vec<_>, _>>().with_context(|| shown.clone())?;
        ensure!(row.does == Changes || !values.is_empty(), "nothing is shown");
        if row.command == "pgtandem token create" {
            let id = values.first().and_then(|created| created.get("id")).and_then(Value::as_str);
            id.context("a token without an id")?.clone_into(&mut self.token);
        }
        Ok(())
    }

    /// What a row does that is not as it should be.
    async fn try_row(&mut self, row: &Row) -> Result<()> {
        let before = self.cluster.settled().await?.revision;
        self.is_refused(row).await.with_context(|| format!("refusal '{}'", row.refused.0))?;
        let changes = row.does == Changes;
        if changes {
            let after = self.cluster.monitor().status().await?.revision;
            ensure!(after == before, "the refusal has changed something");
        }
        self.is_done(row).await.with_context(|| format!("success '{}'", row.done))?;
        if row.command == "pgtandem drop node" {
            let status = self.cluster.node("node3")?.keeper_ends().await?;
            ensure!(status.success(), "the keeper of the dropped node: {status}");
        }
        let after = self.cluster.monitor().status().await?.revision;
        ensure!(changes || after == before, "looking has changed something");
        Ok(())
    }
}

/// What a node's keeper is given.
fn options_of(node: &Node) -> Result<Vec<std::ffi::OsString>> {
    let command = node.keeper_command()?;
    Ok(command.get_args().filter(|word| *word != "run").map(ToOwned::to_owned).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_do_what_they_are_there_for_and_refuse_what_cannot_be() -> Result<()> {
    // The orders of operators are no part of the model.
    let mut cluster = Cluster::builder().nodes(3).untraced().start().await?;
    for _ in ["node4", "node5"] {
        cluster.add_node(NodeOptions::default())?;
    }
    let mut stage = Stage { cluster: &cluster, token: String::new() };
    let mut wrong = Vec::new();
    for row in ROWS {
        if let Err(error) = stage.try_row(row).await {
            wrong.push(format!("{}: {error:#}", row.command));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    cluster.judge().without_workload().await
}
