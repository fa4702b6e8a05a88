//! `sim walk` and `sim replay`.

use clap::Args;
use shared::settings::Settings;
use sim::disturb::{MIXES, Mix};
use sim::walk::{Failure, Summary};
use sim::{Mutation, Walk};
use std::collections::BTreeSet;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How often the progress is shown.
const PROGRESS: Duration = Duration::from_secs(10);
/// No trace is longer.
const WHOLE_TRACE: usize = 1_000_000;

/// Seeds from one to another, which is not walked any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seeds {
    from: u64,
    to: u64,
}

/// Words that are no range of seeds.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a range of seeds such as 0..1000")]
struct InvalidSeeds(String);

impl FromStr for Seeds {
    type Err = InvalidSeeds;

    fn from_str(text: &str) -> Result<Self, InvalidSeeds> {
        let invalid = || InvalidSeeds(text.to_owned());
        let (from, to) = text.split_once("..").ok_or_else(invalid)?;
        let number = |text: &str| text.replace('_', "").parse().map_err(|_| invalid());
        let seeds = Self { from: number(from)?, to: number(to)? };
        if seeds.from < seeds.to { Ok(seeds) } else { Err(invalid()) }
    }
}

fn mix(name: &str) -> Result<Mix, String> {
    let named = MIXES.iter().find(|(known, _)| *known == name).map(|(_, mix)| *mix);
    named
        .ok_or_else(|| format!("{name:?} is not one of {}", MIXES.map(|(name, _)| name).join(", ")))
}

/// What a walk is made of.
#[derive(Clone, Debug, Args)]
struct Shape {
    /// How many nodes a group begins with; without it, from 2 to 7 by the seed
    #[arg(long)]
    nodes: Option<u64>,
    /// How many groups there are below one monitor process
    #[arg(long, default_value_t = 1)]
    groups: u64,
    /// `number_sync_standbys`; without it, what the number of nodes asks for
    #[arg(long)]
    required: Option<u32>,
    /// How many actions there are while things go wrong
    #[arg(long, default_value_t = 3000)]
    actions: usize,
    /// One of so many actions is a fault
    #[arg(long, default_value_t = 70)]
    calm: u64,
    /// What is taken away
    #[arg(long, default_value = "none")]
    without: Mutation,
    /// What may happen: everything, lost-records, sync-changes, losses, changes or cascades
    #[arg(long, default_value = "everything", value_parser = mix)]
    mix: Mix,
    /// Let standbys stream from standbys before anything goes wrong
    #[arg(long)]
    cascading: bool,
    /// Do not ask that the groups converge in the end
    #[arg(long)]
    unhealed: bool,
}

impl Shape {
    fn walk(&self, seed: u64) -> Walk {
        let walk = Walk::new(self.nodes.unwrap_or(2 + seed % 6));
        let settings = Settings { number_sync_standbys: self.required, ..walk.settings.clone() };
        Walk {
            groups: self.groups,
            actions: self.actions,
            calm: self.calm,
            mutation: self.without,
            mix: self.mix,
            heals: !self.unhealed,
            cascades: self.cascading,
            settings,
            ..walk
        }
    }
}

/// Walks from many seeds.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    shape: Shape,
    /// The seeds
    #[arg(long, default_value = "0..10000")]
    seeds: Seeds,
    /// How many threads
    #[arg(long, default_value_t = 2)]
    threads: u64,
    /// Go on after so many failures at most
    #[arg(long, default_value_t = 0)]
    tolerate: usize,
}

/// One seed again, step by step.
#[derive(Debug, Args)]
pub(crate) struct Replay {
    /// The seed
    seed: u64,
    #[command(flatten)]
    shape: Shape,
}

/// What all threads have found so far.
#[derive(Debug, Default)]
struct Total {
    walks: u64,
    sum: Summary,
    failures: Vec<Failure>,
}

impl Options {
    pub(crate) fn run(self) -> ExitCode {
        let began = Instant::now();
        let next = AtomicU64::new(self.seeds.from);
        let total = Mutex::new((Total::default(), began));
        std::thread::scope(|scope| {
            for _ in 0..self.threads {
                scope.spawn(|| while self.walk_next(&next, &total, began) {});
            }
        });
        let (total, _) = total.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        show(&total, began);
        for failure in &total.failures {
            report(&self.shape.walk(failure.seed), failure);
        }
        if total.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) }
    }

    /// Walks from the next seed; `false` where there is none, or enough has been found.
    fn walk_next(&self, next: &AtomicU64, total: &Mutex<(Total, Instant)>, began: Instant) -> bool {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= self.seeds.to {
            return false;
        }
        let outcome = self.shape.walk(seed).run(seed);
        let mut guard = total.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (total, shown) = &mut *guard;
        total.walks += 1;
        match outcome {
            Ok(summary) => {
                total.sum.acknowledged += summary.acknowledged;
                total.sum.promotions += summary.promotions;
                total.sum.disturbances += summary.disturbances;
                total.sum.cascaded += summary.cascaded;
                total.sum.rounds = total.sum.rounds.max(summary.rounds);
            }
            Err(failure) => total.failures.push(*failure),
        }
        if shown.elapsed() > PROGRESS {
            *shown = Instant::now();
            show(total, began);
        }
        total.failures.len() <= self.tolerate
    }
}

#[expect(clippy::print_stdout, reason = "the result")]
fn show(total: &Total, began: Instant) {
    println!(
        "{} walks, {} disturbances, {} commits, {} promotions, {} moves to a standby, {} rounds at most to heal, {} failures, {:.1} s",
        total.walks,
        total.sum.disturbances,
        total.sum.acknowledged,
        total.sum.promotions,
        total.sum.cascaded,
        total.sum.rounds,
        total.failures.len(),
        began.elapsed().as_secs_f64()
    );
}

/// The failure with as little going wrong as can be found.
#[expect(clippy::print_stdout, reason = "the result")]
fn report(walk: &Walk, failure: &Failure) {
    let shorter = walk.shorten(failure);
    println!(
        "BROKEN, {} of {} disturbances are needed: {shorter}",
        shorter.disturbed.len(),
        failure.disturbed.len()
    );
    println!("again: sim replay {} --nodes {} and the other options", failure.seed, walk.nodes);
}

impl Replay {
    #[expect(clippy::print_stdout, reason = "the result")]
    pub(crate) fn run(self) -> ExitCode {
        let walk = self.shape.walk(self.seed);
        match walk.run_without(self.seed, &BTreeSet::new(), WHOLE_TRACE) {
            Ok(summary) => {
                println!("seed {}: {summary:?}", self.seed);
                ExitCode::SUCCESS
            }
            Err(failure) => {
                println!("{failure}");
                report(&walk, &failure);
                ExitCode::from(1)
            }
        }
    }
}
