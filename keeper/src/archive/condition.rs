//! How the archive of a node does: what is known to be stored, what waits, and what fails.

use super::fetched::Fetched;
use super::queue::Queue;
use crate::clock;
use crate::state::{self, StateError};
use fsm::Millis;
use fsm::node::archive::is_late;
use postgres::owner::Owner;
use serde::{Deserialize, Serialize};
use shared::ids::Epoch;
use shared::report::{ArchiveFailure, ArchiveView, ArchiveWork, Archived, ArchivedUpTo};
use std::path::Path;

/// What is known of the archive, within the state directory.
const FILE: &str = "archive.json";

/// What is known of the archive, durably.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Known {
    /// What is stored.
    pub archived: Archived,
    /// The newest epoch in which this node has stored a segment.
    pub stored_in: Epoch,
    /// The newest epoch of which a backup was taken.
    pub backed_up: Epoch,
}

/// How the archive does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// What is known.
    pub known: Known,
    /// What waits to be archived.
    pub queue: Queue,
    /// Why the last file was not stored.
    pub push: Option<Failure>,
    /// Why the last file was not delivered.
    pub get: Option<Failure>,
    /// Why there is no backup since the promotion.
    pub backup: Option<Failure>,
    /// What can be in no archive any more.
    pub gap: Option<String>,
    /// What has come from it.
    pub fetched: Fetched,
}

/// Something that fails and is tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Since when.
    pub since: Millis,
    /// Why, last.
    pub error: String,
}

impl Failure {
    /// It has failed, for the first time or again.
    pub(super) fn again(before: Option<&Self>, error: String) -> Self {
        Self { since: before.map_or_else(clock::now, |before| before.since), error }
    }
}

impl Condition {
    fn failures(&self) -> [(ArchiveWork, Option<&Failure>); 3] {
        [
            (ArchiveWork::Push, self.push.as_ref()),
            (ArchiveWork::Get, self.get.as_ref()),
            (ArchiveWork::Backup, self.backup.as_ref()),
        ]
    }

    /// For the report.
    pub fn view(&self) -> ArchiveView {
        let now = clock::now();
        let oldest_ms = self.queue.oldest.map(|age| age.as_millis());
        let failing = self.failures().into_iter().filter_map(|(work, failure)| {
            let Failure { since, error } = failure?;
            Some(ArchiveFailure { work, ms: now.since(*since), error: error.clone() })
        });
        ArchiveView {
            archived: self.known.archived,
            waiting: self.queue.waiting,
            oldest_ms: oldest_ms.and_then(|ms| u64::try_from(ms).ok()),
            backed_up: self.known.backed_up,
            failing: failing.collect(),
        }
    }

    /// For people, one sentence each.
    pub fn warnings(&self) -> Vec<String> {
        let view = self.view();
        let late = is_late(&view).then(|| {
            format!(
                "{} files of pg_wal wait to be archived, the oldest for {} s",
                view.waiting,
                view.oldest_ms.unwrap_or_default() / 1000
            )
        });
        let failures = self.failures().into_iter().filter_map(|(_, failure)| failure);
        let failures = failures.map(|failure| failure.error.clone());
        failures.chain(self.gap.clone()).chain(late).collect()
    }
}

/// What was known when the last keeper ended.
pub fn load(state_dir: &Path) -> Result<Known, StateError> {
    state::load_json(&state_dir.join(FILE))
}

/// Stores what is known. Blocks.
pub(super) fn save(state_dir: &Path, known: &Known, owner: &Owner) -> Result<(), StateError> {
    state::save_json(&state_dir.join(FILE), known, owner)
}

/// The newer of both, in either respect. Timelines of a group only grow.
pub(super) fn newest(one: Archived, other: Archived) -> Archived {
    let place = |it: &ArchivedUpTo| (it.timeline, it.end);
    let both = [one.segment, other.segment];
    Archived {
        segment: both.into_iter().flatten().max_by_key(place),
        history: one.history.max(other.history),
    }
}
