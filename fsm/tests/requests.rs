//! What operators are told: refusals with their codes and words, and what holds already.

use crate::group::{ask, done, healthy, name, primary, standbys};
use fsm::group::request::{Reply, apply};
use fsm::group::{Phase, Record, View};
use shared::api::{Action, Outcome};
use shared::goal::Orders;
use shared::ids::NodeName;
use sim::{Walk, World, at};

/// A healthy group of three.
fn world() -> World {
    healthy(3)
}

fn nobody() -> NodeName {
    "nobody".parse().unwrap()
}

fn refused(world: &World, action: &Action) -> (u8, String) {
    match ask(world, action) {
        Err(error) => {
            assert!(!error.message.is_empty(), "{action:?}");
            (error.code, error.reason)
        }
        Ok(reply) => panic!("{action:?} was not refused: {reply:?}"),
    }
}

#[track_caller]
fn expect(world: &World, action: &Action, code: u8, reason: &str) {
    assert_eq!(refused(world, action), (code, reason.to_owned()), "{action:?}");
}

fn already(world: &World, action: &Action) {
    match ask(world, action) {
        Ok(Reply::Already(result)) => assert_eq!(result.outcome, Outcome::Done),
        other => panic!("{action:?}: {other:?}"),
    }
}

fn set(key: &str, value: &str) -> Action {
    Action::SetFormation { key: key.to_owned(), value: value.to_owned() }
}

fn set_node(node: NodeName, key: &str, value: &str) -> Action {
    Action::SetNode { node, key: key.to_owned(), value: value.to_owned() }
}

fn switchover(to: Option<NodeName>) -> Action {
    Action::Switchover { to }
}

fn maintenance(node: NodeName, on: bool, allow_failover: bool) -> Action {
    Action::Maintenance { node, on, allow_failover }
}

fn failover(allow_data_loss: bool) -> Action {
    Action::Failover { allow_data_loss, fenced: false }
}

#[test]
fn a_node_that_nobody_knows() {
    let world = world();
    for action in [
        switchover(Some(nobody())),
        Action::Promote { node: nobody() },
        maintenance(nobody(), true, true),
        maintenance(nobody(), false, true),
        set_node(nobody(), "zone", "a"),
        Action::Drop { node: nobody(), force: false, destroy: false },
        Action::Drop { node: nobody(), force: true, destroy: false },
    ] {
        expect(&world, &action, 1, "unknown_node");
    }
}

#[test]
fn one_operation_at_a_time() {
    let mut world = world();
    let standby = name(&world, standbys(&world)[0]);
    done(&mut world, &switchover(None));
    for action in [
        switchover(None),
        Action::Promote { node: standby.clone() },
        failover(false),
        maintenance(standby.clone(), true, false),
        Action::Drop { node: standby, force: false, destroy: false },
    ] {
        expect(&world, &action, 6, "busy");
    }
}

#[test]
fn nothing_on_top_of_an_election() {
    let mut world = world();
    done(&mut world, &switchover(None));
    world.monitor.record_mut().operation = None;
    expect(&world, &switchover(None), 6, "busy");
    assert!(ask(&world, &failover(true)).is_ok(), "loss can be accepted during an election");
}

#[test]
fn who_cannot_take_over() {
    let mut world = world();
    let (first, second) = (standbys(&world)[0], standbys(&world)[1]);
    let to = |world: &World, id| switchover(Some(name(world, id)));
    world.monitor.record_mut().nodes.get_mut(&first).unwrap().maintenance = true;
    expect(&world, &to(&world, first), 3, "not_a_candidate");
    world.monitor.record_mut().nodes.get_mut(&first).unwrap().maintenance = false;
    // The primary's report no longer shows it streaming.
    let primary = primary(&world);
    let evidence = world.monitor.view_mut().nodes.get_mut(&primary).unwrap();
    evidence.report.as_mut().unwrap().replicas.retain(|replica| replica.node != second);
    expect(&world, &to(&world, second), 3, "not_a_candidate");
    assert!(ask(&world, &to(&world, first)).is_ok());
    let priority = |world: &mut World, id, value| {
        let node = name(world, id);
        done(world, &set_node(node, "candidate-priority", value));
    };
    priority(&mut world, first, "0");
    expect(&world, &switchover(None), 3, "no_candidate");
    assert!(ask(&world, &to(&world, first)).is_ok(), "a named one may have priority 0");
}

