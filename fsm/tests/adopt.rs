//! What becomes of a record that was lost, by what its keepers know; each premise is also taken away.

use fsm::Millis;
use fsm::group::adopt::{Adopted, Missing, adopt};
use fsm::group::join::join;
use fsm::group::record::Phase;
use fsm::group::request::{Reply, apply};
use fsm::group::view::Evidence;
use fsm::group::{Record, View, goals, rules};
use shared::api::{Action, Identity, JoinRequest};
use shared::goal::{
    Assignment, Cascade, Goal, Keepsake, Member, Order, Orders, Standing, Upstream,
};
use shared::history::{Lineage, LineageEntry, Start};
use shared::ids::{Epoch, Gen, GroupId, NodeId, SystemIdentifier, Ticket, TimelineId};
use shared::lsn::Lsn;
use shared::pgsettings::{NodeSettings, PostgresSettings};
use shared::report::{Accepted, Data, InForce, Offer, PostgresView, Promoted, Report};
use shared::settings::Settings;
use shared::spec::Spec;
use shared::state::NodeState;
use sim::at;
use sim::node::SYSTEM;
use sim::world::{present, request};
use std::collections::{BTreeMap, BTreeSet};

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);
const C: NodeId = NodeId(3);
/// Long after the monitor has started.
const NOW: u64 = 10_000;

/// The lost monitor's last word to a node, and what the node says.
#[derive(Clone)]
struct Told {
    id: NodeId,
    assignment: Assignment,
    report: Report,
    sealed: Option<Ticket>,
    promoted: Option<Promoted>,
}

fn spec() -> Spec {
    Spec { generation: Gen(7), epoch: Epoch(2), primary: A, required: 1, standbys: [B, C].into() }
}

fn lineage() -> Lineage {
    let start = |parent: Option<u64>, lsn| Some(Start { parent: parent.map(Epoch), lsn: Lsn(lsn) });
    Lineage(vec![
        LineageEntry {
            epoch: Epoch(1),
            timeline: TimelineId(1),
            start: start(None, 0),
            accepted: None,
        },
        LineageEntry {
            epoch: Epoch(2),
            timeline: TimelineId(3),
            start: start(Some(1), 100),
            accepted: None,
        },
    ])
}

fn member(id: NodeId) -> Member {
    let plain = request(id.0);
    Member {
        id,
        name: plain.name,
        host: plain.host,
        port: plain.port,
        rest: plain.rest,
        admission: Ticket(9),
    }
}

fn keepsake() -> Keepsake {
    let standing = Standing {
        zone: Some("east".to_owned()),
        candidate_priority: 70,
        replication_quorum: true,
        maintenance: false,
        dropping: false,
        cascade: Cascade { wish: Some(C), upstream: None, detours: 1 },
    };
    let settings =
        Settings { node_timeout_ms: 4000, number_sync_standbys: Some(1), ..Settings::default() };
    let values = [("work_mem".to_owned(), "8MB".to_owned())].into();
    Keepsake {
        settings,
        postgres: PostgresSettings { formation: values, ..PostgresSettings::default() },
        paused: true,
        nodes: [A, B, C].into_iter().map(|id| (id, standing.clone())).collect(),
        next_node: NodeId(9),
    }
}

fn assignment(goal: Goal) -> Assignment {
    Assignment {
        order: Order { ticket: Ticket(20), generation: Gen(7) },
        epoch: Epoch(2),
        goal_state: NodeState::Secondary,
        goal,
        members: vec![member(A), member(B), member(C)],
        lineage: lineage(),
        system_identifier: Some(SYSTEM),
        timers: keepsake().settings.timers(),
        may_stop: false,
        settings: NodeSettings::default(),
        orders: Orders { restart: 4, ..Orders::default() },
        keepsake: Some(Box::new(keepsake())),
    }
}

fn report() -> Report {
    Report {
        seq: 1,
        nonce: 1,
        revision: shared::ids::Revision(300),
        state: NodeState::Secondary,
        data: present(),
        postgres: PostgresView {
            running: true,
            in_recovery: Some(true),
            timeline: Some(TimelineId(3)),
            ..PostgresView::default()
        },
        streaming: true,
        ..Report::of_new_node("keeper")
    }
}

