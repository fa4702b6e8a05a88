//! The other half: disturbances that are shorter than the node timeout, or none at all to those who wait it
//! out. Nobody may be replaced for one: `make calm MINUTES=60 SEED=1`.

use super::episode::EXPECTED;
use super::fault::{Befallen, Kind};
use super::tally::Tally;
use crate::harness::site::Site;
use crate::harness::{Builder, Node, Workload};
use crate::network::Network;
use anyhow::{Context as _, Result, ensure};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// The default `node-timeout`, in milliseconds.
const NODE_TIMEOUT: u64 = 3000;
/// A cut, or a stop, is at most this part of it.
const MOST: u64 = 8;
const LEAST: u64 = 2;
/// What lasts longer lasts so long: several node timeouts.
const LONG: Duration = Duration::from_secs(12);
/// A new cluster after so many.
const DISTURBANCES: usize = 40;

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// Something stands still, or is cut off, for less than the node timeout.
    Short(Kind),
    /// Something is killed or stopped, and started again at once.
    Again(Kind),
    /// A fifth of the packets is lost.
    Loss,
    /// Both cores are busy.
    Busy,
    /// Somebody sets the wall clock of the node, or of the monitor, forward by an hour, or back.
    Clock,
    /// `pg_ctl restart` on the primary, behind the keeper's back.
    Restart,
}

const TROUBLES: &[Trouble] = &[
    Trouble::Short(Kind::CutOff),
    Trouble::Short(Kind::CutFromMonitor),
    Trouble::Short(Kind::CutFromPeers),
    Trouble::Short(Kind::Muted),
    Trouble::Short(Kind::CutOffMonitor),
    Trouble::Short(Kind::FreezePostmaster),
    Trouble::Short(Kind::FreezePostgres),
    Trouble::Short(Kind::FreezeKeeper),
    Trouble::Short(Kind::FreezeHost),
    Trouble::Short(Kind::FreezeDisk),
    Trouble::Short(Kind::FreezeMonitor),
    Trouble::Again(Kind::KillMonitor),
    Trouble::Again(Kind::KillKeeper),
    Trouble::Loss,
    Trouble::Busy,
    Trouble::Clock,
    Trouble::Restart,
];

/// Runs until the time is over; fails where anybody was replaced.
pub fn run(seed: u64, span: Duration) -> Result<Tally> {
    let until = Instant::now() + span;
    let mut tally = Tally::default();
    for number in 0.. {
        if Instant::now() >= until {
            break;
        }
        let of = seed.wrapping_add(number);
        episode(of, until, &mut tally).with_context(|| format!("seed {of}"))?;
    }
    Ok(tally)
}

fn episode(seed: u64, until: Instant, tally: &mut Tally) -> Result<()> {
    let mut random = StdRng::seed_from_u64(seed);
    let network = Network::new()?;
    network.block_on(async {
        let add = |builder: Builder, host: &_| builder.on(host).on_volume(1024);
        let site =
            Site::start(&network, Builder::default().untraced().with_clocks(), 3, add).await?;
        let epoch = site.cluster().settled().await?.epoch;
        let workload = site.workload().await?;
        for _ in 0..DISTURBANCES {
            let trouble = TROUBLES.get(random.random_range(0..TROUBLES.len())).copied();
            let trouble = trouble.unwrap_or(Trouble::Busy);
            let of_primary = random.random();
            let short = NODE_TIMEOUT * random.random_range(LEAST..=MOST) / 10;
            let begun = Instant::now();
            let kinds = happen(&site, trouble, of_primary, Duration::from_millis(short)).await?;
            let after = site.cluster().settled().await?;
            workload.goes_on().await?;
            let outage = workload.so_far().outage_since(begun);
            eprintln!("{trouble:?} (primary: {of_primary}, {short} ms): {outage:?}");
            ensure!(after.epoch == epoch, "{trouble:?} ({short} ms) has cost a primary its place");
            tally.disturbed(&kinds, outage);
            if Instant::now() >= until {
                break;
            }
        }
        finish(&site, workload, tally).await
    })
}

async fn finish(site: &Site<'_>, workload: Workload, tally: &mut Tally) -> Result<()> {
    let mut verdict = site.cluster().judge();
    for (text, why) in EXPECTED {
        verdict = verdict.expecting(text, why);
    }
    let history = verdict.of(workload).await?;
    tally.passed(&history, 0);
    Ok(())
}

async fn happen(
    site: &Site<'_>,
    trouble: Trouble,
    of_primary: bool,
    short: Duration,
) -> Result<Vec<Kind>> {
    let cluster = site.cluster();
    let primary = cluster.primary().await?;
    let standbys = cluster.standbys().await?;
    let standby = standbys.first().context("no standby")?;
    let node: &Node = if of_primary { primary } else { standby };
    let last = async |kind, span| -> Result<Vec<Kind>> {
        let befallen = Befallen::of(kind, node);
        befallen.happen(site).await?;
        tokio::time::sleep(span).await;
        befallen.heal(site)?;
        Ok(vec![kind])
    };
    match trouble {
        Trouble::Short(kind) => last(kind, short).await,
        Trouble::Again(kind) => last(kind, Duration::ZERO).await,
        Trouble::Loss => last(Kind::Loss, LONG).await,
        Trouble::Busy => {
            let _busy = Busy::start()?;
            tokio::time::sleep(LONG).await;
            Ok(Vec::new())
        }
        Trouble::Clock => {
            // Each time from another hour.
            let hours = i64::try_from(short.as_millis() % 3)? - 1;
            node.clock()?.set(hours * 3600)?;
            cluster.monitor().clock()?.set(-hours * 3600)?;
            tokio::time::sleep(LONG).await;
            Ok(Vec::new())
        }
        Trouble::Restart => {
            primary.restart_postgres().await?;
            Ok(Vec::new())
        }
    }
}

/// As many loops as there are cores; they end with it.
struct Busy(Vec<Child>);

impl Busy {
    fn start() -> Result<Self> {
        let cores = std::thread::available_parallelism()?.get();
        let start = |_| Command::new("sh").args(["-c", "while :; do :; done"]).spawn();
        Ok(Self((0..cores).map(start).collect::<std::io::Result<_>>()?))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        for child in &mut self.0 {
            drop(child.kill());
            drop(child.wait());
        }
    }
}
