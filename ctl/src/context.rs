//! What every command knows: which monitor, which formation, and how to print.

use crate::config::File;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::logging::LogFormat;
use clap::builder::FalseyValueParser;
use ctl::client::{Client, MonitorUrl, Options};
use shared::ids::FormationId;
use std::path::PathBuf;

/// The options that every command takes.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Common options")]
pub struct CommonArgs {
    /// Where the monitor can be reached: one or more URLs, separated by commas
    #[arg(
        long,
        global = true,
        env = "PGTANDEM_MONITOR",
        value_name = "URL[,URL]",
        value_delimiter = ','
    )]
    pub monitor: Vec<MonitorUrl>,
    /// The formation that the command is about [default: default]
    #[arg(long, global = true, env = "PGTANDEM_FORMATION", value_name = "NAME")]
    pub formation: Option<FormationId>,
    /// Prints JSON, errors included
    #[arg(long, global = true, env = "PGTANDEM_JSON", value_parser = FalseyValueParser::new())]
    pub json: bool,
    /// How logs are written to standard error [default: text]
    #[arg(long, global = true, env = "PGTANDEM_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
    /// A TOML file with the keys monitor, formation, json and log-format; a keeper's will do
    #[arg(long, global = true, env = "PGTANDEM_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// The options, once flags, environment and file are put together in this order of precedence.
#[derive(Debug)]
pub struct Context {
    /// May be empty: not every command needs a monitor.
    pub monitors: Vec<MonitorUrl>,
    /// Which formation.
    pub formation: FormationId,
    /// Whether to print JSON.
    pub json: bool,
    /// How to write logs.
    pub log_format: LogFormat,
}

impl Context {
    /// Puts the options together.
    pub fn new(args: CommonArgs) -> Result<Self, Failure> {
        let file = args.config.as_deref().map(File::read).transpose()?.unwrap_or_default();
        let monitors = if args.monitor.is_empty() { file.monitors()? } else { args.monitor };
        let formation = match args.formation.or(file.formation) {
            Some(formation) => formation,
            None => "default".parse().map_err(|error: shared::ids::InvalidName| {
                Failure::new(Exit::Internal, "default_formation", error.to_string())
            })?,
        };
        Ok(Self {
            monitors,
            formation,
            json: args.json || file.json,
            log_format: args.log_format.or(file.log_format).unwrap_or_default(),
        })
    }

    /// A client of the monitor.
    pub fn client(&self) -> Result<Client, Failure> {
        if self.monitors.is_empty() {
            let message = "no monitor is given: use --monitor URL, PGTANDEM_MONITOR, or `monitor` \
                           in the file of --config";
            return Err(Failure::new(Exit::Configuration, "no_monitor", message));
        }
        Ok(Client::new(self.monitors.clone(), Options::default())?)
    }
}
