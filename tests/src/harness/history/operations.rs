//! What callers did to shared registers and lists, and what they were told. Pure.
//!
//! An operation is noted when it is sent and again when its answer is there, so one whose caller was
//! lost on the way is in the history as what it is: unknown.

use super::{Outcome, Reign};
use std::collections::BTreeMap;
use std::time::Instant;

/// What a register holds, or an element of a list. Never is one written twice, so each names the
/// operation that wrote it.
pub type Value = i64;

/// What every register holds in the beginning. Nobody writes it.
pub const INITIAL: Value = 0;

/// A register's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Register(pub i32);

/// A list's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct List(pub i64);

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// What a register holds.
    Read(Register),
    /// Whatever it holds, it shall hold this.
    Write(Register, Value),
    /// Where it holds the first, it shall hold the second.
    CompareAndSet(Register, Value, Value),
    /// All that is in a list.
    ReadList(List),
    /// One more element at the end of a list.
    Append(List, Value),
}

impl Call {
    /// Of which kind it is.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Read(_) => "read",
            Self::Write(..) => "write",
            Self::CompareAndSet(..) => "compare-and-set",
            Self::ReadList(_) => "read of a list",
            Self::Append(..) => "append",
        }
    }

    /// On which register it is.
    pub fn register(self) -> Option<Register> {
        match self {
            Self::Read(register) | Self::Write(register, _) | Self::CompareAndSet(register, ..) => {
                Some(register)
            }
            Self::ReadList(_) | Self::Append(..) => None,
        }
    }

    /// On which list it is.
    pub fn list(self) -> Option<List> {
        match self {
            Self::ReadList(list) | Self::Append(list, _) => Some(list),
            Self::Read(_) | Self::Write(..) | Self::CompareAndSet(..) => None,
        }
    }

    /// What it writes, where it takes place.
    pub fn writes(self) -> Option<Value> {
        match self {
            Self::Write(_, value) | Self::CompareAndSet(_, _, value) | Self::Append(_, value) => {
                Some(value)
            }
            Self::Read(_) | Self::ReadList(_) => None,
        }
    }
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// What the register holds after the operation: a compare-and-set has taken place where it is
    /// the new value.
    Value(Value),
    /// What the list holds.
    Items(Vec<Value>),
    /// The operation tells nothing.
    Nothing,
}

/// An answer that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Who gave it.
    pub reign: Reign,
    /// What it says.
    pub found: Found,
}

/// One operation.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Who asked.
    pub caller: i32,
    /// For what.
    pub call: Call,
    /// Just before it was sent.
    pub started: Instant,
    /// Just after its answer was there, or its caller had given up.
    pub ended: Option<Instant>,
    /// The answer.
    pub outcome: Outcome<Reply>,
}

impl Operation {
    /// An operation that is sent now.
    pub fn begin(caller: i32, call: Call, started: Instant) -> Self {
        let outcome = Outcome::Unknown("no answer yet".to_owned());
        Self { caller, call, started, ended: None, outcome }
    }

    /// Its answer, and when that was there. None: nobody was told that it is done.
    pub fn reply(&self) -> Option<(&Reply, Instant)> {
        match &self.outcome {
            Outcome::Acknowledged(reply) => Some((reply, self.ended?)),
            Outcome::Refused(_) | Outcome::Unknown(_) => None,
        }
    }

    /// Whether it may have taken place, or may yet.
    pub fn is_possible(&self) -> bool {
        match &self.outcome {
            Outcome::Acknowledged(_) | Outcome::Unknown(_) => true,
            Outcome::Refused(_) => false,
        }
    }

    /// In a line, with times after `origin`.
    pub fn describe(&self, origin: Instant) -> String {
        let after = |when: Instant| when.saturating_duration_since(origin).as_secs_f64();
        let ended = self.ended.map_or("?".to_owned(), |ended| format!("{:.6}", after(ended)));
        let outcome = match &self.outcome {
            Outcome::Acknowledged(Reply { reign, found }) => {
                format!("{found:?} from {} on timeline {}", reign.port, reign.timeline)
            }
            Outcome::Refused(why) => format!("refused: {why}"),
            Outcome::Unknown(why) => format!("unknown: {why}"),
        };
        let started = after(self.started);
        format!("{started:.6} to {ended}: caller {} {:?}: {outcome}", self.caller, self.call)
    }
}

/// How many there are of each kind and outcome, a line for each kind.
pub fn tally(operations: &[Operation]) -> String {
    let mut counts: BTreeMap<&str, [usize; 3]> = BTreeMap::new();
    for operation in operations {
        let [acknowledged, refused, unknown] = counts.entry(operation.call.kind()).or_default();
        *match &operation.outcome {
            Outcome::Acknowledged(_) => acknowledged,
            Outcome::Refused(_) => refused,
            Outcome::Unknown(_) => unknown,
        } += 1;
    }
    let line = |(kind, [acknowledged, refused, unknown]): (&&str, &[usize; 3])| {
        format!("{kind}: {acknowledged} acknowledged, {refused} refused, {unknown} unknown")
    };
    counts.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
pub(crate) mod made_up {
    //! Operations that never happened. Times are milliseconds after a common beginning.

    use super::*;
    use crate::harness::history::History;
    use std::time::Duration;

    /// Makes operations.
    #[derive(Clone)]
    pub(crate) struct Story {
        began: Instant,
        operations: Vec<Operation>,
    }

    impl Default for Story {
        fn default() -> Self {
            Self { began: Instant::now(), operations: Vec::new() }
        }
    }

    impl Story {
        pub(crate) fn at(&self, ms: u64) -> Instant {
            self.began + Duration::from_millis(ms)
        }

        /// One that was acknowledged.
        pub(crate) fn told(mut self, call: Call, (from, to): (u64, u64), found: Found) -> Self {
            let reply = Reply { reign: Reign { timeline: 1, port: 1 }, found };
            let (started, ended) = (self.at(from), Some(self.at(to)));
            let outcome = Outcome::Acknowledged(reply);
            self.operations.push(Operation { caller: 1, call, started, ended, outcome });
            self
        }

        /// One that was not.
        pub(crate) fn untold(
            mut self,
            call: Call,
            from: u64,
            outcome: fn() -> Outcome<Reply>,
        ) -> Self {
            let (started, ended) = (self.at(from), Some(self.at(from + 1)));
            self.operations.push(Operation { caller: 1, call, started, ended, outcome: outcome() });
            self
        }

        pub(crate) fn history(self) -> History {
            let end = self.at(2000);
            History::new(Vec::new(), end).with_operations(self.operations)
        }
    }

    impl Outcome<Reply> {
        pub(crate) fn refused() -> Self {
            Self::Refused("read-only".to_owned())
        }

        pub(crate) fn unknown() -> Self {
            Self::Unknown("connection lost".to_owned())
        }
    }

    pub(crate) fn value(value: Value) -> Found {
        Found::Value(value)
    }

    pub(crate) fn items(items: &[Value]) -> Found {
        Found::Items(items.to_vec())
    }
}
