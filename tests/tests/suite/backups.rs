//! The archive: whole over any change of the primary, with nothing in it that is not of the group's history;
//! and a backup after each promotion. By the real pgBackRest, and by commands.

use anyhow::{Context as _, Result, ensure};
use shared::ids::Epoch;
use shared::report::ArchiveWork;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use tests::harness::cluster::node_of;
use tests::harness::process::command;
use tests::harness::repository::{Directory, Repository, holes, is_segment, waiting};
use tests::harness::sandbox::postgres_user;
use tests::harness::wait::{DEADLINE, eventually};
use tests::harness::{Cluster, Node, binaries};
use tokio::process::Command;

/// Fills so many segments, each with a record at least; the names of those that are full.
async fn fill(primary: &Node, count: usize) -> Result<Vec<String>> {
    let sql = primary.sql().await?;
    sql.run("set synchronous_commit = local").await?;
    let mut names = Vec::new();
    for _ in 0..count {
        sql.run("select pg_logical_emit_message(true, 'test', 'a record')").await?;
        names.push(sql.value("select pg_walfile_name(pg_switch_wal())", &[]).await?);
    }
    Ok(names)
}

/// Waits until an archive has all of these.
async fn has_all(
    what: &str,
    files: impl Fn() -> Result<BTreeSet<String>>,
    names: &[String],
) -> Result<BTreeSet<String>> {
    eventually(what, DEADLINE, async || {
        let files = files()?;
        let missing: Vec<_> = names.iter().filter(|name| !files.contains(*name)).collect();
        Ok(if missing.is_empty() { Ok(files) } else { Err(format!("{missing:?} of {files:?}")) })
    })
    .await
}

/// Waits until no node that is up keeps anything that is in the archive.
async fn nothing_waits(cluster: &Cluster) -> Result<()> {
    eventually("nodes that keep nothing for the archive", DEADLINE, async || {
        let up = cluster.nodes().iter().filter(|node| node.is_up());
        let left = up.map(|node| Ok((node.name(), waiting(node)?))).collect::<Result<Vec<_>>>()?;
        let is_done = left.iter().all(|(_, names)| names.is_empty());
        Ok(if is_done { Ok(()) } else { Err(format!("{left:?}")) })
    })
    .await
}

async fn backed_up(repository: &Repository, node: &Node, count: usize) -> Result<Vec<String>> {
    eventually(&format!("backup {count}"), DEADLINE, async || {
        let backups = repository.backups(node)?;
        Ok(if backups.len() == count { Ok(backups) } else { Err(format!("{backups:?}")) })
    })
    .await
}

async fn warns(cluster: &Cluster, node: &Node, of: &str) -> Result<()> {
    let said = |status: &shared::api::Status| {
        let node = node_of(status, node.name());
        node.is_some_and(|node| node.warnings.iter().any(|warning| warning.contains(of)))
    };
    cluster.wait_until(&format!("a warning of {} about {of}", node.name()), said).await.map(drop)
}

/// The primary cannot store anything, and dies: the next one stores what lacks, since the standbys have kept it;
/// also one that was copied only meanwhile, from what its primary had kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pgbackrest_lacks_nothing_after_a_failover() -> Result<()> {
    let repository = Repository::new()?;
    let mut builder = Cluster::builder();
    for number in 1..=3 {
        let mut options = repository.options(number)?;
        // Who comes last is promoted first.
        options.candidate_priority = (number == 3).then_some(100);
        builder = builder.node(options);
    }
    let cluster = builder.starting(&[1, 2]).start().await?;
    let workload = cluster.workload().await?;
    let old = cluster.primary().await?;
    let first = backed_up(&repository, old, 1).await?;
    ensure!(first.iter().all(|start| start.starts_with("00000001")), "{first:?}");
    has_all("the first segments", || repository.files(), &fill(old, 2).await?).await?;
    nothing_waits(&cluster).await?;

    repository.break_for(old)?;
    let kept = fill(old, 3).await?;
    cluster.node("node3")?.start_keeper()?;
    cluster.settled().await?;
    for node in cluster.nodes() {
        has_all(&format!("what {} keeps", node.name()), || waiting(node), &kept).await?;
    }
    warns(&cluster, old, "archiving").await?;
    tells_what_fails(&cluster, old).await?;
    ensure!(repository.files()?.is_disjoint(&kept.iter().cloned().collect()), "it was stored");
    old.kill_all()?;
    cluster.wait_until("another primary", |it| it.epoch.0 == 2 && it.writable).await?;
    let new = cluster.primary().await?;
    ensure!(new.name() == "node3", "{} was elected", new.name());
    has_all("what was kept", || repository.files(), &kept).await?;
    new.sql().await?.run("create table after_the_failover (id int)").await?;
    let more = fill(new, 2).await?;
    let files = has_all("the next segments", || repository.files(), &more).await?;
    ensure!(holes(&files)?.is_empty(), "holes: {files:?}");
    let backups = backed_up(&repository, new, 2).await?;
    ensure!(backups.last().is_some_and(|start| start.starts_with("00000003")), "{backups:?}");

    // From the first backup on, through all that was written since.
    let restored = repository.restored(new)?;
    let sql = eventually("the end of the restore", DEADLINE, async || {
        let Ok(sql) = restored.sql().await else { return Ok(Err("no session".to_owned())) };
        let replays: bool = sql.value("select pg_is_in_recovery()", &[]).await?;
        Ok(if replays { Err("it replays".to_owned()) } else { Ok(sql) })
    })
    .await?;
    let table: Option<String> =
        sql.value("select to_regclass('after_the_failover')::text", &[]).await?;
    ensure!(table.is_some(), "a restore ends before what is in the archive");
    drop((sql, restored));

    repository.mend(old.name())?;
    old.start_keeper()?;
    cluster.settled().await?;
    let more = fill(new, 1).await?;
    has_all("one more", || repository.files(), &more).await?;
    nothing_waits(&cluster).await?;
    let files = repository.files()?;
    ensure!(holes(&files)?.is_empty(), "holes: {files:?}");
    let verified = repository.pgbackrest(new, &["--log-level-console=info", "verify"])?;
    let is_well = verified.contains("completed successfully") && !verified.contains("ERROR");
    ensure!(is_well, "{verified}");
    cluster.verdict(workload).await?;
    Ok(())
}

