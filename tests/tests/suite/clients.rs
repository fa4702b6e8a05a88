//! Real clients, all at the same time, through a killed primary and a switchover.

use anyhow::{Result, ensure};
use tests::clients::account::{Account, now};
use tests::clients::{ALL, Client, Clients, finds, rows, uris};
use tests::harness::Cluster;

/// What each was told is true, and whoever lost its server noticed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn find_the_new_primary() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let mut standbys = Vec::new();
    for client in ALL {
        standbys.push((client, uris(&cluster, client, "standby").await?));
    }
    let clients = Clients::start(&cluster).await?;

    let old = cluster.primary().await?;
    let fault = now()?;
    old.kill_both()?;
    cluster.settled().await?;
    clients.go_on().await?;
    let there = rows(cluster.primary().await?).await?;
    for (client, account) in clients.accounts()? {
        let recovery = account.recovery(client.name(), &there, fault, old.port());
        let noticed = recovery.is_some_and(|r| r.failed + r.unreachable > 0);
        ensure!(noticed, "{} has not noticed: {recovery:?}", client.name());
    }

    old.start_keeper()?;
    cluster.settled().await?;
    clients.go_on().await?;
    cluster.perform(&["switchover"]).await?;
    cluster.settled().await?;
    clients.go_on().await?;

    // By URIs from before: who was a standby then may be the primary now.
    for (client, uris) in standbys {
        let found = finds(client, &uris).await?;
        ensure!(found == "standby", "{} by {uris:?} finds a {found}", client.name());
    }
    let accounts = clients.finish().await?;
    are_true(&cluster, &accounts).await?;
    cluster.judge().without_workload().await
}

/// Every acknowledged row is there exactly once.
async fn are_true(cluster: &Cluster, accounts: &[(Client, Account)]) -> Result<()> {
    cluster.settled().await?;
    let there = rows(cluster.primary().await?).await?;
    let wrong = accounts.iter().flat_map(|(client, account)| account.wrong(client.name(), &there));
    let wrong: Vec<_> = wrong.collect();
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}
