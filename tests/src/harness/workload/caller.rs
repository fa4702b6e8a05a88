//! One caller: reads and changes registers and lists that it shares with others, and notes what it was
//! told. How the history is judged: `verdict/registers.rs` and `verdict/lists.rs`.
//!
//! What must hold: in a right cluster each acknowledged operation takes place at one moment between its
//! question and its answer. So:
//!
//! - An operation is one statement, and so one transaction, on one row. Read committed is enough: a
//!   change waits for the row's lock and is made on the newest row, a read has one snapshot, and
//!   PostgreSQL answers no commit before other snapshots show it.
//! - Every operation commits a change, reads too, by a message in the log. A bare SELECT proves nothing:
//!   a primary that has been cut off may answer it, stale by design, until its lease is over, and one
//!   that has restarted shows commits that never reached a standby. A commit proves it: where it is
//!   acknowledged, it is in the log with which any later primary was promoted (docs/safety.md, P2), and
//!   so is, before it in the log, all that its snapshot showed. The snapshot is older than the commit, so
//!   nobody had been promoted yet when it was taken.
//! - For the same reason a compare-and-set that does not match still updates the row, to what it holds:
//!   an UPDATE of no row would be such a bare read. In return the answer shows what was there instead.

use super::session::{Session, Work, reign};
use crate::harness::history::Outcome;
use crate::harness::history::operations::{
    Call, Found, INITIAL, List, Operation, Register, Reply, Value,
};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, Statement};

/// Enough that most histories are short.
const REGISTERS: i32 = 24;

/// Every second operation on a register is on one of these: there, callers meet.
const BUSY_REGISTERS: i32 = 2;

/// How many lists grow at a time.
const LISTS: i64 = 4;

/// About how long a list gets before another takes its place: each append writes all of it.
const LENGTH: i64 = 64;

/// Tells the writers of two values apart.
const PER_CALLER: Value = 1_000_000_000;

/// Who answers, as in a writer's statement.
const WHO: &str = "inet_server_port(), substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)";

/// Makes a read a change: its commit waits for the standbys like any other.
const TOUCH: &str = "pg_logical_emit_message(true, 'pgtandem-test', '')";

/// The tables, with all registers.
pub(super) fn tables() -> String {
    format!(
        "create table if not exists registers (key int primary key, value bigint not null); \
         create table if not exists lists (key bigint primary key, items bigint[] not null); \
         insert into registers select key, {INITIAL} from generate_series(0, {REGISTERS} - 1) key \
         on conflict do nothing"
    )
}

/// What the callers of a workload share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    operations: Mutex<Vec<Operation>>,
    appends: AtomicI64,
}

impl Shared {
    /// All operations so far.
    pub(super) fn operations(&self) -> MutexGuard<'_, Vec<Operation>> {
        self.operations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes an operation that is about to be sent; returns where.
    fn begin(&self, caller: i32, call: Call) -> usize {
        let mut operations = self.operations();
        operations.push(Operation::begin(caller, call, Instant::now()));
        operations.len() - 1
    }