/// For programs: what fails, since when, and how much is behind.
async fn tells_what_fails(cluster: &Cluster, node: &Node) -> Result<()> {
    let tells = |status: &shared::api::Status| {
        let found = node_of(status, node.name()).and_then(|node| node.archive.as_ref());
        found.is_some_and(|archive| {
            let push = archive.failing.iter().find(|it| it.work == ArchiveWork::Push);
            archive.lsn.is_some()
                && archive.behind_bytes.is_some_and(|bytes| bytes >= 3 << 24)
                && archive.waiting_files >= 3
                && archive.waiting_since.is_some()
                && archive.backed_up_epoch == Some(Epoch(1))
                && push.is_some_and(|it| it.since.is_some() && !it.error.is_empty())
        })
    };
    cluster.wait_until("a status that says how far the archive is", tells).await.map(drop)
}

/// Calls the gate of a node as its Postgres does; it has to end with this code.
async fn gate(node: &Node, arguments: &[&str], code: i32) -> Result<()> {
    let (name, rest) = arguments.split_first().context("no command")?;
    let mut command = Command::from(command(&binaries::ours("pgtandem-keeper")?));
    command.arg(name).arg("--state-dir").arg(node.state_dir()).args(rest);
    command.env("PGTANDEM_LOG", "debug").current_dir(node.pgdata());
    if let Some((uid, gid)) = postgres_user()? {
        command.uid(uid).gid(gid);
    }
    let output = command.output().await?;
    ensure!(output.status.code() == Some(code), "{arguments:?}, not {code}: {output:?}");
    Ok(())
}

async fn archive(archive: &Directory) -> Result<Cluster> {
    let mut builder = Cluster::builder();
    for _ in 0..3 {
        builder = builder.node(archive.options()?);
    }
    // What an operator decides is no part of the model.
    builder.untraced().starting(&[1, 2, 3]).start().await
}

