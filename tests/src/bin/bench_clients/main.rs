//! What real clients see of a failover, and how soon they write again: `make bench-clients ROUNDS=10`.
//!
//! All clients of `tests::clients` write at the same time, each every 50 ms, while the primary is killed,
//! hands over, and is powered off with its host, again and again. A client is over it with the first row that
//! another primary acknowledges; the time until then counts from the fault, or from the operator's command.
//! At the end every row that was acknowledged has to be there once. Prints a table for docs/clients.md.

mod table;

use anyhow::{Context as _, Result, bail, ensure};
use std::io::Write as _;
use std::time::Duration;
use table::{Fault, Table};
use tests::chaos::{Befallen, Kind};
use tests::clients::account::now;
use tests::clients::{Clients, rows};
use tests::harness::site::Site;
use tests::harness::{Builder, Cluster};
use tests::network::Network;

/// How often a keeper reports, by default.
const REPORT_INTERVAL: Duration = Duration::from_millis(500);

/// Enough for the WAL of all rounds.
const MEGABYTES: u32 = 2048;

fn main() -> Result<()> {
    let rounds = rounds()?;
    let mut table = Table::default();
    on_loopback(rounds, &mut table)?;
    on_hosts(rounds, &mut table)?;
    say(&format!("\nin {rounds} rounds each:\n\n{table}"))?;
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    say(&format!("load averages of the machine, which has {cores} cores: {}", load.trim()))
}

fn rounds() -> Result<usize> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [] => Ok(10),
        [option, rounds] if option == "--rounds" => {
            rounds.parse().context("--rounds takes a number")
        }
        other => bail!("bench_clients [--rounds N], not {other:?}"),
    }
}

/// Three nodes beside each other.
#[tokio::main]
async fn on_loopback(rounds: usize, table: &mut Table) -> Result<()> {
    let cluster = Cluster::builder().nodes(3).untraced().start().await?;
    let clients = Clients::start(&cluster).await?;
    for round in 1..=rounds {
        let old = cluster.primary().await?;
        let killing = async || old.kill_both();
        befalls(&cluster, &clients, Fault::Killed, table, killing).await?;
        old.start_keeper()?;
        cluster.settled().await?;
        let handing_over = async || cluster.perform(&["switchover"]).await.map(drop);
        befalls(&cluster, &clients, Fault::Switchover, table, handing_over).await?;
        say(&format!("killed and switched over {round:3}"))?;
    }
    conclude(&cluster, clients).await
}

/// Three nodes on hosts of their own.
fn on_hosts(rounds: usize, table: &mut Table) -> Result<()> {
    let network = Network::new()?;
    network.block_on(async {
        let add = |builder: Builder, host: &_| builder.on(host).on_volume(MEGABYTES);
        let site = Site::start(&network, Builder::default().untraced(), 3, add).await?;
        let clients = Clients::start(site.cluster()).await?;
        for round in 1..=rounds {
            let befallen = Befallen::of(Kind::PowerOff, site.cluster().primary().await?);
            let happening = async || befallen.happen(&site).await;
            befalls(site.cluster(), &clients, Fault::PoweredOff, table, happening).await?;
            befallen.heal(&site)?;
            say(&format!("powered off {round:3}"))?;
        }
        conclude(site.cluster(), clients).await
    })
}

/// It happens to the primary, while all clients write; each goes on with another one.
async fn befalls(
    cluster: &Cluster,
    clients: &Clients,
    what: Fault,
    table: &mut Table,
    happen: impl AsyncFnOnce() -> Result<()>,
) -> Result<()> {
    cluster.settled().await?;
    clients.go_on().await?;
    let old = cluster.primary().await?.port();
    // It knows nothing of the keepers' reports: it comes at any moment between two of them.
    tokio::time::sleep(REPORT_INTERVAL.mul_f64(rand::random())).await;
    let fault = now()?;
    happen().await?;
    let is_another = |status: &shared::api::Status| {
        let primary = status.primary.as_ref().and_then(|name| cluster.node(name.as_str()).ok());
        status.writable && primary.is_some_and(|node| node.port() != old)
    };
    cluster.wait_until("another primary", is_another).await?;
    clients.go_on().await?;
    let there = rows(cluster.primary().await?).await?;
    for (client, account) in clients.accounts()? {
        let recovery = account.recovery(client.name(), &there, fault, old);
        let recovery = recovery.with_context(|| format!("{} has not gone on", client.name()))?;
        table.add(what, client, recovery);
    }
    Ok(())
}

async fn conclude(cluster: &Cluster, clients: Clients) -> Result<()> {
    cluster.settled().await?;
    let accounts = clients.finish().await?;
    let there = rows(cluster.primary().await?).await?;
    let wrong = accounts.iter().flat_map(|(client, account)| account.wrong(client.name(), &there));
    let wrong: Vec<_> = wrong.collect();
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    let acknowledged: usize =
        accounts.iter().map(|(_, account)| account.acknowledged().count()).sum();
    say(&format!("{acknowledged} rows were acknowledged, and each is there once"))?;
    cluster.pass();
    Ok(())
}

fn say(text: &str) -> Result<()> {
    Ok(writeln!(std::io::stdout(), "{text}")?)
}
