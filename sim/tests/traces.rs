//! Traces that walks hardly ever find, step by step: with the rule nothing is lost, without it an
//! acknowledged commit is.

use fsm::group::Phase;
use shared::api::Action;
use shared::ids::{NodeId, Revision};
use shared::report::{Answer, Lease};
use shared::settings::Settings;
use sim::ledger::Violation;
use sim::machine::{Lag, Setting};
use sim::world::Message;
use sim::{Mutation, Walk, World, walk};

fn formed(nodes: u64, required: u32, mutation: Mutation) -> (World, NodeId, Vec<NodeId>) {
    formed_by(1, nodes, (required, mutation))
}

fn formed_by(
    seed: u64,
    nodes: u64,
    (required, mutation): (u32, Mutation),
) -> (World, NodeId, Vec<NodeId>) {
    let settings = Settings { number_sync_standbys: Some(required), ..Walk::new(nodes).settings };
    let mut world = Walk { settings, mutation, ..Walk::new(nodes) }.world(seed);
    walk::converge(&mut world).unwrap();
    world.lags = true;
    let primary = walk::settled(&world).unwrap();
    let standbys = world.ids().into_iter().filter(|id| *id != primary).collect();
    (world, primary, standbys)
}

/// Everything goes on and the primary's walsenders look at the file; its checkpointer does not.
fn keep(world: &mut World, primary: NodeId, standby: NodeId) {
    for _ in 0..40 {
        look(world, primary);
        world.keeper_turn(primary);
        world.keeper_turn(standby);
        world.postgres_turn(standby);
        while !world.messages.is_empty() {
            world.deliver();
        }
        world.monitor_turn();
        world.pass(10);
    }
}

/// Everybody acts and is heard, until the moment at which this is so.
fn until(world: &mut World, so: impl Fn(&World) -> bool) {
    for _ in 0..200 {
        for id in world.ids() {
            world.keeper_turn(id);
            world.postgres_turn(id);
            while !world.messages.is_empty() {
                world.deliver();
                if so(world) {
                    return;
                }
            }
        }
        world.monitor_turn();
        world.pass(10);
    }
    panic!("{}", walk::describe(world));
}

/// Only these are left, for longer than any timer.
fn without(mut world: World, gone: &[NodeId]) -> Option<Violation> {
    for id in gone {
        world.crash_host(*id);
    }
    for _ in 0..200 {
        walk::round(&mut world);
    }
    world.violation()
}

/// C7: `ANY 2 (B, C)` becomes `ANY 1 (C)`. C's walsender has read the file and needs one reply, B's has
/// not and still counts: what only B has is acknowledged. A keeper may happen to end that walsender.
fn released_under_neither(mutation: Mutation) -> Option<Violation> {
    (1..=8).find_map(|seed| released_by(seed, mutation))
}

fn released_by(seed: u64, mutation: Mutation) -> Option<Violation> {
    let (mut world, a, standbys) = formed_by(seed, 3, (2, mutation));
    let (b, c) = (standbys[0], standbys[1]);
    let node = world.monitor.record.nodes[&b].name.clone();
    // Nothing else takes two steps at once: the number falls with the node.
    world.ask(&Action::Drop { node, force: true, destroy: false });
    for _ in 0..5 {
        world.keeper_turn(a);
        while !world.messages.is_empty() {
            world.deliver();
        }
    }
    if let Some(row) = world.machines.get_mut(a).unwrap().server.rows.get_mut(&c) {
        row.lag = None;
    }
    for _ in 0..4 {
        world.write(a);
    }
    for _ in 0..8 {
        world.postgres_turn(b);
    }
    world.postgres_turn(c);
    without(world, &[a, b])
}

#[test]
fn commits_are_blocked_while_the_spec_changes() {
    assert_eq!(released_under_neither(Mutation::None), None);
    for mutation in [Mutation::NoBlocking, Mutation::NoSigns] {
        let found = released_under_neither(mutation);
        assert!(matches!(found, Some(Violation::Lost { .. })), "{mutation}: {found:?}");
    }
}

/// C18: the checkpointer is held inside its read of the asynchronous setting, and applies it when the
/// next spec has been confirmed.
fn applied_late(mutation: Mutation) -> Option<Violation> {
    let (mut world, a, standbys) = formed(2, 0, mutation);
    let b = standbys[0];
    world.crash_host(b);
    keep(&mut world, a, b);
    let server = &mut world.machines.get_mut(a).unwrap().server;
    let nobody = Setting(server.spec.clone());
    assert!(nobody.0.as_ref().is_some_and(shared::spec::Spec::is_asynchronous), "{nobody:?}");
    assert!(server.waits(), "the flag is still set");
    world.restart(b);
    keep(&mut world, a, b);
    let server = &mut world.machines.get_mut(a).unwrap().server;
    server.checkpointer = Some(Lag { under: nobody, reading: None });
    world.write(a);
    without(world, &[a])
}

/// Walsenders look at the file.
fn look(world: &mut World, primary: NodeId) {
    for row in world.machines.get_mut(primary).unwrap().server.rows.values_mut() {
        row.lag = None;
    }
}

#[test]
fn going_to_asynchronous_is_seen() {
    assert_eq!(applied_late(Mutation::None), None);
    let found = applied_late(Mutation::NoProbe);
    assert!(matches!(found, Some(Violation::Lost { .. })), "{found:?}");
}

