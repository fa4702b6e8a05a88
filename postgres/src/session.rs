//! A connection to one Postgres, for questions and orders of our own.
//!
//! What must hold: every connect and every statement has a limit; a statement that runs over it is
//! cancelled at the server. Commits of a session do not wait for standbys (`synchronous_commit =
//! local`) unless they are probes, so that no order of ours hangs behind a synchronous standby. Notices
//! are kept, since a commit whose wait was cancelled looks like success but for its warning. Not here:
//! what answers mean (except the order in which the signs of a seal are asked for, which is part of
//! their meaning).
//!
//! The statements are in `session/`: standbys, primaries, slots, settings, one file each.

use crate::instance::Instance;
use std::error::Error as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio_postgres::error::{DbError, Severity, SqlState};
use tokio_postgres::types::{FromSql, ToSql};
use tokio_postgres::{AsyncMessage, Client, Config, NoTls, Row};

pub mod primary;
pub mod retention;
pub mod settings;
pub mod slots;
pub mod standby;

/// The `application_name` of all our sessions; no member has it.
pub const APPLICATION_NAME: &str = "pgtandem";

/// Notices kept at the most; the newest win.
const KEPT_NOTICES: usize = 100;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// Nobody listens there: the host lives, Postgres does not.
    #[error("connection to {to} refused")]
    Refused {
        /// Host and port.
        to: String,
        /// The cause.
        source: tokio_postgres::Error,
    },
    /// No answer in time.
    #[error("no answer from {to} within {} ms while trying to {action}", limit.as_millis())]
    Timeout {
        /// Host and port.
        to: String,
        /// What was tried.
        action: &'static str,
        /// The time it was given.
        limit: Duration,
    },
    /// The server is starting up, shutting down or in recovery without hot standby (`cannot_connect_now`).
    #[error("{to} accepts no connections now: {message}")]
    NotNow {
        /// Host and port.
        to: String,
        /// What it says.
        message: String,
    },
    /// Cannot connect for another reason.
    #[error("cannot connect to {to}: {}", said(.source))]
    Connect {
        /// Host and port.
        to: String,
        /// The cause.
        source: tokio_postgres::Error,
    },
    /// A statement failed; `what` says which, without its values.
    #[error("cannot {what}: {}", said(.source))]
    Query {
        /// In words.
        what: &'static str,
        /// The cause.
        source: tokio_postgres::Error,
    },
    /// An answer of another kind than expected.
    #[error("unexpected answer when asking for {0}")]
    Answer(&'static str),
}

impl SessionError {
    /// PostgreSQL's error code, where it was PostgreSQL that refused.
    pub fn code(&self) -> Option<&SqlState> {
        match self {
            Self::Refused { source, .. }
            | Self::Connect { source, .. }
            | Self::Query { source, .. } => source.code(),
            Self::NotNow { .. } => Some(&SqlState::CANNOT_CONNECT_NOW),
            Self::Timeout { .. } | Self::Answer(_) => None,
        }
    }
}

/// The message of the server, or of what lies below.
fn said(error: &tokio_postgres::Error) -> String {
    if let Some(db) = error.as_db_error() {
        return format!("{} ({})", db.message(), db.code().code());
    }
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}

/// Where to connect, and as whom. `Debug` hides the password.
#[derive(Clone)]
pub struct Target {
    host: Host,
    port: u16,
    user: String,
    password: Option<String>,
    dbname: String,
}

#[derive(Clone)]
enum Host {
    Socket(PathBuf),
    Tcp(String),
}

impl Target {
    /// Over the unix socket of an instance.
    pub fn socket(instance: &Instance, user: &str, dbname: &str) -> Self {
        Self {
            host: Host::Socket(instance.socket_dir.clone()),
            port: instance.port,
            user: user.to_owned(),
            password: None,
            dbname: dbname.to_owned(),
        }
    }

    /// Over the network.
    pub fn tcp(host: &str, port: u16, user: &str, dbname: &str) -> Self {
        Self {
            host: Host::Tcp(host.to_owned()),
            port,
            user: user.to_owned(),
            password: None,
            dbname: dbname.to_owned(),
        }
    }

