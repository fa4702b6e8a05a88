//! What is yet to be delivered: for each hook its notices, in order. Pure; whoever holds a queue makes it durable
//! before a notice counts as taken, and takes a notice out only once it has been delivered. So each is delivered
//! at least once, whatever is killed in between.

use crate::notice::Notice;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// So many notices wait for one hook at most. A node changes its role a few times in an outage: more than these
/// wait only where a receiver has been gone for long, and what is oldest then is of least use.
const LONGEST: usize = 100;
/// The pause after the first failure.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause between two attempts: a receiver that is back is told within a minute.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// A notice for one hook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// For which hook ([`crate::Hook::key`]).
    pub hook: String,
    /// What it is to be told.
    pub notice: Notice,
    /// How many before it, for this hook, were given up because too many were waiting.
    #[serde(default)]
    pub missed: u64,
}

/// All that is yet to be delivered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Queue(Vec<Delivery>);

impl Queue {
    /// Takes in a notice for a hook; says which one was given up for it.
    pub fn push(&mut self, hook: &str, notice: Notice) -> Option<Notice> {
        self.0.push(Delivery { hook: hook.to_owned(), notice, missed: 0 });
        let of_it = |delivery: &&Delivery| delivery.hook == hook;
        if self.0.iter().filter(of_it).count() <= LONGEST {
            return None;
        }
        // Not the first: it may be under way.
        let mut waiting = self.0.iter().enumerate().filter(|(_, delivery)| delivery.hook == hook);
        let (place, _) = waiting.nth(1)?;
        let given_up = self.0.remove(place);
        let missed = given_up.missed + 1;
        if let Some(next) = self.0.iter_mut().skip(place).find(|delivery| delivery.hook == hook) {
            next.missed += missed;
        }
        Some(given_up.notice)
    }

    /// The next for a hook.
    pub fn next(&self, hook: &str) -> Option<&Delivery> {
        self.0.iter().find(|delivery| delivery.hook == hook)
    }

    /// It has been delivered.
    pub fn delivered(&mut self, hook: &str, id: &str) {
        let found = self.0.iter().position(|it| it.hook == hook && it.notice.id == id);
        found.map(|place| self.0.remove(place));
    }

    /// Forgets what is for hooks that are not there any more; how many notices that were.
    pub fn keep(&mut self, hooks: &[&str]) -> usize {
        let before = self.0.len();
        self.0.retain(|delivery| hooks.contains(&delivery.hook.as_str()));
        before - self.0.len()
    }

    /// Nothing is to be delivered.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// How long to wait after so many failures in a row.
pub fn pause(failures: u32) -> Duration {
    let doubled = 2u32.saturating_pow(failures.saturating_sub(1).min(16));
    FIRST_PAUSE.saturating_mul(doubled).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Map;

    fn notice(number: usize) -> Notice {
        Notice { id: number.to_string(), event: "on_fence".to_owned(), facts: Map::new() }
    }

    #[test]
    fn in_order_for_each_hook_and_apart_from_others() {
        let mut queue = Queue::default();
        for number in 1..4 {
            assert_eq!(queue.push("a", notice(number)), None);
            assert_eq!(queue.push("b", notice(number)), None);
        }
        queue.delivered("a", "1");
        queue.delivered("a", "1");
        let next = |queue: &Queue, hook: &str| queue.next(hook).map(|it| it.notice.id.clone());
        assert_eq!(next(&queue, "a").as_deref(), Some("2"));
        assert_eq!(next(&queue, "b").as_deref(), Some("1"), "a hook that hangs holds up no other");
        assert_eq!(queue.keep(&["b"]), 2);
        assert_eq!(next(&queue, "a"), None);
        assert!(!queue.is_empty());
    }

    #[test]
    fn a_full_queue_gives_up_the_oldest_that_waits_and_says_so() {
        let mut queue = Queue::default();
        let given_up: Vec<_> =
            (0..LONGEST + 3).filter_map(|n| queue.push("a", notice(n))).collect();
        let ids: Vec<_> = given_up.iter().map(|notice| notice.id.as_str()).collect();
        assert_eq!(ids, ["1", "2", "3"]);
        assert_eq!(queue.next("a").map(|it| (it.notice.id.as_str(), it.missed)), Some(("0", 0)));
        queue.delivered("a", "0");
        assert_eq!(queue.next("a").map(|it| (it.notice.id.as_str(), it.missed)), Some(("4", 3)));
    }

    #[test]
    fn it_survives_a_restart_as_it_was() {
        let mut queue = Queue::default();
        queue.push("a", notice(1));
        let text = serde_json::to_string(&queue).unwrap();
        assert_eq!(serde_json::from_str::<Queue>(&text).unwrap(), queue);
    }

    #[test]
    fn pauses_double_up_to_a_minute() {
        let seconds: Vec<_> = [1, 2, 3, 6, 7, 8, 4000].map(|it| pause(it).as_secs()).into();
        assert_eq!(seconds, [1, 2, 4, 32, 60, 60, 60]);
    }
}
