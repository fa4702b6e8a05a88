//! What operators are told of a group: at every moment of random walks it fits what is so, and whoever
//! asks why a group stands still is given a reason.

use fsm::group::election::{Choice, choose};
use fsm::group::explain::explain;
use fsm::group::status::status;
use fsm::group::{Phase, Record};
use fsm::trace::{Cause, MonitorLine};
use sim::random::Random;
use sim::{Walk, World, at, walk};

const SEEDS: u64 = 60;
/// One of so many actions is a fault.
const CALM: u64 = 25;
/// Longer than every timer takes.
const ROUNDS: usize = 400;

fn worlds() -> impl Iterator<Item = World> {
    (0..SEEDS).map(|seed| {
        let mut world = Walk::new(2 + seed % 5).world(seed);
        walk::converge(&mut world).unwrap();
        world.faulty = true;
        world
    })
}

/// Status and explanation are of one record and one view, and agree with both.
fn agree(world: &World) {
    let (record, view, now) = (&*world.monitor.record, &*world.monitor.view, at(world.now));
    let status = status(record, view, now);
    let group = explain(record, view, None, now);
    let told = |text: &str| group.sentences.iter().any(|sentence| sentence.contains(text));
    assert_eq!(told("writes are being acknowledged"), status.writable, "{group:?}");
    assert_eq!(status.primary.is_some(), record.phase == Phase::Serving, "{status:?}");
    assert_eq!(status.nodes.len(), record.nodes.len());
    assert_eq!(status.sync.pending.is_some(), !record.is_sync_settled(), "{status:?}");
    if let Some(operation) = &status.operation {
        assert_eq!(operation.blocked_by, group.blocked_by);
    }
    for (id, node) in &record.nodes {
        let own = explain(record, view, Some(*id), now);
        assert!(own.sentences[0].starts_with(node.name.as_str()), "{own:?}");
        assert!(group.sentences.contains(&own.sentences[0]), "{group:?}");
        let zero = own.sentences.iter().any(|sentence| sentence.contains("candidate priority"));
        assert_eq!(zero, node.candidate_priority == 0);
    }
    let named = group.blocked_by.iter().flat_map(|blocker| &blocker.nodes);
    for name in named {
        assert!(record.nodes.values().any(|node| node.name == *name), "{group:?}");
    }
    if let Phase::Electing(election) = &record.phase
        && !election.drain
    {
        let waits = matches!(choose(record, view, election, now, 0), Choice::Wait(_));
        assert_eq!(waits, !group.blocked_by.is_empty(), "{group:?}");
    }
}

#[test]
fn they_fit_what_is_so() {
    let (mut writable, mut blocked) = (0, 0);
    for mut world in worlds() {
        for _ in 0..600 {
            walk::act(&mut world, CALM);
            agree(&world);
            let (record, view) = (&*world.monitor.record, &*world.monitor.view);
            let status = status(record, view, at(world.now));
            writable += u32::from(status.writable);
            blocked += u32::from(!explain(record, view, None, at(world.now)).blocked_by.is_empty());
        }
    }
    assert!(writable > 1000 && blocked > 1000, "{writable} {blocked}");
}

/// Some hosts are off for good, and so is what else has gone wrong; nothing happens any more.
#[test]
fn a_group_that_stands_still_says_why() {
    let mut still = 0;
    for mut world in worlds() {
        for _ in 0..200 {
            walk::act(&mut world, CALM);
        }
        world.random = Random::of_step(world.now, 0);
        world.mend();
        let ids = world.ids();
        for id in ids {
            if world.random.one_in(2) {
                world.crash_host(id);
            }
        }
        for _ in 0..ROUNDS {
            walk::round(&mut world);
        }
        let (record, view) = (&*world.monitor.record, &*world.monitor.view);
        let (status, why) =
            (status(record, view, at(world.now)), explain(record, view, None, at(world.now)));
        assert!(status.writable || !why.blocked_by.is_empty(), "{}", walk::describe(&world));
        still += u32::from(!status.writable);
    }
    assert!(still > 10, "{still}");
}

/// What a trace says is enough to decide again, and has no secret in it.
#[test]
fn a_trace_can_be_read_again() {
    let mut lines = 0;
    for mut world in worlds().take(10) {
        for step in 0..300 {
            let (record, view) = (Record::clone(&world.monitor.record), &*world.monitor.view);
            let now = at(world.now);
            for cause in [Cause::Started, Cause::Rule(step)] {
                let line = MonitorLine {
                    now,
                    cause,
                    view: view.clone(),
                    before: record.clone(),
                    decision: record.monitor_started(now),
                };
                let Some(decision) = line.decided_again() else { continue };
                let line = MonitorLine { decision, ..line }.redacted();
                let text = serde_json::to_string(&line).unwrap();
                assert!(!text.contains("secret\":\"s"), "{text}");
                let read: MonitorLine = serde_json::from_str(&text).unwrap();
                assert_eq!(read, line);
                assert_eq!(read.decided_again(), Some(read.decision.clone()));
                lines += 1;
            }
            walk::act(&mut world, CALM);
        }
    }
    assert!(lines > 1000, "{lines}");
}
