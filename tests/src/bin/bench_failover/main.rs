//! How long writes wait when a primary dies or hands over: `make bench-failover ROUNDS=20`.
//!
//! Three nodes on this machine, a writer on each and one that finds the primary by a list of hosts;
//! first beside each other, then each on a host of its own ([`on_hosts`]). An
//! outage is the longest time without an acknowledgement around the fault, whoever wrote. At the end
//! the verdict of the tests is passed: what was acknowledged is there.

mod on_hosts;

use anyhow::{Context as _, Result, bail, ensure};
use std::io::Write as _;
use std::time::{Duration, Instant};
use tests::harness::distribution::Distribution;
use tests::harness::verdict::{read_rows, rows};
use tests::harness::wait::{DEADLINE, eventually_every};
use tests::harness::{Cluster, Node, Workload};

/// Short against what is measured.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// The name of what happens to processes.
const PROCESSES: &str = "processes killed, switchover";

/// Times under a name, and what is aimed at.
#[derive(Debug)]
struct Figure {
    name: String,
    goal: String,
    times: Distribution,
}

impl Figure {
    fn new(name: &str, goal: &str) -> Self {
        Self { name: name.to_owned(), goal: goal.to_owned(), times: Distribution::default() }
    }

    fn row(&self) -> String {
        row(&self.name, &self.times, &self.goal)
    }
}

fn row(name: &str, times: &Distribution, goal: &str) -> String {
    format!("{name:<44} {:>6} {}  {goal}", times.0.len(), times.columns())
}

/// What is measured.
#[derive(Debug, Default)]
struct Figures {
    postmaster: Distribution,
    both: Distribution,
    rejoin: Distribution,
    switchover: Distribution,
    in_place: usize,
}

fn main() -> Result<()> {
    let wanted = Wanted::from_arguments()?;
    let figures = wanted.has(PROCESSES).then(|| on_loopback(wanted.rounds)).transpose()?;
    let on_hosts = on_hosts::run(&wanted)?;
    if let Some(figures) = figures {
        show(&figures)?;
    }
    say("\nwrite outage, in seconds, of what befalls the host of the primary, or of a standby")?;
    on_hosts.iter().try_for_each(|figure| say(&figure.row()))?;
    show_machine()
}

/// Killed processes and switchovers: three nodes beside each other.
#[tokio::main]
async fn on_loopback(rounds: usize) -> Result<Figures> {
    let cluster = Cluster::builder().nodes(3).untraced().start().await?;
    let workload = cluster.workload().await?;
    let mut figures = Figures::default();
    for round in 1..=rounds {
        postmaster_killed(&cluster, &workload, &mut figures).await?;
        both_killed(&cluster, &workload, &mut figures).await?;
        switched_over(&cluster, &workload, &mut figures).await?;
        say(&format!(
            "round {round:3}: postmaster {:.3?}, keeper and postgres {:.3?}, streaming again \
             {:.3?}, switchover {:.3?}",
            figures.postmaster.newest(),
            figures.both.newest(),
            figures.rejoin.newest(),
            figures.switchover.newest(),
        ))?;
    }
    conclude(&cluster, workload).await?;
    Ok(figures)
}

/// What the command line asks for.
struct Wanted {
    rounds: usize,
    only: Option<String>,
}

impl Wanted {
    fn from_arguments() -> Result<Self> {
        let arguments: Vec<_> = std::env::args().skip(1).collect();
        let mut wanted = Self { rounds: 20, only: None };
        for pair in arguments.chunks(2) {
            match pair {
                [option, number] if option == "--rounds" => {
                    let number = number.parse();
                    wanted.rounds = number.context("--rounds takes a number")?;
                }
                [option, text] if option == "--only" => wanted.only = Some(text.clone()),
                other => bail!("bench_failover [--rounds N] [--only TEXT], not {other:?}"),
            }
        }
        Ok(wanted)
    }

    /// Whether something of this name is to be measured.
    fn has(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| name.contains(only))
    }
}

