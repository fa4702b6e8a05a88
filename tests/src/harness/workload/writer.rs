//! One writer: connects, inserts one row after the other, and notes what it was told.

use super::Ledger;
use crate::harness::history::{Attempt, Outcome, Reign};
use crate::harness::sql::config;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_postgres::config::TargetSessionAttrs;
use tokio_postgres::error::{DbError, Severity};
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client, Config, Connection, NoTls, Socket, Statement};

/// After this a writer gives an attempt up and does not know what became of it.
pub(super) const ATTEMPT_LIMIT: Duration = Duration::from_secs(10);

/// Between two looks at a server that takes no writes, or is not there. Short against the outages
/// that are measured, and long enough to leave the processors to the servers.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Between two writes: a busy application, not a benchmark.
const PACE: Duration = Duration::from_millis(4);

/// Tells who answered, too. The first eight characters of the name of a WAL file are its timeline.
const INSERT: &str = "insert into ledger (writer, id) values ($1, $2) \
    returning inet_server_port(), substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)";

/// See the module.
#[derive(Debug)]
pub(super) struct Writer {
    number: i32,
    config: Config,
    ledger: Ledger,
}

/// A connection, and whether the server warned that a commit did not wait for its standbys.
struct Session {
    client: Client,
    warned: Arc<AtomicBool>,
    /// Once the server is known to take writes.
    insert: Option<Statement>,
}

impl Writer {
    /// A writer to one node, or by a list of nodes to the one that takes writes.
    pub(super) fn new(number: i32, nodes: &[SocketAddr], ledger: Ledger) -> Self {
        let mut config = config(nodes);
        config.connect_timeout(Duration::from_secs(1));
        if nodes.len() > 1 {
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        Self { number, config, ledger }
    }

    /// Writes until told to stop.
    pub(super) async fn run(&self, stop: watch::Receiver<bool>) {
        let mut id = 0;
        // The sender is gone where the workload was dropped.
        let stopped = || *stop.borrow() || stop.has_changed().is_err();
        while !stopped() {
            if let Ok(Some(mut session)) = timeout(ATTEMPT_LIMIT, self.connect()).await {
                while !stopped() && self.write(&mut session, &mut id).await {}
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    async fn connect(&self) -> Option<Session> {
        let (client, connection) = self.config.connect(NoTls).await.ok()?;
        let warned = Arc::new(AtomicBool::new(false));
        // Ends with the client.
        drop(tokio::spawn(watch_notices(connection, Arc::clone(&warned))));
        Some(Session { client, warned, insert: None })
    }

    /// Inserts a row if the server takes writes; returns whether to go on with the session.
    async fn write(&self, session: &mut Session, id: &mut i64) -> bool {
        let Some(insert) = &session.insert else {
            sleep(LOOK_AGAIN).await;
            return matches!(timeout(ATTEMPT_LIMIT, session.look()).await, Ok(Some(())));
        };
        *id += 1;
        session.warned.store(false, Ordering::SeqCst);
        let row: [&(dyn ToSql + Sync); 2] = [&self.number, id];
        let started = Instant::now();
        let answer = timeout(ATTEMPT_LIMIT, session.client.query_one(insert, &row)).await;
        let ended = Instant::now();
        let outcome = match answer {
            Err(_) => Outcome::Unknown(format!("no answer within {ATTEMPT_LIMIT:?}")),
            Ok(_) if session.warned.load(Ordering::SeqCst) => {
                Outcome::Unknown("committed here, but not waited for".to_owned())
            }
            Ok(Ok(row)) => match reign(row.try_get(0).ok(), row.try_get(1).ok()) {
                Some(reign) => Outcome::Acknowledged(reign),
                None => Outcome::Unknown("the answer cannot be read".to_owned()),
            },
            Ok(Err(error)) => failure(&error),
        };
        let goes_on = matches!(outcome, Outcome::Acknowledged(_));
        let attempt = Attempt { writer: self.number, id: *id, started, ended, outcome };
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner).push(attempt);
        sleep(PACE).await;
        goes_on
    }
}

impl Session {
    /// Finds out whether the server takes writes. `None`: the session is lost.
    async fn look(&mut self) -> Option<()> {
        let row = self.client.query_one("select pg_is_in_recovery()", &[]).await.ok()?;
        let is_standby: bool = row.try_get(0).ok()?;
        if !is_standby {
            self.insert = Some(self.client.prepare(INSERT).await.ok()?);
        }
        Some(())
    }
}

fn reign(port: Option<i32>, timeline: Option<String>) -> Option<Reign> {
    let timeline = u32::from_str_radix(&timeline?, 16).ok()?;
    Some(Reign { timeline, port: u16::try_from(port?).ok()? })
}

/// An error of this severity has undone the statement; what ends the session may have come after the
/// commit.
fn failure(error: &tokio_postgres::Error) -> Outcome {
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