#[test]
fn the_primary_itself() {
    let mut world = world();
    let own = name(&world, primary(&world));
    already(&world, &switchover(Some(own.clone())));
    already(&world, &Action::Promote { node: own.clone() });
    expect(&world, &maintenance(own.clone(), true, false), 3, "is_primary");
    for id in standbys(&world) {
        let node = name(&world, id);
        done(&mut world, &set_node(node, "candidate-priority", "0"));
    }
    expect(
        &world,
        &Action::Drop { node: own.clone(), force: false, destroy: false },
        3,
        "is_primary",
    );
    expect(&world, &maintenance(own, true, true), 3, "no_candidate");
}

#[test]
fn settings_of_a_node() {
    let world = world();
    let node = || name(&world, standbys(&world)[0]);
    let other = name(&world, primary(&world));
    for (key, value) in [
        ("candidate-priority", "101"),
        ("candidate-priority", "-1"),
        ("candidate-priority", "high"),
        ("replication-quorum", "maybe"),
        ("port", "65536"),
        ("host", ""),
        ("host", "a,b"),
        ("host", "/run/postgresql"),
        ("name", "with space"),
    ] {
        expect(&world, &set_node(node(), key, value), 1, "bad_value");
    }
    expect(&world, &set_node(node(), "colour", "red"), 1, "unknown_setting");
    expect(&world, &set_node(node(), "name", other.as_str()), 3, "duplicate_name");
    already(&world, &set_node(node(), "candidate-priority", "50"));
    for (key, value) in
        [("candidate-priority", "100"), ("zone", "a"), ("replication-quorum", "false")]
    {
        assert!(ask(&world, &set_node(node(), key, value)).is_ok(), "{key}");
    }
}

#[test]
fn settings_of_the_formation() {
    let world = world();
    expect(&world, &set("number-sync-standbys", "3"), 3, "too_few_standbys");
    for (key, value) in [
        ("number-sync-standbys", "-1"),
        ("number-sync-standbys", "many"),
        ("node-timeout", "3"),
        ("node-timeout", "3 hours"),
        ("node-timeout", "100ms"),
        ("node-timeout", "99999999999999999999s"),
        // A primary that was cut off has to stop before another is promoted.
        ("lease", "3s"),
        ("lease", "2800ms"),
        // One lost report must not cost the lease.
        ("report-interval", "1500ms"),
        ("report-interval", "10ms"),
        ("drain-timeout", "1ms"),
    ] {
        expect(&world, &set(key, value), 1, "bad_value");
    }
    expect(&world, &set("colour", "red"), 1, "unknown_setting");
    already(&world, &set("node-timeout", "3s"));
    already(&world, &set("lease", "default"));
    for (key, value) in
        [("number-sync-standbys", "2"), ("node-timeout", "1min"), ("lease", "2700ms")]
    {
        assert!(ask(&world, &set(key, value)).is_ok(), "{key}");
    }
}

#[test]
fn standbys_that_writes_need_stay() {
    let mut world = world();
    done(&mut world, &set("number-sync-standbys", "2"));
    let node = || name(&world, standbys(&world)[0]);
    expect(&world, &maintenance(node(), true, false), 3, "too_few_standbys");
    expect(&world, &set_node(node(), "replication-quorum", "false"), 3, "too_few_standbys");
}

#[test]
fn maintenance_twice() {
    let mut world = world();
    let node = name(&world, standbys(&world)[0]);
    already(&world, &maintenance(node.clone(), false, false));
    done(&mut world, &maintenance(node.clone(), true, false));
    already(&world, &maintenance(node.clone(), true, false));
    done(&mut world, &maintenance(node, false, false));
}

#[test]
fn drops() {
    let mut world = world();
    let node = name(&world, standbys(&world)[0]);
    let drop = |force| Action::Drop { node: node.clone(), force, destroy: false };
    done(&mut world, &drop(false));
    already(&world, &drop(false));
    done(&mut world, &drop(true));
    expect(&world, &drop(true), 1, "unknown_node");
    assert_eq!(world.monitor.record.nodes.len(), 2);
}

