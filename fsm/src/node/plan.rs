//! What to do next on one node: from what is seen and what is wanted, whatever they are, to a step,
//! a wait for something named, or "reached". Every goal can be reached from every situation; there
//! is no remembered state that a goal might not fit.

use super::consent::Asked;
use super::view::{Data, Due, File, LocalView, Persisted, Process, Upstream};
use super::{primary, standby};
use serde::{Deserialize, Serialize};
use shared::goal::{self, Goal};
use shared::ids::{NodeId, Ticket, TimelineId};
use shared::spec::Spec;
use shared::state::NodeState;

/// What a primary waits for before it stops for another one.
const PRE_DEMOTE: &str = "the pre_demote hook";

/// One thing to do. Idempotent, and safe to repeat after a crash between any two of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// Create a new cluster.
    Initialise,
    /// Make a cluster that was not created here ours: roles, include line, HBA block.
    Adopt,
    /// Write the managed configuration, and reload it where Postgres runs.
    Configure(File),
    /// Start Postgres as a standby, with what the file says.
    StartStandby,
    /// Start Postgres as a primary, with what the file says.
    StartPrimary,
    /// Stop Postgres, letting standbys have everything first.
    StopFast,
    /// Stop Postgres at once.
    StopImmediate,
    /// Stop Postgres, as the operator has asked, to be started again.
    Restart,
    /// Create the admission slot on the upstream, and remember the proof.
    Admit {
        /// The upstream.
        upstream: NodeId,
        /// The ticket in the slot's name.
        admission: Ticket,
    },
    /// Make a fresh copy of the primary.
    Clone {
        /// The primary.
        from: NodeId,
    },
    /// Connect to nobody, and take WAL from the archive. What was proved of the log holds no longer.
    CatchUp,
    /// Stop, and take the own log back to where it left the upstream's history. One step, since the
    /// end of the log, hence the divergence, is known only while Postgres runs.
    Rewind {
        /// The primary.
        from: NodeId,
    },
    /// Promote onto this timeline (rule 8).
    Promote {
        /// The reserved number.
        timeline: TimelineId,
    },
    /// Remember a verified promotion.
    ConfirmPromotion,
    /// Rule 9, (i): let nothing be acknowledged.
    Block,
    /// Rule 9, (ii): let the members of this spec acknowledge.
    Set(Spec),
    /// Rule 9, (iii): wait until they have passed the barrier.
    Barrier(Spec),
    /// Checkpoint, so that pg_rewind sees the new timeline in the control file.
    Checkpoint,
}

impl Step {
    /// Its name for people.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Initialise => "initdb",
            Self::Adopt => "adopt",
            Self::Configure(_) => "configure",
            Self::StartStandby => "start as a standby",
            Self::StartPrimary => "start as the primary",
            Self::StopFast => "stop (fast)",
            Self::StopImmediate => "stop (immediate)",
            Self::Restart => "restart",
            Self::Admit { .. } => "admission",
            Self::Clone { .. } => "clone",
            Self::CatchUp => "catch up from the archive",
            Self::Rewind { .. } => "rewind",
            Self::Promote { .. } => "promote",
            Self::ConfirmPromotion => "confirm promotion",
            Self::Block => "block commits",
            Self::Set(_) => "set sync spec",
            Self::Barrier(_) => "wait for the barrier",
            Self::Checkpoint => "checkpoint",
        }
    }
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Do this.
    Do(Step),
    /// Nothing can be done before this has happened.
    Wait(&'static str),
    /// The goal holds.
    Reached,
}

/// The outcome of planning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The node in one word.
    pub state: NodeState,
    /// What comes next.
    pub next: Next,
}

impl Plan {
    pub(crate) fn new(state: NodeState, next: Next) -> Self {
        Self { state, next }
    }

    pub(crate) fn step(state: NodeState, step: Step) -> Self {
        Self { state, next: Next::Do(step) }
    }

    pub(crate) fn wait(state: NodeState, what: &'static str) -> Self {
        Self { state, next: Next::Wait(what) }
    }
}

