//! How standbys are made and caught up: by commands that fail, hang, or bring what is not asked for, and by
//! the real pgBackRest.

use crate::catching_up::forget_wal;
use anyhow::{Context as _, Result, ensure};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use tests::harness::process::{command, is_alive};
use tests::harness::repository::Repository;
use tests::harness::sandbox::{give_to_postgres, postgres_user};
use tests::harness::wait::{DEADLINE, eventually};
use tests::harness::{Cluster, Node, NodeOptions, binaries};

/// Ends with an error, and says why.
const FAILS: &str = "echo 'there is no room in the box' >&2; exit 3";
/// Says how far it is, and goes no further; neither does what it has begun.
const HANGS: &str = "sleep 1000 & echo $! > BOX/child; echo $$ > BOX/pid; echo progress 5 20; wait";
/// Another cluster.
const FOREIGN: &str = "\"$PGTANDEM_BIN_DIR/initdb\" -D \"$1\" -A trust -N > /dev/null";
/// This one, with its WAL where nobody looks for it.
const LINKED: &str = "exec \"$PGTANDEM_BIN_DIR/pg_basebackup\" -h \"$PGTANDEM_PRIMARY_HOST\" \
-p \"$PGTANDEM_PRIMARY_PORT\" -U \"$PGTANDEM_PRIMARY_USER\" -D \"$1\" -c fast --no-password \
--waldir=$(mktemp -d BOX/linked.XXXXXX)/wal";
/// This one, as it was some time ago; with what a recovery by hand would leave. Or as it is kept elsewhere.
const OLD: &str = "set -e
test ! -e BOX/kept || { mv BOX/kept/* \"$1\"; rm -r BOX/kept; exit 0; }
\"$PGTANDEM_BIN_DIR/pg_basebackup\" -h \"$PGTANDEM_PRIMARY_HOST\" -p \"$PGTANDEM_PRIMARY_PORT\" \
-U \"$PGTANDEM_PRIMARY_USER\" -D \"$1\" -X fetch -c fast --no-password
test \"$1\" = \"$PGTANDEM_TARGET_DIR\" && test -n \"$PGTANDEM_SYSTEM_IDENTIFIER\"
echo \"recovery_target_name = 'nowhere'\" >> \"$1/postgresql.auto.conf\"
touch \"$1/recovery.signal\" BOX/made
while [ ! -e BOX/go ]; do echo waiting; sleep 0.1; done";

fn script(dir: &Path, name: &str, text: &str) -> Result<String> {
    let path = dir.join(name);
    fs::write(&path, format!("#!/bin/sh\n{}\n", text.replace("BOX", &dir.display().to_string())))?;
    fs::set_permissions(&path, Permissions::from_mode(0o755))?;
    Ok(path.display().to_string())
}

/// What a keeper itself says of the step that it is in.
async fn progress(node: &Node) -> Result<serde_json::Value> {
    let output = tokio::process::Command::from(node.keeper_tool("status")?).output().await?;
    let status: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    Ok(status.pointer("/step/progress").cloned().unwrap_or_default())
}

/// Whether these stand in this order in a log.
fn in_order(log: &str, words: &[&str]) -> Result<()> {
    let mut rest = log;
    for word in words {
        let (_, after) = rest.split_once(word).with_context(|| format!("no {word:?} in {rest}"))?;
        rest = after;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_are_tried_in_order_and_what_they_bring_is_checked() -> Result<()> {
    let scratch = tempfile::Builder::new().prefix("pgt-replicas-").tempdir()?;
    let dir = scratch.path();
    give_to_postgres(dir)?;
    let all = [
        ("fails", FAILS),
        ("hangs", HANGS),
        ("foreign", FOREIGN),
        ("linked", LINKED),
        ("old", OLD),
    ];
    let wal = dir.join("wal");
    let options = ["--create-replica-timeout", "2", "--waldir", &wal.display().to_string()];
    let mut arguments = options.map(str::to_owned).to_vec();
    for (name, text) in all {
        arguments.extend(["--create-replica".to_owned(), script(dir, name, text)?]);
    }
    let options = NodeOptions { arguments, ..NodeOptions::default() };
    let builder = Cluster::builder().nodes(2).node(options).untraced().starting(&[1, 2]);
    let cluster = builder.start().await?;
    let primary = cluster.primary().await?;
    let sql = primary.sql().await?;
    sql.run("create table rows (id int); insert into rows values (1)").await?;
    let node = cluster.node("node3")?;
    node.start_keeper()?;
    eventually("the progress of a command", DEADLINE, async || {
        let progress = progress(node).await?;
        Ok(if progress == serde_json::json!([5, 20]) { Ok(()) } else { Err(progress.to_string()) })
    })
    .await?;
    eventually("a copy", DEADLINE, async || {
        Ok(if dir.join("made").exists() { Ok(()) } else { Err(node.keeper_log()?) })
    })
    .await?;
    sql.run("insert into rows select generate_series(2, 1000); select pg_switch_wal()").await?;
    sql.run("insert into rows values (1001)").await?;
    fs::write(dir.join("go"), "")?;
    cluster.settled().await?;
    let log = node.keeper_log()?;
    in_order(
        &log,
        &[
            "fails: ",
            "no room in the box",
            "hangs: ",
            "no progress for 2 s",
            "foreign: ",
            "system identifier",
            "linked: ",
            "is a link to",
            "clone is complete",
        ],
    )?;
    for name in ["pid", "child"] {
        let pid = fs::read_to_string(dir.join(name))?.trim().parse()?;
        ensure!(!is_alive(pid), "{name} {pid} of the command that hung lives on");
    }
    eventually("all rows", DEADLINE, async || {
        let rows: i64 = node.sql().await?.value("select count(*) from rows", &[]).await?;
        Ok(if rows == 1001 { Ok(()) } else { Err(format!("{rows}")) })
    })
    .await?;
    let auto = fs::read_to_string(node.pgdata().join("postgresql.auto.conf"))?;
    ensure!(!auto.contains("recovery_target"), "{auto}");
    ensure!(!node.pgdata().join("recovery.signal").exists(), "a recovery of its own");
    ensure!(fs::read_link(node.pgdata().join("pg_wal"))? == wal, "its WAL is elsewhere");
    // It counts like any other.
    cluster.perform(&["switchover", "--to", "node3"]).await?;
    cluster.settled().await?;
    what_has_diverged_is_refused(&cluster, node, &dir.join("kept")).await?;
    let judge = cluster.judge();
    judge.expecting("is not part of the primary's history", "of a backup").without_workload().await
}

/// A backup of an old primary, taken while nobody followed it any more, is offered to itself.
async fn what_has_diverged_is_refused(cluster: &Cluster, old: &Node, kept: &Path) -> Result<()> {
    old.hold_wal_back(None).await?;
    let sql = old.sql().await?;
    sql.run("set synchronous_commit = local; insert into rows values (-1)").await?;
    let mut copy = tokio::process::Command::from(command(&binaries::postgres("pg_basebackup")?));
    copy.arg("-D").arg(kept).args(["-X", "none", "-c", "fast", "--no-password", "-U", "postgres"]);
    copy.arg("-h").arg(old.socket_dir()).args(["-p", &old.port().to_string()]);
    if let Some((uid, gid)) = postgres_user()? {
        copy.uid(uid).gid(gid);
    }
    let copied = copy.output().await?;
    ensure!(copied.status.success(), "{copied:?}");
    old.kill_all()?;
    cluster.settled().await?;
    fs::remove_dir_all(old.pgdata())?;
    old.start_keeper()?;
    cluster.settled().await?;
    let log = old.keeper_log()?;
    in_order(&log, &["is not part of the primary's history", "clone is complete"])?;
    let rows: i64 = old.sql().await?.value("select count(*) from rows where id < 0", &[]).await?;
    ensure!(rows == 0, "a row that nobody acknowledged was kept");
    Ok(())
}

/// Fills so many segments; the last one's name.
async fn fill(primary: &Node, count: usize) -> Result<String> {
    let sql = primary.sql().await?;
    let mut name = String::new();
    for _ in 0..count {
        sql.run("insert into rows values (1)").await?;
        name = sql.value("select pg_walfile_name(pg_switch_wal())", &[]).await?;
    }
    Ok(name)
}

async fn is_archived(repository: &Repository, name: &str) -> Result<()> {
    eventually(&format!("{name} in the archive"), DEADLINE, async || {
        let files = repository.files()?;
        Ok(if files.contains(name) { Ok(()) } else { Err(format!("{files:?}")) })
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pgbackrest_makes_standbys_and_catches_them_up() -> Result<()> {
    let repository = Repository::new()?;
    let mut restored = repository.options(3)?;
    let scratch = tempfile::Builder::new().prefix("pgt-replicas-").tempdir()?;
    give_to_postgres(scratch.path())?;
    let wal = scratch.path().join("wal");
    let further = ["--create-replica", "pgbackrest", "--waldir", &wal.display().to_string()];
    restored.arguments.extend(further.map(str::to_owned));
    let mut builder = Cluster::builder();
    for number in 1..=2 {
        builder = builder.node(repository.options(number)?);
    }
    let cluster = builder.node(restored).untraced().starting(&[1, 2]).start().await?;
    let primary = cluster.primary().await?;
    let sql = primary.sql().await?;
    sql.run("create table rows (id int)").await?;
    eventually("a backup", DEADLINE, async || {
        Ok(if repository.backups(primary)?.is_empty() { Err("none".to_owned()) } else { Ok(()) })
    })
    .await?;
    is_archived(&repository, &fill(primary, 3).await?).await?;

    // A new standby, from the backup.
    let node = cluster.node("node3")?;
    node.start_keeper()?;
    cluster.settled().await?;
    let log = node.keeper_log()?;
    in_order(&log, &["a copy is made by pgbackrest", "clone is complete", "admission done"])?;
    ensure!(!log.contains("made by basebackup"), "{log}");
    ensure!(fs::read_link(node.pgdata().join("pg_wal"))? == wal, "its WAL is elsewhere");

    // A standby whose WAL the primary has no more, but the archive.
    let workload = cluster.workload().await?;
    let standbys = cluster.standbys().await?;
    let standby = *standbys.iter().find(|it| it.name() != "node3").context("no standby")?;
    let directory = standby.pgdata_inode()?;
    standby.kill_all()?;
    workload.goes_on().await?;
    is_archived(&repository, &fill(primary, 2).await?).await?;
    forget_wal(primary).await?;
    for setting in ["wal_keep_size", "max_slot_wal_keep_size"] {
        sql.run(&format!("alter system reset {setting}")).await?;
    }
    sql.run("select pg_reload_conf()").await?;
    standby.start_keeper()?;
    cluster.settled().await?;
    ensure!(standby.pgdata_inode()? == directory, "it was copied");
    in_order(&standby.keeper_log()?, &["catch up from the archive done", "admission done"])?;

    is_rewound_from_the_archive(&cluster, &repository, primary).await?;
    let judge = cluster.judge();
    judge.expecting("has already been removed", "the test made it so").of(workload).await?;
    Ok(())
}

/// The old primary has more than the others, and of its WAL before the fork only what is in the archive.
async fn is_rewound_from_the_archive(
    cluster: &Cluster,
    repository: &Repository,
    old: &Node,
) -> Result<()> {
    let sql = old.sql().await?;
    sql.run("create table extra (id int)").await?;
    sql.run("checkpoint").await?;
    is_archived(repository, &fill(old, 2).await?).await?;
    let fork: String = sql.value("select pg_walfile_name(pg_current_wal_lsn())", &[]).await?;
    old.hold_wal_back(None).await?;
    sql.run("set synchronous_commit = local; insert into extra select generate_series(1, 1000)")
        .await?;
    // From here on it starts.
    sql.run("checkpoint").await?;
    old.kill_all()?;
    old.remove_wal_before(&fork)?;
    let directory = old.pgdata_inode()?;
    cluster.settled().await?;
    old.start_keeper()?;
    cluster.settled().await?;
    ensure!(old.pgdata_inode()? == directory, "it was copied, not rewound");
    ensure!(old.keeper_log()?.contains("rewind is complete"), "{}", old.keeper_log()?);
    let rows: i64 = old.sql().await?.value("select count(*) from extra", &[]).await?;
    ensure!(rows == 0, "rows that nobody acknowledged were kept");
    Ok(())
}
