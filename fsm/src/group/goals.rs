//! What each node shall do: a projection of the group's record, not a state of its own.

use super::pgsettings::settings_of;
use super::record::{Node, Phase, Record};
use super::view::View;
use shared::goal::{Assignment, Goal, Keepsake, Member, Standing, Upstream};
use shared::history::Lineage;
use shared::ids::NodeId;
use shared::report::Lease;
use shared::spec::Spec;
use shared::state::NodeState;

/// The assignment of a node; `None` for a node that is not in the record (dropped).
pub fn assignment(record: &Record, view: &View, id: NodeId) -> Option<Assignment> {
    let node = record.nodes.get(&id)?;
    let (goal, goal_state) = goal_of(record, id, node);
    Some(Assignment {
        order: record.order(),
        epoch: record.epoch,
        goal_state,
        goal,
        members: record.nodes.iter().map(|(id, node)| member(*id, node)).collect(),
        lineage: lineage_for(record, id),
        system_identifier: record.system_identifier,
        timers: record.settings.timers(),
        may_stop: may_stop(record, view, id),
        orders: node.orders,
        settings: settings_of(record, view, id),
        keepsake: Some(Box::new(keepsake(record))),
    })
}

/// What keepers keep for a monitor that loses its record.
fn keepsake(record: &Record) -> Keepsake {
    let standing = |node: &Node| Standing {
        zone: node.zone.clone(),
        candidate_priority: node.candidate_priority,
        replication_quorum: node.replication_quorum,
        maintenance: node.maintenance,
        dropping: node.dropping,
        cascade: node.cascade,
    };
    Keepsake {
        settings: record.settings.clone(),
        postgres: record.postgres.clone(),
        paused: record.paused.is_some(),
        nodes: record.nodes.iter().map(|(id, node)| (*id, standing(node))).collect(),
        next_node: record.next_node,
    }
}

/// The epochs, as a node has to take them: its own log needs no proof that it is what was accepted.
fn lineage_for(record: &Record, id: NodeId) -> Lineage {
    let mut lineage = record.lineage.clone();
    for entry in lineage.0.iter_mut().filter(|entry| entry.accepted == Some(id)) {
        entry.accepted = None;
    }
    lineage
}

fn member(id: NodeId, node: &Node) -> Member {
    Member {
        id,
        name: node.name.clone(),
        host: node.host.clone(),
        port: node.port,
        rest: node.rest.clone(),
        admission: node.admission,
    }
}

/// The goal of a node and its name.
pub fn goal_of(record: &Record, id: NodeId, node: &Node) -> (Goal, NodeState) {
    let sync_member = record.is_sync_member(id);
    let is_primary = record.primary == Some(id);
    if node.dropping && !is_primary && !sync_member {
        return (Goal::Dropped, NodeState::Dropped);
    }
    match &record.phase {
        Phase::Forming => (Goal::Wait, NodeState::Init),
        Phase::Serving if is_primary => primary_goal(record, node),
        Phase::Serving => standby_goal(record, node, sync_member),
        Phase::Promoting if is_primary => {
            let (goal, _) = primary_goal(record, node);
            (goal, NodeState::PreparePromotion)
        }
        Phase::Promoting => hold_still(node, sync_member, NodeState::JoinSecondary),
        Phase::Electing(election) if election.drain => {
            if is_primary {
                let state = if record.operation.as_ref().is_some_and(|o| o.target == Some(id)) {
                    NodeState::PrepareMaintenance
                } else {
                    NodeState::Draining
                };
                (Goal::Seal { drain: true }, state)
            } else {
                standby_goal(record, node, sync_member)
            }
        }
        // Before the next: the last primary may be the candidate.
        Phase::Forwarding { candidate, source, target, .. } if *candidate == id => {
            (Goal::FastForward { source: *source, target: *target }, NodeState::FastForward)
        }
        Phase::Electing(_) | Phase::Forwarding { .. } if is_primary => {
            (Goal::Seal { drain: false }, NodeState::Demoted)
        }
        Phase::Electing(_) | Phase::Forwarding { .. } => {
            hold_still(node, sync_member, NodeState::ReportLsn)
        }
    }
}

