//! What cannot be is refused: one clear line, the right exit code, nothing touched.

use anyhow::{Context as _, Result, ensure};
use std::net::TcpListener;
use std::path::Path;
use std::process::Output;
use std::time::Duration;
use tests::harness::faults::contents;
use tests::harness::sandbox::{give_to_postgres, postgres_user};
use tests::harness::scratch::init_cluster;
use tests::harness::{Cluster, Node, NodeOptions};
use tokio::process::Command;

/// A refusal comes soon; what keeps trying is no refusal.
const LIMIT: Duration = Duration::from_secs(30);

async fn run(command: std::process::Command) -> Result<Output> {
    let mut command = Command::from(command);
    command.kill_on_drop(true).process_group(0);
    let output = tokio::time::timeout(LIMIT, command.output()).await;
    Ok(output.with_context(|| format!("it goes on for {LIMIT:?}: {command:?}"))??)
}

/// It ended with this code, and said why in one line that has all of these words.
fn is_refused(output: &Output, code: i32, words: &[&str]) -> Result<()> {
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(code), "{:?} instead of {code}: {said}", output.status);
    let is_record = |line: &&str| {
        let level = line.split_whitespace().nth(1).unwrap_or_default();
        ["TRACE", "DEBUG", "INFO", "WARN"].contains(&level)
    };
    let lines: Vec<_> = said.lines().filter(|line| !is_record(line)).collect();
    ensure!(lines.len() == 1, "one line was to say it: {said}");
    for word in words {
        ensure!(lines.iter().all(|line| line.contains(word)), "'{word}' is not said: {said}");
    }
    Ok(())
}

fn command_with(node: &Node, arguments: &[&str]) -> Result<std::process::Command> {
    let mut command = node.keeper_command()?;
    command.args(arguments);
    Ok(command)
}