#[test]
fn a_dead_node_is_dropped_by_force_only() {
    let mut world = world();
    let id = standbys(&world)[0];
    let machine = world.machines.get_mut(id).unwrap();
    machine.keeper = None;
    machine.stop_postgres(false);
    let evidence = world.monitor.view_mut().nodes.get_mut(&id).unwrap();
    evidence.closed = true;
    world.pass(1);
    world.monitor_turn();
    let node = name(&world, id);
    expect(&world, &switchover(Some(node.clone())), 3, "not_a_candidate");
    expect(
        &world,
        &Action::Drop { node: node.clone(), force: false, destroy: false },
        3,
        "node_is_dead",
    );
    assert!(ask(&world, &Action::Drop { node, force: true, destroy: false }).is_ok());
}

#[test]
fn the_primary_dropped_by_force_is_replaced() {
    let mut world = world();
    let node = name(&world, primary(&world));
    done(&mut world, &Action::Drop { node, force: true, destroy: false });
    let record = &world.monitor.record;
    assert!(matches!(record.phase, Phase::Electing(_)), "{:?}", record.phase);
    assert!(record.specs.iter().any(|spec| Some(spec.primary) == record.primary));
}

#[test]
fn a_group_without_a_primary() {
    let world = Walk::new(2).world(1);
    assert_eq!(world.monitor.record.phase, Phase::Forming);
    expect(&world, &switchover(None), 3, "no_primary");
    expect(&world, &failover(false), 3, "no_primary");
}

#[test]
fn an_old_copy_of_the_record_decides_nothing() {
    let mut world = world();
    world.monitor.record_mut().quarantined = true;
    for action in [switchover(None), failover(true), set("lease", "1s")] {
        expect(&world, &action, 3, "quarantine");
    }
}

#[test]
fn a_failover_that_could_lose_commits() {
    let world = world();
    let view = View::starting(fsm::Millis(world.now), 0);
    let record: &Record = &world.monitor.record;
    let refused = apply(record, &view, &failover(false), at(world.now)).unwrap_err();
    assert_eq!((refused.code, refused.reason.as_str()), (3, "not_enough_witnesses"));
    assert!(apply(record, &view, &failover(true), at(world.now)).is_ok());
}

/// A primary that reports an empty directory is not one that could hand over, and an operation that
/// waits for it does not keep the operator from accepting the loss.
#[test]
fn loss_can_be_accepted_where_the_primary_has_lost_its_data() {
    let mut world = world();
    let standby = standbys(&world)[0];
    let node = name(&world, standby);
    done(&mut world, &Action::Drop { node, force: false, destroy: false });
    let id = primary(&world);
    let evidence = world.monitor.view_mut().nodes.get_mut(&id).unwrap();
    evidence.report.as_mut().unwrap().data = shared::report::Data::Empty;
    done(&mut world, &Action::Failover { allow_data_loss: true, fenced: false });
    let record = &world.monitor.record;
    let election = record.phase.election().unwrap();
    assert!(election.loss.is_some() && !election.drain, "{election:?}");
    assert_eq!(record.finished.last().unwrap().outcome, Outcome::Failed);
}

#[test]
fn a_node_leaves_maintenance_whatever_is_under_way() {
    let mut world = world();
    let standby = standbys(&world)[0];
    let node = name(&world, standby);
    world.monitor.record_mut().nodes.get_mut(&standby).unwrap().maintenance = true;
    let other = name(&world, standbys(&world)[1]);
    done(&mut world, &Action::Drop { node: other, force: false, destroy: false });
    let before = world.monitor.record.operation.clone();
    done(&mut world, &Action::Maintenance { node, on: false, allow_failover: false });
    assert!(!world.monitor.record.nodes[&standby].maintenance);
    assert_eq!(world.monitor.record.operation, before);
}

/// Orders of the operator go to nodes that can take them.
#[test]
fn restarts_and_new_copies() {
    let mut world = world();
    let own = name(&world, primary(&world));
    let standby = name(&world, standbys(&world)[0]);
    let reinit = |node: &NodeName| Action::Reinit { node: node.clone() };
    let restart = |node: &NodeName| Action::Restart { node: node.clone() };
    expect(&world, &reinit(&own), 3, "is_primary");
    expect(&world, &reinit(&nobody()), 1, "unknown_node");
    expect(&world, &restart(&nobody()), 1, "unknown_node");
    done(&mut world, &restart(&own));
    assert_eq!(next_rule(&mut world), "operation-goes-on");
    let operation = world.monitor.record.operation.clone().unwrap();
    let orders = world.monitor.record.nodes[&primary(&world)].orders;
    assert_eq!((orders.restart, orders.copy), (operation.id, 0));
    expect(&world, &reinit(&standby), 6, "busy");
}