/// A is the primary of epoch 2 under `ANY 1 (B, C)`; B and C stream.
fn story() -> Vec<Told> {
    let promoted = Promoted {
        epoch: Epoch(2),
        timeline: TimelineId(3),
        parent: Some(Epoch(1)),
        start: Lsn(100),
        ancestors: Vec::new(),
    };
    let primary = Told {
        id: A,
        assignment: assignment(Goal::Primary { timeline: Some(TimelineId(3)), spec: spec() }),
        report: Report {
            in_force: Some(InForce { epoch: Epoch(2), generation: Gen(7) }),
            streaming: false,
            postgres: PostgresView { in_recovery: Some(false), ..report().postgres },
            ..report()
        },
        sealed: None,
        promoted: Some(promoted),
    };
    let follow = Goal::Follow { upstream: Upstream::Primary { node: A } };
    let standby = |id| Told {
        id,
        assignment: assignment(follow.clone()),
        report: report(),
        sealed: None,
        promoted: None,
    };
    vec![primary, standby(B), standby(C)]
}

fn lost() -> Record {
    Record::lost("default".parse().unwrap(), GroupId(0), Settings::default())
}

/// Each keeper joins under its own identity, then reports with its offer.
fn heard(told: &[Told]) -> (Record, View) {
    heard_by(lost(), told)
}

fn heard_by(mut record: Record, told: &[Told]) -> (Record, View) {
    let mut view = View::starting(Millis(0), 2000);
    for Told { id, assignment, report, sealed, promoted } in told {
        let identity = Identity {
            formation: record.formation.clone(),
            node_id: *id,
            secret: format!("secret of {id}"),
        };
        let again = JoinRequest { identity: Some(identity), ..request(id.0) };
        if let Some(decision) = join(&record, &again, "none", at(1)).unwrap().decision {
            record = decision.record;
        }
        let offer =
            Offer { assignment: assignment.clone(), sealed: *sealed, promoted: promoted.clone() };
        let accepted = Some(Accepted { order: assignment.order, epoch: assignment.epoch });
        let report = Report { accepted, offer: Some(Box::new(offer)), ..report.clone() };
        assert!(view.take_report(*id, report, Millis(NOW)));
    }
    (record, view)
}

fn adopted(told: &[Told]) -> Adopted {
    let (record, view) = heard(told);
    let adopted = adopt(&record, &view, at(NOW)).unwrap_or_else(|missing| panic!("{missing:?}"));
    adopted.record.validate().unwrap();
    assert!(!adopted.record.quarantined);
    adopted
}

fn missing(told: &[Told]) -> Vec<Missing> {
    let (record, view) = heard(told);
    adopt(&record, &view, at(NOW)).unwrap_err()
}

fn code(told: &[Told]) -> &'static str {
    missing(told).first().unwrap().code
}

#[test]
fn one_story_goes_on_where_it_was() {
    let Adopted { record, absent, .. } = adopted(&story());
    assert!(absent.is_empty());
    assert_eq!(
        (record.phase.clone(), record.primary, record.epoch),
        (Phase::Serving, Some(A), Epoch(2))
    );
    assert_eq!((record.specs.clone(), record.confirmed), (vec![spec()], Some(Gen(7))));
    assert!(record.ticket > Ticket(20) && record.next_generation > Gen(7));
    assert_eq!((record.lineage.clone(), record.system_identifier), (lineage(), Some(SYSTEM)));
    assert!(record.highest_timeline >= TimelineId(3) && record.next_operation > 4);
    assert_eq!(record.next_node, NodeId(9), "that of a dropped node is not given again");
    for (id, node) in &record.nodes {
        assert_eq!(node.secret, format!("secret of {id}"));
        assert_eq!((node.admission, node.candidate_priority, node.joined), (Ticket(9), 70, None));
        assert_eq!((node.cascade.wish, node.cascade.detours), (Some(C), 1));
    }
    let kept = keepsake();
    assert_eq!((record.settings.clone(), record.postgres.clone()), (kept.settings, kept.postgres));
    assert!(record.paused.is_some());
}

