//! `pgtandem status`: the record and the view in one consistent snapshot, for people and programs.

use super::adopt::adopt;
use super::detector::{Verdict, verdict};
use super::explain::blockers;
use super::goals::goal_of;
use super::pgsettings;
use super::record::{Node, Phase, Record};
use super::sync::{replica, streams};
use super::view::{Evidence, View};
use crate::{Millis, Now};
use shared::Timestamp;
use shared::api::{ArchiveFailing, ArchiveStatus, NodeStatus, OperationStatus, Status, SyncStatus};
use shared::goal::Goal;
use shared::ids::NodeId;
use shared::lsn::Lsn;
use shared::report::{Data, Lease, Replica, Report};

/// The status of a group.
pub fn status(record: &Record, view: &View, now: Now) -> Status {
    Status {
        formation: record.formation.clone(),
        group: record.group,
        revision: record.revision,
        epoch: record.epoch,
        ticket: record.ticket,
        phase: record.phase.name().to_owned(),
        paused: record.paused.is_some(),
        number_sync_standbys: u32::try_from(record.number_sync_standbys()).unwrap_or(u32::MAX),
        primary: if record.phase == Phase::Serving { record.primary_name() } else { None },
        writable: is_writable(record, view, now),
        sync: sync_status(record),
        operation: operation_status(record, view, now),
        lease_left: lease_left(record, view, now),
        nodes: record
            .nodes
            .iter()
            .map(|(id, node)| node_status(record, view, now, *id, node))
            .collect(),
        warnings: warnings(record, view, now),
        taken_at: Some(now.wall),
    }
}

/// Whether commits are being acknowledged: a live primary with its newest spec in force, and enough
/// standbys for it.
pub fn is_writable(record: &Record, view: &View, now: Now) -> bool {
    let (Phase::Serving, Some(primary)) = (&record.phase, record.primary) else { return false };
    let timers = record.settings.timers();
    let alive = verdict(view, primary, &timers, now.mono) == Verdict::Good;
    let running = view.report(primary).is_some_and(|report| {
        let primary = report.postgres.in_recovery == Some(false);
        report.postgres.running && primary && report.failed.is_none()
    });
    let spec = record.newest_spec().filter(|_| record.is_sync_settled());
    let held = spec.is_some_and(|spec| {
        let streaming = spec.standbys.iter().filter(|id| replica(record, view, **id).is_some());
        streaming.count() >= spec.required
    });
    alive && running && held
}

/// The sync set in force, and a change of it.
pub(super) fn sync_status(record: &Record) -> SyncStatus {
    let in_force = record.specs.iter().find(|spec| Some(spec.generation) == record.confirmed);
    let name = |id: &NodeId| record.nodes.get(id).map(|node| node.name.clone());
    SyncStatus {
        in_force: in_force.map(shared::spec::Spec::setting),
        members: in_force
            .map(|spec| spec.standbys.iter().filter_map(name).collect())
            .unwrap_or_default(),
        required: in_force.map_or(0, |spec| spec.required),
        pending: record
            .newest_spec()
            .filter(|_| !record.is_sync_settled())
            .map(shared::spec::Spec::setting),
        generation: record.newest_spec().map(|spec| spec.generation),
    }
}

/// What is left of the last lease that any primary was granted.
fn lease_left(record: &Record, view: &View, now: Now) -> Option<Lease> {
    record.primary?;
    Some(if view.unlimited_lease {
        Lease::Unlimited
    } else {
        Lease::For { ms: view.leases_end.since(now.mono) }
    })
}

fn operation_status(record: &Record, view: &View, now: Now) -> Option<OperationStatus> {
    let operation = record.operation.as_ref()?;
    Some(OperationStatus {
        id: operation.id,
        kind: operation.kind.name().to_owned(),
        target: operation.target.and_then(|id| record.nodes.get(&id)).map(|node| node.name.clone()),
        requested_at: operation.requested_at,
        phase: record.phase.name().to_owned(),
        blocked_by: blockers(record, view, now),
    })
}

