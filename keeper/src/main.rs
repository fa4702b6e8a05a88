//! `pgtandem-keeper`.

use std::process::ExitCode;

fn main() -> ExitCode {
    keeper::cli::main(shared::PROTOCOL, std::env::args_os())
}