/// What each node is told then asks nothing new of it: nobody is restarted, not even whose restart was under
/// way, since the operation that asked for it is given up.
#[test]
fn the_goals_stay_what_they_were() {
    let told = story();
    let (record, view) = heard(&told);
    assert!(record.nodes.keys().all(|id| goals::lease(&record, *id).is_none()));
    let decision = rules::step(&record, &view, at(NOW), 0).unwrap();
    assert_eq!(decision.events.first().unwrap().rule, "adopted");
    for Told { id, assignment, .. } in &told {
        let now = goals::assignment(&decision.record, &view, *id).unwrap();
        assert!(now.order > assignment.order);
        assert_eq!(
            (&now.goal, &now.members, now.orders),
            (&assignment.goal, &assignment.members, Orders::default())
        );
    }
}

/// Where no spec is known to be in force, the first one put in force is a new one, and until then nobody
/// is elected without everybody.
#[test]
fn a_primary_that_is_blocked_begins_anew() {
    let mut told = story();
    told[0].report.in_force = None;
    let record = adopted(&told).record;
    assert_eq!((record.phase.clone(), record.confirmed), (Phase::Serving, None));
    let newest = record.newest_spec().unwrap();
    assert!(newest.generation > Gen(7));
    assert_eq!((newest.primary, newest.required, &newest.standbys), (A, 1, &[B, C].into()));
    for id in [A, B, C] {
        let others = [A, B, C].into_iter().filter(|other| *other != id).collect();
        assert!(!record.specs.iter().all(|spec| spec.is_covered_by(&others)), "without {id}");
    }
    // The old one is in force, and a newer one had been accepted.
    let mut told = story();
    told[0].report.in_force = Some(InForce { epoch: Epoch(2), generation: Gen(6) });
    assert_eq!(adopted(&told).record.confirmed, None);
}

#[test]
fn one_that_has_fenced_itself_is_the_primary_all_the_same() {
    let mut told = story();
    told[0].report.postgres = PostgresView::default();
    told[0].report.in_force = None;
    assert_eq!(adopted(&told).record.primary, Some(A));
}

/// A standby in its epoch that is not sealed: nobody else can have been elected.
#[test]
fn a_missing_member_is_done_without_where_that_is_proven() {
    let told = &story()[..2];
    let Adopted { record, absent, .. } = adopted(told);
    assert_eq!((record.primary, absent), (Some(A), [C].into()));
    // While A was being promoted, B was sealed under the ticket that it follows under now.
    let mut remembers = told.to_vec();
    remembers[1].sealed = Some(Ticket(20));
    assert_eq!(adopted(&remembers).record, record);
    assert_eq!((record.specs.clone(), record.confirmed), (vec![spec()], Some(Gen(7))));
    let node = &record.nodes[&C];
    assert!(node.absent && node.secret.is_empty() && node.candidate_priority == 70);
}

#[test]
fn each_premise_of_that_proof_is_needed() {
    let all = story();
    let without = |change: &dyn Fn(&mut Vec<Told>)| {
        let mut told = all[..2].to_vec();
        change(&mut told);
        code(&told)
    };
    assert_eq!(without(&|told| told[1].report.streaming = false), "not_heard");
    assert_eq!(without(&|told| told[1].assignment.epoch = Epoch(1)), "not_heard");
    assert_eq!(without(&|told| told[1].assignment.goal = Goal::Seal { drain: false }), "not_heard");
    assert_eq!(without(&|told| told[0].sealed = Some(Ticket(20))), "not_heard");
    assert_eq!(without(&|told| told[0].report.in_force = None), "not_heard");
    assert_eq!(without(&|told| told[0].promoted = None), "not_heard");
    let asynchronous = |told: &mut Vec<Told>| {
        let spec = Spec { required: 0, standbys: [].into(), ..spec() };
        told[0].assignment.goal = Goal::Primary { timeline: Some(TimelineId(3)), spec };
    };
    assert_eq!(without(&asynchronous), "not_heard");
    // Two are needed, and one is there.
    let two = |told: &mut Vec<Told>| {
        let spec = Spec { required: 2, ..spec() };
        told[0].assignment.goal = Goal::Primary { timeline: Some(TimelineId(3)), spec };
    };
    assert_eq!(without(&two), "not_heard");
    // A standby that no commit waits for says nothing.
    let other = |told: &mut Vec<Told>| {
        let spec = Spec { standbys: [C].into(), ..spec() };
        told[0].assignment.goal = Goal::Primary { timeline: Some(TimelineId(3)), spec };
    };
    assert_eq!(without(&other), "not_heard");
    assert_eq!(code(&all[1..]), "not_heard", "without the primary");
}

