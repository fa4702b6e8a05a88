//! What each client takes in its connection string. Pure.
//!
//! What must hold: nothing is printed that the client refuses or reads as something else. libpq and
//! tokio-postgres refuse keys that they do not know, and have different units for `tcp_user_timeout`;
//! sqlx and node-postgres ignore them, so that a limit in their string would only seem to be one.
//!
//! Other clients are not here: what their own documentation says of them is in docs/clients.md.

use super::tls::{SslMode, Tls};
use super::{Login, Options, Server, escape, escape_but};
use crate::exit::Exit;
use crate::failure::Failure;
use shared::settings::Timers;

/// Less is nothing that libpq recommends; more delays whoever connects while a host is gone.
const CONNECT_SECONDS: u16 = 2;

/// By so much longer than the node timeout is the limit for silence: whoever is silent for so long is not the
/// primary any more, and another has been promoted meanwhile.
const PROMOTION_SECONDS: u64 = 1;

/// Unanswered probes of an idle connection before it counts as lost.
const PROBES: u64 = 3;

/// A key and its value.
pub(super) type Parameter = (&'static str, String);

/// A client, or the library that it is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Client {
    /// psql, pgbench, psycopg and all that is made with libpq 14 or newer; several hosts
    Libpq,
    /// tokio-postgres and postgres for Rust; several hosts, a standby is never replaced by the primary
    TokioPostgres,
    /// sqlx for Rust; one host in each line, no time limits
    Sqlx,
    /// pg for Node.js; one host in each line, no time limits
    NodePostgres,
}

/// After how long a client gives up a host that does not answer.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Limits {
    /// Seconds for connecting to one host; 0 leaves the limit out [default: 2]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u16).range(..=3600))]
    connect_timeout: Option<u16>,
    /// Seconds after which a connection counts as lost on which nothing is confirmed
    /// (`tcp_user_timeout` and keepalives); 0 leaves them out [default: 1 more than the node timeout]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u16).range(..=3600))]
    tcp_timeout: Option<u16>,
}

