//! The command line: arguments in, exit code out.

mod service;

use crate::config::{Config, ConfigError, LogFormat, Options};
use crate::http::health::rules_json;
use crate::logging;
use crate::run::{self, Prepared, RunError};
use clap::{Args, CommandFactory as _, Parser, Subcommand};
use program::manual::{self, Completions, Manual};
use program::unit::UnitError;
use shared::api::ApiError;
use shared::version::Version;
use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

/// The monitor of pgtandem: decides which PostgreSQL server is the primary
#[derive(Debug, Parser)]
#[command(name = "pgtandem-monitor", disable_version_flag = true, arg_required_else_help = true)]
struct Cli {
    /// Prints the versions of the product, the protocol and the schema
    #[arg(long, short = 'V')]
    version: bool,
    /// Prints JSON, errors included
    #[arg(long, global = true)]
    json: bool,
    /// How log lines look [default: text]
    #[arg(long, global = true, env = "PGTANDEM_LOG_FORMAT", value_enum)]
    log_format: Option<LogFormat>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the monitor; sets up what is missing
    Run(RunOptions),
    /// Sets up the data directory, without running
    Init(Given),
    /// Shows the rules of the group's machine
    Rules,
    /// Prints a unit of systemd that runs the monitor with the same options
    Systemd(UnitOptions),
    /// Prints the completions of a shell
    Completions(Completions),
    /// Prints the manual page, or writes one for each command
    Man(Manual),
}

#[derive(Debug, Args)]
struct RunOptions {
    /// The monitor's directory was lost: begins with an empty one, in quarantine, and takes over what the
    /// keepers know of their formations
    #[arg(long)]
    adopt: bool,
    #[command(flatten)]
    given: Given,
}

#[derive(Debug, Args)]
struct UnitOptions {
    /// Who runs the monitor and its own Postgres [default: root runs the monitor]
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    #[command(flatten)]
    given: Given,
}

#[derive(Debug, Args)]
struct Given {
    #[command(flatten)]
    options: Options,
    /// A TOML file with the same options
    #[arg(long, env = "PGTANDEM_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

/// How it ended otherwise than well.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Run(#[from] RunError),
    #[error(transparent)]
    Unit(#[from] UnitError),
    #[error("{}", program::arguments::wrong(.0))]
    Arguments(clap::Error),
    #[error("say what to do; `pgtandem-monitor --help` lists it")]
    NoCommand,
    #[error("{0}")]
    Pages(io::Error),
    #[error("{0}")]
    System(#[from] io::Error),
}

impl Failure {
    fn to_api_error(&self) -> ApiError {
        let (code, reason) = match self {
            Self::Config(ConfigError::Value(_)) | Self::Unit(_) => (1, "bad_value"),
            Self::Config(ConfigError::Missing(..)) => (2, "missing_option"),
            Self::Config(ConfigError::File { .. }) => (2, "bad_configuration"),
            Self::Run(error) => (error.code(), error.reason()),
            Self::Arguments(_) => (1, "bad_arguments"),
            Self::NoCommand => (1, "no_command"),
            Self::Pages(_) => (2, "directory"),
            Self::System(_) => (8, "internal"),
        };
        let message = self.to_string();
        ApiError { code, reason: reason.to_owned(), message, nodes: Vec::new() }
    }
}

/// Runs the program to its end. `protocol` is the newest that it speaks with keepers.
pub fn main(protocol: u32, arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() && std::env::args().any(|word| word == "--json") => {
            return end(&Failure::Arguments(error), true);
        }
        Err(error) => {
            // Nothing can be done about a closed terminal.
            drop(error.print());
            return ExitCode::from(u8::from(error.use_stderr()));
        }
    };
    let as_json = cli.json;
    start(cli, protocol).unwrap_or_else(|failure| end(&failure, as_json))
}

/// One line on standard error; the same as JSON on standard output where that was asked for.
fn end(failure: &Failure, as_json: bool) -> ExitCode {
    let error = failure.to_api_error();
    drop(writeln!(io::stderr(), "pgtandem-monitor: {}", error.message));
    if as_json && let Ok(text) = serde_json::to_string(&error) {
        drop(writeln!(io::stdout(), "{text}"));
    }
    ExitCode::from(error.code)
}

/// The command line, as defined.
pub fn definition() -> clap::Command {
    Cli::command().version(env!("CARGO_PKG_VERSION"))
}

fn start(cli: Cli, protocol: u32) -> Result<ExitCode, Failure> {
    let Some(command) = cli.command.filter(|_| !cli.version) else {
        if !cli.version {
            return Err(Failure::NoCommand);
        }
        return Ok(print_version(cli.json, protocol)?);
    };
    match command {
        Command::Rules => Ok(print_rules(cli.json)?),
        Command::Run(run) => {
            let config = run.given.config(cli.log_format, protocol)?;
            let config = Config { adopt: run.adopt, ..config };
            if let Some(code) = program::first::serve()? {
                return Ok(code);
            }
            runtime()?.block_on(run::run(config))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Init(given) => {
            let config = given.config(cli.log_format, protocol)?;
            let prepared = runtime()?.block_on(run::prepare(&config))?;
            Ok(print_prepared(cli.json, &config, prepared)?)
        }
        Command::Systemd(unit) => {
            let config = unit.given.config(cli.log_format, protocol)?;
            Ok(print(&service::unit(&config, unit.user)?)?)
        }
        Command::Completions(wanted) => {
            Ok(print(&manual::completions(definition(), wanted.shell))?)
        }
        Command::Man(wanted) => {
            let made = wanted.make(definition(), cli.json);
            Ok(print(&made.map_err(Failure::Pages)?)?)
        }
    }
}

impl Given {
    /// The configuration; logging is set up from here on.
    fn config(self, format: Option<LogFormat>, protocol: u32) -> Result<Config, ConfigError> {
        let options = match &self.config {
            Some(path) => self.options.or(Options::read(path)?),
            None => self.options,
        };
        logging::start(format.or(options.log_format).unwrap_or_default());
        Ok(Config { protocol, ..options.check()? })
    }
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

fn print(text: &str) -> io::Result<ExitCode> {
    writeln!(io::stdout(), "{}", text.trim_end())?;
    Ok(ExitCode::SUCCESS)
}

fn print_version(as_json: bool, protocol: u32) -> io::Result<ExitCode> {
    let version = Version { protocol, ..Version::of("pgtandem-monitor") };
    print(&if as_json { serde_json::json!(version).to_string() } else { version.to_string() })
}

fn print_prepared(as_json: bool, config: &Config, prepared: Prepared) -> io::Result<ExitCode> {
    let said = match prepared {
        Prepared::New => "initialised",
        Prepared::Already => "already initialised",
    };
    let dir = config.data_dir.display();
    if as_json {
        let new = prepared == Prepared::New;
        return print(&serde_json::json!({ "data_dir": config.data_dir, "new": new }).to_string());
    }
    print(&format!("{dir}: {said}"))
}

fn print_rules(as_json: bool) -> io::Result<ExitCode> {
    if as_json {
        return print(&format!("{:#}", rules_json()));
    }
    let rules = fsm::group::rules::RULES.iter().map(|rule| {
        format!("{} [{} -> {}]: {}", rule.name, rule.phase, rule.next, rule.conditions)
    });
    print(&rules.collect::<Vec<_>>().join("\n"))
}