#[test]
fn words_that_are_old_prove_nothing_and_the_others_are_given_a_moment() {
    let (record, mut view) = heard(&story()[..2]);
    let late = adopt(&record, &view, at(NOW + 60_000)).unwrap_err();
    assert_eq!(late.first().unwrap().code, "not_heard");
    view.watching_since = Millis(NOW - 1000);
    let early = adopt(&record, &view, at(NOW)).unwrap_err();
    assert_eq!(early.first().unwrap().code, "not_heard_yet");
}

#[test]
fn two_clusters_are_no_story() {
    let mut told = story();
    told[2].report.data = Data::Present { system_identifier: SystemIdentifier(SYSTEM.0 + 1) };
    assert_eq!(code(&told), "contradiction");
    let mut told = story();
    told[2].assignment.system_identifier = Some(SystemIdentifier(SYSTEM.0 + 1));
    assert_eq!(code(&told), "contradiction");
}

#[test]
fn two_primaries_and_two_lineages_are_no_story() {
    let mut told = story();
    told[2].assignment.goal = Goal::Follow { upstream: Upstream::Primary { node: B } };
    assert_eq!(code(&told), "contradiction");
    let mut told = story();
    told[2].assignment.lineage.0[1].timeline = TimelineId(5);
    assert_eq!(code(&told), "contradiction");
    let mut told = story();
    told[2].assignment.lineage.0[1].start = Some(Start { parent: Some(Epoch(1)), lsn: Lsn(99) });
    assert_eq!(code(&told), "contradiction");
    // That one has not heard yet where the epoch begins is none.
    let mut told = story();
    told[0].assignment.lineage.0[1].start = None;
    assert_eq!(adopted(&told).record.lineage, lineage());
}

/// Sealed in an election that nobody has decided, as far as anybody knows: another one is held.
#[test]
fn without_a_primary_all_are_sealed_and_one_is_elected() {
    let mut told = story();
    for node in &mut told {
        node.assignment.goal = Goal::Seal { drain: false };
        node.assignment.order.ticket = Ticket(21);
        node.sealed = Some(Ticket(21));
    }
    let record = adopted(&told).record;
    assert!(matches!(record.phase, Phase::Electing(_)), "{:?}", record.phase);
    assert!(record.ticket > Ticket(21));
    for id in [A, B, C] {
        let others = [A, B, C].into_iter().filter(|other| *other != id).collect();
        assert!(!record.specs.iter().all(|spec| spec.is_covered_by(&others)), "without {id}");
    }
    assert_eq!(code(&told[..2]), "not_heard", "C may have been elected");
}

/// Who told it to rest may have lost its record before, and not known what only this node has.
#[test]
fn a_member_in_maintenance_is_asked_for_its_seal_too() {
    let mut told = story();
    told[0].assignment.goal = Goal::Seal { drain: false };
    told[0].sealed = Some(Ticket(21));
    told[2].assignment.goal = Goal::Maintenance;
    let Adopted { record, .. } = adopted(&told);
    assert!(record.phase.election().is_some());
    let alone: BTreeSet<_> = record.specs.iter().map(|spec| spec.primary).collect();
    assert_eq!(alone, [A, B, C].into());
}

