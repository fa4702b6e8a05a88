//! Is every register linearizable, the last look at it included?
//!
//! Only what was acknowledged is held against the cluster: an operation that is unknown may have taken
//! place, one that was refused has not. What an answer proves, and why reads are transactions that write:
//! `workload/caller.rs`.

use super::linearizable::{self, Finding, Step};
use super::rows::Wrong;
use crate::harness::history::History;
use crate::harness::history::operations::{
    Call, Found, INITIAL, Operation, Register, Reply, Value,
};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Instant;

/// What is in the registers at the end, and when that was looked up.
#[derive(Clone, Debug)]
pub struct Last {
    /// By key.
    pub values: BTreeMap<Register, Value>,
    /// Before the look.
    pub asked: Instant,
    /// After it.
    pub answered: Instant,
}

/// How many operations around a fault are shown.
const SHOWN: usize = 12;

/// Judges each register for itself. What an accepted loss may have taken counts as lost.
pub fn check(history: &History, last: &Last) -> Wrong {
    let mut wrong = Wrong::default();
    let mut by_register: BTreeMap<Register, Vec<&Operation>> = BTreeMap::new();
    for operation in history.operations() {
        if let Some(register) = operation.call.register() {
            by_register.entry(register).or_default().push(operation);
        }
    }
    for (register, operations) in &by_register {
        match last.values.get(register) {
            Some(value) => {
                let steps = steps(operations, *value, last);
                wrong.other.extend(from_nowhere(*register, &steps));
                wrong.lost.extend(fault(*register, operations, &steps));
            }
            None => wrong.lost.push(format!("{register:?} is not there")),
        }
    }
    wrong
}

/// What the search sees: one step for each operation that counts, by its place, and the last look.
fn steps(operations: &[&Operation], last: Value, look: &Last) -> Vec<(Option<usize>, Step)> {
    let numbered = operations.iter().enumerate();
    let mut steps: Vec<_> =
        numbered.filter_map(|(place, operation)| Some((Some(place), step(operation)?))).collect();
    let (asked, answered) = (look.asked, Some(look.answered));
    steps.push((None, Step { asked, answered, needs: Some(last), leaves: None }));
    steps
}

fn step(operation: &Operation) -> Option<Step> {
    let reply = operation.reply();
    let after = match reply {
        Some((Reply { found: Found::Value(value), .. }, _)) => Some(*value),
        // Of a register, every answer says what it holds.
        Some((Reply { found: Found::Items(_) | Found::Nothing, .. }, _)) | None => None,
    };
    let (needs, leaves) = match operation.call {
        Call::Read(_) => (Some(after?), None),
        Call::Write(_, value) => (None, Some(value)),
        Call::CompareAndSet(_, expected, value) => match after {
            Some(after) if after != value => (Some(after), None),
            Some(_) | None => (Some(expected), Some(value)),
        },
        Call::ReadList(_) | Call::Append(..) => return None,
    };
    let answered = reply.map(|(_, ended)| ended);
    operation.is_possible().then_some(Step { asked: operation.started, answered, needs, leaves })
}

/// Values that nobody can have written, and such as were written twice, which the search does not allow.
fn from_nowhere(register: Register, steps: &[(Option<usize>, Step)]) -> Vec<String> {
    let mut written: HashMap<Value, usize> = HashMap::from([(INITIAL, 1)]);
    for value in steps.iter().filter_map(|(_, step)| step.leaves) {
        *written.entry(value).or_default() += 1;
    }
    let twice = written.iter().filter(|(_, times)| **times > 1);
    let twice = twice.map(|(value, _)| format!("{register:?}: {value} is written twice"));
    let answers = steps.iter().filter(|(_, step)| step.answered.is_some());
    let seen: BTreeSet<Value> = answers.filter_map(|(_, step)| step.needs).collect();
    let nowhere = seen
        .into_iter()
        .filter(|value| !written.contains_key(value))
        .map(|value| format!("{register:?}: {value} was seen and nobody has written it"));
    twice.chain(nowhere).collect()
}

