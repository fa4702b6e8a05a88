//! `pgtandem-other-build PROTOCOL monitor|keeper ARGUMENTS`: our monitor and our keeper as a release would
//! be that speaks another protocol. What the messages look like is the same, since there is no other
//! form of them yet.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let protocol = arguments.next().and_then(|word| word.to_str()?.parse().ok());
    // What follows is what a program finds in its arguments: its own name comes first.
    let mut arguments = arguments.peekable();
    let program = arguments.peek().and_then(|word| word.to_str()).map(str::to_owned);
    match (protocol, program.as_deref()) {
        (Some(protocol), Some("monitor")) => monitor::cli::main(protocol, arguments),
        (Some(protocol), Some("keeper")) => keeper::cli::main(protocol, arguments),
        _ => ExitCode::from(1),
    }
}
