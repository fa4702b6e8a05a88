//! The command line: options by flag, by environment, and in a TOML file, in that order.

use crate::archive::{self, tool};
use crate::config::Config;
use crate::create;
use crate::managed::Hba;
use crate::{attach, leave, run, service, status};
use clap::{Args, CommandFactory as _, Parser, Subcommand};
use ctl::client::parse_monitor_urls;
use program::manual::{self, Completions, Manual};
use serde::Deserialize;
use shared::api::ApiError;
use shared::host::Host;
use shared::version::Version;
use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// The keeper of pgtandem: supervises one PostgreSQL and carries out what the monitor decides.
#[derive(Debug, Parser)]
#[command(name = "pgtandem-keeper", disable_version_flag = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// Print the version: product, protocol and schema.
    #[arg(long, short = 'V', global = true)]
    version: bool,
    /// Results as JSON.
    #[arg(long, global = true)]
    json: bool,
    /// How log records are written: text or json [default: text].
    #[arg(long, global = true, env = "PGTANDEM_LOG_FORMAT")]
    log_format: Option<LogFormat>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Register the node if need be, bring Postgres to its goal, and keep it there.
    Run(Box<Options>),
    /// Register the node and bring its Postgres up to its goal once, then stop both.
    Create(Box<Options>),
    /// Show this node as its keeper sees it; works with the monitor and the keeper down.
    Status(Box<Options>),
    /// Leave a lost monitor without stopping Postgres: call none until `attach`.
    Detach(Box<DetachOptions>),
    /// Call another monitor from now on, without a new copy and without stopping Postgres.
    Attach(Box<Options>),
    /// Leave the formation from the node itself, also with the monitor down.
    Drop(Box<DropOptions>),
    /// What `archive_command` calls: store a WAL file in the archive, where the keeper says that it may.
    WalPush(tool::PushOptions),
    /// What `restore_command` calls: fetch a WAL file from the archive, where the keeper says that it may.
    WalGet(tool::GetOptions),
    /// Print the plan's table: what is done for each goal.
    Rules,
    /// Print a unit of systemd that runs the keeper with the same options.
    Systemd(Box<UnitOptions>),
    /// Print the completions of a shell.
    Completions(Completions),
    /// Print the manual page, or write one for each command.
    Man(Manual),
}

impl Command {
    /// What it was told of the node.
    fn options(&self) -> Option<&Options> {
        match self {
            Self::Run(options)
            | Self::Create(options)
            | Self::Status(options)
            | Self::Attach(options) => Some(options),
            Self::Detach(detach) => Some(&detach.options),
            Self::Drop(drop) => Some(&drop.options),
            Self::Systemd(unit) => Some(&unit.options),
            Self::WalPush(_)
            | Self::WalGet(_)
            | Self::Rules
            | Self::Completions(_)
            | Self::Man(_) => None,
        }
    }
}

/// How log records are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
enum LogFormat {
    /// A line of text for people.
    #[default]
    Text,
    /// A JSON object a line.
    Json,
}

/// Leave the formation.
#[derive(Debug, Args)]
struct DropOptions {
    /// Remove the data directory, its WAL and the keeper's state as well.
    #[arg(long)]
    destroy: bool,
    #[command(flatten)]
    options: Options,
}

/// Leave a lost monitor.
#[derive(Debug, Args)]
struct DetachOptions {
    /// Although the monitor answers and knows this node: it may promote another one.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    options: Options,
}

/// A unit of systemd.
#[derive(Debug, Args)]
pub(crate) struct UnitOptions {
    /// Who runs the keeper and its Postgres [default: root runs the keeper].
    #[arg(long, value_name = "USER")]
    pub(crate) user: Option<String>,
    #[command(flatten)]
    pub(crate) options: Options,
}