/// Nobody's file is overwritten; what only a primary had that has died is not in the archive; neither is
/// what somebody writes who has promoted a node by hand.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_groups_history_is_archived() -> Result<()> {
    let directory = Directory::new()?;
    let cluster = archive(&directory).await?;
    let old = cluster.primary().await?;
    let files = || directory.files();
    has_all("the first segments", files, &fill(old, 2).await?).await?;

    let sql = old.sql().await?;
    sql.run("select pg_logical_emit_message(true, 'test', 'a segment has begun')").await?;
    let name: String = sql.value("select pg_walfile_name(pg_current_wal_lsn())", &[]).await?;
    let foreign = directory.path().join(&name);
    fs::write(&foreign, "somebody else's")?;
    ensure!(fill(old, 1).await? == [name.clone()], "another segment");
    warns(&cluster, old, "other contents").await?;
    ensure!(fs::read(&foreign)? == b"somebody else's", "it was overwritten");
    fs::remove_file(&foreign)?;
    let more = fill(old, 1).await?;
    has_all("what the foreign file stood for", files, &[vec![name], more].concat()).await?;
    nothing_waits(&cluster).await?;

    gate_answers(&cluster, &directory).await?;

    // Of somebody whose history went another way: no backup comes to nothing because of it.
    let signpost = directory.path().join("00000002.history");
    fs::write(&signpost, "1\t0/1\tanother history\n")?;

    // A planned change loses nothing and waits for nothing.
    let workload = cluster.workload().await?;
    cluster.perform(&["switchover"]).await?;
    cluster.settled().await?;
    let new = cluster.primary().await?;
    let more = fill(new, 1).await?;
    let stored = has_all("the next segment", files, &more).await?;
    ensure!(holes(&stored)?.is_empty(), "holes: {stored:?}");
    ensure!(!old.keeper_log()?.contains("archive command goes on"), "the stop was held up");

    // Only this one has it when it dies.
    new.hold_wal_back(None).await?;
    let alone = fill(new, 1).await?;
    has_all("what is only here", || waiting(new), &alone).await?;
    new.kill_all()?;
    cluster.wait_until("a third primary", |it| it.epoch.0 == 3 && it.writable).await?;
    new.start_keeper()?;
    cluster.settled().await?;
    nothing_waits(&cluster).await?;
    ensure!(files()?.is_disjoint(&alone.into_iter().collect()), "nobody else had that");

    let third = cluster.primary().await?;
    promoted_by_hand(&cluster).await?;
    let more = fill(third, 1).await?;
    let stored = has_all("the last segment", files, &more).await?;
    ensure!(holes(&stored)?.is_empty(), "holes: {stored:?}");
    let timelines: BTreeSet<_> =
        stored.iter().filter(|name| is_segment(name)).filter_map(|name| name.get(..8)).collect();
    ensure!(timelines.into_iter().eq(["00000001", "00000003", "00000005"]), "{stored:?}");
    // One after each promotion, but for a primary that dies before its own.
    let port = third.port().to_string();
    eventually("a backup of the last primary", DEADLINE, async || {
        let backups = fs::read_to_string(directory.path().join("backups"))?;
        let is_last = backups.lines().last() == Some(port.as_str());
        Ok(if is_last { Ok(()) } else { Err(backups) })
    })
    .await?;
    ensure!(fs::read_to_string(&signpost)?.contains("another"), "it was overwritten");
    let verdict = cluster.judge();
    // Whoever was the primary before is watched by the guard as well.
    let verdict = verdict.expecting("the lease has run out", "one that was promoted by hand");
    verdict.of(workload).await?;
    Ok(())
}

/// What is there is delivered, and what is not is told apart from what cannot be said.
async fn gate_answers(cluster: &Cluster, directory: &Directory) -> Result<()> {
    let standbys = cluster.standbys().await?;
    let node = *standbys.first().context("no standby")?;
    let stored = directory.files()?;
    let name = stored.iter().find(|name| is_segment(name)).context("nothing is stored")?;
    let target = node.dir().join("fetched");
    let path = target.display().to_string();
    gate(node, &["wal-get", name, &path], 0).await?;
    ensure!(fs::read(&target)? == fs::read(directory.path().join(name))?, "something else");
    for absent in ["0000000100000000000000FF", "00000009.history", "000000090000000000000001"] {
        gate(node, &["wal-get", absent, &path], 1).await?;
    }
    // Half a segment is none, and nothing is left of it.
    let whole = fs::read(directory.path().join(name))?;
    fs::write(directory.path().join(name), whole.get(..1 << 20).context("a short segment")?)?;
    let failed = gate(node, &["wal-get", name, &path], 7).await;
    fs::write(directory.path().join(name), whole)?;
    failed?;
    ensure!(!target.exists(), "half a segment was left");
    // An archive that is not there, or not mounted, says nothing of what is in it.
    for (there, away) in [
        (directory.path(), directory.path().with_extension("away")),
        (directory.path().join(".archive"), directory.path().join(".away")),
    ] {
        fs::rename(&there, &away)?;
        let failed = gate(node, &["wal-get", "0000000100000000000000FF", &path], 7).await;
        fs::rename(&away, &there)?;
        failed?;
    }
    Ok(())
}

/// Somebody promotes a standby by hand and writes to it: nothing of that is archived.
async fn promoted_by_hand(cluster: &Cluster) -> Result<()> {
    let standbys = cluster.standbys().await?;
    let node = *standbys.first().context("no standby")?;
    cluster.perform(&["maintenance", "on", node.name()]).await?;
    cluster.settled().await?;
    node.kill_keeper()?;
    node.sql().await?.run("select pg_promote()").await?;
    let written = fill(node, 1).await?;
    has_all("what was written by hand", || waiting(node), &written).await?;
    let path = Path::new("pg_wal").join(written.first().context("nothing")?);
    gate(node, &["wal-push", &path.display().to_string()], 4).await?;
    node.start_keeper()?;
    cluster.wait_for_node(node.name(), "stopped by its keeper", |node| !node.pg_running).await?;
    cluster.perform(&["maintenance", "off", node.name()]).await?;
    cluster.settled().await?;
    Ok(())
}
