//! Histories that are known to be good or bad, and small ones at random, compared with a search that
//! tries everything.

use super::*;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use std::sync::LazyLock;
use std::time::Duration;

static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

fn at(ms: u64) -> Instant {
    *BEGIN + Duration::from_millis(ms)
}

fn step(span: (u64, u64), needs: Option<Value>, leaves: Option<Value>) -> Step {
    Step { asked: at(span.0), answered: Some(at(span.1)), needs, leaves }
}

fn read(span: (u64, u64), value: Value) -> Step {
    step(span, Some(value), None)
}

fn write(span: (u64, u64), value: Value) -> Step {
    step(span, None, Some(value))
}

fn swap(span: (u64, u64), expected: Value, value: Value) -> Step {
    step(span, Some(expected), Some(value))
}

fn lost(step: Step) -> Step {
    Step { answered: None, ..step }
}

fn is_good(history: &[Step]) -> bool {
    check(history, 0) == Finding::Explained
}

#[test]
fn one_after_the_other() {
    let history =
        [read((0, 1), 0), write((2, 3), 1), read((4, 5), 1), swap((6, 7), 1, 2), read((8, 9), 2)];
    assert!(is_good(&history));
    assert!(is_good(&[]));
}

#[test]
fn concurrent_ones_take_place_in_any_order() {
    assert!(is_good(&[write((0, 9), 1), write((0, 9), 2), read((10, 11), 1)]));
    assert!(is_good(&[write((0, 9), 1), write((0, 9), 2), read((10, 11), 2)]));
    // Seen before it is answered, by one and not yet by the other.
    assert!(is_good(&[write((0, 9), 1), read((1, 5), 1), read((1, 4), 0)]));
    // At the same instant is concurrent.
    assert!(is_good(&[write((0, 5), 1), read((5, 6), 0)]));
}

#[test]
fn a_stale_read() {
    let history = [write((0, 1), 1), write((2, 3), 2), read((4, 5), 1)];
    assert_eq!(check(&history, 0), Finding::Unexplained(2, BTreeSet::from([2])));
}

#[test]
fn a_lost_write() {
    assert!(!is_good(&[write((0, 1), 1), read((2, 3), 0)]));
}

#[test]
fn a_lost_update() {
    // Two have replaced the same value.
    assert!(!is_good(&[write((0, 1), 1), swap((2, 9), 1, 2), swap((2, 9), 1, 3)]));
    // One of them, and somebody wrote in between.
    assert!(is_good(&[write((0, 1), 1), swap((2, 9), 1, 2), write((2, 9), 3)]));
}

#[test]
fn reads_in_the_wrong_order() {
    let history = [write((0, 99), 1), read((1, 2), 1), read((3, 4), 0)];
    assert_eq!(check(&history, 0), Finding::Unexplained(2, BTreeSet::from([1])));
}

#[test]
fn applied_twice() {
    let history =
        [write((0, 1), 1), read((2, 3), 1), write((4, 5), 2), read((6, 7), 2), read((8, 9), 1)];
    assert!(!is_good(&history));
    // Nor does it help that nobody knows of the first: it was seen, and so it was over.
    let history = [lost(write((0, 1), 1)), read((2, 3), 1), write((4, 5), 2), read((8, 9), 1)];
    assert!(!is_good(&history));
}

#[test]
fn a_lost_write_appears_late_or_never() {
    let pending = lost(write((0, 1), 1));
    assert!(is_good(&[pending, read((2, 3), 0)]));
    assert!(is_good(&[pending, read((2, 3), 1)]));
    assert!(is_good(&[pending, write((2, 3), 2), read((4, 5), 2), read((6, 7), 1)]));
    // Once it is there, it stays.
    assert!(!is_good(&[pending, read((2, 3), 0), read((4, 5), 1), read((6, 7), 0)]));
    // Not before it was sent.
    assert!(!is_good(&[read((2, 3), 1), lost(write((4, 5), 1))]));
}

#[test]
fn a_lost_swap_is_known_by_what_followed() {
    let pending = [lost(write((0, 1), 1)), lost(swap((0, 1), 1, 2)), lost(swap((0, 1), 2, 3))];
    let seen = |value| [&pending[..], &[read((5, 6), value)]].concat();
    assert!((0..=3).all(|value| is_good(&seen(value))));
    let afterwards = |value| [seen(3), vec![read((7, 8), value)]].concat();
    assert!(is_good(&afterwards(3)));
    assert!((0..3).all(|value| !is_good(&afterwards(value))));
}

#[test]
fn what_nobody_wrote() {
    assert!(!is_good(&[write((0, 1), 1), read((0, 3), 7)]));
}

#[test]
fn thousands_with_many_lost() {
    let mut history = Vec::new();
    for n in 0..1000 {
        let (begin, value) = (u64::try_from(n * 10).unwrap(), n * 10 + 1);
        history.push(lost(write((begin, begin), value)));
        history.extend((1..6).map(|client| write((begin, begin + 5), value + client)));
        history.push(read((begin + 6, begin + 7), value + 1 + n % 5));
    }
    assert!(is_good(&history));
    history.push(read((99_999, 100_000), 3));
    let fault = history.len() - 1;
    assert!(matches!(check(&history, 0), Finding::Unexplained(place, _) if place == fault));
}

/// Tries all orders.
fn some_order(steps: &[Step], done: &mut Vec<bool>, value: Value) -> bool {
    let open = |done: &[bool], step: usize| !done[step];
    if (0..steps.len()).all(|other| done[other] || steps[other].answered.is_none()) {
        return true;
    }
    for next in 0..steps.len() {
        let overtakes = |other: usize| {
            open(done, other)
                && steps[other].answered.is_some_and(|answered| answered < steps[next].asked)
        };
        let fits = steps[next].needs.is_none_or(|needed| needed == value);
        if open(done, next) && fits && !(0..steps.len()).any(overtakes) {
            done[next] = true;
            let found = some_order(steps, done, steps[next].leaves.unwrap_or(value));
            done[next] = false;
            if found {
                return true;
            }
        }
    }
    false
}

/// Steps that may fit together or not: values are drawn from those that are about.
fn at_random(random: &mut StdRng) -> Vec<Step> {
    let count = random.random_range(2..8);
    let values: Vec<Value> = (0..=count).collect();
    (1..=count)
        .map(|value| {
            let asked = random.random_range(0..12);
            let span = (asked, asked + random.random_range(0..8));
            let any = *values.choose(random).unwrap();
            let step = match random.random_range(0..3) {
                0 => read(span, any),
                1 => write(span, value),
                // What it leaves, it cannot have found.
                _ => swap(span, any % value, value),
            };
            if random.random_bool(0.3) { lost(step) } else { step }
        })
        .collect()
}

const HISTORIES: usize = 40_000;

#[test]
fn agrees_with_trying_everything() {
    let mut random = StdRng::seed_from_u64(1);
    let mut good = 0;
    for number in 0..HISTORIES {
        let history = at_random(&mut random);
        let expected = some_order(&history, &mut vec![false; history.len()], 0);
        assert_eq!(is_good(&history), expected, "history {number}: {history:#?}");
        good += usize::from(expected);
    }
    assert!(good > HISTORIES / 10 && good < HISTORIES * 9 / 10, "{good} good ones");
}