    /// The same over the socket of a server that may have another port.
    #[must_use]
    pub fn of(mut self, instance: &Instance) -> Self {
        self.host = Host::Socket(instance.socket_dir.clone());
        self.port = instance.port;
        self
    }

    /// With a password.
    #[must_use]
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self
    }

    /// Host and port, for messages.
    pub fn name(&self) -> String {
        match &self.host {
            Host::Socket(dir) => format!("{}/.s.PGSQL.{}", dir.display(), self.port),
            Host::Tcp(host) if host.contains(':') => format!("[{host}]:{}", self.port),
            Host::Tcp(host) => format!("{host}:{}", self.port),
        }
    }

    fn config(&self, limit: Duration) -> Config {
        let mut config = Config::new();
        config.user(&self.user).dbname(&self.dbname).port(self.port);
        config.application_name(APPLICATION_NAME).connect_timeout(limit);
        // The operator may limit sessions; ours have limits of their own.
        config.options("-c synchronous_commit=local -c client_min_messages=warning -c statement_timeout=0 -c lock_timeout=0 -c idle_session_timeout=0");
        match &self.host {
            Host::Socket(dir) => config.host_path(dir),
            // A peer that is gone is noticed although nothing is sent, and although something is.
            Host::Tcp(host) => config
                .host(host)
                .tcp_user_timeout(limit.max(Duration::from_secs(1)))
                .keepalives_idle(Duration::from_secs(5))
                .keepalives_interval(Duration::from_secs(2))
                .keepalives_retries(3),
        };
        if let Some(password) = &self.password {
            config.password(password);
        }
        config
    }
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Target({} as {} in {})", self.name(), self.user, self.dbname)
    }
}

/// A message that came beside an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// WARNING or more.
    pub is_warning: bool,
    /// In the server's language.
    pub message: String,
    /// The function of PostgreSQL that raised it; does not depend on the language.
    pub routine: String,
}

impl Notice {
    fn from_server(error: &DbError) -> Self {
        Self {
            is_warning: matches!(
                error.parsed_severity(),
                Some(Severity::Warning | Severity::Error | Severity::Fatal | Severity::Panic)
            ),
            message: error.message().to_owned(),
            routine: error.routine().unwrap_or_default().to_owned(),
        }
    }
}

/// One connection. Dropping it closes it.
pub struct Session {
    client: Client,
    to: String,
    limit: Duration,
    pid: i32,
    notices: Arc<Mutex<Vec<Notice>>>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Session({}, backend {})", self.to, self.pid)
    }
}