/// Options of the node; all can be given as `PGTANDEM_*` or in the file of `--config`.
#[derive(Clone, Debug, Default, Args, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct Options {
    /// A TOML file with any of these options.
    #[arg(long, env = "PGTANDEM_CONFIG")]
    #[serde(skip)]
    config: Option<PathBuf>,
    /// The monitor: URL[,URL...], such as `http://monitor:7432`.
    #[arg(long, env = "PGTANDEM_MONITOR")]
    monitor: Option<String>,
    /// The data directory; created where it is missing.
    #[arg(long, env = "PGTANDEM_PGDATA")]
    pgdata: Option<PathBuf>,
    /// The node's name.
    #[arg(long, env = "PGTANDEM_NAME")]
    name: Option<String>,
    /// The address under which clients and the other nodes reach this Postgres.
    #[arg(long, env = "PGTANDEM_HOST")]
    host: Option<String>,
    /// Its port [default: 5432].
    #[arg(long, env = "PGTANDEM_PORT")]
    port: Option<u16>,
    /// `listen_addresses` of Postgres [default: the host, and localhost].
    #[arg(long, env = "PGTANDEM_LISTEN_ADDRESSES")]
    listen_addresses: Option<String>,
    /// The formation [default: default].
    #[arg(long, env = "PGTANDEM_FORMATION")]
    formation: Option<String>,
    /// 0 to 100; 0: never promoted by itself [default: 50].
    #[arg(long, env = "PGTANDEM_CANDIDATE_PRIORITY")]
    candidate_priority: Option<u8>,
    /// Whether commits may wait for this node [default: true].
    #[arg(long, env = "PGTANDEM_REPLICATION_QUORUM")]
    replication_quorum: Option<bool>,
    /// Where the node stands, for people.
    #[arg(long, env = "PGTANDEM_ZONE")]
    zone: Option<String>,
    /// A join token, where the monitor asks for one.
    #[arg(long, env = "PGTANDEM_JOIN_TOKEN", hide_env_values = true)]
    join_token: Option<String>,
    /// The directory of PostgreSQL's programs [default: PATH, then the newest installed].
    #[arg(long, env = "PGTANDEM_BIN_DIR")]
    bin_dir: Option<PathBuf>,
    /// The directory of the unix socket [default: /var/run/postgresql if it is there, else the state directory].
    #[arg(long, env = "PGTANDEM_SOCKET_DIR")]
    socket_dir: Option<PathBuf>,
    /// Where WAL goes, if not into the data directory.
    #[arg(long, env = "PGTANDEM_WALDIR")]
    waldir: Option<PathBuf>,
    /// The keeper's own state [default: PGDATA with .pgtandem appended].
    #[arg(long, env = "PGTANDEM_STATE_DIR")]
    state_dir: Option<PathBuf>,
    /// Where load balancers ask for the role [default: 0.0.0.0:8008, or `[::]:8008` where the host is an IPv6 address].
    #[arg(long, env = "PGTANDEM_REST_LISTEN")]
    rest_listen: Option<String>,
    /// A database to create with a new cluster.
    #[arg(long, env = "PGTANDEM_DBNAME")]
    dbname: Option<String>,
    /// The managed block of `pg_hba.conf`: manage (a line per member), lan (own networks) or skip.
    #[arg(long, env = "PGTANDEM_HBA", value_enum)]
    hba: Option<Hba>,
    /// The method of initdb's own lines in `pg_hba.conf` [default: peer and scram-sha-256].
    #[arg(long, env = "PGTANDEM_AUTH")]
    auth: Option<String>,
    /// Limits copies, such as 100M a second.
    #[arg(long, env = "PGTANDEM_MAX_RATE")]
    max_rate: Option<String>,
    /// How much WAL the slots of a lost member may keep [default: 16GB].
    #[arg(long, env = "PGTANDEM_MAX_SLOT_WAL_KEEP_SIZE")]
    max_slot_wal_keep_size: Option<String>,
    /// The superuser of the cluster [default: postgres].
    #[arg(long, env = "PGTANDEM_SUPERUSER")]
    superuser: Option<String>,
    /// Who runs Postgres, when the keeper is root [default: the owner of PGDATA, else postgres].
    #[arg(long, env = "PGTANDEM_RUN_AS")]
    run_as: Option<String>,
    /// A watchdog device such as `/dev/watchdog`, fed while this is the primary: it resets a host that
    /// freezes whole. Where it cannot be opened the keeper warns and goes on without.
    #[arg(long, env = "PGTANDEM_WATCHDOG", value_name = "DEVICE")]
    watchdog: Option<PathBuf>,
    /// Archive WAL and take backups with pgBackRest, under this stanza.
    #[arg(long, env = "PGTANDEM_PGBACKREST_STANZA", value_name = "NAME")]
    pgbackrest_stanza: Option<String>,
    /// The configuration file of pgBackRest [default: its own default].
    #[arg(long, env = "PGTANDEM_PGBACKREST_CONFIG", value_name = "FILE")]
    pgbackrest_config: Option<PathBuf>,
    /// Archive WAL with this command instead: it stores the file %p durably as %f, never overwrites, and
    /// succeeds where the same file is there already.
    #[arg(long, env = "PGTANDEM_ARCHIVE_PUSH", value_name = "COMMAND")]
    archive_push: Option<String>,
    /// Fetches the file %f of the archive to %p; ends with 1 where it is not there.
    #[arg(long, env = "PGTANDEM_ARCHIVE_GET", value_name = "COMMAND")]
    archive_get: Option<String>,
    /// Takes a backup, after each promotion.
    #[arg(long, env = "PGTANDEM_ARCHIVE_BACKUP", value_name = "COMMAND")]
    archive_backup: Option<String>,
    /// Runs a command, or posts to an http:// or https:// URL, at an event of this node: `on_role_change`,
    /// `pre_promote` (may refuse), `post_promote`, `pre_demote` or `on_fence`. May be given several times; in the
    /// environment one a line, in the file as a list. A command runs as the keeper's user and without a shell.
    #[arg(long, env = "PGTANDEM_HOOK", value_name = "EVENT=COMMAND|URL", value_delimiter = '\n')]
    #[arg(hide_env_values = true)]
    #[serde(deserialize_with = "hooks::hook::one_or_many")]
    hook: Option<Vec<String>>,
    /// How many seconds a hook may take; then it is killed [default: 10].
    #[arg(long, env = "PGTANDEM_HOOK_TIMEOUT", value_name = "SECONDS")]
    hook_timeout: Option<u32>,
    /// The certificates (PEM) of the authorities that vouch for the servers of https:// hooks [default: those of
    /// this host].
    #[arg(long, env = "PGTANDEM_HOOK_CA_FILE", value_name = "FILE")]
    hook_ca_file: Option<PathBuf>,
    /// How a copy for a standby is made: basebackup, pgbackrest, or a command, which begins with `/`. Several
    /// are tried in this order [default: basebackup].
    #[arg(long, env = "PGTANDEM_CREATE_REPLICA", value_name = "WAY", value_delimiter = ';')]
    #[serde(deserialize_with = "create::one_or_several")]
    create_replica: Vec<String>,
    /// After so many seconds without progress a way is given up, and the next one tried [default: 300].
    #[arg(long, env = "PGTANDEM_CREATE_REPLICA_TIMEOUT", value_name = "SECONDS")]
    create_replica_timeout: Option<u64>,
    /// As the file says; the flag is one of all commands.
    #[arg(skip)]
    log_format: Option<LogFormat>,
}