fn ago(now: Now, ms: u64) -> Option<Timestamp> {
    let ms = i64::try_from(ms).ok()?;
    now.wall.checked_sub_signed(chrono_millis(ms))
}

fn chrono_millis(ms: i64) -> shared::Span {
    shared::Span::milliseconds(ms)
}

fn node_status(record: &Record, view: &View, now: Now, id: NodeId, node: &Node) -> NodeStatus {
    let nothing = Evidence::default();
    let evidence = view.nodes.get(&id).unwrap_or(&nothing);
    let report = evidence.report.as_ref();
    let postgres = report.map(|report| report.postgres.clone()).unwrap_or_default();
    let (goal, goal_state) = goal_of(record, id, node);
    let verdict = verdict(view, id, &record.settings.timers(), now.mono);
    let heard = report.and_then(|_| ago(now, now.mono.since(evidence.reported_at)));
    let replica = replica(record, view, id);
    let end = record.primary.and_then(|id| view.report(id)).and_then(|report| report.postgres.lsn);
    NodeStatus {
        id,
        name: node.name.clone(),
        host: node.host.clone(),
        port: node.port,
        rest: node.rest.clone(),
        zone: node.zone.clone(),
        reported_state: node.reported_state,
        goal_state,
        role: role(postgres.in_recovery).to_owned(),
        upstream: upstream(record, &goal),
        replicate_from: node
            .cascade
            .wish
            .and_then(|id| record.nodes.get(&id))
            .map(|node| node.name.clone()),
        candidate_priority: node.candidate_priority,
        replication_quorum: node.replication_quorum,
        health: verdict.word().to_owned(),
        health_checked_at: Some(now.wall),
        last_report_at: heard,
        state_changed_at: node.state_changed_at,
        pg_running: postgres.running && !verdict.is_dead(),
        in_recovery: postgres.in_recovery,
        timeline: postgres.timeline,
        lsn: postgres.lsn,
        received_lsn: postgres.received,
        replayed_lsn: postgres.replayed,
        lag_bytes: postgres.lsn.and_then(|own| lag(record, id, end, own)),
        lag_ms: lag_ms(record, view, now, (id, replica)),
        sync_state: replica.map(|replica| replica.sync_state.clone()).or_else(|| {
            // No primary has a row of it.
            let cascades = node.cascade.upstream.is_some() && !verdict.is_dead();
            (cascades && streams(record, view, id)).then(|| "async".to_owned())
        }),
        application_name: id.application_name(),
        slot_name: (record.primary != Some(id)).then(|| id.admission_slot(node.admission)),
        maintenance_cause: maintenance_cause(node, report),
        system_identifier: report.and_then(|report| match report.data {
            Data::Present { system_identifier } => Some(system_identifier),
            Data::Empty | Data::Rebuilding | Data::Unusable => None,
        }),
        diverged: postgres.timeline.map(|timeline| record.lineage.epoch_of(timeline).is_none()),
        pg_version: postgres.version,
        keeper_version: report.map(|report| report.keeper_version.clone()),
        step: report.and_then(|report| report.step.clone()),
        archive: report.and_then(|report| archive_status(report, now, evidence.reported_at)),
        warnings: report
            .map(|report| {
                let mut warnings = node_warnings(report, &verdict);
                warnings.extend(pgsettings::warnings(record, view, id, report));
                warnings
            })
            .unwrap_or_default(),
    }
}

fn archive_status(report: &Report, now: Now, reported_at: Millis) -> Option<ArchiveStatus> {
    let archive = report.archive.as_ref()?;
    let since = |ms: u64| ago(now, ms.saturating_add(now.mono.since(reported_at)));
    let failing = archive.failing.iter().map(|it| ArchiveFailing {
        work: it.work,
        since: since(it.ms),
        error: it.error.clone(),
    });
    let last = archive.archived.segment;
    let own = report.postgres.lsn;
    Some(ArchiveStatus {
        timeline: last.map(|last| last.timeline),
        lsn: last.map(|last| last.end),
        behind_bytes: last.zip(own).map(|(last, own)| own.bytes_since(last.end)),
        waiting_files: archive.waiting,
        waiting_since: archive.oldest_ms.and_then(since),
        backed_up_epoch: Some(archive.backed_up).filter(|epoch| epoch.0 > 0),
        failing: failing.collect(),
    })
}

