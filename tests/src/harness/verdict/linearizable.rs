//! Is there an order of one register's operations that explains all answers? Pure.
//!
//! Each operation takes place at one moment between its question and its answer; one without an answer
//! at any moment after its question, or never. The register holds what the last one left. Registers are
//! judged one by one, which is enough (linearizability is local).
//!
//! The search walks through the history once and keeps all worlds that are possible: what the register
//! holds, and which of the operations under way have taken place already (Wing and Gong's search, with
//! Lowe's rule that an operation takes place no sooner than an answer demands it). An answer that fits no
//! world is a fault, and the first of them is the one to look at.
//!
//! What must hold, or the search is wrong: no value is written twice, and the initial one never. Then an
//! operation without an answer is no guesswork: where nobody has seen what it left, nothing changes if it
//! never took place; where somebody has, it took place before the first who did was answered. So the worlds
//! stay few, however many operations are lost. (The tester of stateright keeps them all, and is
//! exponential in them.)

use crate::harness::history::operations::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Instant;

/// More worlds than this at one moment are not searched. A dozen operations under way at once give a few
/// thousand.
const WORLDS: usize = 200_000;

/// An operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Just before its question was sent.
    pub asked: Instant,
    /// Just after its answer was there. None: it may have taken place, may yet, and may never.
    pub answered: Option<Instant>,
    /// What the register held when it took place.
    pub needs: Option<Value>,
    /// What the register held from then on; none: the same as before.
    pub leaves: Option<Value>,
}

/// What was found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// An order that explains all answers.
    Explained,
    /// No order explains the answer of this step, by its place in the history, together with all earlier
    /// ones; without it, the register would have held one of these.
    Unexplained(usize, BTreeSet<Value>),
    /// Too many worlds at the answer of this step.
    TooMany(usize),
}

/// A state that is possible at a moment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct World {
    value: Value,
    /// What has taken place and is not answered yet.
    ahead: BTreeSet<usize>,
}

/// What happens at a moment. Of what happens at the same one, questions are first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Question(usize),
    Answer(usize),
}

/// Searches for an order, from a register that holds `initial`.
pub fn check(history: &[Step], initial: Value) -> Finding {
    let steps = answered(history);
    let mut events: Vec<(Instant, Event)> = Vec::new();
    for (place, step) in &steps {
        events.push((step.asked, Event::Question(*place)));
        events.extend(step.answered.map(|answered| (answered, Event::Answer(*place))));
    }
    events.sort_unstable();
    let mut open: BTreeMap<usize, Step> = BTreeMap::new();
    let mut worlds = HashSet::from([World { value: initial, ahead: BTreeSet::new() }]);
    for (_, event) in events {
        match event {
            Event::Question(place) => {
                let Some(step) = steps.get(&place) else { continue };
                open.insert(place, *step);
                if step.leaves.is_none() {
                    worlds = worlds.into_iter().map(|world| world.reads(&open)).collect();
                }
            }
            Event::Answer(place) => {
                let Some(after) = worlds_after(place, &worlds, &open) else {
                    return Finding::TooMany(place);
                };
                if after.is_empty() {
                    let possible = worlds.iter().map(|world| world.value).collect();
                    return Finding::Unexplained(place, possible);
                }
                worlds = after;
                open.remove(&place);
            }
        }
    }
    Finding::Explained
}

/// The steps that have to take place, by their places: each with a moment before which.
fn answered(history: &[Step]) -> BTreeMap<usize, Step> {
    let mut seen: HashMap<Value, Instant> = HashMap::new();
    let earlier = |seen: &mut HashMap<Value, Instant>, value, moment: Instant| {
        let first = seen.entry(value).or_insert(moment);
        let is_news = moment < *first;
        *first = moment.min(*first);
        is_news
    };
    for step in history {
        if let (Some(value), Some(answered)) = (step.needs, step.answered) {
            earlier(&mut seen, value, answered);
        }
    }
    // Whoever sees what a lost compare-and-set left knows of what that had seen.
    let lost = || history.iter().filter(|step| step.answered.is_none());
    let mut is_news = true;
    while is_news {
        is_news = false;
        for step in lost() {
            let moment = step.leaves.and_then(|value| seen.get(&value).copied());
            if let (Some(value), Some(moment)) = (step.needs, moment) {
                is_news |= !seen.contains_key(&value);
                is_news |= earlier(&mut seen, value, moment);
            }
        }
    }
    let bounded = |step: &Step| {
        let moment = || seen.get(&step.leaves?).copied();
        // Seen before it was asked for: a fault, and whoever saw it is at fault.
        let answered = step.answered.or_else(|| Some(moment()?.max(step.asked)))?;
        Some(Step { answered: Some(answered), ..*step })
    };
    let numbered = history.iter().enumerate();
    numbered.filter_map(|(place, step)| Some((place, bounded(step)?))).collect()
}

/// The worlds in which a step has taken place, from those in which it may have. None: too many.
fn worlds_after(
    place: usize,
    worlds: &HashSet<World>,
    open: &BTreeMap<usize, Step>,
) -> Option<HashSet<World>> {
    let mut known = worlds.clone();
    let mut agenda: Vec<World> = worlds.iter().cloned().collect();
    let mut after = HashSet::new();
    while let Some(mut world) = agenda.pop() {
        if world.ahead.remove(&place) {
            after.insert(world);
            continue;
        }
        for next in world.successors(open) {
            if known.insert(next.clone()) {
                agenda.push(next);
            }
        }
        if known.len() > WORLDS {
            return None;
        }
    }
    Some(after)
}

impl World {
    /// After any one of the changes that can take place now.
    fn successors(&self, open: &BTreeMap<usize, Step>) -> Vec<Self> {
        let possible = |(place, step): (&usize, &Step)| {
            let value = step.leaves?;
            let fits = step.needs.is_none_or(|needed| needed == self.value);
            (fits && !self.ahead.contains(place)).then(|| {
                let mut next = Self { value, ahead: self.ahead.clone() };
                next.ahead.insert(*place);
                next.reads(open)
            })
        };
        open.iter().filter_map(possible).collect()
    }

    /// With all reads that can take place now: it never helps to put one off.
    fn reads(mut self, open: &BTreeMap<usize, Step>) -> Self {
        for (place, step) in open {
            if step.leaves.is_none() && step.needs.is_none_or(|needed| needed == self.value) {
                self.ahead.insert(*place);
            }
        }
        self
    }
}

#[cfg(test)]
mod tests;
