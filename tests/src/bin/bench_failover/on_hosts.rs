//! What befalls whole hosts, their disks and their cables: each host with a network, a process table and
//! a disk of its own.

use crate::{Figure, Wanted, say};
use anyhow::{Context as _, Result, ensure};
use std::time::{Duration, Instant};
use tests::chaos::{Befallen, Kind};
use tests::harness::site::Site;
use tests::harness::wait::{DEADLINE, eventually_every};
use tests::harness::{Builder, Node, Workload};
use tests::network::Network;

/// Short against what is measured.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// Enough for the WAL of all rounds.
const MEGABYTES: u32 = 2048;

/// How often a keeper reports, by default.
const REPORT_INTERVAL: Duration = Duration::from_millis(500);

/// A scenario: what happens to whom.
struct Scenario {
    name: &'static str,
    goal: &'static str,
    kind: Kind,
}

/// What may happen to a primary of three nodes with the default timers.
const PRIMARY: &[Scenario] = &[
    Scenario { name: "host powered off", goal: "p50 <= 3.5, max <= 4.5", kind: Kind::PowerOff },
    Scenario { name: "host cut off from everything", goal: "", kind: Kind::CutOff },
    Scenario { name: "Postgres frozen", goal: "", kind: Kind::FreezePostgres },
    Scenario { name: "host frozen", goal: "", kind: Kind::FreezeHost },
    Scenario { name: "disk frozen", goal: "", kind: Kind::FreezeDisk },
];

/// The same with the timers of one quiet network.
const FAST: &[Scenario] = &[Scenario {
    name: "host powered off, node-timeout 1s",
    goal: "p50 <= 1.5",
    kind: Kind::PowerOff,
}];

const STANDBY_OF_TWO: &str = "a standby of two dies, 1 is waited for";
const ONLY_STANDBY: &str = "the only standby dies, 0 are waited for";

/// Runs those that are wanted; the distributions.
pub fn run(wanted: &Wanted) -> Result<Vec<Figure>> {
    let rounds = wanted.rounds;
    let primaries = async |scenarios: &[Scenario], site: &Site<'_>, workload: &Workload| {
        let mut figures = Vec::new();
        for scenario in scenarios.iter().filter(|scenario| wanted.has(scenario.name)) {
            figures.extend(primary(site, workload, scenario, rounds).await?);
        }
        Ok::<_, anyhow::Error>(figures)
    };
    let any = |scenarios: &[Scenario]| scenarios.iter().any(|scenario| wanted.has(scenario.name));
    let mut figures = Vec::new();
    if any(PRIMARY) || wanted.has(STANDBY_OF_TWO) {
        figures.extend(with_nodes(3, None, &async |site, workload| {
            let mut figures = primaries(PRIMARY, site, workload).await?;
            if wanted.has(STANDBY_OF_TWO) {
                let stall = Figure::new(STANDBY_OF_TWO, "no stall");
                figures.push(standby(site, workload, stall, rounds).await?);
            }
            Ok(figures)
        })?);
    }
    if any(FAST) {
        figures.extend(with_nodes(3, Some("1s"), &async |site, workload| {
            primaries(FAST, site, workload).await
        })?);
    }
    if wanted.has(ONLY_STANDBY) {
        figures.extend(with_nodes(2, None, &async |site, workload| {
            let stall = Figure::new(ONLY_STANDBY, "");
            Ok(vec![standby(site, workload, stall, rounds).await?])
        })?);
    }
    Ok(figures)
}

/// Starts a cluster on hosts, and passes the verdict on what was written.
fn with_nodes(
    nodes: usize,
    timeout: Option<&str>,
    measure: &impl AsyncFn(&Site<'_>, &Workload) -> Result<Vec<Figure>>,
) -> Result<Vec<Figure>> {
    let network = Network::new()?;
    network.block_on(async {
        let add = |builder: Builder, host: &_| builder.on(host).on_volume(MEGABYTES);
        let site = Site::start(&network, Builder::default().untraced(), nodes, add).await?;
        if let Some(timeout) = timeout {
            site.cluster().pgtandem(&["set", "formation", "node-timeout", timeout]).await?;
            site.cluster().settled().await?;
        }
        let workload = site.workload().await?;
        let figures = measure(&site, &workload).await?;
        crate::conclude(site.cluster(), workload).await?;
        Ok(figures)
    })
}

/// It befalls the primary: somebody else takes over, and it comes back.
async fn primary(
    site: &Site<'_>,
    workload: &Workload,
    scenario: &Scenario,
    rounds: usize,
) -> Result<Vec<Figure>> {
    let mut outage = Figure::new(scenario.name, scenario.goal);
    let mut fenced = Figure::new("  until it has fenced itself", "max <= 2.0 (the lease)");
    for round in 1..=rounds {
        let old = site.cluster().primary().await?;
        let befallen = Befallen::of(scenario.kind, old);
        at_any_moment().await;
        let fault = Instant::now();
        befallen.happen(site).await?;
        if scenario.kind == Kind::CutOff {
            fenced.times.0.push(fences_itself(old, fault).await?);
        }
        replaced(site, old).await?;
        workload.goes_on().await?;
        outage.times.0.push(workload.so_far().outage_since(fault));
        befallen.heal(site)?;
        site.cluster().settled().await?;
        workload.goes_on().await?;
        say(&format!("{} {round:3}: {:.3}", scenario.name, outage.times.newest()))?;
    }
    let fenced = (scenario.kind == Kind::CutOff).then_some(fenced);
    Ok([Some(outage), fenced].into_iter().flatten().collect())
}

/// The host of a standby is powered off, and on again.
async fn standby(
    site: &Site<'_>,
    workload: &Workload,
    mut stall: Figure,
    rounds: usize,
) -> Result<Figure> {
    for round in 1..=rounds {
        let standbys = site.cluster().standbys().await?;
        let standby = standbys.first().context("no standby")?;
        let befallen = Befallen::of(Kind::PowerOff, standby);
        let before = site.cluster().settled().await?;
        at_any_moment().await;
        let fault = Instant::now();
        befallen.happen(site).await?;
        let after = site.cluster().settled().await?;
        ensure!(before.epoch == after.epoch, "the primary was replaced");
        workload.goes_on().await?;
        stall.times.0.push(workload.so_far().outage_since(fault));
        befallen.heal(site)?;
        site.cluster().settled().await?;
        say(&format!("{} {round:3}: {:.3}", stall.name, stall.times.newest()))?;
    }
    Ok(stall)
}

/// A fault knows nothing of the keeper's reports: it comes at any moment between two of them.
async fn at_any_moment() {
    tokio::time::sleep(REPORT_INTERVAL.mul_f64(rand::random())).await;
}

/// Waits until another node is the primary and takes writes.
async fn replaced(site: &Site<'_>, old: &Node) -> Result<()> {
    let another = |status: &shared::api::Status| {
        let primary = status.primary.as_ref();
        status.writable && primary.is_some_and(|name| name.as_str() != old.name())
    };
    site.cluster().wait_until("another primary", another).await.map(drop)
}

/// Waits until no Postgres of it runs any more.
async fn fences_itself(old: &Node, since: Instant) -> Result<Duration> {
    eventually_every(LOOK_AGAIN, "a primary that fences itself", DEADLINE, async || {
        Ok(if old.postmaster().is_err() { Ok(()) } else { Err("it runs".to_owned()) })
    })
    .await?;
    Ok(since.elapsed())
}