fn fault(
    register: Register,
    operations: &[&Operation],
    steps: &[(Option<usize>, Step)],
) -> Option<String> {
    let plain: Vec<Step> = steps.iter().map(|(_, step)| *step).collect();
    let (place, what) = match linearizable::check(&plain, INITIAL) {
        Finding::Explained => return None,
        Finding::TooMany(place) => (place, "too much at once to be judged".to_owned()),
        Finding::Unexplained(place, possible) => {
            (place, format!("not linearizable: no order explains this; possible were {possible:?}"))
        }
    };
    let (operation, step) = steps.get(place)?;
    let origin = operations.first()?.started;
    let found = match operation.and_then(|place| operations.get(place)) {
        Some(operation) => operation.describe(origin),
        None => format!("the last look at it: {:?}", step.needs),
    };
    let around = around(operations, step, origin).join("\n      ");
    Some(format!("{register:?} is {what}:\n    {found}\n    around it:\n      {around}"))
}

/// What was under way shortly before an answer, and whoever wrote what it saw.
fn around(operations: &[&Operation], step: &Step, origin: Instant) -> Vec<String> {
    let end = step.answered.unwrap_or(step.asked);
    let before: Vec<_> =
        operations.iter().filter(|operation| operation.started <= end).copied().collect();
    let recent = before.get(before.len().saturating_sub(SHOWN)..).unwrap_or_default();
    let began = recent.first().map_or(end, |operation| operation.started);
    let wrote = |operation: &&&Operation| {
        operation.started < began
            && operation.call.writes().is_some_and(|value| step.needs == Some(value))
    };
    let shown = before.iter().filter(wrote).chain(recent);
    shown.map(|operation| operation.describe(origin)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::history::Outcome;
    use crate::harness::history::operations::made_up::{Story, value};

    const KEY: Register = Register(3);

    fn judged(story: Story, last: Value) -> Wrong {
        let (asked, answered) = (story.at(1000), story.at(1001));
        let last = Last { values: BTreeMap::from([(KEY, last)]), asked, answered };
        check(&story.history(), &last)
    }

    fn write_then_swap() -> Story {
        Story::default()
            .told(Call::Write(KEY, 11), (0, 1), value(11))
            .told(Call::CompareAndSet(KEY, 11, 21), (2, 3), value(21))
            .told(Call::CompareAndSet(KEY, 11, 22), (4, 5), value(21))
    }

    #[test]
    fn a_good_one() {
        assert_eq!(judged(write_then_swap(), 21), Wrong::default());
        let lost = write_then_swap().untold(Call::Write(KEY, 12), 6, Outcome::unknown);
        assert_eq!(judged(lost.clone(), 21), Wrong::default());
        assert_eq!(judged(lost, 12), Wrong::default());
    }

    #[test]
    fn a_lost_write_is_seen_at_the_end() {
        let wrong = judged(write_then_swap(), 11);
        assert!(wrong.other.is_empty() && wrong.lost.len() == 1, "{wrong:?}");
        assert!(wrong.lost[0].contains("Register(3)"), "{wrong:?}");
        assert!(wrong.lost[0].contains("possible were {21}"), "{wrong:?}");
        assert!(wrong.lost[0].contains("Write(Register(3), 11)"), "{wrong:?}");
    }

    #[test]
    fn a_refused_write_that_is_seen_is_a_fault() {
        let refused = write_then_swap().untold(Call::Write(KEY, 12), 6, Outcome::refused);
        assert_eq!(judged(refused.clone(), 21), Wrong::default());
        let wrong = judged(refused, 12);
        assert!(wrong.other[0].contains("12 was seen and nobody"), "{wrong:?}");
    }

    #[test]
    fn a_register_that_is_gone() {
        let story = write_then_swap();
        let (asked, answered) = (story.at(1000), story.at(1001));
        let last = Last { values: BTreeMap::new(), asked, answered };
        assert_eq!(check(&story.history(), &last).lost, ["Register(3) is not there"]);
    }

    #[test]
    fn only_a_few_are_shown() {
        let mut story = Story::default();
        for n in 1..200_u64 {
            let written = Value::try_from(n).unwrap();
            story = story.told(Call::Write(KEY, written), (n * 3, n * 3 + 1), value(written));
        }
        let story = story.told(Call::Read(KEY), (900, 901), value(7));
        let wrong = judged(story, 199);
        let lines = wrong.lost[0].lines().count();
        assert!(lines < SHOWN + 6, "{wrong:?}");
        assert!(wrong.lost[0].contains("Write(Register(3), 7)"), "{wrong:?}");
    }
}
