//! Have two servers acknowledged at the same time?
//!
//! Clients only know when they asked and when they were answered. An acknowledgement that was on its
//! way when another server was promoted is no fault: what it acknowledges is in the log that the
//! other was promoted with (docs/safety.md, C12). A fault is an attempt that *began* after a later
//! reign had acknowledged something, and was acknowledged by an earlier one.

use crate::harness::history::{History, Reign};
use std::collections::BTreeMap;
use std::time::Instant;

/// The beginning of the newest attempt and the first answer of a reign.
#[derive(Clone, Copy, Debug)]
struct Span {
    first_answer: Instant,
    last_start: Instant,
}

/// Compares every reign with all later ones.
pub fn check(history: &History) -> Vec<String> {
    let spans = spans(history);
    let mut wrong = Vec::new();
    for (early, early_span) in &spans {
        for (late, late_span) in spans.iter().filter(|(late, _)| *late > early) {
            if early.timeline == late.timeline {
                wrong.push(format!("two servers had the same timeline: {early:?} and {late:?}"));
            }
            if early_span.last_start > late_span.first_answer {
                let overlap = early_span.last_start.duration_since(late_span.first_answer);
                wrong.push(format!(
                    "{early:?} acknowledged a write that began {overlap:?} after {late:?} had \
                     acknowledged one"
                ));
            }
        }
    }
    wrong
}

fn spans(history: &History) -> BTreeMap<Reign, Span> {
    let mut spans = BTreeMap::new();
    for (started, ended, reign) in history.answers() {
        let fresh = Span { first_answer: ended, last_start: started };
        let span = spans.entry(reign).or_insert(fresh);
        span.first_answer = span.first_answer.min(ended);
        span.last_start = span.last_start.max(started);
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::history::made_up::Story;

    fn reigns(acknowledged: &[((u64, u64), u32, u16)]) -> Vec<String> {
        let mut story = Story::new();
        for (id, (span, timeline, port)) in (1..).zip(acknowledged) {
            story = story.ack(id, *span, *timeline, *port);
        }
        check(&story.until(1000))
    }

    #[test]
    fn one_after_the_other_is_fine() {
        let there_and_back = [((0, 1), 1, 1), ((2, 3), 3, 2), ((4, 5), 5, 1), ((6, 7), 5, 1)];
        assert_eq!(reigns(&there_and_back), Vec::<String>::new());
    }

    #[test]
    fn an_answer_on_its_way_is_fine() {
        assert_eq!(reigns(&[((0, 50), 1, 1), ((20, 30), 3, 2)]), Vec::<String>::new());
    }

    #[test]
    fn overlapping_reigns_are_seen() {
        let wrong = reigns(&[((0, 1), 1, 1), ((20, 30), 3, 2), ((31, 35), 1, 1)]);
        assert_eq!(wrong.len(), 1, "{wrong:?}");
        // The same when the old one wrote only once more, long after.
        assert_eq!(reigns(&[((20, 30), 3, 2), ((40, 50), 3, 2), ((900, 901), 1, 1)]).len(), 1);
    }

    #[test]
    fn two_servers_on_one_timeline_are_seen() {
        assert_eq!(reigns(&[((0, 1), 3, 1), ((2, 3), 3, 2)]).len(), 1);
    }
}