    fn end(&self, place: usize, ended: Instant, outcome: Outcome<Reply>) {
        if let Some(operation) = self.operations().get_mut(place) {
            operation.ended = Some(ended);
            operation.outcome = outcome;
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Caller {
    number: i32,
    shared: Arc<Shared>,
    random: StdRng,
    /// What it saw last: what a compare-and-set expects.
    seen: HashMap<Register, Value>,
    written: Value,
}

/// A statement for each kind of call.
pub(super) struct Statements {
    read: Statement,
    write: Statement,
    compare_and_set: Statement,
    read_list: Statement,
    append: Statement,
}

impl Caller {
    /// A caller; its choices are those of its number.
    pub(super) fn new(number: i32, shared: Arc<Shared>) -> Self {
        let random = StdRng::seed_from_u64(u64::from(number.unsigned_abs()));
        Self { number, shared, random, seen: HashMap::new(), written: 0 }
    }

    fn choose(&mut self) -> Call {
        match self.random.random_range(0..12) {
            0..4 => Call::Read(self.register()),
            4..6 => Call::Write(self.register(), self.fresh()),
            6..8 => {
                let register = self.register();
                let expected = self.seen.get(&register).copied().unwrap_or(INITIAL);
                Call::CompareAndSet(register, expected, self.fresh())
            }
            8..10 => Call::ReadList(self.list(self.shared.appends.load(Ordering::Relaxed))),
            _ => {
                let appends = self.shared.appends.fetch_add(1, Ordering::Relaxed);
                Call::Append(self.list(appends), self.fresh())
            }
        }
    }

    fn register(&mut self) -> Register {
        let count = if self.random.random() { BUSY_REGISTERS } else { REGISTERS };
        Register(self.random.random_range(0..count))
    }

    fn list(&mut self, appends: i64) -> List {
        List(appends / (LISTS * LENGTH) * LISTS + self.random.random_range(0..LISTS))
    }

    fn fresh(&mut self) -> Value {
        self.written += 1;
        Value::from(self.number) * PER_CALLER + self.written
    }
}

impl Work for Caller {
    type Tools = Statements;

    async fn prepare(&self, session: &Session) -> Option<Statements> {
        let read = format!("select {WHO}, value, {TOUCH} from registers where key = $1");
        let write =
            format!("update registers set value = $2 where key = $1 returning {WHO}, value");
        let compare_and_set = format!(
            "update registers set value = case value when $2 then $3 else value end \
             where key = $1 returning {WHO}, value"
        );
        let read_list = format!(
            "select {WHO}, coalesce((select items from lists where key = $1), '{{}}'), {TOUCH}"
        );
        // The first append makes the list.
        let append = format!(
            "insert into lists as list values ($1, array[$2::bigint]) on conflict (key) \
             do update set items = list.items || excluded.items returning {WHO}"
        );
        Some(Statements {
            read: session.prepare(&read).await?,
            write: session.prepare(&write).await?,
            compare_and_set: session.prepare(&compare_and_set).await?,
            read_list: session.prepare(&read_list).await?,
            append: session.prepare(&append).await?,
        })
    }

    async fn once(&mut self, session: &Session, statements: &Statements) -> bool {
        let call = self.choose();
        let place = self.shared.begin(self.number, call);
        let answer = ask(session, statements, call).await;
        let ended = Instant::now();
        let outcome = answer.read(|row| reply(&row, call));
        let goes_on = matches!(outcome, Outcome::Acknowledged(_));
        if let (Some(register), Outcome::Acknowledged(Reply { found: Found::Value(value), .. })) =
            (call.register(), &outcome)
        {
            self.seen.insert(register, *value);
        }
        self.shared.end(place, ended, outcome);
        goes_on
    }
}

async fn ask(session: &Session, statements: &Statements, call: Call) -> Outcome<Row> {
    let (statement, parameters): (_, &[&(dyn ToSql + Sync)]) = match &call {
        Call::Read(register) => (&statements.read, &[&register.0]),
        Call::Write(register, value) => (&statements.write, &[&register.0, value]),
        Call::CompareAndSet(register, expected, value) => {
            (&statements.compare_and_set, &[&register.0, expected, value])
        }
        Call::ReadList(list) => (&statements.read_list, &[&list.0]),
        Call::Append(list, value) => (&statements.append, &[&list.0, value]),
    };
    session.ask(statement, parameters).await
}

fn reply(row: &Row, call: Call) -> Option<Reply> {
    let found = match call {
        Call::Read(_) | Call::Write(..) | Call::CompareAndSet(..) => {
            Found::Value(row.try_get(2).ok()?)
        }
        Call::ReadList(_) => Found::Items(row.try_get(2).ok()?),
        Call::Append(..) => Found::Nothing,
    };
    Some(Reply { reign: reign(row)?, found })
}
