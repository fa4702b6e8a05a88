//! Standbys that stream from standbys: who is told what, when a node goes and comes back, what is refused.

use crate::group::{ask, done, healthy, name, primary, standbys};
use fsm::Millis;
use fsm::group::explain::explain;
use fsm::group::request::Reply;
use fsm::group::rules::step;
use fsm::group::{Record, goals};
use shared::api::{Action, ApiError, Outcome};
use shared::event::Event;
use shared::goal::{Goal, Upstream};
use shared::ids::{NodeId, Ticket};
use shared::report::{Data, Report};
use sim::{World, at, walk};

/// Four healthy nodes: the primary, a standby to stream from, one that shall, and another.
fn four() -> (World, [NodeId; 4]) {
    let mut world = healthy(4);
    // For as long as an upstream has to have been streaming.
    let timeout = world.monitor.record.settings.timers().node_timeout_ms;
    let until = world.now + timeout;
    while world.now < until {
        walk::round(&mut world);
    }
    let others = standbys(&world);
    let nodes = [primary(&world), others[0], others[1], others[2]];
    (world, nodes)
}

fn wish(world: &World, node: NodeId, value: &str) -> Action {
    let (node, key) = (name(world, node), "replicate-from".to_owned());
    Action::SetNode { node, key, value: value.to_owned() }
}

fn wished(world: &mut World, node: NodeId, value: &str) {
    let action = wish(world, node, value);
    done(world, &action);
}

fn refused(world: &World, node: NodeId, value: &str) -> (u8, String) {
    let error = ask(world, &wish(world, node, value)).unwrap_err();
    assert!(!error.message.is_empty() && !error.message.contains('\n'));
    (error.code, error.reason)
}

/// The group of four with the third at the second, settled.
fn cascaded() -> (World, [NodeId; 4]) {
    let (mut world, nodes) = four();
    let [_, upstream, node, _] = nodes;
    let value = name(&world, upstream).to_string();
    wished(&mut world, node, &value);
    walk::converge(&mut world).unwrap();
    assert_eq!(world.monitor.record.nodes[&node].cascade.upstream, Some(upstream));
    (world, nodes)
}

fn goal(record: &Record, world: &World, id: NodeId) -> Goal {
    goals::assignment(record, &world.monitor.view, id).unwrap().goal
}

/// Decides on what is seen until nothing is to be decided, at so much later; what was said.
fn decide(world: &World, later: u64) -> (Record, Vec<Event>) {
    let (mut record, mut events) = (Record::clone(&world.monitor.record), Vec::new());
    let now = at(world.now + later);
    while let Some(decision) = step(&record, &world.monitor.view, now, 0) {
        record = decision.record;
        events.extend(decision.events);
        assert!(events.len() < 50, "{events:?}");
    }
    (record, events)
}

#[test]
fn a_node_leaves_the_sync_set_before_it_goes() {
    let (mut world, [primary, upstream, node, other]) = four();
    let before = world.monitor.record.nodes[&node].admission;
    let value = name(&world, upstream).to_string();
    wished(&mut world, node, &value);
    let (record, _) = decide(&world, 0);
    // The primary has not confirmed the change yet.
    let newest = record.newest_spec().unwrap();
    assert_eq!(newest.standbys, [upstream, other].into());
    assert!(record.is_sync_member(node), "by the spec that is in force");
    let direct = Goal::Follow { upstream: Upstream::Primary { node: primary } };
    assert_eq!(goal(&record, &world, node), direct);
    walk::converge(&mut world).unwrap();
    let record = &world.monitor.record;
    let cascades = Goal::Follow { upstream: Upstream::Standby { node: upstream, primary } };
    assert_eq!(goal(record, &world, node), cascades);
    assert!(!record.is_sync_member(node) && record.nodes[&node].admission > before);
    assert_eq!(record.quorum_standbys().collect::<Vec<_>>(), vec![upstream, other]);
    let status = fsm::group::status::status(record, &world.monitor.view, at(world.now));
    let shown = status.nodes.iter().find(|shown| shown.id == node).unwrap();
    let name = Some(name(&world, upstream));
    assert_eq!((&shown.upstream, &shown.replicate_from), (&name, &name));
    assert_eq!(shown.sync_state.as_deref(), Some("async"));
}

