//! `pgtandem-keeper`: arguments, signals, and putting the parts together.

mod cli;
mod run;
mod status;

use clap::Parser as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let asked = !error.use_stderr();
            drop(error.print());
            return if asked { ExitCode::SUCCESS } else { ExitCode::from(1) };
        }
    };
    match cli.execute() {
        Ok(code) => code,
        Err(failure) => {
            cli::complain(&failure);
            ExitCode::from(failure.code)
        }
    }
}
