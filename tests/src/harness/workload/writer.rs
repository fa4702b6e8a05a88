//! One writer: inserts one row after the other, and notes what it was told.

use super::Ledger;
use super::session::{Session, Work, reign};
use crate::harness::history::{Attempt, Outcome};
use std::sync::PoisonError;
use std::time::Instant;
use tokio_postgres::Statement;
use tokio_postgres::types::ToSql;

/// Tells who answered, too.
const INSERT: &str = "insert into ledger (writer, id) values ($1, $2) \
    returning inet_server_port(), substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)";

/// See the module.
#[derive(Debug)]
pub(super) struct Writer {
    number: i32,
    id: i64,
    ledger: Ledger,
}

impl Writer {
    /// A writer that has not written yet.
    pub(super) fn new(number: i32, ledger: Ledger) -> Self {
        Self { number, id: 0, ledger }
    }
}

impl Work for Writer {
    type Tools = Statement;

    async fn prepare(&self, session: &Session) -> Option<Statement> {
        session.prepare(INSERT).await
    }

    async fn once(&mut self, session: &Session, insert: &Statement) -> bool {
        self.id += 1;
        let (writer, id) = (self.number, self.id);
        let row: [&(dyn ToSql + Sync); 2] = [&writer, &id];
        let started = Instant::now();
        let answer = session.ask(insert, &row).await;
        let ended = Instant::now();
        let outcome = answer.read(|row| reign(&row));
        let goes_on = matches!(outcome, Outcome::Acknowledged(_));
        let attempt = Attempt { writer, id, started, ended, outcome };
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner).push(attempt);
        goes_on
    }
}
