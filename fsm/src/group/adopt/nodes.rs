//! The nodes and the settings of a record that is made anew: by what their keepers were told last.

use super::story::Story;
use crate::Now;
use crate::group::record::{Node, Pause, Record};
use shared::goal::{Cascade, Goal, Member, Orders, Standing};
use shared::ids::NodeId;
use shared::settings::{Settings, Timers};
use shared::state::NodeState;

/// What the operators had set, as far as anybody was told.
pub(super) fn take_settings(next: &mut Record, story: &Story<'_>, now: Now) {
    let Some(kept) = &story.newest.keepsake else {
        // From a monitor that told its keepers no more than the timers.
        next.settings = with_timers(&next.settings, story.newest.timers);
        return;
    };
    next.settings = kept.settings.clone();
    next.postgres = kept.postgres.clone();
    next.next_node = next.next_node.max(kept.next_node);
    next.paused = match &next.paused {
        Some(pause) if kept.paused => Some(pause.clone()),
        Some(_) | None => kept.paused.then_some(Pause { since: now.wall, withheld: None }),
    };
}

/// The settings from which these timers follow.
fn with_timers(settings: &Settings, timers: Timers) -> Settings {
    let node_timeout_ms = timers.node_timeout_ms;
    let plain = Settings { node_timeout_ms, ..Settings::default() }.timers();
    let unless = |value, follows| (value != follows).then_some(value);
    Settings {
        number_sync_standbys: settings.number_sync_standbys,
        node_timeout_ms,
        report_interval_ms: unless(timers.report_interval_ms, plain.report_interval_ms),
        lease_ms: unless(timers.lease_ms, plain.lease_ms),
        restart_budget_ms: unless(timers.restart_budget_ms, plain.restart_budget_ms),
        stall_timeout_ms: unless(timers.stall_timeout_ms, plain.stall_timeout_ms),
        election_grace_ms: unless(timers.election_grace_ms, plain.election_grace_ms),
        drain_timeout_ms: unless(timers.drain_timeout_ms, plain.drain_timeout_ms),
    }
}

/// All members, each under its own id, name and admission: nobody has to connect anew.
pub(super) fn take_nodes(next: &mut Record, story: &Story<'_>) {
    for id in &story.gone {
        let secret = story.record.nodes.get(id).map(|node| node.secret.clone());
        next.dropped.insert(*id, secret.unwrap_or_default());
    }
    next.nodes.clear();
    for (id, member) in &story.members {
        if let Some(node) = node(story, *id, *member) {
            next.nodes.insert(*id, node);
            next.next_node = next.next_node.max(id.next());
        }
    }
}

fn node(story: &Story<'_>, id: NodeId, member: Option<&Member>) -> Option<Node> {
    let known = story.record.nodes.get(&id);
    let mut node = known.cloned().or_else(|| member.map(unknown))?;
    let voice = story.voices.get(&id);
    node.absent = voice.is_none() && !story.stateless.contains(&id);
    if let Some(member) = member {
        node.admission = member.admission;
        // What it has just said of itself is newer.
        if node.joined.is_none() {
            node.name.clone_from(&member.name);
            node.host.clone_from(&member.host);
            node.port = member.port;
            node.rest.clone_from(&member.rest);
        }
    }
    let standing = story.newest.keepsake.as_ref().and_then(|kept| kept.nodes.get(&id));
    let goal = voice.map(|voice| &voice.offer.assignment.goal);
    match standing {
        Some(standing) => take_standing(&mut node, standing),
        None => node.maintenance |= goal == Some(&Goal::Maintenance),
    }
    if let Some(voice) = voice {
        // What was to be done once is given up with the operation that asked for it.
        let Orders { destroy, .. } = voice.offer.assignment.orders;
        node.orders = Orders { destroy, ..Orders::default() };
    }
    // Whom the primary has not heard of yet waits until it has.
    let waits = voice.is_none_or(|_| goal == Some(&Goal::Wait)) && !node.absent;
    node.joined = waits.then_some(story.record.revision.next());
    Some(node)
}

fn take_standing(node: &mut Node, standing: &Standing) {
    if node.joined.is_none() {
        node.zone.clone_from(&standing.zone);
    }
    node.candidate_priority = standing.candidate_priority;
    node.replication_quorum = standing.replication_quorum;
    node.maintenance = standing.maintenance;
    node.dropping = standing.dropping;
    node.cascade = standing.cascade;
}

/// A node that the others know of.
fn unknown(member: &Member) -> Node {
    Node {
        name: member.name.clone(),
        host: member.host.clone(),
        port: member.port,
        rest: member.rest.clone(),
        zone: None,
        candidate_priority: 50,
        replication_quorum: true,
        secret: String::new(),
        absent: true,
        admission: member.admission,
        joined: None,
        stateless_keeper: None,
        maintenance: false,
        dropping: false,
        cascade: Cascade::default(),
        orders: Orders::default(),
        reported_state: NodeState::Init,
        state_changed_at: None,
    }
}
