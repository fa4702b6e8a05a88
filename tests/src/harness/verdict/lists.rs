//! Is every list what its appends and reads say?
//!
//! The list at the end gives each of its elements a place, and each read that is a beginning of it another:
//! right behind the last element that it saw. The answers are explained if these places agree with time:
//! whatever began after another had been answered has no lower place. That is all of linearizability here,
//! and needs no search.

use super::rows::Wrong;
use crate::harness::history::operations::{Call, Found, List, Operation, Reply, Value};
use crate::harness::history::{History, Outcome};
use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

/// What is in the lists at the end.
pub type Lists = BTreeMap<List, Vec<Value>>;

/// An operation with its place in the list.
#[derive(Clone, Copy, Debug)]
struct Placed<'a> {
    operation: &'a Operation,
    /// How long the list was right after it.
    length: usize,
    answered: Option<Instant>,
}

/// Judges each list for itself. What an accepted loss may have taken counts as lost.
pub fn check(history: &History, lists: &Lists) -> Wrong {
    let mut wrong = Wrong::default();
    let mut by_list: BTreeMap<List, Vec<&Operation>> = BTreeMap::new();
    for operation in history.operations() {
        if let Some(list) = operation.call.list() {
            by_list.entry(list).or_default().push(operation);
        }
    }
    for list in lists.keys().filter(|list| !by_list.contains_key(list)) {
        wrong.other.push(format!("{list:?} is there and nobody has tried to write it"));
    }
    for (list, operations) in by_list {
        let items = lists.get(&list).map(Vec::as_slice).unwrap_or_default();
        one_list(list, &operations, items, &mut wrong);
    }
    wrong
}

fn one_list(list: List, operations: &[&Operation], items: &[Value], wrong: &mut Wrong) {
    let Some(origin) = operations.first().map(|operation| operation.started) else { return };
    let places = places(list, operations, items, wrong);
    let mut placed = Vec::new();
    for operation in operations {
        let answered = operation.reply().map(|(_, ended)| ended);
        let length = match place(operation, &places, items) {
            Ok(Some(length)) => length,
            Ok(None) => continue,
            Err(fault) => {
                let text = operation.describe(origin);
                wrong.lost.push(format!("{list:?}: {fault}: {text}"));
                continue;
            }
        };
        placed.push(Placed { operation, length, answered });
    }
    wrong.other.extend(out_of_order(&placed).map(|(early, late)| {
        let (early, late) = (early.operation.describe(origin), late.operation.describe(origin));
        format!("{list:?} is not in the order of time:\n    {early}\n    is not before\n    {late}")
    }));
}

/// Where each element is, the first being 1; and which of them should not be there.
fn places(
    list: List,
    operations: &[&Operation],
    items: &[Value],
    wrong: &mut Wrong,
) -> HashMap<Value, usize> {
    let appends =
        operations.iter().filter_map(|operation| Some((operation.call.writes()?, operation)));
    let tried: HashMap<Value, &&Operation> = appends.collect();
    let mut places = HashMap::new();
    for (place, item) in (1..).zip(items) {
        let first = *places.entry(*item).or_insert(place);
        if first != place {
            wrong.other.push(format!("{list:?} has {item} twice, at {first} and {place}"));
        }
        match tried.get(item).map(|operation| &operation.outcome) {
            None => wrong.other.push(format!("{list:?} has {item}, which nobody has appended")),
            Some(Outcome::Refused(why)) => {
                wrong.other.push(format!("{list:?} has {item}, which was refused ({why})"));
            }
            Some(Outcome::Acknowledged(_) | Outcome::Unknown(_)) => {}
        }
    }
    places
}

/// How long the list was after an operation. None: it has no place, rightly.
fn place(
    operation: &Operation,
    places: &HashMap<Value, usize>,
    items: &[Value],
) -> Result<Option<usize>, &'static str> {
    let reply = operation.reply().map(|(reply, _)| reply);
    match (operation.call, reply) {
        (Call::Append(_, value), _) if places.contains_key(&value) => {
            Ok(places.get(&value).copied())
        }
        (Call::Append(..), Some(_)) => Err("acknowledged and lost"),
        (Call::ReadList(_), Some(Reply { found: Found::Items(read), .. })) => {
            let fits = items.starts_with(read);
            if fits { Ok(Some(read.len())) } else { Err("a read that is no beginning of the list") }
        }
        (
            Call::Append(..)
            | Call::ReadList(_)
            | Call::Read(_)
            | Call::Write(..)
            | Call::CompareAndSet(..),
            _,
        ) => Ok(None),
    }
}