/// A failure with its exit code.
pub(crate) fn failure(code: u8, reason: &str, message: impl Into<String>) -> ApiError {
    ApiError { code, reason: reason.to_owned(), message: message.into(), nodes: Vec::new() }
}

/// One line on standard error; the same as JSON on standard output where that was asked for.
pub(crate) fn complain(failure: &ApiError) {
    let line = failure.message.lines().collect::<Vec<_>>().join(" ");
    drop(writeln!(std::io::stderr(), "pgtandem-keeper: {line}"));
    if wants_json()
        && let Ok(text) = serde_json::to_string(failure)
    {
        say(&text);
    }
}

fn wants_json() -> bool {
    std::env::args().any(|word| word == "--json")
}

/// The one door of results. A reader that went away, as `head` does, has seen enough.
pub(crate) fn say(text: &str) {
    drop(writeln!(std::io::stdout(), "{text}"));
}

/// Runs the program to its end. `protocol` is what it speaks with the monitor.
pub fn main(protocol: u32, arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() && wants_json() => {
            complain(&failure(1, "bad_arguments", program::arguments::wrong(&error)));
            return ExitCode::from(1);
        }
        Err(error) => {
            // Nothing can be done about a closed terminal.
            drop(error.print());
            return ExitCode::from(u8::from(error.use_stderr()));
        }
    };
    match cli.execute(protocol) {
        Ok(code) => code,
        Err(failure) => {
            complain(&failure);
            ExitCode::from(failure.code)
        }
    }
}

