//! Being the primary: birth, promotion (rules 7 and 8), start (rule 13) and the sync spec (rule 9).

use super::consent::Asked;
use super::plan::{Next, Plan, Step};
use super::standby::{is_known, sealed_standby};
use super::view::{Data, File, Lack, LocalView, Persisted, Process, Sync};
use shared::goal::Goal;
use shared::history::{History, Lineage};
use shared::ids::{Epoch, TimelineId};
use shared::lsn::Lsn;
use shared::report::Promoted;
use shared::spec::Spec;
use shared::state::NodeState;

/// What a primary-to-be waits for whose log goes on on a timeline that is not the group's.
const BY_SOMEBODY_ELSE: &str = "another primary: this one was promoted by somebody else";

/// The steps to being the primary of the assignment's epoch under `spec`.
pub(super) fn be_primary(
    view: &LocalView,
    persisted: &Persisted,
    timeline: Option<TimelineId>,
    spec: &Spec,
) -> Plan {
    let assignment = &persisted.assignment;
    match &view.data {
        // Half-made here is what an interrupted initdb has left: nobody has a cluster to copy yet.
        Data::Empty | Data::Rebuilding
            if timeline.is_none() && assignment.system_identifier.is_none() =>
        {
            return if view.is_primary() {
                Plan::step(NodeState::Init, Step::StopImmediate)
            } else if view.heard {
                Plan::step(NodeState::Init, Step::Initialise)
            } else {
                Plan::wait(NodeState::Init, "the monitor's answer")
            };
        }
        // Nothing is ever initialised empty under an existing identity (rule 11).
        Data::Empty | Data::Rebuilding => {
            return Plan::wait(NodeState::Demoted, "another primary: the data of this one is lost");
        }
        // Somebody may mend that.
        Data::Unusable => {
            return Plan::wait(NodeState::Demoted, "a data directory that can be used");
        }
        Data::Present { .. } => {}
    }
    let promoted = is_promoted(persisted);
    match timeline {
        Some(timeline) if !promoted => promote(view, &assignment.lineage, timeline),
        Some(_) | None => serve(view, persisted, promoted, spec),
    }
}

/// Rule 7: from the sealed standby that was elected to a verified new timeline.
fn promote(view: &LocalView, lineage: &Lineage, reserved: TimelineId) -> Plan {
    let state = NodeState::PreparePromotion;
    match &view.server {
        Some(server) if !server.in_recovery => {
            // On another timeline: a primary of an older epoch, elected again, which goes on in the new one as
            // a promotion; or one that somebody else has promoted.
            let promoted = server.history.timeline == reserved && is_ours(lineage, &server.history);
            let next = if promoted { Step::ConfirmPromotion } else { Step::StopImmediate };
            Plan::step(state, next)
        }
        Some(server) if server.history.timeline == reserved => {
            Plan::wait(state, "another timeline number: the promotion was interrupted")
        }
        Some(server) if !is_ours(lineage, &server.history) => Plan::wait(state, BY_SOMEBODY_ELSE),
        Some(_) | None => sealed_standby(view, state).unwrap_or_else(|| match view.hook {
            Asked::Clear => Plan::step(state, Step::Promote { timeline: reserved }),
            Asked::Running => Plan::wait(state, "the pre_promote hook"),
            Asked::Refused => Plan::wait(state, "another primary: the pre_promote hook refuses"),
        }),
    }
}

/// Whether a log is the group's to its very end, hence the one that its node was elected with. With a timeline
/// in it that somebody began by hand it would have no position ever after (rule 4): neither the new primary nor
/// whoever is copied from it could be a witness, or be proved to follow.
fn is_ours(lineage: &Lineage, history: &History) -> bool {
    lineage.position(history, Lsn(u64::MAX)).is_some()
}

/// Why this node cannot reach the goal that an election gave it; another is elected then, or it with a
/// new timeline number. A promotion that was interrupted after it had taken the number cannot be
/// repeated, PostgreSQL would give another one now; and somebody else may have promoted it since.
pub fn cannot_serve(view: &LocalView, persisted: &Persisted) -> Option<&'static str> {
    const NO_FIT: &str =
        "its promotion was interrupted, or somebody else promoted it: it needs another timeline";
    let assignment = &persisted.assignment;
    let sealed = view.server.as_ref().filter(|server| server.in_recovery);
    let spoiled = match &assignment.goal {
        Goal::Primary { .. } if is_promoted(persisted) => {
            view.process == Process::Stopped && is_elsewhere(view, persisted)
        }
        Goal::Primary { timeline: Some(reserved), .. } => sealed.is_some_and(|server| {
            let history = &server.history;
            history.timeline == *reserved || !is_ours(&assignment.lineage, history)
        }),
        Goal::FastForward { .. } if view.upstream_lacks == Some(Lack::Wal) => {
            return Some("the source has not got the WAL any more that this node lacks");
        }
        // The same timeline, that the source has never heard of.
        Goal::FastForward { target, .. } => sealed
            .is_some_and(|server| !is_known(&assignment.lineage, &server.history, target.epoch)),
        Goal::Primary { timeline: None, .. }
        | Goal::Wait
        | Goal::Follow { .. }
        | Goal::Seal { .. }
        | Goal::Maintenance
        | Goal::Dropped => false,
    };
    spoiled.then_some(NO_FIT)
}

