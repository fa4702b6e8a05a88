//! `sim deep`.

use clap::Args;
use sim::search::Found;
use sim::search::family::{Member, deep};
use std::process::ExitCode;

/// One search after the other.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Only those whose row has this in it
    #[arg(long, default_value = "")]
    only: String,
    /// How many threads
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

impl Options {
    pub(crate) fn run(self) -> ExitCode {
        let family = match deep() {
            Ok(family) => family,
            Err(error) => {
                say(&error.to_string());
                return ExitCode::from(1);
            }
        };
        say("| nodes | required | what may happen | P3 | states | transitions | depth | seconds |");
        say("|---|---|---|---|---|---|---|---|");
        let mut fine = true;
        for member in family {
            if member.to_string().contains(&self.only) {
                fine &= run(&member, self.threads);
            }
        }
        if fine { ExitCode::SUCCESS } else { ExitCode::from(1) }
    }
}

fn run(member: &Member, threads: usize) -> bool {
    let found: Found = member.search().run(threads, None);
    say(&format!(
        "{member} {} | {} | {} | {:.1} |",
        found.states,
        found.transitions,
        found.depth,
        found.took.as_secs_f64()
    ));
    for (name, way) in &found.broken {
        say(&format!("BROKEN: {name}\n  {}", way.join("\n  ")));
    }
    found.complete && found.broken.is_empty()
}

#[expect(clippy::print_stdout, reason = "the result")]
fn say(text: &str) {
    println!("{text}");
}