/// Takes the next decision, and gives its rule.
fn next_rule(world: &mut World) -> String {
    let (record, view) = (&world.monitor.record, &world.monitor.view);
    let decision = fsm::group::rules::step(record, view, at(world.now), 0).unwrap();
    let rule = decision.events[0].rule.clone();
    world.monitor.commit(decision, world.now);
    rule
}

/// The primary has the newest spec in force.
fn confirm(world: &mut World) {
    let (primary, record) = (primary(world), &world.monitor.record);
    let (epoch, generation) = (record.epoch, record.newest_spec().unwrap().generation);
    let evidence = world.monitor.view_mut().nodes.get_mut(&primary).unwrap();
    let in_force = shared::report::InForce { epoch, generation };
    evidence.report.as_mut().unwrap().in_force = Some(in_force);
}

/// Commits do not wait for a standby that is away because an operator wanted it so.
#[test]
fn a_standby_leaves_the_sync_set_before_it_goes_away() {
    for action in [|node| Action::Restart { node }, |node| Action::Reinit { node }] {
        let mut world = world();
        let standby = standbys(&world)[0];
        let action = action(name(&world, standby));
        done(&mut world, &action);
        let orders = |world: &World| world.monitor.record.nodes[&standby].orders;
        assert_eq!(next_rule(&mut world), "sync-change");
        assert_eq!(orders(&world), Orders::default());
        let stays = world.monitor.record.newest_spec().unwrap().standbys.clone();
        assert!(!stays.contains(&standby) && stays.len() == 1, "{stays:?}");
        confirm(&mut world);
        assert_eq!(next_rule(&mut world), "sync-confirmed");
        assert_eq!(next_rule(&mut world), "operation-goes-on");
        let operation = world.monitor.record.operation.as_ref().unwrap().id;
        assert_eq!(orders(&world).restart.max(orders(&world).copy), operation);
    }
}

/// All are demanded: commits wait for it all the same, so it goes at once.
#[test]
fn a_standby_that_is_demanded_restarts_as_a_member() {
    let mut world = world();
    world.monitor.record_mut().settings.number_sync_standbys = Some(2);
    assert_eq!(next_rule(&mut world), "sync-change");
    confirm(&mut world);
    assert_eq!(next_rule(&mut world), "sync-confirmed");
    let standby = standbys(&world)[0];
    let node = name(&world, standby);
    expect(&world, &Action::Reinit { node: node.clone() }, 3, "too_few_standbys");
    done(&mut world, &Action::Restart { node });
    assert_eq!(next_rule(&mut world), "operation-goes-on");
    let operation = world.monitor.record.operation.as_ref().unwrap().id;
    assert_eq!(world.monitor.record.nodes[&standby].orders.restart, operation);
    assert!(world.monitor.record.is_sync_member(standby));
}

/// Whoever is elected meanwhile has nobody to be copied from; the order does not outlive the operation.
#[test]
fn a_new_copy_of_what_has_become_the_primary() {
    let mut world = world();
    let standby = standbys(&world)[0];
    let node = name(&world, standby);
    done(&mut world, &Action::Reinit { node });
    let record = world.monitor.record_mut();
    record.nodes.get_mut(&standby).unwrap().orders.copy = 1;
    record.primary = Some(standby);
    // The new primary has a sync set of its own to make.
    assert!((0..3).any(|_| next_rule(&mut world) == "operation-done"));
    let record = &world.monitor.record;
    assert_eq!(record.finished.last().unwrap().outcome, Outcome::Failed);
    assert_eq!(record.nodes[&standby].orders, Orders::default());
}

