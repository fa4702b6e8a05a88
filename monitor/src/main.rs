//! `pgtandem-monitor`: arguments in, exit code out.

use clap::{Args, Parser, Subcommand};
use monitor::config::{ConfigError, LogFormat, Options};
use monitor::http::health::rules_json;
use monitor::logging;
use monitor::run::{self, Prepared, RunError};
use shared::version::Version;
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
    /// With --version: as JSON
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the monitor; sets up what is missing
    Run(Given),
    /// Sets up the data directory, without running
    Init(Given),
    /// Shows the rules of the group's machine
    Rules {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
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
    #[error("{0}")]
    System(#[from] io::Error),
}

impl Failure {
    fn code(&self) -> u8 {
        match self {
            Self::Config(_) => 2,
            Self::Run(error) => error.code(),
            Self::System(_) => 8,
        }
    }
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing can be done about a closed terminal.
            drop(error.print());
            return ExitCode::from(u8::from(error.use_stderr()));
        }
    };
    match start(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            drop(writeln!(io::stderr(), "pgtandem-monitor: {failure}"));
            ExitCode::from(failure.code())
        }
    }
}

fn start(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        _ if cli.version => Ok(print_version(cli.json)?),
        None => Ok(()),
        Some(Command::Rules { json }) => Ok(print_rules(json)?),
        Some(Command::Run(given)) => {
            let config = given.options()?.check()?;
            runtime()?.block_on(run::run(config))?;
            Ok(())
        }
        Some(Command::Init(given)) => {
            let config = given.options()?.check()?;
            let said = match runtime()?.block_on(run::prepare(&config))? {
                Prepared::New => "initialised",
                Prepared::Already => "already initialised",
            };
            Ok(writeln!(io::stdout(), "{}: {said}", config.data_dir.display())?)
        }
    }
}

impl Given {
    /// All options; logging is set up from here on.
    fn options(self) -> Result<Options, ConfigError> {
        let options = match &self.config {
            Some(path) => self.options.or(Options::read(path)?),
            None => self.options,
        };
        logging::start(options.log_format.unwrap_or(LogFormat::Text));
        Ok(options)
    }
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

fn print_version(json: bool) -> io::Result<()> {
    let version = Version::of("pgtandem-monitor");
    let text = if json { serde_json::json!(version).to_string() } else { version.to_string() };
    writeln!(io::stdout(), "{text}")
}

fn print_rules(json: bool) -> io::Result<()> {
    if json {
        return writeln!(io::stdout(), "{:#}", rules_json());
    }
    for rule in fsm::group::rules::RULES {
        writeln!(
            io::stdout(),
            "{} [{} -> {}]: {}",
            rule.name,
            rule.phase,
            rule.next,
            rule.conditions
        )?;
    }
    Ok(())
}
