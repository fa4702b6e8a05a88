//! One episode: a cluster, faults one after the other or two at a time, and the verdict.

use super::fault::{Befallen, Fault};
use super::tally::Tally;
use crate::harness::site::Site;
use crate::harness::{Builder, Workload};
use crate::network::Network;
use anyhow::{Context as _, Result};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use std::time::{Duration, Instant};

/// A new cluster after so many disturbances: histories stay short, and logs.
const DISTURBANCES: usize = 20;
/// How long a fault lasts, in milliseconds: below the node timeout, around it, and well above.
const SPANS: &[u64] = &[300, 1000, 2400, 3500, 6000, 10_000];
/// How long a cluster may take to find back. A copy of all the data is the longest.
const RECOVERY: Duration = Duration::from_mins(2);
/// Enough for the WAL of an episode.
const MEGABYTES: u32 = 1024;

/// What the faults make the logs say.
pub(super) const EXPECTED: &[(&str, &str)] = &[
    ("the lease has run out", "a primary that is cut off fences itself"),
    ("this node cannot serve", "a Postgres or a disk that stands still"),
    ("postgres could not be stopped", "processes wait for a frozen disk"),
    (" UTC [", "PostgreSQL has much to say about what is done to it; what it holds is judged"),
];

/// Runs an episode with this seed; it ends early when its time is over.
pub fn episode(seed: u64, until: Instant, tally: &mut Tally) -> Result<()> {
    let mut random = StdRng::seed_from_u64(seed);
    let nodes = random.random_range(3..=5);
    let network = Network::new()?;
    network.block_on(async {
        let add = |builder: Builder, host: &_| builder.on(host).on_volume(MEGABYTES);
        // Traces of so much take longer to replay than it took.
        let site = Site::start(&network, Builder::default().untraced(), nodes, add).await?;
        let before = site.cluster().settled().await?;
        let workload = site.workload().await?;
        for _ in 0..DISTURBANCES {
            let faults = draw(&mut random, nodes);
            let span = SPANS.get(random.random_range(0..SPANS.len())).copied().unwrap_or(1000);
            disturb(&site, &workload, &faults, Duration::from_millis(span), tally)
                .await
                .with_context(|| format!("{faults:?} for {span} ms, of {nodes} nodes"))?;
            if Instant::now() >= until {
                break;
            }
        }
        let after = site.cluster().settled().await?;
        let mut verdict = site.cluster().judge();
        for (text, why) in EXPECTED {
            verdict = verdict.expecting(text, why);
        }
        let history = verdict.of(workload).await?;
        tally.passed(&history, after.epoch.0.saturating_sub(before.epoch.0));
        Ok(())
    })
}

/// One fault, or two that go together.
fn draw(random: &mut StdRng, nodes: usize) -> Vec<Fault> {
    let first = Fault::draw(random, nodes);
    let second = Fault::draw(random, nodes);
    let both = random.random_range(0..3) == 0 && first.goes_with(&second);
    if both { vec![first, second] } else { vec![first] }
}

/// The faults happen, last, and are healed; then all has to be well again.
async fn disturb(
    site: &Site<'_>,
    workload: &Workload,
    faults: &[Fault],
    span: Duration,
    tally: &mut Tally,
) -> Result<()> {
    let mut befallen: Vec<Befallen<'_>> = Vec::new();
    for fault in faults {
        let one = Befallen::find(fault, site).await?;
        if !befallen.iter().any(|other| other.is_of(&one)) {
            befallen.push(one);
        }
    }
    let begun = Instant::now();
    for one in &befallen {
        one.happen(site).await?;
    }
    tokio::time::sleep(span).await;
    for one in &befallen {
        one.heal(site)?;
    }
    site.cluster().settled_within(RECOVERY).await?;
    workload.goes_on().await?;
    let kinds: Vec<_> = befallen.iter().map(Befallen::kind).collect();
    let outage = workload.so_far().outage_since(begun);
    eprintln!(
        "{faults:?} for {span:?}: no acknowledgement for {outage:?}, settled after {:?}",
        begun.elapsed()
    );
    tally.disturbed(&kinds, outage);
    Ok(())
}
