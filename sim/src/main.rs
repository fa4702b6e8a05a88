//! `sim`: searches and walks by hand; docs/proof.md says which and why.

mod cli {
    pub(crate) mod deep;
    pub(crate) mod search;
    pub(crate) mod walk;
}

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Searches copy worlds all the time; the system's allocator takes half of that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs pgtandem's decision code in made-up worlds.
#[derive(Debug, Parser)]
#[command(name = "sim", arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Search every state that can be reached within bounds.
    Search(cli::search::Options),
    /// Run the whole family of searches, as rows of a table.
    Deep(cli::deep::Options),
    /// Walk from many seeds.
    Walk(cli::walk::Options),
    /// Walk from one seed again, with its trace.
    Replay(cli::walk::Replay),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Search(options) => options.run(),
        Command::Deep(options) => options.run(),
        Command::Walk(options) => options.run(),
        Command::Replay(options) => options.run(),
    }
}