impl Session {
    /// Connects. `limit` is the time for connecting, and then for each statement.
    pub async fn connect(target: &Target, limit: Duration) -> Result<Self, SessionError> {
        let to = target.name();
        let config = target.config(limit);
        let work = config.connect(NoTls);
        let (client, mut connection) = match tokio::time::timeout(limit, work).await {
            Err(_) => return Err(SessionError::Timeout { to, action: "connect", limit }),
            Ok(Err(error)) => return Err(connect_error(to, error)),
            Ok(Ok(connected)) => connected,
        };
        let notices = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&notices);
        tokio::spawn(async move {
            // Ends when the client is dropped or the connection breaks; the next statement tells.
            while let Some(Ok(message)) =
                std::future::poll_fn(|context| connection.poll_message(context)).await
            {
                if let AsyncMessage::Notice(notice) = message {
                    keep(&kept, Notice::from_server(&notice));
                }
            }
        });
        let mut session = Self { client, to, limit, pid: 0, notices };
        let row =
            session.one("ask for the backend's number", "SELECT pg_backend_pid()", &[]).await?;
        session.pid = column(&row, 0, "pg_backend_pid")?;
        Ok(session)
    }

    /// The number of the server process of this session.
    pub fn backend_pid(&self) -> i32 {
        self.pid
    }

    /// Whether the connection is known to be broken.
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// The notices since the last call.
    pub fn take_notices(&self) -> Vec<Notice> {
        std::mem::take(&mut *self.notices.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Runs statements without parameters, for instance `CREATE ROLE`. Nothing of `sql` gets into an
    /// error.
    pub async fn execute(&self, sql: &str) -> Result<(), SessionError> {
        self.execute_as("run a statement", sql, self.limit).await
    }

    /// `server_version`, such as `15.18 (Debian 15.18-0+deb12u1)`.
    pub async fn server_version(&self) -> Result<String, SessionError> {
        let sql = "SELECT current_setting('server_version')";
        let row = self.one("ask for the version", sql, &[]).await?;
        column(&row, 0, "server_version")
    }

    /// Whether there is a database of this name.
    pub async fn database_exists(&self, name: &str) -> Result<bool, SessionError> {
        let sql = "SELECT count(*) FROM pg_database WHERE datname = $1";
        let row = self.one("look for a database", sql, &[&name]).await?;
        Ok(column::<i64>(&row, 0, "count")? > 0)
    }

    /// `pg_terminate_backend`; false where there is no such backend (a walreceiver is none).
    pub async fn terminate(&self, pid: i32) -> Result<bool, SessionError> {
        let sql = "SELECT pg_terminate_backend($1)";
        let row = self.one("end a backend", sql, &[&pid]).await?;
        column(&row, 0, "pg_terminate_backend")
    }

    /// What a server process waits for, if anything; `None` too where there is no such process.
    pub async fn backend_wait_event(&self, pid: i32) -> Result<Option<String>, SessionError> {
        let sql = "SELECT wait_event FROM pg_stat_activity WHERE pid = $1";
        let rows = self.rows("ask what a backend waits for", sql, &[&pid]).await?;
        rows.first().map_or(Ok(None), |row| column(row, 0, "wait_event"))
    }

    async fn rows(
        &self,
        what: &'static str,
        sql: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, SessionError> {
        self.limited(what, self.limit, self.client.query(sql, values)).await
    }

    async fn one(
        &self,
        what: &'static str,
        sql: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Row, SessionError> {
        self.limited(what, self.limit, self.client.query_one(sql, values)).await
    }

    async fn execute_as(
        &self,
        what: &'static str,
        sql: &str,
        limit: Duration,
    ) -> Result<(), SessionError> {
        self.limited(what, limit, self.client.batch_execute(sql)).await
    }

    async fn limited<T>(
        &self,
        what: &'static str,
        limit: Duration,
        work: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, SessionError> {
        if let Ok(result) = tokio::time::timeout(limit, work).await {
            return result.map_err(|source| SessionError::Query { what, source });
        }
        self.cancel();
        Err(SessionError::Timeout { to: self.to.clone(), action: what, limit })
    }

    /// Asks the server to give up the present statement, without waiting for that.
    fn cancel(&self) {
        let token = self.client.cancel_token();
        let limit = self.limit;
        tokio::spawn(async move {
            // Best effort: a server that does not answer the statement may not answer this either.
            drop(tokio::time::timeout(limit, token.cancel_query(NoTls)).await);
        });
    }
}

fn keep(notices: &Mutex<Vec<Notice>>, notice: Notice) {
    let mut kept = notices.lock().unwrap_or_else(PoisonError::into_inner);
    if kept.len() == KEPT_NOTICES {
        kept.remove(0);
    }
    kept.push(notice);
}

fn connect_error(to: String, error: tokio_postgres::Error) -> SessionError {
    if error.code() == Some(&SqlState::CANNOT_CONNECT_NOW) {
        return SessionError::NotNow { to, message: said(&error) };
    }
    let below = error.source().and_then(|source| source.downcast_ref::<std::io::Error>());
    match below.map(std::io::Error::kind) {
        Some(std::io::ErrorKind::ConnectionRefused | std::io::ErrorKind::NotFound) => {
            SessionError::Refused { to, source: error }
        }
        _ => SessionError::Connect { to, source: error },
    }
}

fn column<'a, T: FromSql<'a>>(
    row: &'a Row,
    index: usize,
    name: &'static str,
) -> Result<T, SessionError> {
    row.try_get(index).map_err(|_| SessionError::Answer(name))
}
