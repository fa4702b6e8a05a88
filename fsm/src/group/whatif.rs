//! "What if?": what the group's machine would decide if some nodes died now, or if an operator asked for
//! something.
//!
//! The rules run on copies of the present record and view, in a small world in which time passes, the
//! dead say nothing (as a host that is off) and everybody else does at once what it is told. Nothing is
//! stored. Not foreseen is what nobody knows yet: what has been written since the newest reports, and
//! what else will go wrong.

mod node;
mod world;

use super::detector::verdict;
use super::election::successors;
use super::explain::blockers;
use super::ranking::{chance_for, is_eligible, rank};
use super::record::{Election, Phase, Record};
use super::request::{self, Reply};
use super::status::{is_writable, sync_status};
use super::view::View;
use crate::Now;
use shared::api::{Action, ApiError, OperationResult, Outcome, PredictedOutcome, Prediction};
use shared::ids::{NodeId, NodeName};
use shared::lsn::Lsn;
use std::collections::BTreeSet;
use world::World;

/// What would come of it if these nodes died now.
pub fn if_dies(record: &Record, view: &View, gone: &BTreeSet<NodeId>, now: Now) -> Prediction {
    let begin = |tie_break| World::begin((record, view), gone, now, tie_break);
    foresee(begin, &chances(record, view, gone), None)
}

/// What would come of a request: its refusal, as the request itself would be refused, or what would
/// happen.
pub fn ask(
    record: &Record,
    view: &View,
    action: &Action,
    now: Now,
) -> Result<Prediction, ApiError> {
    let (decision, result) = match request::apply(record, view, action, now)? {
        Reply::Already(result) => return Ok(unchanged(record, view, result.reason, now)),
        Reply::Decided(decision, result) => (decision, result),
    };
    let nobody = BTreeSet::new();
    let begin = |tie_break| {
        let mut world = World::begin((record, view), &nobody, now, tie_break);
        world.adopt(decision.as_ref().clone());
        world
    };
    Ok(foresee(begin, &chances(record, view, &nobody), Some(&result)))
}

/// An election without anybody's wishes.
pub(super) fn plain_election() -> Election {
    Election {
        cause: String::new(),
        preferred: None,
        planned: false,
        cannot_fetch: BTreeSet::new(),
        drain: false,
        loss: None,
        timeline: None,
    }
}

/// A chance for each that might win by it.
fn chances(record: &Record, view: &View, gone: &BTreeSet<NodeId>) -> Vec<u64> {
    let lives = |id: &NodeId| !gone.contains(id) && is_eligible(record, view, *id, Some(*id));
    record.nodes.keys().copied().filter(lives).map(chance_for).collect()
}

/// One way that it could go, and the others that chance leaves.
fn foresee(
    begin: impl Fn(u64) -> World,
    chances: &[u64],
    asked: Option<&OperationResult>,
) -> Prediction {
    let run = |tie_break| {
        let mut world = begin(tie_break);
        world.run();
        describe(world, asked)
    };
    let mut prediction = run(chances.first().copied().unwrap_or_default());
    for other in chances.iter().skip(1).map(|tie_break| run(*tie_break)) {
        let known = |prediction: &Prediction| prediction.primary == other.primary;
        if !known(&prediction) && !prediction.alternatives.iter().any(known) {
            prediction.alternatives.push(other);
        }
    }
    prediction
}

/// What has come of it.
fn describe(world: World, asked: Option<&OperationResult>) -> Prediction {
    let primary = primary_of(&world);
    let (outcome, reason) = outcome(&world, asked);
    Prediction {
        outcome,
        reason,
        alternatives: Vec::new(),
        sync: sync_status(&world.record),
        writable: is_writable(&world.record, &world.view, world.now),
        writable_after_ms: world.writable_since.map(|since| world.since_began(since)),
        blocked_by: blockers(&world.record, &world.view, world.now),
        bytes_at_risk: bytes_at_risk(&world, primary.is_some()),
        primary,
        steps: world.steps,
    }
}

/// It is so already.
fn unchanged(record: &Record, view: &View, reason: String, now: Now) -> Prediction {
    let writable = is_writable(record, view, now);
    let timers = record.settings.timers();
    let lives = |id: NodeId| !verdict(view, id, &timers, now.mono).is_dead();
    let serving = record.primary.filter(|id| record.phase == Phase::Serving && lives(*id));
    Prediction {
        steps: Vec::new(),
        outcome: PredictedOutcome::ChangesNothing,
        reason,
        primary: serving.and_then(|_| record.primary_name()),
        alternatives: Vec::new(),
        sync: sync_status(record),
        writable,
        writable_after_ms: writable.then_some(0),
        blocked_by: blockers(record, view, now),
        bytes_at_risk: Some(0),
    }
}

fn primary_of(world: &World) -> Option<NodeName> {
    let record = &world.record;
    let primary =
        record.primary.filter(|id| record.phase == Phase::Serving && world.is_living(*id));
    primary.and_then(|id| record.nodes.get(&id)).map(|node| node.name.clone())
}

fn outcome(world: &World, asked: Option<&OperationResult>) -> (PredictedOutcome, String) {
    let recorded = asked.and_then(|result| world.record.operation_result(result.id));
    match recorded.map(|result| (result.outcome, result.reason)) {
        Some((Outcome::Failed | Outcome::Refused, reason)) => {
            return (PredictedOutcome::Fails, reason);
        }
        Some((Outcome::Accepted | Outcome::Timeout, _)) => {
            let why = obstacle(world);
            return (PredictedOutcome::DoesNotEnd, format!("it would not end by itself: {why}"));
        }
        Some((Outcome::Done, _)) | None => {}
    }
    let Some(primary) = primary_of(world) else {
        let text = format!("there would be no primary: {}", obstacle(world));
        return (PredictedOutcome::StandsStill, text);
    };
    if is_writable(&world.record, &world.view, world.now) {
        let spec = world.record.newest_spec().filter(|spec| !spec.is_asynchronous());
        let waits = spec.map_or_else(
            || "no standby (asynchronous)".to_owned(),
            |spec| world.record.describe_spec(spec),
        );
        let text = format!("{primary} would be the primary, and commits would wait for {waits}");
        return (PredictedOutcome::TakesWrites, text);
    }
    let text =
        format!("{primary} would be the primary, and writes would wait: {}", obstacle(world));
    (PredictedOutcome::Waits, text)
}

/// What stands in the way in the end.
fn obstacle(world: &World) -> String {
    let found = blockers(&world.record, &world.view, world.now).into_iter().next();
    found.map_or_else(|| "nodes that have not done their part".to_owned(), |blocker| blocker.text)
}

/// What may have been acknowledged and would be missing, by the newest reports: of the primary that was
/// elected although the proof was not there; of the best that is left, where nobody was.
fn bytes_at_risk(world: &World, has_primary: bool) -> Option<u64> {
    let World { record, view, .. } = world;
    let end = |id: NodeId| view.report(id).and_then(|report| report.postgres.lsn);
    if !has_primary {
        let end = end(record.primary?)?;
        return best_left(world).map(|best| end.bytes_since(best));
    }
    let Some(old) = world.gave_up.filter(|old| Some(*old) != record.primary) else {
        return Some(0);
    };
    let start = record.lineage.entry(record.epoch)?.start?.lsn;
    end(old).map(|end| end.bytes_since(start))
}

fn best_left(world: &World) -> Option<Lsn> {
    let World { record, view, now, .. } = world;
    let left = successors(record, view, *now);
    let ranked = rank(record, view, &plain_election(), &left, 0);
    ranked.first().map(|(_, rank)| rank.position.lsn)
}