/// A standby whose Postgres cannot run is what new copies are for; if the new one cannot run either, that is
/// the end of it.
#[test]
fn a_new_copy_of_what_cannot_run() {
    let mut world = world();
    let standby = standbys(&world)[0];
    let report = |world: &mut World, done: Orders| {
        let evidence = world.monitor.view_mut().nodes.get_mut(&standby).unwrap();
        let report = evidence.report.as_mut().unwrap();
        (report.failed, report.done) = (Some("it cannot".to_owned()), done);
    };
    report(&mut world, Orders::default());
    let node = name(&world, standby);
    done(&mut world, &Action::Reinit { node });
    // It leaves the sync set first.
    world.decide();
    confirm(&mut world);
    world.decide();
    let orders = world.monitor.record.nodes[&standby].orders;
    assert_ne!(orders.copy, 0);
    report(&mut world, orders);
    world.decide();
    let record = &world.monitor.record;
    assert_eq!(record.operation, None);
    assert_eq!(record.finished.last().unwrap().outcome, Outcome::Failed);
}

/// The primary has lost its data, and cannot be replaced without the node that is to be copied from it: its
/// Postgres is down, and is not started as long as the order stands.
#[test]
fn a_new_copy_of_a_primary_that_has_none() {
    let mut world = world();
    let [standby, other] = standbys(&world)[..] else { panic!("not three nodes") };
    let (primary, node) = (primary(&world), name(&world, standby));
    done(&mut world, &Action::Reinit { node });
    for id in [other, primary] {
        let evidence = world.monitor.view_mut().nodes.get_mut(&id).unwrap();
        evidence.report.as_mut().unwrap().data = shared::report::Data::Empty;
    }
    world.decide();
    let record = &world.monitor.record;
    assert_eq!((&record.phase, &record.operation), (&Phase::Serving, &None));
    assert_eq!(record.finished.last().unwrap().outcome, Outcome::Failed);
}

/// A primary whose keeper was asked to stop, and that is down: two rules would replace it, and one is told.
#[test]
fn what_a_pause_withholds_is_not_told_in_turn() {
    let mut world = world();
    done(&mut world, &Action::Pause);
    let primary = primary(&world);
    let report = world.monitor.view_mut().nodes.get_mut(&primary).unwrap().report.as_mut().unwrap();
    (report.failed, report.leaving) = (Some("it cannot".to_owned()), true);
    world.decide();
    assert_eq!(world.violation(), None);
    let pause = world.monitor.record.paused.as_ref().unwrap();
    assert_eq!(pause.withheld.as_deref(), Some("primary-cannot-run"));
}

/// A pause withholds what rules would begin, says so once, and not what operators ask for.
#[test]
fn a_pause_withholds_elections() {
    let mut world = world();
    already(&world, &Action::Resume);
    done(&mut world, &Action::Pause);
    already(&world, &Action::Pause);
    let primary = primary(&world);
    let mut view = View::clone(&world.monitor.view);
    let report = view.nodes.get_mut(&primary).unwrap().report.as_mut().unwrap();
    report.failed = Some("it cannot".to_owned());
    let step =
        |record: &Record, view: &View| fsm::group::rules::step(record, view, at(world.now), 0);
    let told = step(&world.monitor.record, &view).unwrap();
    assert_eq!(told.record.phase, Phase::Serving);
    assert_eq!(told.events.len(), 1);
    assert_eq!(
        (told.events[0].kind.as_str(), &*told.events[0].rule),
        ("paused", "primary-cannot-run")
    );
    let again = step(&told.record, &view);
    assert!(again.is_none_or(|again| again.record.phase == Phase::Serving
        && again.events.iter().all(|event| event.kind != "paused")));
    // A host that has just closed its connection is not well, however fresh its last report.
    let mut gone = View::clone(&world.monitor.view);
    gone.nodes.get_mut(&primary).unwrap().closed = true;
    let still = step(&told.record, &gone);
    assert!(still.is_none_or(|still| still.events[0].rule != "withheld-is-over"));
    // It is well again, and would be told again.
    let over = step(&told.record, &world.monitor.view).unwrap();
    assert_eq!(over.events[0].rule, "withheld-is-over");
    assert!(ask(&world, &switchover(None)).is_ok());
    done(&mut world, &Action::Resume);
    let begun = fsm::group::rules::step(&world.monitor.record, &view, at(world.now), 0).unwrap();
    assert!(begun.record.phase.election().is_some());
}