/// Nothing is where the data directory would be.
fn is_untouched(node: &Node) -> Result<()> {
    let left = contents(&node.pgdata());
    ensure!(left.is_empty(), "something was left in {}: {left:?}", node.pgdata().display());
    ensure!(!node.has_postgres(), "Postgres is running");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_cluster_in_the_data_directory() -> Result<()> {
    let mut cluster = Cluster::start(1).await?;
    let name = cluster.add_node(NodeOptions::default())?.name().to_owned();
    let node = cluster.node(&name)?;
    init_cluster(&node.pgdata())?;
    let before = contents(&node.pgdata());
    let output = run(node.keeper_command()?).await?;
    is_refused(&output, 3, &["system identifier", &name])?;
    ensure!(contents(&node.pgdata()) == before, "the data directory was touched");
    ensure!(cluster.monitor().status().await?.nodes.len() == 1, "it was registered");
    cluster.judge().without_workload().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_or_an_address_that_is_taken() -> Result<()> {
    let mut cluster = Cluster::start(1).await?;
    let taken = cluster.node("node1")?.port();
    let name = cluster.add_node(NodeOptions::default())?.name().to_owned();
    let node = cluster.node(&name)?;
    let output = run(node.keeper_command_as("node1", node.port())?).await?;
    is_refused(&output, 3, &["node1", "taken"])?;
    is_untouched(node)?;
    let output = run(node.keeper_command_as(&name, taken)?).await?;
    is_refused(&output, 2, &[&taken.to_string()])?;
    is_untouched(node)?;
    ensure!(cluster.monitor().status().await?.nodes.len() == 1, "it was registered");
    cluster.judge().without_workload().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_somebody_else_has() -> Result<()> {
    let cluster = Cluster::builder().nodes(1).starting(&[]).start().await?;
    let node = cluster.node("node1")?;
    let somebody = TcpListener::bind(("127.0.0.1", node.port()))?;
    let output = run(node.keeper_command()?).await?;
    is_refused(&output, 2, &[&node.port().to_string()])?;
    is_untouched(node)?;
    drop(somebody);
    let somebody = TcpListener::bind(("127.0.0.1", node.rest_port()))?;
    let output = run(node.keeper_command()?).await?;
    is_refused(&output, 2, &[&node.rest_port().to_string()])?;
    is_untouched(node)?;
    drop(somebody);
    ensure!(cluster.monitor().status().await?.nodes.is_empty(), "it was registered");
    // It is none of its own doing that it was refused.
    node.start_keeper()?;
    cluster.judge().without_workload().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_that_are_missing() -> Result<()> {
    let cluster = Cluster::builder().nodes(1).starting(&[]).start().await?;
    let node = cluster.node("node1")?;
    let empty = cluster.sandbox().dir("empty")?;
    let output = run(command_with(node, &["--bin-dir", path(&empty)?])?).await?;
    is_refused(&output, 2, &["postgres", path(&empty)?])?;
    is_untouched(node)?;
    ensure!(cluster.monitor().status().await?.nodes.is_empty(), "it was registered");
    cluster.judge().logs_only()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_monitor_that_is_not_there() -> Result<()> {
    let cluster = Cluster::builder().nodes(1).starting(&[]).start().await?;
    let node = cluster.node("node1")?;
    cluster.monitor().stop().await?;
    let output = run(node.keeper_command()?).await?;
    is_refused(&output, 4, &[&cluster.monitor().url()])?;
    is_untouched(node)?;
    let answer = cluster.pgtandem(&["status"]).await?;
    ensure!(answer.code == 4 && answer.text("reason") == "monitor_unreachable", "{answer:?}");
    cluster.judge().logs_only()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_not_one() -> Result<()> {
    let cluster = Cluster::builder().nodes(1).starting(&[]).start().await?;
    let node = cluster.node("node1")?;
    let created = cluster.pgtandem(&["token", "create"]).await?;
    ensure!(created.code == 0, "{created:?}");
    for arguments in [&[][..], &["--join-token", "nonsense"]] {
        let output = run(command_with(node, arguments)?).await?;
        is_refused(&output, 3, &["token"])?;
        is_untouched(node)?;
    }
    ensure!(cluster.monitor().status().await?.nodes.is_empty(), "it was registered");
    cluster.judge().logs_only()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_monitor_that_cannot_run() -> Result<()> {
    let cluster = Cluster::builder().nodes(1).starting(&[]).start().await?;
    let monitor = cluster.monitor();
    // The data directory of one that is running, and its address.
    let output = run(monitor.command()?).await?;
    is_refused(&output, 2, &[path(&monitor.data_dir())?])?;
    let elsewhere = cluster.sandbox().dir("elsewhere")?;
    let output = run(monitor.command_in(&elsewhere)?).await?;
    is_refused(&output, 2, &["listen", "in use"])?;
    let left = contents(&elsewhere.join("pgdata"));
    ensure!(left.is_empty(), "it was set up: {left:?}");
    cluster.judge().logs_only()
}

/// A file system that is mounted for one process only: nothing is left to be undone.
fn on_file_system(node: &Node, mount: &str, options: &str) -> Result<std::process::Command> {
    let dir = node.pgdata();
    std::fs::create_dir(&dir)?;
    give_to_postgres(&dir)?;
    let mut command = tests::harness::process::command("unshare".as_ref());
    let owner = postgres_user()?.map(|(uid, gid)| format!(",uid={uid},gid={gid},mode=0700"));
    let owner = owner.unwrap_or_default();
    let script = format!("mount -t tmpfs -o {options}{owner} {mount} \"$0\" && exec \"$@\"");
    command.args(["--mount", "sh", "-c", &script, path(&dir)?]);
    let keeper = node.keeper_command()?;
    command.arg(keeper.get_program()).args(keeper.get_args());
    Ok(command)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_directory_that_cannot_be_written() -> Result<()> {
    let cluster = Cluster::builder().nodes(1).starting(&[]).start().await?;
    let node = cluster.node("node1")?;
    let output = run(on_file_system(node, "pgt-read-only", "ro")?).await?;
    is_refused(&output, 2, &[path(&node.pgdata())?, "Read-only"])?;
    ensure!(!node.has_postgres(), "Postgres is running");
    cluster.judge().logs_only()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_directory_that_is_full() -> Result<()> {
    let cluster = Cluster::builder().nodes(1).starting(&[]).start().await?;
    let node = cluster.node("node1")?;
    let output = run(on_file_system(node, "pgt-full", "size=4m")?).await?;
    is_refused(&output, 2, &[path(&node.pgdata())?, "space"])?;
    ensure!(!node.has_postgres(), "Postgres is running");
    cluster.judge().logs_only()
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is no text")
}