/// C was elected, and A has not heard of it.
#[test]
fn a_later_epoch_wins() {
    let mut told = story();
    let next =
        LineageEntry { epoch: Epoch(3), timeline: TimelineId(5), start: None, accepted: None };
    let spec =
        Spec { generation: Gen(8), epoch: Epoch(3), primary: C, required: 1, standbys: [B].into() };
    told[2].assignment = Assignment {
        order: Order { ticket: Ticket(22), generation: Gen(8) },
        epoch: Epoch(3),
        goal: Goal::Primary { timeline: Some(TimelineId(5)), spec },
        ..told[2].assignment.clone()
    };
    told[2].assignment.lineage.0.push(next);
    told[1].sealed = Some(Ticket(21));
    // It has not been promoted yet: an election, in which its log counts like any other.
    let record = adopted(&told).record;
    assert!(matches!(record.phase, Phase::Electing(_)));
    assert_eq!(record.epoch, Epoch(3));
    told[2].promoted = Some(Promoted {
        epoch: Epoch(3),
        timeline: TimelineId(5),
        parent: Some(Epoch(2)),
        start: Lsn(200),
        ancestors: Vec::new(),
    });
    let record = adopted(&told).record;
    assert_eq!((record.phase.clone(), record.primary), (Phase::Serving, Some(C)));
    assert!(record.lineage.entry(Epoch(3)).unwrap().start.is_some());
    // Without C the seal of B says that somebody may have been elected.
    told[1].assignment.goal = Goal::Seal { drain: false };
    assert_eq!(code(&told[..2]), "not_heard");
}

/// A keeper without an assignment has acknowledged nothing, and is not waited for.
#[test]
fn a_node_that_was_never_told_anything_is_no_gap() {
    let told = story();
    let (mut record, mut view) = heard(&told[..2]);
    let identity =
        Identity { formation: record.formation.clone(), node_id: C, secret: "c".to_owned() };
    let again = JoinRequest { identity: Some(identity), ..request(3) };
    record = join(&record, &again, "none", at(1)).unwrap().decision.unwrap().record;
    let fresh = Report { data: Data::Empty, ..report() };
    view.nodes.insert(C, Evidence { report: Some(fresh), ..Evidence::default() });
    let adopted = adopt(&record, &view, at(NOW)).unwrap();
    assert!(adopted.absent.is_empty() && adopted.record.nodes[&C].joined.is_some());
}

/// The lost monitor had dropped C, whose keeper comes all the same.
#[test]
fn who_was_dropped_stays_dropped() {
    let mut told = story();
    for node in &mut told[..2] {
        node.assignment.members.retain(|member| member.id != C);
        node.assignment.order.ticket = Ticket(22);
    }
    let record = adopted(&told).record;
    assert_eq!(record.nodes.len(), 2);
    assert_eq!(record.dropped.get(&C).map(String::as_str), Some("secret of 3"));
}

#[test]
fn an_operator_can_do_without_a_member() {
    let mut told = story()[..2].to_vec();
    told[0].report.in_force = None;
    let (record, view) = heard(&told);
    let drop = |name: &str| {
        let action = Action::Drop { node: name.parse().unwrap(), force: true, destroy: false };
        apply(&record, &view, &action, at(NOW))
    };
    assert_eq!(drop("n2").unwrap_err().reason, "node_is_heard");
    assert_eq!(drop("n7").unwrap_err().reason, "unknown_node");
    let Ok(Reply::Decided(decision, _)) = drop("n3") else { panic!("refused") };
    let adopted = adopt(&decision.record, &view, at(NOW)).unwrap();
    assert_eq!(adopted.record.nodes.len(), 2);
    assert_eq!(apply(&record, &view, &Action::Pause, at(NOW)).unwrap_err().reason, "quarantine");
}