#[test]
fn what_cannot_be_wished_is_refused() {
    let (mut world, [primary, upstream, node, other]) = four();
    let named = |id: NodeId| name(&world, id).to_string();
    let [primary_name, upstream_name, node_name, other_name] =
        [primary, upstream, node, other].map(named);
    assert_eq!(refused(&world, node, "nobody"), (1, "unknown_node".to_owned()));
    assert_eq!(refused(&world, node, &node_name), (3, "itself".to_owned()));
    let none = ask(&world, &wish(&world, node, "none")).unwrap();
    assert!(matches!(none, Reply::Already(result) if result.outcome == Outcome::Done));
    wished(&mut world, node, &upstream_name);
    assert_eq!(refused(&world, upstream, &node_name), (3, "cycle".to_owned()));
    wished(&mut world, other, &node_name);
    assert_eq!(refused(&world, upstream, &other_name), (3, "cycle".to_owned()));
    // The last that commits may wait for: its own upstream is the primary, wherever its wish leads.
    wished(&mut world, other, "primary");
    wished(&mut world, other, &upstream_name);
    assert!(ask(&world, &wish(&world, upstream, &primary_name)).is_ok(), "the primary already");
    world.monitor.record_mut().nodes.get_mut(&upstream).unwrap().dropping = true;
    wished(&mut world, other, "none");
    assert_eq!(refused(&world, other, &upstream_name), (3, "is_dropping".to_owned()));
}

fn report(world: &mut World, id: NodeId) -> &mut Report {
    world.monitor.view_mut().nodes.get_mut(&id).unwrap().report.as_mut().unwrap()
}

fn said(reply: Result<Reply, ApiError>) -> String {
    match reply.unwrap() {
        Reply::Already(result) | Reply::Decided(_, result) => result.reason,
    }
}

/// What `explain` says of a node, in the end.
fn wanting(world: &World, node: NodeId) -> String {
    let record = &world.monitor.record;
    let told = explain(record, &world.monitor.view, Some(node), at(world.now));
    told.wanting.into_iter().map(|wanting| wanting.text).collect()
}

/// Nobody has to guess why a node is not where it is wished, when it is asked for and afterwards.
#[test]
fn why_a_node_stays_at_the_primary_is_told() {
    let (mut world, [primary, upstream, node, other]) = four();
    let [primary_name, name, own] =
        [primary, upstream, node].map(|id| name(&world, id).to_string());
    let action = wish(&world, node, &name);
    assert_eq!(said(ask(&world, &action)), format!("replicate-from of {own} is now {name}"));
    done(&mut world, &action);
    assert!(wanting(&world, node).ends_with("both have to stream for a while first"));
    let why = |change: &dyn Fn(&mut World)| {
        let mut world = world.clone();
        change(&mut world);
        let text = wanting(&world, node);
        wished(&mut world, node, "none");
        let first = said(ask(&world, &action));
        let why = text.split_once(&format!("until it can replicate from {name}: ")).unwrap().1;
        assert!(first.ends_with(&format!("{own} stays at the primary for now: {why}")), "{first}");
        why.to_owned()
    };
    let maintenance = |world: &mut World| {
        world.monitor.record_mut().nodes.get_mut(&upstream).unwrap().maintenance = true;
    };
    assert_eq!(why(&maintenance), format!("{name} goes into maintenance"));
    let old = why(&|world| report(world, upstream).cascades = false);
    assert!(old.starts_with(&format!("the keeper of {name} is of a version")), "{old}");
    let old = why(&|world| report(world, node).cascades = false);
    assert_eq!(old, "its keeper is of a version that knows no cascading; upgrade it");
    let answer = |id, value: &str| said(ask(&world, &wish(&world, id, value)));
    assert!(
        answer(node, &primary_name).contains(&format!("{primary_name} is the primary, so {own}"))
    );
    assert!(answer(primary, &name).contains("counts from the next one on"));
    assert_eq!(answer(node, "None"), format!("replicate-from of {own} is now none"));
    for other in [upstream, other] {
        world.monitor.record_mut().nodes.get_mut(&other).unwrap().replication_quorum = false;
    }
    assert!(wanting(&world, node).ends_with("too few others are there for commits to wait for"));
}

