//! What operators are told: refusals with their codes and words, and what holds already.

use fsm::group::request::{Reply, apply};
use fsm::group::{Phase, Record, View};
use shared::api::{Action, ApiError, Outcome};
use shared::ids::{NodeId, NodeName};
use shared::settings::Settings;
use sim::{Walk, World, at, walk};

/// A healthy group of three, whose timers are the default ones.
fn world() -> World {
    let settings = Settings { node_timeout_ms: 3000, ..Settings::default() };
    let mut world = Walk { settings, ..Walk::new(3) }.world(1);
    walk::converge(&mut world).unwrap();
    world
}

fn name(world: &World, id: NodeId) -> NodeName {
    world.monitor.record.nodes[&id].name.clone()
}

fn primary(world: &World) -> NodeId {
    world.monitor.record.primary.unwrap()
}

fn standbys(world: &World) -> Vec<NodeId> {
    let record = &world.monitor.record;
    record.nodes.keys().copied().filter(|id| Some(*id) != record.primary).collect()
}

fn nobody() -> NodeName {
    "nobody".parse().unwrap()
}

fn ask(world: &World, action: &Action) -> Result<Reply, ApiError> {
    apply(&world.monitor.record, &world.monitor.view, action, at(world.now))
}

/// Asks, and takes what was decided.
fn done(world: &mut World, action: &Action) {
    match ask(world, action) {
        Ok(Reply::Decided(decision, _)) => world.monitor.commit(*decision, world.now),
        other => panic!("{action:?}: {other:?}"),
    }
    assert_eq!(world.monitor.violation, None);
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
    world.monitor.record_mut().regressed = true;
    for action in [switchover(None), failover(true), set("lease", "1s")] {
        expect(&world, &action, 3, "record_is_old");
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
    let operation = world.monitor.record.operation.clone().unwrap();
    let orders = world.monitor.record.nodes[&primary(&world)].orders;
    assert_eq!((orders.restart, orders.copy), (operation.id, 0));
    expect(&world, &reinit(&standby), 6, "busy");
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