/// A node in maintenance takes no part in elections; it counts for nothing once it has left the
/// sync set.
fn hold_still(node: &Node, sync_member: bool, state: NodeState) -> (Goal, NodeState) {
    if node.maintenance && !sync_member {
        (Goal::Maintenance, NodeState::Maintenance)
    } else {
        (Goal::Seal { drain: false }, state)
    }
}

fn primary_goal(record: &Record, node: &Node) -> (Goal, NodeState) {
    let Some(spec) = record.newest_spec() else { return (Goal::Wait, NodeState::Init) };
    let state =
        if node.maintenance { NodeState::PrepareMaintenance } else { primary_state(record, spec) };
    let entry = record.present_timeline();
    let first = record.lineage.0.first().map(|entry| entry.epoch) == Some(record.epoch);
    let timeline = entry.map(|entry| entry.timeline).filter(|_| !first);
    (Goal::Primary { timeline, spec: spec.clone() }, state)
}

fn primary_state(record: &Record, spec: &Spec) -> NodeState {
    if record.nodes.len() == 1 {
        NodeState::Single
    } else if spec.is_asynchronous() {
        NodeState::WaitPrimary
    } else {
        NodeState::Primary
    }
}

fn standby_goal(record: &Record, node: &Node, sync_member: bool) -> (Goal, NodeState) {
    if node.maintenance && !sync_member {
        return (Goal::Maintenance, NodeState::Maintenance);
    }
    let Some(primary) = record.primary else { return (Goal::Wait, NodeState::Init) };
    let confirmed = record.lineage.entry(record.epoch).is_some_and(|entry| entry.start.is_some());
    if node.joined.is_some() || !confirmed {
        return (Goal::Wait, NodeState::WaitStandby);
    }
    let state = if node.maintenance { NodeState::WaitMaintenance } else { NodeState::Secondary };
    (Goal::Follow { upstream: upstream_of(record, node, primary, sync_member) }, state)
}

/// A member of the sync set streams from the primary, whatever it is to do next.
fn upstream_of(record: &Record, node: &Node, primary: NodeId, sync_member: bool) -> Upstream {
    let standby = node.cascade.upstream.filter(|_| !sync_member);
    match standby.filter(|id| *id != primary && record.nodes.contains_key(id)) {
        Some(node) => Upstream::Standby { node, primary },
        None => Upstream::Primary { node: primary },
    }
}

/// Whether a keeper that was asked to stop may stop its Postgres.
fn may_stop(record: &Record, view: &View, id: NodeId) -> bool {
    if !view.report(id).is_some_and(|report| report.leaving) {
        return false;
    }
    if record.primary == Some(id) {
        return match record.phase {
            Phase::Forming => true,
            Phase::Serving => {
                record.paused.is_some() || !somebody_could_take_over(record, view, id)
            }
            Phase::Electing(_) | Phase::Forwarding { .. } | Phase::Promoting => false,
        };
    }
    !record.is_sync_member(id)
}

/// Whether a stop of the primary is worth a hand-over: another node that reports could be promoted.
pub(crate) fn somebody_could_take_over(record: &Record, view: &View, primary: NodeId) -> bool {
    record.nodes.iter().any(|(id, node)| {
        *id != primary
            && node.candidate_priority > 0
            && !node.maintenance
            && !node.dropping
            && view.report(*id).is_some_and(|report| report.streaming && !report.leaving)
    })
}

/// The lease that an answer to this node grants (rule 12): to the primary of the epoch, by the answer
/// that names it so.
pub fn lease(record: &Record, id: NodeId) -> Option<Lease> {
    let serving = match &record.phase {
        Phase::Serving | Phase::Promoting => true,
        // Until it has stopped it serves, for as long as its hooks take: nobody else is looked for yet.
        Phase::Electing(election) => election.drain,
        Phase::Forming | Phase::Forwarding { .. } => false,
    };
    if !serving || record.primary != Some(id) || record.quarantined {
        return None;
    }
    if record.nodes.len() == 1 {
        return Some(Lease::Unlimited);
    }
    Some(Lease::For { ms: record.settings.timers().lease_ms })
}
