//! What `wal-push` and `wal-get` say to their keeper, and it to them: a line of JSON each way over a unix
//! socket in the state directory, and the outcome where something was run.

use super::Call;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The socket within the state directory.
const SOCKET: &str = "archive.sock";

/// For how long the keeper thinks a question over that it cannot answer with yes. A standby's file is stored
/// some moments after it was ready, so to wait is the normal case; every no costs PostgreSQL a second, and
/// the third in a row a minute. Longer than a failover, so that the new primary is still being asked when it
/// may say yes; not longer, for a question that never ends says nothing to a person.
pub(crate) const HOLD: Duration = Duration::from_secs(30);

/// How long an answer may take: what the keeper holds it, and a moment.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// The longest line: names, paths, and a command of the operator's.
pub(crate) const LINE_LIMIT: u64 = 64 << 10;

/// Where the keeper listens.
pub(crate) fn socket(state_dir: &Path) -> PathBuf {
    state_dir.join(SOCKET)
}

/// What PostgreSQL wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verb {
    Push,
    Get,
}

impl Verb {
    /// For people.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Push => "archiving",
            Self::Get => "fetching",
        }
    }
}

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Question {
    pub(crate) verb: Verb,
    /// The name of the file.
    pub(crate) file: String,
    /// Where it is, or shall be, as PostgreSQL said.
    pub(crate) path: String,
    /// The size of a file to be pushed.
    pub(crate) bytes: u64,
}

/// Its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub(crate) enum Reply {
    /// Run this, and say how it ended.
    Run {
        call: Call,
        /// How large the file is, where that is known: what is fetched has to be.
        bytes: Option<u64>,
    },
    /// Nothing is to be done, and that is well.
    Done { why: String },
    /// Not yet, or not there.
    No { why: String },
    /// The server is being stopped: do not hold it up.
    Leave,
}

/// How what was run has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// The exit code; `None` where it did not end by itself, could not be started, or has not done what it
    /// said.
    pub(crate) code: Option<i32>,
    /// The last it said.
    pub(crate) said: String,
}

impl Outcome {
    /// A failure, in a sentence.
    pub(crate) fn trouble(&self, question: &Question) -> String {
        let how = self.code.map(|code| format!(" (exit code {code})")).unwrap_or_default();
        let (what, file) = (question.verb.word(), &question.file);
        let text = format!("{what} {file} failed{how}: {}", self.said);
        text.trim_end_matches([':', ' ']).to_owned()
    }
}