/// The command line, as defined.
pub fn definition() -> clap::Command {
    Cli::command().version(env!("CARGO_PKG_VERSION"))
}

impl Cli {
    fn execute(self, protocol: u32) -> Result<ExitCode, ApiError> {
        if self.version {
            let version = Version { protocol, ..Version::of("pgtandem-keeper") };
            say(&if self.json {
                serde_json::json!(version).to_string()
            } else {
                version.to_string()
            });
            return Ok(ExitCode::SUCCESS);
        }
        let options = self.command.as_ref().and_then(Command::options);
        let in_file = options.map(Options::merged).transpose()?.and_then(|all| all.log_format);
        start_logging(self.log_format.or(in_file).unwrap_or_default());
        match self.command {
            None => {
                Err(failure(1, "no_command", "say what to do; `pgtandem-keeper --help` lists it"))
            }
            Some(Command::Run(options)) => run::run(options.validate(protocol)?, run::Until::Ended),
            Some(Command::Create(options)) => {
                run::run(options.validate(protocol)?, run::Until::Reached)
            }
            Some(Command::Status(options)) => status::show(&options.local()?, self.json),
            Some(Command::Detach(detach)) => {
                attach::detach(&detach.options.local()?, detach.force, self.json)
            }
            Some(Command::Attach(options)) => {
                // What the file of --config says is the monitor that was lost.
                let monitor = options.monitor.clone().ok_or_else(|| missing("--monitor"))?;
                let token = options.join_token.clone();
                attach::attach(&options.local()?, &monitor, token, self.json)
            }
            Some(Command::Drop(drop)) => {
                let local = drop.options.local()?;
                leave::leave(&local, drop.destroy, self.json)
            }
            Some(Command::WalPush(push)) => tool::push(&push),
            Some(Command::WalGet(get)) => tool::get(&get),
            Some(Command::Rules) => Ok(shown(&status::rules(self.json))),
            Some(Command::Systemd(unit)) => {
                let config = unit.options.validate(protocol)?;
                Ok(shown(&service::unit(&config, unit.user)?))
            }
            Some(Command::Completions(wanted)) => {
                Ok(shown(&manual::completions(definition(), wanted.shell)))
            }
            Some(Command::Man(wanted)) => {
                let text = wanted.make(definition(), self.json);
                Ok(shown(&text.map_err(|error| failure(2, "directory", error.to_string()))?))
            }
        }
    }
}

fn shown(text: &str) -> ExitCode {
    say(text.trim_end());
    ExitCode::SUCCESS
}

fn start_logging(format: LogFormat) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("PGTANDEM_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false);
    match format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}

/// What the commands need that only look.
#[derive(Debug)]
pub(crate) struct Local {
    pub(crate) pgdata: PathBuf,
    pub(crate) state_dir: PathBuf,
    pub(crate) rest_listen: String,
    pub(crate) monitor: Option<String>,
}

