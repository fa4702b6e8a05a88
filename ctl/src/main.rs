//! `pgtandem`, the operator's command.

use std::process::ExitCode;

fn main() -> ExitCode {
    ctl::cli::main()
}
