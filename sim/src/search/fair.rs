//! P3: from any state, once faults stop, everybody's turn comes, and the group converges.

use super::{Action, State};
use crate::walk;
use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// More rounds than any group of these sizes needs.
const ROUNDS: usize = 80;

/// States at the start of a round from which the group is known to converge.
#[derive(Debug, Default)]
pub struct Known(Vec<Mutex<HashSet<u64>>>);

impl Known {
    /// None yet.
    pub fn new() -> Self {
        Self((0..64).map(|_| Mutex::default()).collect())
    }

    fn shard(&self, print: u64) -> Option<std::sync::MutexGuard<'_, HashSet<u64>>> {
        let index = usize::try_from(print >> 58).unwrap_or(0);
        self.0.get(index).map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn has(&self, print: u64) -> bool {
        self.shard(print).is_some_and(|shard| shard.contains(&print))
    }

    fn add(&self, prints: Vec<u64>) {
        for print in prints {
            if let Some(mut shard) = self.shard(print) {
                shard.insert(print);
            }
        }
    }
}

/// Runs rounds until the group has settled.
pub(super) fn settle(state: &mut State) {
    for _ in 0..ROUNDS {
        let before = state.fingerprint();
        round(state);
        if walk::settled(&state.world).is_some() && before == state.fingerprint() {
            return;
        }
        if before == state.fingerprint() {
            state.tick();
        }
    }
}

/// Whether the group converges from here; what it looks like otherwise.
pub fn converges(state: &State, known: Option<&Known>) -> Result<(), String> {
    let mut state = state.clone();
    state.heal();
    let mut seen = Vec::new();
    for _ in 0..ROUNDS {
        let before = state.fingerprint();
        if known.is_some_and(|known| known.has(before)) {
            break;
        }
        seen.push(before);
        if let Some(violation) = state.violation() {
            return Err(format!("{violation:?}"));
        }
        if walk::settled(&state.world).is_some() && takes_writes(&state) {
            break;
        }
        round(&mut state);
        if state.fingerprint() == before {
            state.tick();
        }
        if seen.len() == ROUNDS {
            // Nothing is promised where a lost disk took the only proof with it.
            if walk::is_provable(&state.world) {
                return Err(walk::describe(&state.world));
            }
        }
    }
    if let Some(known) = known {
        known.add(seen);
    }
    Ok(())
}

fn takes_writes(state: &State) -> bool {
    let Some(primary) = walk::settled(&state.world) else { return false };
    let mut state = state.clone();
    state.world.write(primary);
    let last = |state: &State| {
        state.world.machines.get(primary).and_then(|m| m.log.records().last().copied())
    };
    let Some(commit) = last(&state) else { return false };
    for node in state.world.ids() {
        state.act(Action::Stream(node));
        state.act(Action::Stream(node));
    }
    state.world.ledger.is_acknowledged(commit)
}

/// Everybody's turn comes once.
fn round(state: &mut State) {
    state.world.end_maintenance();
    for node in state.world.ids() {
        for _ in 0..3 {
            state.act(Action::Turn { node, hears: true });
            state.world.pick_up(node);
            state.act(Action::Stream(node));
        }
    }
    state.act(Action::Look);
}