/// Whoever was promoted by hand is rebuilt, once or more often, and the group goes on.
#[test]
fn a_standby_that_was_promoted_by_hand_finds_back() {
    for times in 1..=3 {
        let (mut world, _, standbys) = formed(3, 1, Mutation::None);
        let id = standbys[0];
        for _ in 0..times {
            world.promote_by_hand(id);
            world.crash_postgres(id);
            for _ in 0..4 {
                world.keeper_turn(id);
                world.postgres_turn(id);
            }
        }
        walk::converge(&mut world).unwrap();
        let own = world.machines.get(id).unwrap().log.timeline();
        assert!(world.monitor.record.lineage.epoch_of(own).is_some(), "{own:?}");
    }
}

/// Whoever is promoted by hand between its election and its promotion is promoted no further: its timeline would
/// be in every log from then on, and no log that it is in has a position. The others elect somebody else.
#[test]
fn a_candidate_that_was_promoted_by_hand_does_not_become_the_primary() {
    let (mut world, old, _) = formed(3, 1, Mutation::None);
    world.crash_host(old);
    until(&mut world, |world| world.monitor.record.phase == Phase::Promoting);
    let candidate = world.monitor.record.primary.unwrap();
    world.promote_by_hand(candidate);
    world.restart(old);
    walk::converge(&mut world).unwrap();
    assert_ne!(walk::settled(&world), Some(candidate));
    for machine in world.machines.values() {
        let (history, end) = (machine.log.history(), machine.log.end());
        let position = world.monitor.record.lineage.position(&history, end);
        assert!(position.is_some(), "{history:?}");
    }
}

/// A slot that somebody has dropped is made again: the proof for it stands.
#[test]
fn a_standby_whose_slot_is_dropped_streams_again() {
    let (mut world, primary, standbys) = formed(3, 1, Mutation::None);
    world.machines.get_mut(primary).unwrap().slots.clear();
    for id in standbys {
        world.crash_postgres(id);
    }
    walk::converge(&mut world).unwrap();
}

/// Two calls are under way, and the monitor holds the first: the answer to the second is made earlier,
/// and arrives last. The primary does not forget the node that has joined in between.
#[test]
fn an_answer_that_was_overtaken_changes_nothing() {
    let (mut world, primary, _) = formed(2, 1, Mutation::None);
    world.now += 1000;
    let call = |world: &mut World| {
        drop(world.keeper_turn(primary));
        let report = world.messages.pop().unwrap();
        world.messages = vec![report];
        world.deliver();
        let Some(Message::Answer { keeper, seq, answer, .. }) = world.messages.pop() else {
            panic!("no answer");
        };
        (keeper, seq, answer)
    };
    let (keeper, first, before) = call(&mut world);
    let joined = world.join(true).unwrap();
    let (_, second, after) = call(&mut world);
    for (seq, answer) in [(first, after), (second, before)] {
        world.messages = vec![Message::Answer { to: primary, keeper: keeper.clone(), seq, answer }];
        world.deliver();
        drop(world.keeper_turn(primary));
    }
    let known = world.machines.get(primary).unwrap().persisted.clone().unwrap();
    assert!(known.assignment.member(joined).is_some(), "{known:?}");
}

/// The lease of such an answer may be one without an end, which the monitor has taken back since.
#[test]
fn an_answer_that_was_overtaken_grants_nothing() {
    let (mut world, primary, _) = formed(2, 1, Mutation::None);
    world.now += 1000;
    drop(world.keeper_turn(primary));
    let call = world.machines.get(primary).unwrap().keeper.clone().unwrap();
    let (seq, sent) = *call.calls.last().unwrap();
    let newest = call.heard.unwrap();
    let answer = Box::new(Answer {
        revision: Revision(newest.revision.0 - 1),
        lease: Some(Lease::Unlimited),
        ..newest
    });
    world.messages = vec![Message::Answer { to: primary, keeper: call.name, seq, answer }];
    world.deliver();
    assert!(world.machines.get(primary).unwrap().right_until().is_some(), "sent at {sent}");
}

/// Rule 13: an answer to a report from before the claim is no grant, however late it comes.
#[test]
fn a_claim_is_made_good_by_an_answer_to_a_later_report() {
    let (mut world, primary, standbys) = formed(2, 1, Mutation::None);
    // It could prove the claim as well.
    world.crash_host(standbys[0]);
    world.now += 10;
    drop(world.keeper_turn(primary));
    world.now += 10;
    world.crash_postgres(primary);
    let claimed = |world: &World| world.machines.get(primary).unwrap().claimed;
    assert!(claimed(&world));
    let report = world.messages.pop().unwrap();
    let answered = |world: &mut World, report: Message| {
        world.now += 10;
        world.messages = vec![report];
        world.deliver();
        assert!(
            matches!(&world.messages[..], [Message::Answer { answer, .. }] if answer.lease.is_some())
        );
        world.deliver();
        drop(world.keeper_turn(primary));
    };
    answered(&mut world, report);
    assert!(claimed(&world), "by what was granted before");
    let report = world.messages.pop().unwrap();
    answered(&mut world, report);
    assert!(!claimed(&world));
}

/// The primary is dropped by force while its only standby is being dropped, and a new node has no copy
/// yet. Nobody else can be the primary, so the standby stays.
#[test]
fn the_last_copy_is_not_dropped() {
    let (mut world, primary, standbys) = formed(2, 1, Mutation::None);
    let standby = standbys[0];
    world.crash_host(primary);
    let new = world.join(true).unwrap();
    let names: Vec<_> =
        [standby, primary].map(|id| world.monitor.record.nodes[&id].name.clone()).into();
    for (node, force) in names.into_iter().zip([false, true]) {
        world.ask(&Action::Drop { node, force, destroy: false });
    }
    assert!(world.monitor.record.nodes[&standby].dropping);
    walk::converge(&mut world).unwrap();
    assert_eq!(walk::settled(&world), Some(standby));
    assert!(world.monitor.record.nodes.keys().eq([&standby, &new]));
}
