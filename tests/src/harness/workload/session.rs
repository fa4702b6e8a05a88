//! A client's connection: how it is made, what its answers are worth, and how a client spends its time.
//!
//! What must hold: an outcome never says more than the client can know. Where in doubt it is unknown.

use crate::harness::history::{Outcome, Reign};
use crate::harness::sql::config;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_postgres::config::TargetSessionAttrs;
use tokio_postgres::error::{DbError, Severity};
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client, Config, Connection, NoTls, Row, Socket, Statement};

/// After this a client gives an attempt up and does not know what became of it.
pub(super) const ATTEMPT_LIMIT: Duration = Duration::from_secs(10);

/// Between two looks at a server that takes no writes, or is not there. Short against the outages
/// that are measured, and long enough to leave the processors to the servers.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Between two writes: a busy application, not a benchmark.
const PACE: Duration = Duration::from_millis(4);

/// What a client does again and again with a server that takes writes.
pub(super) trait Work {
    /// What it needs of a session before.
    type Tools;

    /// `None`: the session is lost.
    async fn prepare(&self, session: &Session) -> Option<Self::Tools>;

    /// Does it once; returns whether to go on with the session.
    async fn once(&mut self, session: &Session, tools: &Self::Tools) -> bool;
}

/// A connection, and whether the server warned that a commit did not wait for its standbys.
pub(super) struct Session {
    client: Client,
    warned: Arc<AtomicBool>,
}

/// How to connect to one node, or by a list of nodes to the one that takes writes.
pub(super) fn to_nodes(nodes: &[SocketAddr]) -> Config {
    let mut config = config(nodes);
    config.connect_timeout(Duration::from_secs(1));
    if nodes.len() > 1 {
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
    }
    config
}

/// Works until told to stop, in one session after the other.
pub(super) async fn run<W: Work>(config: Config, mut work: W, stop: watch::Receiver<bool>) {
    // The sender is gone where the workload was dropped.
    let stopped = || *stop.borrow() || stop.has_changed().is_err();
    while !stopped() {
        if let Ok(Some(session)) = timeout(ATTEMPT_LIMIT, Session::open(&config)).await
            && let Some(tools) = session.until_ready(&work, stopped).await
        {
            while !stopped() && work.once(&session, &tools).await {
                sleep(PACE).await;
            }
        }
        sleep(LOOK_AGAIN).await;
    }
}

impl Session {
    async fn open(config: &Config) -> Option<Self> {
        let (client, connection) = config.connect(NoTls).await.ok()?;
        let warned = Arc::new(AtomicBool::new(false));
        // Ends with the client.
        drop(tokio::spawn(watch_notices(connection, Arc::clone(&warned))));
        Some(Self { client, warned })
    }

    /// Waits until the server takes writes. `None`: the session is lost, or not wanted any more.
    async fn until_ready<W: Work>(&self, work: &W, stopped: impl Fn() -> bool) -> Option<W::Tools> {
        while !stopped() {
            if timeout(ATTEMPT_LIMIT, self.takes_writes()).await.ok()?? {
                return timeout(ATTEMPT_LIMIT, work.prepare(self)).await.ok()?;
            }
            sleep(LOOK_AGAIN).await;
        }
        None
    }

    async fn takes_writes(&self) -> Option<bool> {
        let row = self.client.query_one("select pg_is_in_recovery()", &[]).await.ok()?;
        let is_standby: bool = row.try_get(0).ok()?;
        Some(!is_standby)
    }

    /// `None`: the session is lost, or the statement is wrong.
    pub(super) async fn prepare(&self, statement: &str) -> Option<Statement> {
        self.client.prepare(statement).await.ok()
    }

    /// Runs a statement that is a transaction of its own and gives one row.
    pub(super) async fn ask(
        &self,
        statement: &Statement,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Outcome<Row> {
        self.warned.store(false, Ordering::SeqCst);
        // Ends with the message that the transaction has ended, not with the row.
        match timeout(ATTEMPT_LIMIT, self.client.query_one(statement, parameters)).await {
            Err(_) => Outcome::Unknown(format!("no answer within {ATTEMPT_LIMIT:?}")),
            Ok(_) if self.warned.load(Ordering::SeqCst) => {
                Outcome::Unknown("committed here, but not waited for".to_owned())
            }
            Ok(Ok(row)) => Outcome::Acknowledged(row),
            Ok(Err(error)) => failure(&error),
        }
    }
}

/// Who answered, from the first two columns: the port, and the first eight characters of the name of a
/// WAL file, which are its timeline.
pub(super) fn reign(row: &Row) -> Option<Reign> {
    let (port, timeline): (i32, &str) = (row.try_get(0).ok()?, row.try_get(1).ok()?);
    let timeline = u32::from_str_radix(timeline, 16).ok()?;
    Some(Reign { timeline, port: u16::try_from(port).ok()? })
}

/// An error of this severity has undone the statement; what ends the session may have come after the
/// commit.
fn failure<T>(error: &tokio_postgres::Error) -> Outcome<T> {
    let text = error.as_db_error().map_or_else(|| error.to_string(), ToString::to_string);
    match error.as_db_error().and_then(DbError::parsed_severity) {
        Some(Severity::Error) => Outcome::Refused(text),
        Some(_) | None => Outcome::Unknown(text),
    }
}

/// PostgreSQL tells a client COMMIT also where the wait for the standbys was cut short, after a
/// warning. Messages are taken in order, so the flag is set before the answer is there.
async fn watch_notices(
    mut connection: Connection<Socket, tokio_postgres::tls::NoTlsStream>,
    warned: Arc<AtomicBool>,
) {
    while let Some(Ok(message)) =
        std::future::poll_fn(|context| connection.poll_message(context)).await
    {
        if let AsyncMessage::Notice(notice) = message
            && notice.message().contains("synchronous replication")
        {
            warned.store(true, Ordering::SeqCst);
        }
    }
}