/// Whether the promotion of the assigned epoch has been verified.
fn is_promoted(persisted: &Persisted) -> bool {
    let epoch = persisted.assignment.epoch;
    persisted.promoted.as_ref().is_some_and(|promoted| promoted.epoch == epoch)
}

/// Whether its log goes on on another timeline than the one that it was promoted to.
fn is_elsewhere(view: &LocalView, persisted: &Persisted) -> bool {
    let (present, promoted) = (view.history(), persisted.promoted.as_ref());
    present.zip(promoted).is_some_and(|(history, promoted)| promoted.timeline != history.timeline)
}

fn serve(view: &LocalView, persisted: &Persisted, promoted: bool, spec: &Spec) -> Plan {
    let state = persisted.assignment.goal_state;
    let down = if view.may_write || !promoted { state } else { NodeState::DemoteTimeout };
    if !view.adopted && view.process != Process::Starting {
        return Plan::step(state, Step::Adopt);
    }
    match (view.process, &view.server) {
        (Process::Stopped, _) if !view.may_write => {
            Plan::wait(down, "a lease: an answer of the monitor")
        }
        (Process::Stopped, _) if promoted && is_elsewhere(view, persisted) => {
            Plan::wait(down, BY_SOMEBODY_ELSE)
        }
        (Process::Stopped, _) => start(view, persisted, down),
        (Process::Starting | Process::Running, None) => {
            Plan::wait(down, "postgres to accept connections")
        }
        (Process::Starting | Process::Running, Some(server)) if server.in_recovery => {
            in_recovery(view, state, promoted)
        }
        (Process::Starting | Process::Running, Some(_)) => run(view, persisted, promoted, spec),
    }
}

/// The file decides what a restarted primary runs under: the spec of its own epoch that it has, or
/// the blocking one (rule 9).
fn start(view: &LocalView, persisted: &Persisted, state: NodeState) -> Plan {
    let kept = view.file.spec.clone().filter(|spec| spec.epoch == persisted.assignment.epoch);
    let file = File { upstream: None, spec: kept, current: true, restore: false };
    if view.file == file {
        Plan::step(state, Step::StartPrimary)
    } else {
        Plan::step(state, Step::Configure(file))
    }
}

/// A Postgres in recovery that should be the primary. One that has been promoted was started as a
/// standby by somebody else: it is started again as what it is.
fn in_recovery(view: &LocalView, state: NodeState, promoted: bool) -> Plan {
    if promoted {
        Plan::step(state, Step::StopImmediate)
    } else if matches!(&view.data, Data::Present { standby_signal: true, .. }) {
        Plan::wait(state, "a cluster that is not a standby: the first node must bring a primary")
    } else {
        Plan::wait(state, "the end of archive recovery")
    }
}

/// A running primary: first what makes it ours, then the spec, then the checkpoint.
fn run(view: &LocalView, persisted: &Persisted, promoted: bool, spec: &Spec) -> Plan {
    let state = persisted.assignment.goal_state;
    if !promoted {
        return Plan::step(state, Step::ConfirmPromotion);
    }
    if is_elsewhere(view, persisted) {
        // Somebody else promoted it: that timeline is of no epoch.
        return Plan::step(NodeState::Demoted, Step::StopImmediate);
    }
    if view.file.upstream.is_some() || view.file.restore || !view.file.current {
        let file = File { upstream: None, current: true, restore: false, ..view.file.clone() };
        return Plan::step(state, Step::Configure(file));
    }
    let next = apply(view, spec);
    let shown = match next {
        Next::Reached => state,
        Next::Do(_) | Next::Wait(_) if view.settled => state,
        Next::Do(_) | Next::Wait(_) => NodeState::WaitPrimary,
    };
    // Not after the barrier: that may wait for a standby which has to be rewound first, and a rewind
    // waits for the checkpoint. Commits go on meanwhile.
    let late = matches!(next, Next::Reached | Next::Do(Step::Barrier(_)));
    if late && !view.checkpointed {
        return Plan::step(shown, Step::Checkpoint);
    }
    Plan::new(shown, next)
}

/// Rule 9. The file is never written again before the signs of its present content were seen.
pub fn apply(view: &LocalView, spec: &Spec) -> Next {
    let target = spec.generation;
    match (view.sync, &view.file.spec) {
        (Sync::InForce(generation), _) if generation == target => Next::Reached,
        (Sync::Set(generation), _) if generation == target => Next::Do(Step::Barrier(spec.clone())),
        (Sync::Blocked, _) => Next::Do(Step::Set(spec.clone())),
        // Just started, or the keeper just was: the signs of what the file says come first.
        (Sync::Unknown, Some(present)) => Next::Do(Step::Set(present.clone())),
        // What the file says has been seen by every process (or it blocks anyway): it may be written.
        (Sync::InForce(_) | Sync::Set(_), _) | (Sync::Unknown, None) => Next::Do(Step::Block),
    }
}

/// The promotion that a primary on this history has behind it (the lineage entry to be).
pub fn promotion(history: &History, lineage: &Lineage, epoch: Epoch) -> Promoted {
    let first = lineage.0.first().is_none_or(|entry| entry.epoch == epoch);
    let parent = history.ancestors.last().and_then(|segment| lineage.epoch_of(segment.timeline));
    Promoted {
        epoch,
        timeline: history.timeline,
        parent: parent.filter(|_| !first),
        start: history.start(),
        ancestors: history.ancestors.clone(),
    }
}