#[test]
fn too_few_to_wait_for() {
    let mut world = healthy(3);
    let (first, second) = (standbys(&world)[0], standbys(&world)[1]);
    let value = name(&world, first).to_string();
    wished(&mut world, second, &value);
    let set = |key: &str, value: &str| Action::SetFormation {
        key: key.to_owned(),
        value: value.to_owned(),
    };
    let error = ask(&world, &set("number-sync-standbys", "2")).unwrap_err();
    assert_eq!(error.reason, "too_few_standbys");
    wished(&mut world, second, "none");
    done(&mut world, &set("number-sync-standbys", "2"));
    assert_eq!(refused(&world, second, &value), (3, "too_few_standbys".to_owned()));
    done(&mut world, &set("number-sync-standbys", "0"));
    let (node, key) = (name(&world, first), "replication-quorum".to_owned());
    done(&mut world, &Action::SetNode { node, key, value: "false".to_owned() });
    assert_eq!(refused(&world, second, &value), (3, "too_few_standbys".to_owned()));
}

/// How the group decides where this has been done to what it sees; nothing has to be waited for.
fn comes_back(change: impl FnOnce(&mut World, [NodeId; 4])) -> Vec<Event> {
    let (mut world, nodes) = cascaded();
    let [primary, _, node, _] = nodes;
    let before = world.monitor.record.nodes[&node].admission;
    change(&mut world, nodes);
    let (record, events) = decide(&world, 0);
    let direct = Goal::Follow { upstream: Upstream::Primary { node: primary } };
    assert_eq!(goal(&record, &world, node), direct, "{events:?}");
    assert!(record.nodes[&node].admission > before, "an admission is for one upstream");
    events
}

#[test]
fn back_to_the_primary_at_once() {
    let reattached = |events: Vec<Event>| {
        assert!(events.iter().any(|event| event.rule == "reattached"), "{events:?}");
    };
    reattached(comes_back(|world, [_, upstream, ..]| report(world, upstream).leaving = true));
    reattached(comes_back(|world, [_, upstream, ..]| {
        report(world, upstream).failed = Some("it is broken".to_owned());
    }));
    reattached(comes_back(|world, [_, upstream, ..]| report(world, upstream).data = Data::Empty));
    reattached(comes_back(|world, [_, upstream, ..]| report(world, upstream).cascades = false));
    reattached(comes_back(|world, [_, _, node, _]| report(world, node).cascades = false));
    reattached(comes_back(|world, [_, _, node, _]| report(world, node).needs_primary = true));
    reattached(comes_back(|world, [_, upstream, ..]| {
        world.monitor.record_mut().nodes.get_mut(&upstream).unwrap().dropping = true;
    }));
    reattached(comes_back(|world, [_, upstream, ..]| {
        world.monitor.record_mut().nodes.get_mut(&upstream).unwrap().maintenance = true;
    }));
    reattached(comes_back(|world, [_, _, node, _]| {
        wished(world, node, "none");
    }));
    let events = comes_back(|world, [_, upstream, node, _]| {
        let force = Action::Drop { node: name(world, upstream), force: true, destroy: false };
        done(world, &force);
        world.monitor.record_mut().operation = None;
        assert!(world.monitor.record.nodes[&node].cascade.wish.is_some());
    });
    let is_none = |event: &&Event| event.kind == "setting" && event.to.as_deref() == Some("none");
    let told = events.iter().find(is_none).unwrap();
    assert!(told.reason.contains("the standby that it named, of id"), "{told:?}");
}

/// Without a stream it is given the node timeout, and more time from the next on.
#[test]
fn back_to_the_primary_after_the_node_timeout() {
    let (mut world, [_, upstream, node, _]) = cascaded();
    let timeout = world.monitor.record.settings.timers().node_timeout_ms;
    let now = world.now;
    let evidence = world.monitor.view_mut().nodes.get_mut(&node).unwrap();
    evidence.report.as_mut().unwrap().streaming = false;
    (evidence.idle_since, evidence.streaming_since) = (Some(Millis(now)), None);
    let later = |world: &World, ms| {
        // Everybody has just been heard.
        let mut world = world.clone();
        for evidence in world.monitor.view_mut().nodes.values_mut() {
            evidence.reported_at = Millis(now + ms);
        }
        decide(&world, ms)
    };
    let (record, _) = later(&world, timeout - 1);
    assert_eq!(record.nodes[&node].cascade.upstream, Some(upstream));
    let (record, events) = later(&world, timeout);
    let cascade = record.nodes[&node].cascade;
    assert_eq!((cascade.upstream, cascade.wish, cascade.detours), (None, Some(upstream), 1));
    assert_eq!(events.iter().filter(|event| event.kind == "upstream").count(), 1, "{events:?}");
}

