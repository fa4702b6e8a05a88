//! What a node may be told: each goal, in the epochs in which it differs.

use super::{NEW, OWN, UPSTREAM};
use shared::goal::{self, Assignment, Goal, Member, Order, Orders};
use shared::history::{Lineage, LineageEntry, Start};
use shared::ids::{Epoch, Gen, NodeId, Ticket, TimelineId};
use shared::lsn::{Lsn, Position};
use shared::pgsettings::NodeSettings;
use shared::settings::Settings;
use shared::spec::Spec;
use shared::state::NodeState;
use sim::node::SYSTEM;

pub fn goals() -> Vec<Assignment> {
    let follow = || Goal::Follow { upstream: goal::Upstream::Primary { node: UPSTREAM } };
    let cascade = || Goal::Follow {
        upstream: goal::Upstream::Standby { node: UPSTREAM, primary: NodeId(3) },
    };
    let target = |lsn| Position { epoch: Epoch(2), lsn: Lsn(lsn) };
    let source = UPSTREAM;
    vec![
        assignment(Goal::Wait, 2),
        assignment(Goal::Primary { timeline: None, spec: spec(7, 1) }, 1),
        assignment(Goal::Primary { timeline: Some(NEW), spec: spec(7, 3) }, 3),
        assignment(follow(), 2),
        assignment(follow(), 3),
        assignment(cascade(), 2),
        assignment(cascade(), 3),
        assignment(Goal::Seal { drain: false }, 2),
        assignment(Goal::Seal { drain: true }, 2),
        assignment(Goal::FastForward { source, target: target(800) }, 2),
        assignment(Goal::FastForward { source, target: target(550) }, 2),
        assignment(Goal::Maintenance, 2),
        assignment(Goal::Dropped, 2),
    ]
}

/// An assignment of a goal in an epoch.
pub fn assignment(goal: Goal, epoch: u64) -> Assignment {
    let founding = epoch == 1;
    let lineage = if founding { Lineage(lineage().0[..1].to_vec()) } else { lineage() };
    Assignment {
        order: Order { ticket: Ticket(12), generation: Gen(7) },
        epoch: Epoch(epoch),
        goal_state: NodeState::Secondary,
        goal,
        members: vec![member(UPSTREAM), member(OWN)],
        lineage,
        system_identifier: if founding { None } else { Some(SYSTEM) },
        timers: Settings::default().timers(),
        may_stop: false,
        settings: NodeSettings::default(),
        orders: Orders::default(),
        keepsake: None,
    }
}

pub fn lineage() -> Lineage {
    let entry = |epoch, timeline, start: Option<(Option<u64>, u64)>| LineageEntry {
        start: start.map(|(parent, lsn)| Start { parent: parent.map(Epoch), lsn: Lsn(lsn) }),
        ..LineageEntry::reserved(Epoch(epoch), TimelineId(timeline))
    };
    Lineage(vec![
        entry(1, 1, Some((None, 0))),
        entry(2, 3, Some((Some(1), 500))),
        entry(3, NEW.0, None),
    ])
}

fn member(id: NodeId) -> Member {
    Member {
        id,
        name: format!("n{id}").parse().unwrap(),
        host: format!("host-{id}"),
        port: 5432,
        rest: format!("host-{id}:6432"),
        admission: Ticket(9),
    }
}

pub fn spec(generation: u64, epoch: u64) -> Spec {
    Spec {
        generation: Gen(generation),
        epoch: Epoch(epoch),
        primary: OWN,
        required: 1,
        standbys: [UPSTREAM].into(),
    }
}
