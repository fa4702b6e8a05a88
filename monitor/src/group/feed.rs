//! The newest events in memory, so that those who follow the history do not ask the database for it.

use shared::event::Event;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// Followers that are further behind than this read from the database.
const KEPT: usize = 1024;

/// The newest events of a formation, without gaps.
#[derive(Debug, Default)]
pub struct Feed {
    events: Mutex<VecDeque<Arc<Event>>>,
}

impl Feed {
    /// Adds events that are durable. After a gap it starts afresh.
    pub(super) fn push(&self, new: Vec<Event>) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        for event in new {
            if events.back().is_some_and(|last| last.id.saturating_add(1) != event.id) {
                events.clear();
            }
            events.push_back(Arc::new(event));
            if events.len() > KEPT {
                events.pop_front();
            }
        }
    }

    /// Forgets: what comes next may not follow what was there.
    pub(super) fn clear(&self) {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// At most `count` events above `after`; `None` if they are not all here.
    pub fn after(&self, after: u64, count: usize) -> Option<Vec<Arc<Event>>> {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let first = events.front()?.id;
        if first > after.saturating_add(1) {
            return None;
        }
        Some(events.iter().filter(|event| event.id > after).take(count).cloned().collect())
    }
}