/// Restarted in place, or failed over where that is faster.
async fn postmaster_killed(
    cluster: &Cluster,
    workload: &Workload,
    figures: &mut Figures,
) -> Result<()> {
    let old = cluster.primary().await?;
    let fault = Instant::now();
    old.kill_postmaster()?;
    figures.postmaster.0.push(outage(cluster, workload, fault).await?);
    figures.in_place += usize::from(cluster.primary().await?.name() == old.name());
    Ok(())
}

/// The host is alive and refuses connections. Then the keeper is started again.
async fn both_killed(cluster: &Cluster, workload: &Workload, figures: &mut Figures) -> Result<()> {
    let old = cluster.primary().await?;
    let fault = Instant::now();
    old.kill_both()?;
    figures.both.0.push(outage(cluster, workload, fault).await?);
    let new = cluster.primary().await?;
    ensure!(new.name() != old.name(), "{} is the primary still", old.name());
    let begin = Instant::now();
    old.start_keeper()?;
    streams(cluster, old, new).await?;
    figures.rejoin.0.push(begin.elapsed());
    cluster.settled().await?;
    Ok(())
}

async fn switched_over(
    cluster: &Cluster,
    workload: &Workload,
    figures: &mut Figures,
) -> Result<()> {
    let begin = Instant::now();
    cluster.perform(&["switchover"]).await?;
    figures.switchover.0.push(outage(cluster, workload, begin).await?);
    Ok(())
}

/// Once writes go on and all has settled: the longest pause since the fault.
async fn outage(cluster: &Cluster, workload: &Workload, fault: Instant) -> Result<Duration> {
    workload.goes_on().await?;
    cluster.settled().await?;
    workload.goes_on().await?;
    Ok(workload.so_far().outage_since(fault))
}

/// Waits until the new primary sends WAL to the old one.
async fn streams(cluster: &Cluster, old: &Node, new: &Node) -> Result<()> {
    let status = cluster.monitor().status().await?;
    let name = tests::harness::cluster::node_of(&status, old.name());
    let name = name.context("it is not in the group")?.application_name.clone();
    let sql = new.sql().await?;
    let query = "select count(*) from pg_stat_replication \
        where application_name = $1 and state = 'streaming'";
    eventually_every(LOOK_AGAIN, "the old primary streams", DEADLINE, async || {
        let count: i64 = sql.value(query, &[&name]).await?;
        Ok(if count > 0 { Ok(()) } else { Err("it does not".to_owned()) })
    })
    .await
}

async fn conclude(cluster: &Cluster, workload: Workload) -> Result<()> {
    cluster.settled().await?;
    let history = workload.finish().await;
    let there = read_rows(&cluster.primary().await?.sql().await?).await?;
    let wrong = rows::check(&history, &there);
    say(&format!("{}; lost acknowledged rows: {}", history.summary(), wrong.lost.len()))?;
    ensure!(wrong == rows::Wrong::default(), "{wrong:?}");
    cluster.pass();
    Ok(())
}

fn show(figures: &Figures) -> Result<()> {
    say(&format!(
        "\n{:<44} {:>6} {}  goal",
        "write outage, in seconds",
        "rounds",
        Distribution::heads()
    ))?;
    say(&row("SIGKILL of the postmaster", &figures.postmaster, "p50 <= 0.5, p95 <= 1.5"))?;
    say(&row("SIGKILL of keeper and Postgres", &figures.both, "p50 <= 0.6"))?;
    say(&row("switchover", &figures.switchover, "p50 <= 0.5"))?;
    say("time, in seconds")?;
    say(&row("from its keeper's start until it streams", &figures.rejoin, "p50 <= 1.0"))?;
    say(&format!("restarted in place: {} of {}", figures.in_place, figures.postmaster.0.len()))
}

fn show_machine() -> Result<()> {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    say(&format!("load averages of the machine, which has {cores} cores: {}", load.trim()))
}

fn say(text: &str) -> Result<()> {
    Ok(writeln!(std::io::stdout(), "{text}")?)
}
