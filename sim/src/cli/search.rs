//! `sim search`.

use clap::Args;
use shared::settings::Settings;
use sim::Mutation;
use sim::search::{Budget, Found, Known, Search};
use std::process::ExitCode;
use std::sync::Arc;

/// A world by its bounds; everything that is not given cannot happen.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How many data nodes
    #[arg(long, default_value_t = 2)]
    nodes: u64,
    /// `number_sync_standbys`
    #[arg(long, default_value_t = 1)]
    required: u32,
    /// What may happen, and how often: writes=1,crashes=1
    #[arg(long, default_value = "writes=1")]
    budget: Budget,
    /// What is taken away
    #[arg(long, default_value = "none")]
    without: Mutation,
    /// Stop a primary whose lease has run out
    #[arg(long)]
    guarded: bool,
    /// Let processes take up a changed sync set one after the other
    #[arg(long)]
    lags: bool,
    /// Ask of every state that the group converges from it
    #[arg(long)]
    finds_back: bool,
    /// Give up after so many transitions
    #[arg(long)]
    limit: Option<usize>,
    /// How many threads
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

impl Options {
    pub(crate) fn run(self) -> ExitCode {
        let number_sync_standbys = Some(self.required);
        let search = Search {
            nodes: self.nodes,
            settings: Settings { number_sync_standbys, ..Settings::default() },
            budget: self.budget,
            mutation: self.without,
            guarded: self.guarded,
            lags: self.lags,
            finds_back: self.finds_back.then(|| Arc::new(Known::new())),
        };
        let found = search.run(self.threads, self.limit);
        print(&found);
        if found.broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) }
    }
}

#[expect(clippy::print_stdout, reason = "the result")]
fn print(found: &Found) {
    let bounded = if found.complete { "complete" } else { "NOT complete" };
    println!(
        "{} states, {} transitions, depth {}, {bounded}, {:.1} s",
        found.states,
        found.transitions,
        found.depth,
        found.took.as_secs_f64()
    );
    for (name, way) in &found.broken {
        println!("BROKEN: {name}");
        for line in way {
            println!("  {line}");
        }
    }
}
