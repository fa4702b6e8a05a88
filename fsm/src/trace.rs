//! What a keeper and a monitor write down, where they are asked to, so that every decision of theirs
//! can be made again elsewhere and compared: one line of JSON each.
//!
//! Must hold: a line has all that the decision was made from, and no secret.

use crate::group::{Decision, Record, View, join, request, rules};
use crate::node::plan::Next;
use crate::node::view::Persisted;
use crate::node::{LocalView, Plan, Step};
use crate::{Millis, Now};
use serde::{Deserialize, Serialize};
use shared::api::{Action, JoinRequest};
use shared::ids::NodeId;
use shared::state::NodeState;

/// A line of a keeper.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeeperLine {
    /// On the clock that all processes of a machine share.
    pub at: Millis,
    /// Whose.
    pub node: NodeId,
    /// What happened.
    pub what: Happened,
}

/// What a keeper did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Happened {
    /// A process has begun: it has seen nothing yet.
    Started,
    /// It has looked and planned.
    Looked(Box<Pass>),
    /// It has carried out the step that it had planned.
    Acted(Step, Outcome),
}

/// A look, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pass {
    /// What was seen.
    pub view: LocalView,
    /// What was known.
    pub persisted: Option<Persisted>,
    /// A copy or rewind is under way: nothing is planned.
    pub copying: bool,
    /// The node in one word.
    pub state: NodeState,
    /// What comes next.
    pub next: Planned,
}

/// [`Next`], as it can be read again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Planned {
    /// See [`Next::Do`].
    Do(Step),
    /// See [`Next::Wait`].
    Wait(String),
    /// See [`Next::Reached`].
    Reached,
}

impl From<&Next> for Planned {
    fn from(next: &Next) -> Self {
        match next {
            Next::Do(step) => Self::Do(step.clone()),
            Next::Wait(what) => Self::Wait((*what).to_owned()),
            Next::Reached => Self::Reached,
        }
    }
}

impl Pass {
    /// Whether this plan is the one.
    pub fn is(&self, plan: &Plan) -> bool {
        self.state == plan.state && self.next == Planned::from(&plan.next)
    }
}

/// What became of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is done; a copy or rewind has begun.
    Done,
    /// Something has to come first.
    NotYet,
    /// It failed, after none, some or all of its effect.
    Failed,
}

/// A line of a monitor: a decision, before it is stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MonitorLine {
    /// When it was made.
    pub now: Now,
    /// Why something was to be decided.
    pub cause: Cause,
    /// What was seen.
    pub view: View,
    /// The record that it was made on.
    pub before: Record,
    /// What was decided.
    pub decision: Decision,
}

/// Why something was to be decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The process has started.
    Started,
    /// A rule may fire; with the chance that was drawn.
    Rule(u64),
    /// An operator asks.
    Action(Action),
    /// A keeper registers.
    Join(Box<JoinRequest>),
}

/// Stands for every secret.
const HIDDEN: &str = "-";

/// That there is none says something, too.
fn hide(secret: &mut String) {
    if !secret.is_empty() {
        HIDDEN.clone_into(secret);
    }
}

impl MonitorLine {
    /// The line without secrets: they play no part in a decision once they have been compared. And
    /// without what is long and was not looked at.
    #[must_use]
    pub fn redacted(mut self) -> Self {
        for record in [&mut self.before, &mut self.decision.record] {
            let nodes = record.nodes.values_mut().map(|node| &mut node.secret);
            nodes.chain(record.dropped.values_mut()).for_each(hide);
        }
        if let Cause::Join(request) = &mut self.cause {
            (request.token, request.passwords) = (None, None);
            if let Some(identity) = &mut request.identity {
                hide(&mut identity.secret);
            }
        }
        // Of use for one kind of request only, and by far the largest part of a line.
        let asks = matches!(self.cause, Cause::Action(Action::Configure { .. }));
        if !asks {
            self.view.catalogues.clear();
        }
        self
    }

    /// What is decided from what this decision was made from.
    pub fn decided_again(&self) -> Option<Decision> {
        let Self { now, view, before, .. } = self;
        match &self.cause {
            Cause::Started => Some(before.monitor_started(*now)),
            Cause::Rule(tie_break) => rules::step(before, view, *now, *tie_break),
            Cause::Action(action) => match request::apply(before, view, action, *now).ok()? {
                request::Reply::Already(_) => None,
                request::Reply::Decided(decision, _) => Some(*decision),
            },
            Cause::Join(request) => {
                join::join(before, request, HIDDEN, *now).ok()?.decision.map(|decision| *decision)
            }
        }
    }
}
