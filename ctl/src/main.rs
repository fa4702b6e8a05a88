//! `pgtandem`, the operator's command: asks the monitor, shows what it says, waits for what was
//! asked for. It decides nothing; the monitor validates every request.

mod cli;
mod commands;
mod config;
mod context;
mod exit;
mod failure;
mod logging;
mod operation;
mod output;
mod prediction;
mod text;
mod version;

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(cli::run(std::env::args_os()).code())
}
