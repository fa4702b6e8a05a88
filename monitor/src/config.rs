//! What the monitor can be told, by flag, environment or file (in that order), and the one conversion
//! into a configuration that has been checked.

use crate::hooks::{Audience, KINDS};
use hooks::{Hook, Web};
use serde::Deserialize;
use shared::settings::Settings;
use sqlx::postgres::PgConnectOptions;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// All addresses, the port that keepers and the operator's command expect.
const DEFAULT_LISTEN: &str = "0.0.0.0:7432";

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The options as they are given. The same names in the file, without the dashes before them.
#[derive(Clone, Debug, Default, clap::Args, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Options {
    /// Where the monitor keeps everything; created when missing
    #[arg(long, env = "PGTANDEM_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Address and port of the HTTP API [default: 0.0.0.0:7432]
    #[arg(long, env = "PGTANDEM_LISTEN", value_name = "ADDR:PORT")]
    pub listen: Option<String>,
    /// How keepers reach this monitor, several separated by commas
    #[arg(long, env = "PGTANDEM_ADVERTISE", value_name = "URL")]
    pub advertise: Option<String>,
    /// An existing database to use instead of an own Postgres
    #[arg(
        long,
        env = "PGTANDEM_DATABASE_URL",
        hide_env_values = true,
        value_name = "postgres://..."
    )]
    pub database_url: Option<String>,
    /// Where the programs of Postgres are [default: PATH, then the usual places]
    #[arg(long, env = "PGTANDEM_BIN_DIR", value_name = "DIR")]
    pub bin_dir: Option<PathBuf>,
    /// The user of the own Postgres, when the monitor runs as root [default: postgres]
    #[arg(long, env = "PGTANDEM_RUN_AS", value_name = "USER")]
    pub run_as: Option<String>,
    /// Runs a command, or posts to an http:// or https:// URL, for each event of this kind, or of `any`. May be given
    /// several times; in the environment one a line, in the file as a list. A command runs as the monitor's user and
    /// without a shell
    #[arg(long, env = "PGTANDEM_HOOK", value_name = "KIND=COMMAND|URL", value_delimiter = '\n')]
    #[arg(hide_env_values = true)]
    #[serde(deserialize_with = "hooks::hook::one_or_many")]
    pub hook: Option<Vec<String>>,
    /// The certificates (PEM) of the authorities that vouch for the servers of https:// hooks [default: those of this
    /// host]
    #[arg(long, env = "PGTANDEM_HOOK_CA_FILE", value_name = "FILE")]
    pub hook_ca_file: Option<PathBuf>,
    /// How the first formation is set up
    #[command(flatten)]
    #[serde(flatten)]
    pub timers: TimerOptions,
    /// How log lines look, as the file says; the flag is one of all commands.
    #[arg(skip)]
    pub log_format: Option<LogFormat>,
}

/// The settings of the formation that is created at the first start; later ones with
/// `pgtandem set formation`.
#[derive(Clone, Copy, Debug, Default, clap::Args, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct TimerOptions {
    /// Silence after which a node may be considered gone [default: 3s]; the others follow from it
    #[arg(long, env = "PGTANDEM_NODE_TIMEOUT", value_name = "TIME")]
    pub node_timeout: Option<Milliseconds>,
    /// How often a keeper reports at least [default: 1/6 of node-timeout]
    #[arg(long, env = "PGTANDEM_REPORT_INTERVAL", value_name = "TIME")]
    pub report_interval: Option<Milliseconds>,
    /// How long a primary may go on without proof [default: 2/3 of node-timeout]
    #[arg(long, env = "PGTANDEM_LEASE", value_name = "TIME")]
    pub lease: Option<Milliseconds>,
    /// How long a crashed Postgres may take to come back [default: 1/3 of node-timeout]
    #[arg(long, env = "PGTANDEM_RESTART_BUDGET", value_name = "TIME")]
    pub restart_budget: Option<Milliseconds>,
    /// How long a standby may hold up commits [default: node-timeout]
    #[arg(long, env = "PGTANDEM_STALL_TIMEOUT", value_name = "TIME")]
    pub stall_timeout: Option<Milliseconds>,
    /// How long an election waits for more nodes [default: 1/6 of node-timeout]
    #[arg(long, env = "PGTANDEM_ELECTION_GRACE", value_name = "TIME")]
    pub election_grace: Option<Milliseconds>,
    /// How long a switchover may take to stop the primary [default: 10 times node-timeout]
    #[arg(long, env = "PGTANDEM_DRAIN_TIMEOUT", value_name = "TIME")]
    pub drain_timeout: Option<Milliseconds>,
    /// How many standbys every commit waits for [default: 1 from the third node on]
    #[arg(long, env = "PGTANDEM_NUMBER_SYNC_STANDBYS", value_name = "N")]
    pub number_sync_standbys: Option<u32>,
}