impl Client {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Libpq => "libpq",
            Self::TokioPostgres => "tokio-postgres",
            Self::Sqlx => "sqlx",
            Self::NodePostgres => "node-postgres",
        }
    }

    /// Whether one string can name all nodes.
    pub(super) fn takes_several_hosts(self) -> bool {
        match self {
            Self::Libpq | Self::TokioPostgres => true,
            Self::Sqlx | Self::NodePostgres => false,
        }
    }

    /// Whether it takes an IPv6 address with a zone.
    pub(super) fn takes_zones(self) -> bool {
        match self {
            Self::Libpq | Self::TokioPostgres => true,
            // What they parse URIs with refuses one.
            Self::Sqlx | Self::NodePostgres => false,
        }
    }

    /// The name of a database, as it stands in the path.
    pub(super) fn path(self, database: &str) -> String {
        match self {
            Self::Libpq | Self::TokioPostgres | Self::Sqlx => escape(database),
            // It decodes all but these (`decodeURI`), which a path takes as they are.
            Self::NodePostgres => escape_but(database, b";:@&=+$,"),
        }
    }

    /// All that stands behind the question mark.
    pub(super) fn parameters(
        self,
        server: Server,
        options: &Options,
        timers: &Timers,
    ) -> Vec<Parameter> {
        let target = self.target_session_attrs(server);
        let mut parameters: Vec<Parameter> = Vec::new();
        parameters.extend(target.map(|target| ("target_session_attrs", target.to_owned())));
        parameters.extend(self.limits(&options.limits, timers));
        if options.load_balance_hosts {
            parameters.push(("load_balance_hosts", "random".to_owned()));
        }
        if self == Self::NodePostgres && options.tls.mode().is_some() {
            // Otherwise every mode but `disable` is `verify-full`.
            parameters.push(("uselibpqcompat", "true".to_owned()));
        }
        parameters.extend(options.tls.parameters());
        parameters
    }

    /// What it calls the server that is wanted. One that does not look asks the server itself.
    fn target_session_attrs(self, server: Server) -> Option<&'static str> {
        match (self, server) {
            (Self::Libpq | Self::TokioPostgres, Server::Primary) => Some("read-write"),
            (Self::Libpq | Self::TokioPostgres, Server::Any) => Some("any"),
            (Self::Libpq, Server::Standby) => Some("prefer-standby"),
            (Self::TokioPostgres, Server::Standby) => Some("read-only"),
            (Self::Sqlx | Self::NodePostgres, Server::Primary | Server::Any | Server::Standby) => {
                None
            }
        }
    }

    fn limits(self, limits: &Limits, timers: &Timers) -> Vec<Parameter> {
        if !self.takes_several_hosts() {
            return Vec::new();
        }
        let mut parameters = Vec::new();
        let connect = limits.connect_timeout.unwrap_or(CONNECT_SECONDS);
        if connect > 0 {
            parameters.push(("connect_timeout", connect.to_string()));
        }
        let node_timeout = timers.node_timeout_ms.div_ceil(1000);
        let seconds = limits.tcp_timeout.map_or(node_timeout + PROMOTION_SECONDS, u64::from);
        if seconds > 0 {
            let (per_second, probes) = match self {
                Self::TokioPostgres => (1, "keepalives_retries"),
                Self::Libpq | Self::Sqlx | Self::NodePostgres => (1000, "keepalives_count"),
            };
            // Together as long as the limit for what has been sent.
            let interval = (seconds / (PROBES + 2)).max(1);
            let idle = seconds.saturating_sub(PROBES * interval).max(1);
            parameters.push(("tcp_user_timeout", (seconds * per_second).to_string()));
            parameters.push(("keepalives_idle", idle.to_string()));
            parameters.push(("keepalives_interval", interval.to_string()));
            parameters.push((probes, PROBES.to_string()));
        }
        parameters
    }

    /// What was asked for and cannot be said to this client is refused, not left out.
    pub(super) fn check(self, login: &Login, options: &Options) -> Result<(), Failure> {
        let Options { limits, load_balance_hosts, tls } = options;
        tls.check()?;
        let asks_for_limits = limits.connect_timeout.or(limits.tcp_timeout).is_some();
        let name = self.name();
        let wrong = match self {
            Self::Sqlx | Self::NodePostgres if asks_for_limits => {
                format!("{name} takes no time limits from its string: set them in the program")
            }
            Self::Sqlx | Self::NodePostgres if *load_balance_hosts => {
                format!("{name} takes one host: the program tries the lines in what order it likes")
            }
            Self::Sqlx | Self::NodePostgres if [".", ".."].contains(&login.dbname.as_str()) => {
                format!("{name} takes '{}' for no database but a step in a path", login.dbname)
            }
            Self::NodePostgres if login.dbname.contains(['/', '?', '#']) => format!(
                "{name} cannot be told of a database with '/', '?' or '#' in its name: name it in the program"
            ),
            Self::Libpq | Self::TokioPostgres | Self::Sqlx | Self::NodePostgres => {
                return self.check_tls(tls);
            }
        };
        Err(Failure::new(Exit::BadArguments, "bad_value", wrong))
    }

    fn check_tls(self, tls: &Tls) -> Result<(), Failure> {
        let (name, mode) = (self.name(), tls.mode());
        let wrong = match self {
            Self::TokioPostgres if tls.has_files() => {
                format!("{name} has its certificates from the TLS connector, not from its string")
            }
            Self::TokioPostgres if mode.is_some_and(SslMode::is_not_of_tokio_postgres) => {
                format!("{name} knows --sslmode disable, prefer or require: a TLS connector checks")
            }
            Self::NodePostgres if mode.is_some_and(SslMode::may_be_either) => format!(
                "{name} does not try both: --sslmode disable, require, verify-ca or verify-full"
            ),
            Self::NodePostgres if mode == Some(SslMode::VerifyCa) && !tls.has_root() => {
                format!("{name} needs --sslrootcert for --sslmode verify-ca")
            }
            Self::Sqlx if mode == Some(SslMode::Require) && tls.has_root() => {
                format!(
                    "{name} checks nothing with --sslmode require: take verify-ca or verify-full"
                )
            }
            Self::Sqlx | Self::NodePostgres if tls.has_system_root() => {
                format!("{name} takes a file for --sslrootcert, not the word system")
            }
            Self::Sqlx | Self::NodePostgres if tls.has_half_of_an_own() => {
                format!("{name} needs --sslcert and --sslkey together")
            }
            Self::Libpq | Self::TokioPostgres | Self::Sqlx | Self::NodePostgres => return Ok(()),
        };
        Err(Failure::new(Exit::BadArguments, "bad_value", wrong))
    }
}
