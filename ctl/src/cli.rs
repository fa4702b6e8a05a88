//! From arguments to an exit code.

use crate::commands::Command;
use crate::context::{CommonArgs, Context};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::{logging, output, version};
use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser};
use std::ffi::OsString;
use std::process::ExitCode;

/// Operates PostgreSQL clusters that pgtandem keeps available
#[derive(Debug, Parser)]
#[command(name = "pgtandem", disable_version_flag = true, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    common: CommonArgs,
    /// Prints the versions of product, protocol and schema
    #[arg(long, short = 'V')]
    version: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

/// Runs the command that the arguments of this process name.
pub fn main() -> ExitCode {
    ExitCode::from(run(std::env::args_os()).code())
}

/// The command line, as defined.
pub fn definition() -> clap::Command {
    Cli::command().version(env!("CARGO_PKG_VERSION"))
}

/// Runs the command that the arguments name.
fn run(args: impl Iterator<Item = OsString>) -> Exit {
    let args: Vec<OsString> = args.collect();
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(error) => return usage(&error, args.iter().any(|arg| arg == "--json")),
    };
    let mut as_json = cli.common.json;
    let result = match cli.command {
        _ if cli.version => version::print(as_json).map(|()| Exit::Done),
        Some(command) => Context::new(cli.common).and_then(|context| {
            as_json = context.json;
            run_command(command, &context)
        }),
        None => Err(no_command()),
    };
    result.unwrap_or_else(|failure| fail(&failure, as_json))
}

fn run_command(command: Command, context: &Context) -> Result<Exit, Failure> {
    logging::start(context.log_format);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|error| Failure::new(Exit::Internal, "runtime", error.to_string()))?;
    let result = runtime.block_on(command.run(context));
    // A name server that does not answer keeps its thread: it is not waited for.
    runtime.shutdown_background();
    result
}

/// Help goes to standard output and ends well; all else about the arguments is exit code 1.
fn usage(error: &clap::Error, as_json: bool) -> Exit {
    if matches!(error.kind(), ErrorKind::DisplayHelp) {
        // A reader that went away has seen enough of the help.
        drop(error.print());
        return Exit::Done;
    }
    if as_json {
        let message = program::arguments::wrong(error);
        return fail(&Failure::new(Exit::BadArguments, "bad_arguments", message), true);
    }
    drop(error.print());
    Exit::BadArguments
}

fn no_command() -> Failure {
    let message = "a command is missing; `pgtandem --help` lists them";
    Failure::new(Exit::BadArguments, "bad_arguments", message)
}

fn fail(failure: &Failure, as_json: bool) -> Exit {
    if failure.is_closed_output() {
        return Exit::Done;
    }
    let error = failure.to_api_error();
    output::error(&error, as_json);
    Exit::of_error(error.code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_and_option_has_help() {
        fn check(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            assert!(!about.is_empty(), "{path} has no help");
            for argument in command.get_arguments() {
                let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
                assert!(!help.is_empty(), "{path}: {} has no help", argument.get_id());
            }
            for subcommand in command.get_subcommands() {
                check(subcommand, &path);
            }
        }
        check(&Cli::command(), "");
    }

    #[test]
    fn commands_are_those_of_the_interface() {
        let line = |text: &str| Cli::try_parse_from(text.split(' ')).map(|_| ());
        for text in [
            "pgtandem status --json --wait-revision 4",
            "pgtandem --monitor a:1,b:2 events --follow --after 3 --count 5",
            "pgtandem explain",
            "pgtandem explain node1",
            "pgtandem explain --if-dies node1,node2 --json",
            "pgtandem switchover --dry-run --to node2",
            "pgtandem failover --allow-data-loss --dry-run",
            "pgtandem promote node2 --dry-run",
            "pgtandem uri --role standby --dbname d --user u",
            "pgtandem uri --role read-write --client sqlx --sslmode verify-full --sslrootcert /a",
            "pgtandem switchover --to node2 --no-wait",
            "pgtandem switchover --timeout 5",
            "pgtandem failover --allow-data-loss --fenced",
            "pgtandem promote node2",
            "pgtandem maintenance on node1 --allow-failover",
            "pgtandem maintenance off node1",
            "pgtandem set node node1 candidate-priority 0",
            "pgtandem set formation number-sync-standbys 1 --json",
            "pgtandem set node node1 candidate-priority -1",
            "pgtandem get node node1 zone",
            "pgtandem get formation",
            "pgtandem config show",
            "pgtandem config show node1 --json",
            "pgtandem config set work_mem=8MB random_page_cost=1.1 --node node1 --no-wait",
            "pgtandem config unset work_mem --timeout 5",
            "pgtandem config edit --node node1",
            "pgtandem drop node node1 --force",
            "pgtandem drop node node1 --destroy --dry-run",
            "pgtandem maintenance on node1 --dry-run",
            "pgtandem timelines --json",
            "pgtandem accept timeline 2 --reason because --fenced --no-wait",
            "pgtandem formation create f2",
            "pgtandem token revoke abc",
            "pgtandem fsm --json",
        ] {
            line(text).unwrap();
        }
        assert!(line("pgtandem drop node node1 --destroy --force").is_err());
        assert!(line("pgtandem accept timeline 2").is_err());
        assert!(line("pgtandem config set").is_err());
        assert!(line("pgtandem config set work_mem").is_err());
        assert!(line("pgtandem set node node1 no-such-key 1").is_err());
        assert!(line("pgtandem set node node1 zone --json").is_err());
        assert!(line("pgtandem status --monitor https://m1").is_err());
        assert!(line("pgtandem explain node1 --if-dies node2").is_err());
        assert!(line("pgtandem switchover --dry-run --no-wait").is_err());
    }
}