impl Options {
    /// With what the file of `--config` says where neither flag nor environment does.
    fn merged(&self) -> Result<Self, ApiError> {
        let Some(path) = &self.config else { return Ok(self.clone()) };
        let file: Self = program::file::read(path).map_err(|why| {
            failure(2, "bad_configuration", format!("cannot use {}: {why}", path.display()))
        })?;
        let own = self.clone();
        Ok(Self {
            config: None,
            monitor: own.monitor.or(file.monitor),
            pgdata: own.pgdata.or(file.pgdata),
            name: own.name.or(file.name),
            host: own.host.or(file.host),
            port: own.port.or(file.port),
            listen_addresses: own.listen_addresses.or(file.listen_addresses),
            formation: own.formation.or(file.formation),
            candidate_priority: own.candidate_priority.or(file.candidate_priority),
            replication_quorum: own.replication_quorum.or(file.replication_quorum),
            zone: own.zone.or(file.zone),
            join_token: own.join_token.or(file.join_token),
            bin_dir: own.bin_dir.or(file.bin_dir),
            socket_dir: own.socket_dir.or(file.socket_dir),
            waldir: own.waldir.or(file.waldir),
            state_dir: own.state_dir.or(file.state_dir),
            rest_listen: own.rest_listen.or(file.rest_listen),
            dbname: own.dbname.or(file.dbname),
            hba: own.hba.or(file.hba),
            auth: own.auth.or(file.auth),
            max_rate: own.max_rate.or(file.max_rate),
            max_slot_wal_keep_size: own.max_slot_wal_keep_size.or(file.max_slot_wal_keep_size),
            superuser: own.superuser.or(file.superuser),
            run_as: own.run_as.or(file.run_as),
            watchdog: own.watchdog.or(file.watchdog),
            pgbackrest_stanza: own.pgbackrest_stanza.or(file.pgbackrest_stanza),
            pgbackrest_config: own.pgbackrest_config.or(file.pgbackrest_config),
            archive_push: own.archive_push.or(file.archive_push),
            archive_get: own.archive_get.or(file.archive_get),
            archive_backup: own.archive_backup.or(file.archive_backup),
            hook: own.hook.or(file.hook),
            hook_timeout: own.hook_timeout.or(file.hook_timeout),
            hook_ca_file: own.hook_ca_file.or(file.hook_ca_file),
            create_replica: if own.create_replica.is_empty() {
                file.create_replica
            } else {
                own.create_replica
            },
            create_replica_timeout: own.create_replica_timeout.or(file.create_replica_timeout),
            log_format: file.log_format,
        })
    }

    fn local(&self) -> Result<Local, ApiError> {
        let options = self.merged()?;
        let pgdata = absolute(options.pgdata.clone().ok_or_else(|| missing("--pgdata"))?)?;
        Ok(Local {
            state_dir: absolute(options.state_dir.unwrap_or_else(|| beside(&pgdata)))?,
            rest_listen: options.rest_listen.unwrap_or_else(|| "127.0.0.1:8008".to_owned()),
            monitor: options.monitor,
            pgdata,
        })
    }

    fn validate(&self, protocol: u32) -> Result<Config, ApiError> {
        let options = self.merged()?;
        let bad = |text: String| failure(1, "bad_value", text);
        let monitor = options.monitor.ok_or_else(|| missing("--monitor"))?;
        let monitors = parse_monitor_urls(&monitor).map_err(|error| bad(error.to_string()))?;
        let pgdata = absolute(options.pgdata.ok_or_else(|| missing("--pgdata"))?)?;
        let name = options.name.ok_or_else(|| missing("--name"))?;
        let host = options.host.ok_or_else(|| missing("--host"))?;
        if Host::parse(&host).is_none() {
            return Err(bad(format!("--host '{host}' is neither a host name nor an address")));
        }
        let state_dir = absolute(options.state_dir.unwrap_or_else(|| beside(&pgdata)))?;
        let rest = options.rest_listen.unwrap_or_else(|| rest_listen(&host).to_owned());
        let rest_listen = rest.parse().map_err(|_| {
            bad(format!("'{rest}' is not an address to listen on; write it like 0.0.0.0:8008"))
        })?;
        let candidate_priority = options.candidate_priority.unwrap_or(50);
        if candidate_priority > 100 {
            return Err(bad(format!(
                "candidate priority must be from 0 to 100, and is {candidate_priority}"
            )));
        }
        let formation = options.formation.unwrap_or_else(|| "default".to_owned());
        let archive = archive::Given {
            stanza: options.pgbackrest_stanza,
            config: options.pgbackrest_config.map(absolute).transpose()?,
            push: options.archive_push,
            get: options.archive_get,
            backup: options.archive_backup,
        };
        let archive = archive.validate()?;
        let hooks = parse_hooks(&options.hook.unwrap_or_default())?;
        let hook_web = hooks::Web::new(&hooks, options.hook_ca_file.as_deref())
            .map_err(|error| failure(1, "bad_value", error.to_string()))?;
        Ok(Config {
            create_replica: create::ways(&options.create_replica, archive.as_ref())?,
            create_replica_patience: create::patience(options.create_replica_timeout)?,
            archive,
            protocol,
            monitors,
            formation: formation
                .parse()
                .map_err(|e: shared::ids::InvalidName| bad(e.to_string()))?,
            name: name.parse().map_err(|e: shared::ids::InvalidName| bad(e.to_string()))?,
            listen_addresses: options.listen_addresses.unwrap_or_else(|| listen(&host)),
            host,
            port: options.port.unwrap_or(5432),
            socket_dir: absolute(options.socket_dir.unwrap_or_else(|| socket_dir(&state_dir)))?,
            waldir: options.waldir.map(absolute).transpose()?,
            bin_dir: options.bin_dir.map(absolute).transpose()?,
            pgdata,
            state_dir,
            rest_listen,
            candidate_priority,
            replication_quorum: options.replication_quorum.unwrap_or(true),
            zone: options.zone,
            join_token: options.join_token,
            dbname: options.dbname,
            hba: options.hba.unwrap_or_default(),
            auth: options.auth,
            max_rate: options.max_rate,
            max_slot_wal_keep_size: options
                .max_slot_wal_keep_size
                .unwrap_or_else(|| "16GB".to_owned()),
            superuser: options.superuser.unwrap_or_else(|| "postgres".to_owned()),
            run_as: options.run_as,
            watchdog: options.watchdog.map(absolute).transpose()?,
            hooks,
            hook_web,
            hook_timeout: hook_timeout(options.hook_timeout)?,
        })
    }
}