/// A time such as `500ms`, `3s` or `1min`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Milliseconds(pub u64);

/// What is wrong with the options.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A value that cannot be used.
    #[error("{0}")]
    Value(String),
    /// Something that has to be given.
    #[error("--{0} is missing (or PGTANDEM_{1}, or '{0}' in the file of --config)")]
    Missing(&'static str, &'static str),
    /// The file.
    #[error("{path} cannot be used: {why}")]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// A configuration that has been checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// Where the API is served.
    pub listen: String,
    /// How keepers reach this monitor; empty: as they do.
    pub monitors: Vec<String>,
    /// Where the records are.
    pub database: Database,
    /// Of the first formation.
    pub settings: Settings,
    /// What the operator wants to be told of the history.
    pub hooks: Vec<Audience>,
    /// The newest that is spoken with keepers: [`shared::PROTOCOL`], but in builds for tests.
    pub protocol: u32,
    /// Everything was lost: the formations are made of what their keepers bring.
    pub adopt: bool,
}

/// Where the records are.
#[derive(Clone)]
pub enum Database {
    /// In an own Postgres under the data directory.
    Embedded {
        /// Where its programs are.
        bin_dir: Option<PathBuf>,
        /// Its user.
        run_as: Option<String>,
    },
    /// In a database that is there.
    External(Box<PgConnectOptions>),
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The options may have a password.
        f.write_str(match self {
            Self::Embedded { .. } => "Embedded",
            Self::External(_) => "External",
        })
    }
}

impl Options {
    /// What a file says.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        program::file::read(path).map_err(|why| ConfigError::File { path: path.to_owned(), why })
    }

    /// These, and where nothing is said, what `file` says.
    #[must_use]
    pub fn or(self, file: Self) -> Self {
        let (timers, other) = (self.timers, file.timers);
        Self {
            data_dir: self.data_dir.or(file.data_dir),
            listen: self.listen.or(file.listen),
            advertise: self.advertise.or(file.advertise),
            database_url: self.database_url.or(file.database_url),
            bin_dir: self.bin_dir.or(file.bin_dir),
            run_as: self.run_as.or(file.run_as),
            hook: self.hook.or(file.hook),
            hook_ca_file: self.hook_ca_file.or(file.hook_ca_file),
            log_format: self.log_format.or(file.log_format),
            timers: TimerOptions {
                node_timeout: timers.node_timeout.or(other.node_timeout),
                report_interval: timers.report_interval.or(other.report_interval),
                lease: timers.lease.or(other.lease),
                restart_budget: timers.restart_budget.or(other.restart_budget),
                stall_timeout: timers.stall_timeout.or(other.stall_timeout),
                election_grace: timers.election_grace.or(other.election_grace),
                drain_timeout: timers.drain_timeout.or(other.drain_timeout),
                number_sync_standbys: timers.number_sync_standbys.or(other.number_sync_standbys),
            },
        }
    }

    /// Checks everything.
    pub fn check(self) -> Result<Config, ConfigError> {
        let data_dir = self.data_dir.ok_or(ConfigError::Missing("data-dir", "DATA_DIR"))?;
        let data_dir = std::path::absolute(&data_dir)
            .map_err(|error| ConfigError::File { path: data_dir, why: error.to_string() })?;
        let listen = self.listen.unwrap_or_else(|| DEFAULT_LISTEN.to_owned());
        let database = match self.database_url {
            Some(url) => Database::External(Box::new(parse_url(&url)?)),
            None => Database::Embedded { bin_dir: self.bin_dir, run_as: self.run_as },
        };
        let monitors = monitors(self.advertise.as_deref(), &listen)?;
        let settings = self.timers.settings();
        settings.validate().map_err(|error| ConfigError::Value(error.to_string()))?;
        let protocol = shared::PROTOCOL;
        let hooks = audiences(&self.hook.unwrap_or_default(), self.hook_ca_file.as_deref())?;
        Ok(Config { data_dir, listen, monitors, database, settings, hooks, protocol, adopt: false })
    }
}