/// What to do next. Total: for every view and every assignment.
pub fn plan(view: &LocalView, persisted: Option<&Persisted>) -> Plan {
    let Some(persisted) = persisted else {
        return Plan::wait(NodeState::Init, "the monitor's first answer");
    };
    if view.stopping {
        return stop(view, persisted);
    }
    if let Some(plan) = ordered(view, persisted) {
        return plan;
    }
    match &persisted.assignment.goal {
        Goal::Wait => Plan::new(persisted.assignment.goal_state, Next::Reached),
        Goal::Dropped => drop_out(view),
        Goal::Maintenance if view.is_primary() => {
            Plan::step(NodeState::PrepareMaintenance, Step::StopImmediate)
        }
        Goal::Maintenance => Plan::new(NodeState::Maintenance, Next::Reached),
        Goal::Seal { drain } => seal(view, persisted, *drain),
        Goal::FastForward { source, target } => {
            standby::fast_forward(view, persisted, *source, *target)
        }
        Goal::Follow { upstream } => standby::follow(view, persisted, upstream),
        Goal::Primary { timeline, spec } => primary::be_primary(view, persisted, *timeline, spec),
    }
}

/// What an operator has asked for, where the goal allows it now.
fn ordered(view: &LocalView, persisted: &Persisted) -> Option<Plan> {
    let assignment = &persisted.assignment;
    match (view.due?, &assignment.goal) {
        (Due::Copy, Goal::Follow { upstream: goal::Upstream::Primary { node } }) => {
            Some(Plan::step(NodeState::Catchingup, Step::Clone { from: *node }))
        }
        (Due::Restart, Goal::Primary { .. } | Goal::Follow { .. }) if view.server.is_some() => {
            Some(Plan::step(assignment.goal_state, Step::Restart))
        }
        (
            Due::Copy | Due::Restart,
            Goal::Wait
            | Goal::Primary { .. }
            | Goal::Follow { .. }
            | Goal::Seal { .. }
            | Goal::FastForward { .. }
            | Goal::Maintenance
            | Goal::Dropped,
        ) => None,
    }
}

/// A planned stop: everything is handed over, or there is nobody to hand over to.
fn stop(view: &LocalView, persisted: &Persisted) -> Plan {
    let state = persisted.assignment.goal_state;
    match view.process {
        Process::Stopped => Plan::new(state, Next::Reached),
        Process::Starting | Process::Running => Plan::step(state, Step::StopFast),
    }
}

fn drop_out(view: &LocalView) -> Plan {
    match view.process {
        Process::Stopped => Plan::new(NodeState::Dropped, Next::Reached),
        Process::Starting | Process::Running => Plan::step(NodeState::Secondary, Step::StopFast),
    }
}

/// The file of a node that connects to nobody and lets nobody acknowledge.
pub(crate) fn sealed_file() -> File {
    File { upstream: None, spec: None, current: true, restore: false }
}

/// Whether the file says this and is up to date otherwise.
pub(crate) fn file_is(view: &LocalView, upstream: Option<&Upstream>) -> bool {
    let quiet = view.file.spec.is_none() && !view.file.restore;
    view.file.current && view.file.upstream.as_ref() == upstream && quiet
}

/// Rule 3. The seal itself has been persisted with the assignment.
fn seal(view: &LocalView, persisted: &Persisted, drain: bool) -> Plan {
    let is_old_primary = persisted.promoted.as_ref().is_some_and(|promoted| {
        Some(promoted.epoch) >= persisted.admitted.map(|admitted| admitted.epoch)
    });
    let (done, doing) = if is_old_primary {
        (NodeState::Demoted, if drain { NodeState::Draining } else { NodeState::Demoted })
    } else {
        (NodeState::ReportLsn, NodeState::ReportLsn)
    };
    if view.is_primary() && drain && view.hook == Asked::Running {
        return Plan::wait(doing, PRE_DEMOTE);
    }
    if view.is_primary() {
        return Plan::step(doing, if drain { Step::StopFast } else { Step::StopImmediate });
    }
    match &view.data {
        Data::Empty | Data::Rebuilding | Data::Unusable => {
            return Plan::new(persisted.assignment.goal_state, Next::Wait("data to be sealed"));
        }
        Data::Present { .. } => {}
    }
    // A drained primary may say where its log ends without being started again, which keeps a
    // switchover short (rule 3). It is started when it is elected, or told to follow.
    if drain && view.process == Process::Stopped && view.established().is_some() {
        return Plan::new(doing, Next::Reached);
    }
    let prepare = standby::sealed_standby(view, done);
    prepare.unwrap_or_else(|| Plan::new(persisted.assignment.goal_state, Next::Reached))
}