fn parse_hooks(texts: &[String]) -> Result<Vec<hooks::Hook>, ApiError> {
    hooks::Hook::parse_all(texts, &crate::hooks::EVENTS)
        .map_err(|error| failure(1, "bad_value", error.to_string()))
}

fn hook_timeout(seconds: Option<u32>) -> Result<Duration, ApiError> {
    let Some(seconds) = seconds else { return Ok(crate::hooks::DEFAULT_LIMIT) };
    let limit = Duration::from_secs(seconds.into());
    if limit.is_zero() || limit > crate::hooks::LONGEST_LIMIT {
        let longest = crate::hooks::LONGEST_LIMIT.as_secs();
        let text = format!("hook timeout must be from 1 to {longest} seconds, and is {seconds}");
        return Err(failure(1, "bad_value", text));
    }
    Ok(limit)
}

fn missing(option: &str) -> ApiError {
    let variable = option.trim_start_matches('-').replace('-', "_").to_uppercase();
    failure(
        2,
        "missing_option",
        format!("{option} is needed (or PGTANDEM_{variable}, or the file of --config)"),
    )
}

fn absolute(path: impl AsRef<Path>) -> Result<PathBuf, ApiError> {
    let path = path.as_ref();
    std::path::absolute(path).map_err(|error| {
        failure(1, "bad_value", format!("'{}' is no path: {error}", path.display()))
    })
}

fn beside(pgdata: &Path) -> PathBuf {
    let mut name = pgdata.file_name().unwrap_or_default().to_owned();
    name.push(".pgtandem");
    pgdata.with_file_name(name)
}

fn socket_dir(state_dir: &Path) -> PathBuf {
    let usual = PathBuf::from("/var/run/postgresql");
    if usual.is_dir() { usual } else { state_dir.to_owned() }
}

pub(crate) fn listen(host: &str) -> String {
    match host {
        "localhost" | "127.0.0.1" => host.to_owned(),
        other => format!("{other},localhost"),
    }
}

/// Where the monitor, the other nodes and load balancers look for it: at the host's address.
fn rest_listen(host: &str) -> &'static str {
    if host.contains(':') { "[::]:8008" } else { "0.0.0.0:8008" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use program::arguments::unlike;

    /// Flag, variable and key of the file have one name.
    #[test]
    fn every_option_has_a_variable_and_a_place_in_the_file() {
        let definition = definition();
        definition.clone().debug_assert();
        let in_file = |line: &str| toml::from_str::<Options>(line).is_ok();
        assert_eq!(unlike(&definition, "run", in_file), [""; 0]);
        assert!(!in_file("no-such-option = 1"));
    }

    #[test]
    fn a_node_with_an_ipv6_address_is_asked_by_ipv6() {
        assert_eq!(rest_listen("10.0.0.11"), "0.0.0.0:8008");
        assert_eq!(rest_listen("db1.example.org"), "0.0.0.0:8008");
        let address: std::net::SocketAddr = rest_listen("fd00::3").parse().unwrap();
        assert!(address.is_ipv6() && address.ip().is_unspecified());
    }
}