/// With whom they were waiting for gone, commits need the node more than the operator does.
#[test]
fn back_to_the_primary_where_commits_need_it() {
    let (mut world, [primary, _, node, other]) = cascaded();
    report(&mut world, primary).replicas.clear();
    let stall = world.monitor.record.settings.timers().stall_timeout_ms;
    let now = world.now;
    for evidence in world.monitor.view_mut().nodes.values_mut() {
        evidence.reported_at = Millis(now + stall);
        evidence.absent_since = Some(Millis(now));
    }
    let (record, events) = decide(&world, stall);
    assert_eq!(record.nodes[&node].cascade.upstream, None, "{events:?}");
    assert!(record.nodes[&other].cascade.upstream.is_none());
}

/// `number-sync-standbys` is demanded of the group, wherever its nodes stream from: with another standby gone for
/// good the node is needed.
#[test]
fn back_to_the_primary_where_as_many_are_demanded() {
    let (mut world, [_, _, node, other]) = cascaded();
    let demand =
        Action::SetFormation { key: "number-sync-standbys".to_owned(), value: "2".to_owned() };
    done(&mut world, &demand);
    walk::converge(&mut world).unwrap();
    let record = &world.monitor.record;
    assert!(record.nodes[&node].cascade.upstream.is_some() && record.number_sync_standbys() == 2);
    let drop = Action::Drop { node: name(&world, other), force: false, destroy: false };
    done(&mut world, &drop);
    let (record, events) = decide(&world, 0);
    assert_eq!(record.nodes[&node].cascade.upstream, None, "{events:?}");
    assert_eq!(record.number_sync_standbys(), 2);
    assert_eq!(record.newest_spec().map(|spec| spec.required), Some(2));
}

/// Its upstream, the last that commits wait for, is dropped, or goes into maintenance: they wait for the node
/// instead, and at no moment for nobody.
#[test]
fn back_to_the_primary_before_commits_wait_for_nobody() {
    let (mut world, [_, upstream, node, other]) = cascaded();
    let (key, value) = ("replication-quorum".to_owned(), "false".to_owned());
    let no_quorum = Action::SetNode { node: name(&world, other), key, value };
    done(&mut world, &no_quorum);
    walk::converge(&mut world).unwrap();
    let upstream = || name(&world, upstream);
    for action in [
        Action::Drop { node: upstream(), force: false, destroy: false },
        Action::Drop { node: upstream(), force: true, destroy: false },
        Action::Maintenance { node: upstream(), on: true, allow_failover: false },
    ] {
        let mut world = world.clone();
        done(&mut world, &action);
        let (record, events) = decide(&world, 0);
        assert_eq!(record.nodes[&node].cascade.upstream, None, "{events:?}");
        let required: Vec<_> = record.specs.iter().map(|spec| spec.required).collect();
        assert_eq!(required, [1, 1], "{:?}", record.specs);
    }
}

/// An election gives everybody to the primary that it elects.
#[test]
fn a_new_epoch_begins_with_everybody_at_the_primary() {
    let (mut world, [old, upstream, node, _]) = cascaded();
    world.monitor.record_mut().nodes.get_mut(&upstream).unwrap().candidate_priority = 100;
    world.monitor.tampered = false;
    world.monitor.decisions = Some(Vec::new());
    let to = Some(name(&world, upstream));
    world.ask(&Action::Switchover { to });
    walk::converge(&mut world).unwrap();
    let decisions = world.monitor.decisions.take().unwrap();
    let elected = decisions.iter().find(|(before, d)| d.record.epoch > before.epoch).unwrap();
    assert!(elected.1.record.nodes.values().all(|node| node.cascade.upstream.is_none()));
    let record = &world.monitor.record;
    assert_eq!(record.primary, Some(upstream));
    let direct = Goal::Follow { upstream: Upstream::Primary { node: upstream } };
    assert_eq!(goal(record, &world, node), direct);
    assert!(record.is_sync_member(node) && record.is_sync_member(old));
    // The wish stands: it goes back with the next change.
    assert_eq!(record.nodes[&node].cascade.wish, Some(upstream));
    assert!(record.ticket > Ticket(0));
}