/// A copy from before the last failover: B was the primary of epoch 1.
#[test]
fn an_old_copy_is_noticed_and_made_anew() {
    let mut copy = adopted(&story()).record;
    copy.epoch = Epoch(1);
    copy.ticket = Ticket(11);
    copy.next_generation = Gen(4);
    copy.primary = Some(B);
    copy.specs = vec![Spec {
        generation: Gen(3),
        epoch: Epoch(1),
        primary: B,
        required: 1,
        standbys: [A, C].into(),
    }];
    copy.confirmed = Some(Gen(3));
    copy.lineage.0.truncate(1);
    let (record, view) = heard_by(copy, &story());
    let old = rules::step(&record, &view, at(NOW), 0).unwrap();
    assert_eq!(old.events.first().unwrap().rule, "record-is-old");
    assert!(old.record.quarantined);
    let made = rules::step(&old.record, &view, at(NOW), 0).unwrap().record;
    assert_eq!((made.primary, made.epoch, made.specs.clone()), (Some(A), Epoch(2), vec![spec()]));
}

/// C, of which only the others had told, comes with a higher ticket and no later epoch.
#[test]
fn a_latecomer_raises_the_ticket_and_nothing_else() {
    let record = adopted(&story()[..2]).record;
    let mut told = story();
    let order = Order { ticket: Ticket(record.ticket.0 + 5), generation: Gen(7) };
    told[2].assignment.order = order;
    told[2].report.done.restart = 4000;
    let (record, view) = heard_by(record, &told[2..]);
    assert_eq!(record.nodes[&C].secret, "secret of 3");
    let decision = rules::step(&record, &view, at(NOW), 0).unwrap();
    assert_eq!(decision.events.first().unwrap().rule, "latecomer");
    let next = decision.record;
    assert!(next.ticket > order.ticket && !next.nodes[&C].absent);
    // What it is ordered next is not what it has done already.
    assert_eq!(next.next_operation, 4001);
    assert_eq!(
        (next.phase.clone(), next.specs.clone()),
        (record.phase.clone(), record.specs.clone())
    );
    // One that knows a later epoch: the record was made from less than the truth.
    told[2].assignment.epoch = Epoch(3);
    let (record, view) = heard_by(record, &told[2..]);
    let decision = rules::step(&record, &view, at(NOW), 0).unwrap();
    assert_eq!(decision.events.first().unwrap().rule, "record-is-old");
}

/// Of another history, with the same numbers: it gets no orders.
#[test]
fn a_latecomer_of_another_lineage_is_not_let_in() {
    let record = adopted(&story()[..2]).record;
    let mut told = story();
    told[2].assignment.lineage.0[1].timeline = TimelineId(5);
    let (record, view) = heard_by(record, &told[2..]);
    let decision = rules::step(&record, &view, at(NOW), 0);
    let rule = decision.map(|decision| decision.events.first().unwrap().rule.clone());
    assert_ne!(rule.as_deref(), Some("latecomer"));
}

/// Only in quarantine a keeper is taken in by its own word, and nobody takes the place of another.
#[test]
fn identities() {
    let reason = |record: &Record, request: &JoinRequest| {
        join(record, request, "new", at(1)).map(|_| ()).unwrap_err().reason
    };
    let as_node = |id: NodeId, secret: &str| {
        let formation = "default".parse().unwrap();
        let identity = Some(Identity { formation, node_id: id, secret: secret.to_owned() });
        JoinRequest { identity, ..request(id.0) }
    };
    let empty = Record::new("default".parse().unwrap(), GroupId(0), Settings::default());
    assert_eq!(reason(&empty, &as_node(B, "b")), "unknown_node");
    assert_eq!(reason(&lost(), &request(1)), "quarantine", "a new node has to wait");
    let record = adopted(&story()[..2]).record;
    assert_eq!(reason(&record, &as_node(C, "")), "bad_secret");
    let elsewhere =
        JoinRequest { name: "x".parse().unwrap(), host: "x".to_owned(), ..as_node(C, "c") };
    assert_eq!(reason(&record, &elsewhere), "bad_secret");
    let mut dropped = record.clone();
    dropped.dropped.insert(NodeId(5), "five".to_owned());
    assert_eq!(reason(&dropped, &as_node(NodeId(5), "five")), "dropped");
    assert_eq!(reason(&dropped, &as_node(NodeId(5), "another")), "unknown_node");
    let known: BTreeMap<_, _> = dropped.nodes;
    assert!(!known.contains_key(&NodeId(5)));
}
