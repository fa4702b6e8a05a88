//! Every state that the shipped decision code can reach in a bounded world, with nothing left to
//! chance: what may happen is an action, and all of them are tried in every order.
//!
//! The world is that of the walks. A search begins where a group has formed and counts what goes wrong
//! ([`Budget`]); when all is used up only what happens by itself is left, so the number of states is
//! finite. Steps of a keeper that no other process can see are taken together with the next one that
//! somebody can ([`state`]). Time stands still but for an action of its own, in which every timer runs
//! out.

pub mod action;
pub mod budget;
pub mod fair;
pub mod family;
pub mod state;

pub use action::Action;
pub use budget::{Budget, InvalidBudget};
pub use fair::Known;
pub use state::State;

use crate::world::Mutation;
use shared::settings::Settings;
use stateright::{Checker as _, Expectation, Model, Property};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A bounded world.
#[derive(Clone, Debug)]
pub struct Search {
    /// How many data nodes.
    pub nodes: u64,
    /// The formation's settings.
    pub settings: Settings,
    /// What may go wrong, and how often.
    pub budget: Budget,
    /// What is taken away.
    pub mutation: Mutation,
    /// A primary without a lease is stopped at once. Without this nothing ever is: P1 and P2 must not
    /// depend on it while commits are synchronous.
    pub guarded: bool,
    /// Walsenders and the checkpointer take up a changed sync set one after the other.
    pub lags: bool,
    /// Whether every state has to find back (P3) too: those from which the group is known to.
    pub finds_back: Option<Arc<Known>>,
}

/// What a search has found.
#[derive(Clone, Debug)]
pub struct Found {
    /// How many different states there are.
    pub states: usize,
    /// How many were reached, one way or another.
    pub transitions: usize,
    /// The longest shortest way to one.
    pub depth: usize,
    /// All of them were seen.
    pub complete: bool,
    /// How long it took.
    pub took: Duration,
    /// What is broken, and the shortest way there.
    pub broken: BTreeMap<&'static str, Vec<String>>,
}

/// P1, P2 and the invariants of the record (P4).
const SAFE: &str = "nothing acknowledged is lost, nobody else writes";
/// P3.
const FINDS_BACK: &str = "without faults the group converges";

impl Model for Search {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::formed(self)]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        state.actions(actions);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut next = last.clone();
        next.act(action);
        // What changes nothing leads nowhere.
        (next != *last).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties =
            vec![Property { expectation: Expectation::Always, name: SAFE, condition: is_safe }];
        if self.finds_back.is_some() {
            properties.push(Property {
                expectation: Expectation::Always,
                name: FINDS_BACK,
                condition: finds_back,
            });
        }
        properties
    }
}

fn is_safe(_: &Search, state: &State) -> bool {
    state.world.violation().is_none()
}

fn finds_back(search: &Search, state: &State) -> bool {
    let known = search.finds_back.as_deref();
    state.world.violation().is_some() || fair::converges(state, known).is_ok()
}

impl Search {
    /// Searches everything, or until something is broken, on so many threads. `limit`: gives up after
    /// so many states.
    pub fn run(self, threads: usize, limit: Option<usize>) -> Found {
        let began = Instant::now();
        let mut builder = self.checker().threads(threads);
        if let Some(limit) = limit {
            builder = builder.target_state_count(limit);
        }
        let checker = builder.spawn_bfs().join();
        let broken = checker
            .discoveries()
            .into_iter()
            .map(|(name, path)| {
                let mut lines: Vec<_> = path
                    .clone()
                    .into_actions()
                    .iter()
                    .map(|action| format!("{action:?}"))
                    .collect();
                lines.push(path.last_state().complaint());
                (name, lines)
            })
            .collect();
        Found {
            states: checker.unique_state_count(),
            transitions: checker.state_count(),
            depth: checker.max_depth(),
            complete: checker.is_done() && limit.is_none_or(|limit| checker.state_count() < limit),
            took: began.elapsed(),
            broken,
        }
    }
}
