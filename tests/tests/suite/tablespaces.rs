//! Tablespaces: directories outside the data directory, in the same place on every node.

use anyhow::{Result, ensure};
use std::path::Path;
use std::process::Command;
use tests::harness::Builder;
use tests::harness::Node;
use tests::harness::site::{Site, host_of};
use tests::network::Network;

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

async fn on_host(node: &Node, command: &[&str]) -> Result<()> {
    let [program, arguments @ ..] = command else { anyhow::bail!("no command") };
    let mut run = Command::new(program);
    run.args(arguments);
    let ended = host_of(node)?.start(program, &run, Path::new("/dev/null"))?.wait().await?;
    ensure!(ended.success(), "{command:?}: {ended}");
    Ok(())
}
