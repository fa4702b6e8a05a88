//! Is what was acknowledged there, once, and what was refused not?

use crate::harness::history::{Attempt, History, Outcome};
use std::collections::HashMap;

/// How often each row, by writer and id, is on the final primary.
pub type Rows = HashMap<(i32, i64), u32>;

/// What is wrong with the rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wrong {
    /// Acknowledged and not there.
    pub lost: Vec<String>,
    /// There too often, or without having been tried, or although refused.
    pub other: Vec<String>,
}

/// Compares what the writers were told with what is there.
pub fn check(history: &History, rows: &Rows) -> Wrong {
    let mut wrong = Wrong::default();
    let mut tried: HashMap<(i32, i64), &Attempt> = HashMap::new();
    for attempt in history.attempts() {
        let key = (attempt.writer, attempt.id);
        tried.insert(key, attempt);
        let there = rows.get(&key).copied().unwrap_or_default();
        match &attempt.outcome {
            Outcome::Acknowledged(reign) if there == 0 => {
                wrong.lost.push(format!("row {key:?} was acknowledged by {reign:?} and is lost"));
            }
            Outcome::Refused(why) if there > 0 => {
                wrong.other.push(format!("row {key:?} was refused ({why}) and is there"));
            }
            Outcome::Acknowledged(_) | Outcome::Refused(_) | Outcome::Unknown(_) => {}
        }
    }
    for (key, there) in rows {
        if *there > 1 {
            wrong.other.push(format!("row {key:?} is there {there} times"));
        }
        if !tried.contains_key(key) {
            wrong.other.push(format!("row {key:?} is there and nobody has tried to write it"));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::history::made_up::Story;

    fn history() -> History {
        let story = Story::new().ack(1, (0, 1), 1, 1).ack(2, (2, 3), 1, 1);
        story.refused(3, (4, 5)).unknown(4, (6, 7)).until(10)
    }

    fn rows(ids: &[i64]) -> Rows {
        let mut rows = Rows::new();
        for id in ids {
            *rows.entry((1, *id)).or_default() += 1;
        }
        rows
    }

    #[test]
    fn what_was_acknowledged_is_there_and_the_unknown_may_be() {
        assert_eq!(check(&history(), &rows(&[1, 2])), Wrong::default());
        assert_eq!(check(&history(), &rows(&[1, 2, 4])), Wrong::default());
    }

    #[test]
    fn a_lost_row_is_seen() {
        let wrong = check(&history(), &rows(&[1]));
        assert_eq!(wrong.lost.len(), 1, "{wrong:?}");
        assert!(wrong.lost.iter().all(|text| text.contains("(1, 2)")), "{wrong:?}");
    }

    #[test]
    fn a_row_that_is_there_twice_is_seen() {
        for ids in [&[1, 1, 2], &[1, 2, 4][..]].map(|ids| [ids, &[4, 4]].concat()) {
            assert!(!check(&history(), &rows(&ids)).other.is_empty(), "{ids:?}");
        }
    }

    #[test]
    fn a_refused_row_and_one_from_nowhere_are_seen() {
        assert_eq!(check(&history(), &rows(&[1, 2, 3])).other.len(), 1);
        assert_eq!(check(&history(), &rows(&[1, 2, 9])).other.len(), 1);
    }
}