/// The first operation, if any, that has a lower place than one that was answered before it began.
fn out_of_order<'a>(placed: &[Placed<'a>]) -> Option<(Placed<'a>, Placed<'a>)> {
    let mut by_answer: Vec<_> =
        placed.iter().filter_map(|one| Some((one.answered?, *one))).collect();
    by_answer.sort_by_key(|(answered, _)| *answered);
    let mut by_question = placed.to_vec();
    by_question.sort_by_key(|one| one.operation.started);
    let mut answers = by_answer.into_iter().peekable();
    let mut furthest: Option<Placed<'a>> = None;
    for late in by_question {
        while let Some((_, early)) = answers.next_if(|(end, _)| *end < late.operation.started) {
            if furthest.is_none_or(|furthest| early.length > furthest.length) {
                furthest = Some(early);
            }
        }
        // An append has its place for itself, a read shares that of the last element that it saw.
        let least = late.length - usize::from(late.operation.call.writes().is_some());
        if let Some(early) = furthest.filter(|early| early.length > least) {
            return Some((early, late));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::history::operations::made_up::{Story, items};

    const LIST: List = List(5);

    fn append(value: Value) -> Call {
        Call::Append(LIST, value)
    }

    fn story() -> Story {
        Story::default()
            .told(append(1), (0, 5), Found::Nothing)
            .told(append(2), (3, 9), Found::Nothing)
            .told(Call::ReadList(LIST), (4, 6), items(&[1]))
            .told(Call::ReadList(LIST), (10, 11), items(&[1, 2]))
    }

    fn judged(story: Story, last: &[Value]) -> Wrong {
        check(&story.history(), &Lists::from([(LIST, last.to_vec())]))
    }

    /// That nothing but this is wrong.
    fn sees(wrong: &Wrong, text: &str) {
        let all = [&wrong.lost[..], &wrong.other].concat();
        assert!(all.len() == 1 && all[0].contains(text), "{text}: {wrong:?}");
    }

    #[test]
    fn a_good_one() {
        assert_eq!(judged(story(), &[1, 2]), Wrong::default());
        let lost = story().untold(append(3), 7, Outcome::unknown);
        for last in [&[1, 2][..], &[1, 2, 3]] {
            assert_eq!(judged(lost.clone(), last), Wrong::default());
        }
        assert_eq!(check(&Story::default().history(), &Lists::new()), Wrong::default());
    }

    #[test]
    fn a_lost_append() {
        let short = Story::default().told(append(1), (0, 5), Found::Nothing);
        sees(&judged(short.clone(), &[]), "acknowledged and lost");
        sees(&check(&short.history(), &Lists::new()), "acknowledged and lost");
    }

    #[test]
    fn what_should_not_be_there() {
        sees(&judged(story(), &[1, 2, 2]), "has 2 twice");
        sees(&judged(story(), &[1, 2, 9]), "which nobody has appended");
        let refused = story().untold(append(3), 7, Outcome::refused);
        assert_eq!(judged(refused.clone(), &[1, 2]), Wrong::default());
        sees(&judged(refused, &[1, 2, 3]), "which was refused");
        let other = Lists::from([(LIST, vec![1, 2]), (List(6), vec![])]);
        sees(&check(&story().history(), &other), "List(6) is there");
    }

    #[test]
    fn a_read_of_another_list() {
        let read = story().told(Call::ReadList(LIST), (4, 6), items(&[2]));
        sees(&judged(read, &[1, 2]), "no beginning");
        let longer = story().told(Call::ReadList(LIST), (12, 13), items(&[1, 2, 3]));
        sees(&judged(longer, &[1, 2]), "no beginning");
    }

    #[test]
    fn against_time() {
        let stale = story().told(Call::ReadList(LIST), (12, 13), items(&[1]));
        sees(&judged(stale, &[1, 2]), "not in the order of time");
        let later = story().told(append(3), (20, 21), Found::Nothing);
        assert_eq!(judged(later.clone(), &[1, 2, 3]), Wrong::default());
        let before = later.told(append(4), (22, 23), Found::Nothing);
        sees(&judged(before, &[1, 2, 4, 3]), "not in the order of time");
        // It may come late, but not before what was there when it was sent.
        let early = Story::default().told(append(1), (0, 1), Found::Nothing).untold(
            append(2),
            2,
            Outcome::unknown,
        );
        assert_eq!(judged(early.clone(), &[1, 2]), Wrong::default());
        sees(&judged(early, &[2, 1]), "not in the order of time");
    }
}
