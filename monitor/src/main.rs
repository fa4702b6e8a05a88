//! `pgtandem-monitor`.

use std::process::ExitCode;

fn main() -> ExitCode {
    monitor::cli::main(shared::PROTOCOL, std::env::args_os())
}