impl TimerOptions {
    fn settings(self) -> Settings {
        let ms = |time: Option<Milliseconds>| time.map(|time| time.0);
        let default = Settings::default();
        Settings {
            number_sync_standbys: self.number_sync_standbys,
            node_timeout_ms: ms(self.node_timeout).unwrap_or(default.node_timeout_ms),
            report_interval_ms: ms(self.report_interval),
            lease_ms: ms(self.lease),
            restart_budget_ms: ms(self.restart_budget),
            stall_timeout_ms: ms(self.stall_timeout),
            election_grace_ms: ms(self.election_grace),
            drain_timeout_ms: ms(self.drain_timeout),
        }
    }
}

fn audiences(texts: &[String], ca_file: Option<&Path>) -> Result<Vec<Audience>, ConfigError> {
    let value = |error: &dyn std::error::Error| ConfigError::Value(error.to_string());
    let hooks = Hook::parse_all(texts, &KINDS).map_err(|error| value(&error))?;
    let web = Web::new(&hooks, ca_file).map_err(|error| value(&error))?;
    Ok(hooks.into_iter().map(|hook| Audience::new(hook, web.clone())).collect())
}

fn parse_url(url: &str) -> Result<PgConnectOptions, ConfigError> {
    // The URL itself is not shown: it may have a password.
    PgConnectOptions::from_str(url)
        .map_err(|_| ConfigError::Value("--database-url is no postgres:// URL".to_owned()))
}

/// What is advertised, or the address that is listened on where it is a certain one.
fn monitors(advertise: Option<&str>, listen: &str) -> Result<Vec<String>, ConfigError> {
    let Some(advertise) = advertise else {
        let address: Option<SocketAddr> = listen.parse().ok();
        let certain = address.filter(|a| !a.ip().is_unspecified() && a.port() != 0);
        return Ok(certain.map(|address| format!("http://{address}")).into_iter().collect());
    };
    let urls = advertise.split(',').map(|url| url.trim().trim_end_matches('/').to_owned());
    let urls: Vec<_> = urls.filter(|url| !url.is_empty()).collect();
    match urls.iter().find(|url| !url.starts_with("http://") && !url.starts_with("https://")) {
        Some(url) => Err(ConfigError::Value(format!(
            "--advertise takes URLs such as http://monitor:7432, and '{url}' is none"
        ))),
        None => Ok(urls),
    }
}

impl FromStr for Milliseconds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let factor = match unit {
            "ms" => Some(1),
            "s" => Some(1000),
            "min" => Some(60_000),
            _ => None,
        };
        let number: Option<u64> = number.parse().ok();
        number
            .zip(factor)
            .and_then(|(number, factor): (u64, u64)| number.checked_mul(factor))
            .map(Self)
            .ok_or_else(|| format!("'{text}' is not a time such as 500ms, 3s or 1min"))
    }
}

impl TryFrom<String> for Milliseconds {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use program::arguments::unlike;

    #[test]
    fn the_file_gives_what_is_not_said_elsewhere() {
        let file: Options =
            toml::from_str("data-dir = '/a'\nlisten = '127.0.0.1:1'\nnode-timeout = '1s'\n")
                .unwrap();
        let given = Options { listen: Some("127.0.0.1:2".to_owned()), ..Options::default() };
        let config = given.or(file).check().unwrap();
        assert_eq!(config.listen, "127.0.0.1:2");
        assert_eq!(config.monitors, ["http://127.0.0.1:2"]);
        assert_eq!(config.settings.node_timeout_ms, 1000);
    }

    /// Flag, variable and key of the file have one name.
    #[test]
    fn every_option_has_a_variable_and_a_place_in_the_file() {
        let definition = crate::cli::definition();
        definition.clone().debug_assert();
        let in_file = |line: &str| toml::from_str::<Options>(line).is_ok();
        assert_eq!(unlike(&definition, "run", in_file), [""; 0]);
        assert!(!in_file("no-such-option = 1"));
    }

    #[test]
    fn bad_values_are_refused() {
        for bad in ["3", "s", "-1s", "1h", ""] {
            assert!(bad.parse::<Milliseconds>().is_err(), "{bad}");
        }
        let data_dir = Some(PathBuf::from("/a"));
        let timers = TimerOptions { lease: Some(Milliseconds(3000)), ..TimerOptions::default() };
        let options = Options { data_dir: data_dir.clone(), timers, ..Options::default() };
        assert!(options.check().is_err());
        let advertise = Some("monitor:7432".to_owned());
        assert!(Options { data_dir, advertise, ..Options::default() }.check().is_err());
        assert!(Options::default().check().is_err());
    }
}
