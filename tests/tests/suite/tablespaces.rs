//! Tablespaces: directories outside the data directory, in the same place on every node.

use anyhow::{Context as _, Result, ensure};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use tests::harness::place::Place;
use tests::harness::repository::Repository;
use tests::harness::site::{Site, host_of};
use tests::harness::wait::{DEADLINE, eventually};
use tests::harness::{Builder, Node, NodeOptions};
use tests::network::{Host, Network};

/// Every host has a `/dev/shm` of its own, which tests have to themselves.
const PLACE: &str = "/dev/shm/space";

/// A copy replaces what the old one had there, and nothing else.
#[test]
fn copied_again_and_again() -> Result<()> {
    let network = Network::new()?;
    network.block_on(async {
        let site = Site::start(&network, Builder::default().untraced(), 2, Builder::on).await?;
        let cluster = site.cluster();
        for node in cluster.nodes() {
            on_host(node, &["install", "-d", "-o", "postgres", "-m", "700", PLACE]).await?;
        }
        cluster.settled().await?;
        let workload = cluster.workload().await?;
        let sql = cluster.primary().await?.sql().await?;
        sql.run(&format!("create tablespace elsewhere location '{PLACE}'")).await?;
        let table = "create table there tablespace elsewhere as select generate_series(1, 1000)";
        sql.run(table).await?;
        for standby in cluster.standbys().await? {
            for _ in 0..2 {
                cluster.perform(&["reinit", standby.name()]).await?;
                let there: i64 =
                    standby.sql().await?.value("select count(*) from there", &[]).await?;
                ensure!(there == 1000, "{there} rows");
            }
            on_host(standby, &["mkdir", &format!("{PLACE}/letters")]).await?;
            let failed = cluster.pgtandem(&["reinit", standby.name(), "--timeout", "5"]).await?;
            ensure!(failed.code != 0, "{failed:?}");
            on_host(standby, &["rmdir", &format!("{PLACE}/letters")]).await?;
        }
        cluster.settled().await?;
        let judge = cluster.judge();
        let judge =
            judge.expecting("is no part of the tablespace", "somebody else's are left alone");
        judge.of(workload).await?;
        Ok(())
    })
}

/// A backup brings them, as it was taken before there were any and afterwards.
#[test]
fn restored_from_backups() -> Result<()> {
    let network = Network::new()?;
    let repository = Repository::new()?;
    let mut ways = repository.options(1)?;
    for way in ["pgbackrest", "basebackup"] {
        ways.arguments.extend(["--create-replica", way].map(str::to_owned));
    }
    network.block_on(async {
        let add = |builder: Builder, host: &Arc<Host>| {
            builder.node(NodeOptions { place: Place::Host(Arc::clone(host)), ..ways.clone() })
        };
        let site = Site::start(&network, Builder::default().untraced(), 2, add).await?;
        let cluster = site.cluster();
        for node in cluster.nodes() {
            on_host(node, &["install", "-d", "-o", "postgres", "-m", "700", PLACE]).await?;
        }
        cluster.settled().await?;
        let primary = cluster.primary().await?;
        eventually("a backup", DEADLINE, async || {
            let none = repository.backups(cluster.node("node1")?)?.is_empty();
            Ok(if none { Err("none".to_owned()) } else { Ok(()) })
        })
        .await?;
        let sql = primary.sql().await?;
        sql.run(&format!("create tablespace elsewhere location '{PLACE}'")).await?;
        let table = "create table there tablespace elsewhere as select generate_series(1, 1000)";
        sql.run(table).await?;
        let standbys = cluster.standbys().await?;
        let standby = *standbys.first().context("no standby")?;
        for copies in 1..=2 {
            cluster.perform(&["reinit", standby.name()]).await?;
            let there: i64 = standby.sql().await?.value("select count(*) from there", &[]).await?;
            ensure!(there == 1000, "{there} rows");
            let log = standby.keeper_log()?;
            let made = log.matches("a copy is made by pgbackrest").count();
            let complete = log.matches("clone is complete").count();
            ensure!(made > copies && complete == 1 + copies, "not from a backup: {log}");
            if copies == 1 {
                backed_up(&repository, primary).await?;
            }
        }
        let judge = cluster.judge();
        judge.expecting("no copy could be made by pgbackrest", "none yet").without_workload().await
    })
}

/// Somebody takes a backup, on the host of the primary.
async fn backed_up(repository: &Repository, primary: &Node) -> Result<()> {
    let at = |name: &str, value: String| format!("--{name}={value}");
    let options = [
        at("pg1-path", primary.pgdata().display().to_string()),
        at("pg1-port", primary.port().to_string()),
        at("pg1-socket-path", primary.socket_dir().display().to_string()),
    ];
    let mut all = repository.command_line("node1");
    all.extend(options);
    all.extend(["--no-archive-mode-check", "--start-fast", "backup"].map(str::to_owned));
    let who = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"];
    let all: Vec<_> = who.into_iter().chain(all.iter().map(String::as_str)).collect();
    on_host(primary, &all).await
}

async fn on_host(node: &Node, command: &[&str]) -> Result<()> {
    let [program, arguments @ ..] = command else { anyhow::bail!("no command") };
    let mut run = Command::new(program);
    run.args(arguments);
    let ended = host_of(node)?.start(program, &run, Path::new("/dev/null"))?.wait().await?;
    ensure!(ended.success(), "{command:?}: {ended}");
    Ok(())
}