fn role(in_recovery: Option<bool>) -> &'static str {
    match in_recovery {
        Some(false) => "primary",
        Some(true) => "standby",
        None => "none",
    }
}

fn upstream(record: &Record, goal: &Goal) -> Option<shared::ids::NodeName> {
    let id = match goal {
        Goal::Follow { upstream } => upstream.node(),
        Goal::FastForward { source, .. } => *source,
        Goal::Wait
        | Goal::Primary { .. }
        | Goal::Seal { .. }
        | Goal::Maintenance
        | Goal::Dropped => {
            return None;
        }
    };
    record.nodes.get(&id).map(|node| node.name.clone())
}

fn lag(record: &Record, id: NodeId, end: Option<Lsn>, own: Lsn) -> Option<u64> {
    if record.primary == Some(id) { Some(0) } else { end.map(|end| end.bytes_since(own)) }
}

/// How far behind the primary in time, as the primary saw it last. `replay_lag` stands still where a
/// standby has fallen silent; that its position stands still is what says so then.
fn lag_ms(
    record: &Record,
    view: &View,
    now: Now,
    (id, replica): (NodeId, Option<&Replica>),
) -> Option<u64> {
    let primary = record.primary?;
    if primary == id {
        return Some(0);
    }
    let heard = verdict(view, primary, &record.settings.timers(), now.mono) == Verdict::Good;
    let replica = replica.filter(|_| heard)?;
    let end = view.report(primary)?.postgres.lsn;
    if end.is_some() && replica.replayed >= end {
        return Some(0);
    }
    replica.replay_lag_ms.max(Some(replica.stalled_ms).filter(|ms| *ms > 0))
}

fn maintenance_cause(node: &Node, report: Option<&Report>) -> Option<String> {
    if node.maintenance {
        Some("operator".to_owned())
    } else if report.is_some_and(|report| report.leaving) {
        Some("shutdown".to_owned())
    } else {
        None
    }
}

fn node_warnings(report: &Report, verdict: &Verdict) -> Vec<String> {
    let mut warnings = report.warnings.clone();
    if let Some(failed) = &report.failed {
        warnings.push(failed.clone());
    }
    for room in report.room.iter().filter(|room| !room.suffices()) {
        warnings.push(format!("{} is full: {room}", room.path));
    }
    if let Verdict::Dead(why) = verdict {
        warnings.push(why.clone());
    }
    warnings
}

fn warnings(record: &Record, view: &View, now: Now) -> Vec<String> {
    let mut warnings = Vec::new();
    let candidates = record.nodes.values().filter(|node| node.candidate_priority > 0).count();
    if record.nodes.len() > 1 && candidates < 2 {
        warnings.push(format!(
            "only {candidates} of {} nodes may become primary by itself; give at least two a candidate priority above 0",
            record.nodes.len()
        ));
    }
    if let Some(pause) = &record.paused {
        let withheld = pause.withheld.as_ref().map_or_else(String::new, |rule| {
            format!(", and the primary would be replaced now ({rule})")
        });
        warnings.push(format!(
            "automation is paused since {}: nobody is promoted by itself{withheld}; `pgtandem resume` ends it",
            pause.since.format("%Y-%m-%d %H:%M:%SZ")
        ));
    }
    if let Some(why) = record.quarantine() {
        warnings.push(format!(
            "quarantine: {why}; it gives no orders until the keepers have been heard"
        ));
        let missing = adopt(record, view, now).err().unwrap_or_default();
        warnings.extend(missing.into_iter().map(|missing| missing.text));
    }
    warnings
}
