//! Elections against the definition of the promise: whoever is chosen has every record that could have
//! been acknowledged.

use crate::group::node;
use fsm::group::election::{Choice, Waiting, choose, covers};
use fsm::group::goals::{goal_of, lease};
use fsm::group::record::{Election, Node};
use fsm::group::view::{Evidence, Probe};
use fsm::group::{Phase, Record, View};
use fsm::{Millis, Now};
use proptest::prelude::*;
use shared::Timestamp;
use shared::goal::Goal;
use shared::history::{History, Lineage, LineageEntry, Segment, Start};
use shared::ids::{Epoch, Gen, GroupId, NodeId, Ticket, TimelineId};
use shared::lsn::{Lsn, Position};
use shared::report::{Data, PostgresView, Report, Sealed, Stray};
use shared::settings::Settings;
use shared::spec::Spec;
use shared::state::NodeState;
use sim::node::SYSTEM;
use std::collections::{BTreeMap, BTreeSet};

const PRIMARY: NodeId = NodeId(1);
const NOW: u64 = 100_000;

/// What there is to know of a node.
#[derive(Clone, Copy, Debug)]
struct Peer {
    /// The end of its log.
    length: u64,
    alive: bool,
    sealed: bool,
    priority: u8,
    has_data: bool,
}

fn peer() -> impl Strategy<Value = Peer> {
    let priority = prop_oneof![1 => Just(0_u8), 4 => 1..=100_u8];
    (0..6_u64, any::<bool>(), any::<bool>(), priority, prop::bool::weighted(0.9)).prop_map(
        |(length, alive, sealed, priority, has_data)| Peer {
            length,
            alive,
            sealed,
            priority,
            has_data,
        },
    )
}

fn spec(generation: u64, required: usize, standbys: BTreeSet<NodeId>) -> Spec {
    Spec { generation: Gen(generation), epoch: Epoch(1), primary: PRIMARY, required, standbys }
}

/// Node 1 is the primary of epoch 1; the others are its standbys.
fn record(peers: &[Peer], specs: Vec<Spec>) -> Record {
    let mut record = Record::new("default".parse().unwrap(), GroupId(0), Settings::default());
    record.epoch = Epoch(1);
    record.ticket = Ticket(9);
    record.primary = Some(PRIMARY);
    record.next_generation = Gen(9);
    record.specs = specs;
    let start = Some(Start { parent: None, lsn: Lsn(0) });
    record.lineage =
        Lineage(vec![LineageEntry { start, ..LineageEntry::reserved(Epoch(1), TimelineId(1)) }]);
    for (id, peer) in (1..).map(NodeId).zip(peers) {
        let node = Node { candidate_priority: peer.priority, ..node(id) };
        record.nodes.insert(id, node);
    }
    record.validate().unwrap();
    record
}

fn at(length: u64) -> Position {
    Position { epoch: Epoch(1), lsn: Lsn(length * 100) }
}

fn report(peer: &Peer) -> Report {
    let position = Some(at(peer.length)).filter(|_| peer.has_data);
    Report {
        state: NodeState::ReportLsn,
        sealed: peer.sealed.then_some(Sealed { ticket: Ticket(9), position }),
        data: if peer.has_data { Data::Present { system_identifier: SYSTEM } } else { Data::Empty },
        postgres: PostgresView {
            running: peer.has_data,
            timeline: Some(TimelineId(1)),
            lsn: Some(at(peer.length).lsn),
            ..PostgresView::default()
        },
        ..Report::of_new_node("keeper")
    }
}

fn view(peers: &[Peer]) -> View {
    let mut view = View::starting(Millis(0), 0);
    for (id, peer) in (1..).map(NodeId).zip(peers) {
        let refused = if peer.alive { Probe::Unknown } else { Probe::Refused(Millis(NOW)) };
        let evidence = Evidence {
            report: Some(report(peer)),
            reported_at: Millis(NOW - 10),
            closed: !peer.alive,
            keeper: refused,
            postgres: refused,
            ..Evidence::default()
        };
        view.nodes.insert(id, evidence);
    }
    view
}

fn election() -> Election {
    Election {
        cause: "primary-dead".to_owned(),
        preferred: None,
        planned: false,
        cannot_fetch: BTreeSet::new(),
        drain: false,
        loss: None,
        timeline: None,
    }
}

/// Long after the grace.
fn now() -> Now {
    Now { mono: Millis(NOW), wall: Timestamp::default() }
}

/// The length of the longest log that may have been acknowledged under a spec.
fn acknowledged(spec: &Spec, peers: &[Peer]) -> u64 {
    let length = |id: &NodeId| peers[usize::try_from(id.0).unwrap() - 1].length;
    let own = length(&PRIMARY);
    if spec.is_asynchronous() {
        return own;
    }
    let mut lengths: Vec<_> = spec.standbys.iter().map(length).collect();
    lengths.sort_unstable();
    lengths.reverse();
    own.min(lengths[spec.required - 1])
}

/// A group: its nodes, and one or two specs over subsets of its standbys.
fn group() -> impl Strategy<Value = (Vec<Peer>, Vec<Spec>)> {
    proptest::collection::vec(peer(), 2..=6).prop_flat_map(|peers| {
        let count = peers.len();
        let spec = move |generation| {
            (proptest::collection::vec(any::<bool>(), count - 1), 1..=count).prop_map(
                move |(chosen, required)| {
                    let standbys: BTreeSet<_> = (2..)
                        .map(NodeId)
                        .zip(&chosen)
                        .filter(|(_, chosen)| **chosen)
                        .map(|(id, _)| id)
                        .collect();
                    let required = required.min(standbys.len());
                    spec(generation, required, standbys)
                },
            )
        };
        (Just(peers), spec(3), proptest::option::of(spec(4))).prop_map(|(peers, first, second)| {
            (peers, [Some(first), second].into_iter().flatten().collect())
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn the_elected_has_every_acknowledged_commit(
        (peers, specs) in group(),
        preferred in proptest::option::of(1..=6_u64),
        planned: bool,
        tie_break: u64,
    ) {
        let record = record(&peers, specs.clone());
        let view = view(&peers);
        let preferred = preferred.map(NodeId).filter(|id| record.nodes.contains_key(id));
        let election = Election { preferred, planned, ..election() };
        let choice = choose(&record, &view, &election, now(), tie_break);
        let peer = |id: NodeId| peers[usize::try_from(id.0).unwrap() - 1];
        let sealed = |peer: &Peer| peer.sealed && peer.has_data;
        let living: BTreeMap<_, _> = (1..)
            .map(NodeId)
            .zip(&peers)
            .filter(|(_, peer)| peer.alive && sealed(peer))
            .map(|(id, peer)| (id, at(peer.length)))
            .collect();
        let furthest = living.values().max();
        match &choice {
            Choice::Elect { candidate, witnesses } => {
                let elected = peer(*candidate);
                prop_assert!(elected.alive && sealed(&elected));
                prop_assert!(elected.priority > 0 || preferred == Some(*candidate));
                prop_assert!(covers(&specs, witnesses));
                prop_assert!(witnesses.values().all(|witness| *witness <= at(elected.length)));
                for spec in &specs {
                    let acknowledged = acknowledged(spec, &peers);
                    prop_assert!(elected.length >= acknowledged, "{spec} acknowledged {acknowledged}");
                }
            }
            Choice::Forward { candidate, source, target } => {
                prop_assert!(peer(*candidate).alive && peer(*source).alive);
                prop_assert!(sealed(&peer(*candidate)) && sealed(&peer(*source)));
                prop_assert_eq!(*target, at(peer(*source).length));
                prop_assert!(*target > at(peer(*candidate).length));
                prop_assert_eq!(Some(target), furthest);
            }
            Choice::Wait(waiting) => {
                let best = living.iter().any(|(id, position)| {
                    Some(position) == furthest && peer(*id).priority > 0
                });
                prop_assert!(!(covers(&specs, &living) && best), "{waiting:?} of {living:?}");
            }
        }
        let again = choose(&record, &view, &election, now(), tie_break);
        prop_assert_eq!(choice, again);
    }
}

fn peers(lengths_and_priorities: &[(u64, u8)]) -> Vec<Peer> {
    lengths_and_priorities
        .iter()
        .map(|(length, priority)| Peer {
            length: *length,
            alive: true,
            sealed: true,
            priority: *priority,
            has_data: true,
        })
        .collect()
}

fn any_one_of(count: u64) -> Vec<Spec> {
    vec![spec(3, 1, (2..2 + count).map(NodeId).collect())]
}

fn winner(peers: &[Peer], election: &Election, tie_break: u64) -> Choice {
    choose(&record(peers, any_one_of(2)), &view(peers), election, now(), tie_break)
}

fn elected(choice: &Choice) -> Option<NodeId> {
    match choice {
        Choice::Elect { candidate, .. } => Some(*candidate),
        Choice::Forward { .. } | Choice::Wait(_) => None,
    }
}

/// Whose hook refuses is not elected, and counts as a witness all the same.
#[test]
fn who_refuses_is_a_witness_and_no_candidate() {
    let peers = peers(&[(3, 50), (5, 50), (5, 90)]);
    let mut view = view(&peers);
    let election = election();
    let choose = |view: &View| choose(&record(&peers, any_one_of(2)), view, &election, now(), 0);
    assert_eq!(elected(&choose(&view)), Some(NodeId(3)));
    let veto = |view: &mut View, id: u64| {
        let report = view.nodes.get_mut(&NodeId(id)).unwrap().report.as_mut().unwrap();
        report.vetoes = Some("not yet".to_owned());
    };
    veto(&mut view, 3);
    let Choice::Elect { candidate, witnesses } = choose(&view) else { panic!("nobody") };
    assert_eq!(candidate, NodeId(2));
    assert!(witnesses.contains_key(&NodeId(3)));
    for id in [1, 2] {
        veto(&mut view, id);
    }
    assert_eq!(choose(&view), Choice::Wait(Waiting::Candidate));
}

/// One that somebody has promoted by hand, and that has written nothing since, has all that was before; promoted
/// once more it would have that timeline in its log for ever.
#[test]
fn who_was_promoted_by_hand_is_a_witness_and_no_candidate() {
    let peers = peers(&[(3, 50), (5, 50), (5, 90)]);
    let mut view = view(&peers);
    let before = Segment { timeline: TimelineId(1), end: at(5).lsn };
    let history = History { ancestors: vec![before], timeline: TimelineId(2) };
    let report = view.nodes.get_mut(&NodeId(3)).unwrap().report.as_mut().unwrap();
    report.stray = Some(Stray { history, end: Some(at(5).lsn) });
    let choice = choose(&record(&peers, any_one_of(2)), &view, &election(), now(), 0);
    let Choice::Elect { candidate, witnesses } = choice else { panic!("nobody") };
    assert_eq!(candidate, NodeId(2));
    assert!(witnesses.contains_key(&NodeId(3)));
}

#[test]
fn the_higher_priority_wins_and_fetches_what_it_lacks() {
    let choice = winner(&peers(&[(3, 50), (5, 50), (4, 90)]), &election(), 0);
    let (candidate, source) = (NodeId(3), NodeId(2));
    assert_eq!(choice, Choice::Forward { candidate, source, target: at(5) });
    let choice = winner(&peers(&[(3, 50), (5, 50), (5, 90)]), &election(), 0);
    assert_eq!(elected(&choice), Some(NodeId(3)));
}

#[test]
fn one_that_cannot_fetch_gives_way_to_others() {
    let cannot_fetch = Election { cannot_fetch: [NodeId(3)].into(), ..election() };
    let choice = winner(&peers(&[(3, 50), (5, 50), (4, 90)]), &cannot_fetch, 0);
    assert_eq!(elected(&choice), Some(NodeId(2)));
    // The old primary alone has more, and may not be promoted.
    let behind = peers(&[(5, 0), (4, 50), (4, 90)]);
    let (candidate, source) = (NodeId(2), PRIMARY);
    let forward = Choice::Forward { candidate, source, target: at(5) };
    assert_eq!(winner(&behind, &cannot_fetch, 0), forward);
    let neither = Election { cannot_fetch: [NodeId(2), NodeId(3)].into(), ..election() };
    assert_eq!(elected(&winner(&behind, &neither, 0)), Some(NodeId(3)));
}

/// Chance is drawn anew for each decision: without this the monitor would go from one to the other.
#[test]
fn among_equals_who_fetches_goes_on() {
    let peers = peers(&[(5, 0), (4, 50), (4, 50)]);
    let mut record = record(&peers, any_one_of(2));
    for candidate in [NodeId(2), NodeId(3)] {
        let (source, target) = (PRIMARY, at(5));
        record.phase = Phase::Forwarding { election: election(), candidate, source, target };
        for tie_break in 0..20 {
            let choice = choose(&record, &view(&peers), &election(), now(), tie_break);
            assert_eq!(choice, Choice::Forward { candidate, source, target });
        }
    }
}

#[test]
fn the_last_primary_fetches_too_where_it_is_the_candidate() {
    let peers = peers(&[(4, 90), (5, 50)]);
    let mut record = record(&peers, any_one_of(1));
    let (candidate, source, target) = (PRIMARY, NodeId(2), at(5));
    record.phase = Phase::Forwarding { election: election(), candidate, source, target };
    let goal = |id: NodeId| goal_of(&record, id, &record.nodes[&id]).0;
    assert_eq!(goal(candidate), Goal::FastForward { source, target });
    assert_eq!(goal(source), Goal::Seal { drain: false });
}

#[test]
fn priority_zero_is_never_promoted_by_itself() {
    let all_zero = peers(&[(3, 0), (5, 0), (5, 0)]);
    assert_eq!(winner(&all_zero, &election(), 0), Choice::Wait(Waiting::Candidate));
    let preferred = Election { preferred: Some(NodeId(2)), ..election() };
    assert_eq!(elected(&winner(&all_zero, &preferred, 0)), Some(NodeId(2)));
}

#[test]
fn the_preferred_one_wins_at_any_priority() {
    let preferred = Election { preferred: Some(NodeId(3)), ..election() };
    let choice = winner(&peers(&[(5, 90), (5, 90), (5, 1)]), &preferred, 0);
    assert_eq!(elected(&choice), Some(NodeId(3)));
}

#[test]
fn a_primary_that_is_to_be_replaced_wins_only_alone() {
    let planned = Election { planned: true, ..election() };
    let choice = winner(&peers(&[(5, 90), (5, 50), (5, 50)]), &planned, 0);
    assert_ne!(elected(&choice), Some(PRIMARY));
    let choice = winner(&peers(&[(5, 90), (5, 0), (5, 0)]), &planned, 0);
    assert_eq!(elected(&choice), Some(PRIMARY));
}

#[test]
fn chance_decides_among_equals_and_is_an_argument() {
    let equals = peers(&[(3, 0), (5, 50), (5, 50)]);
    let winners: BTreeSet<_> =
        (0..64).filter_map(|chance| elected(&winner(&equals, &election(), chance))).collect();
    assert_eq!(winners, [NodeId(2), NodeId(3)].into());
    for chance in 0..64 {
        let once = winner(&equals, &election(), chance);
        assert_eq!(once, winner(&equals, &election(), chance));
    }
}

#[test]
fn the_grace_is_for_those_who_are_alive_and_have_not_answered() {
    let mut peers = peers(&[(3, 50), (5, 50), (5, 50)]);
    peers[0].alive = false;
    peers[2].sealed = false;
    // One of two would do for ANY 2 of 2.
    let record = record(&peers, vec![spec(3, 2, [NodeId(2), NodeId(3)].into())]);
    let mut view = view(&peers);
    view.phase_since = Millis(NOW - 1);
    let early = choose(&record, &view, &election(), now(), 0);
    assert_eq!(early, Choice::Wait(Waiting::Answers([NodeId(3)].into())));
    view.phase_since = Millis(0);
    assert_eq!(elected(&choose(&record, &view, &election(), now(), 0)), Some(NodeId(2)));
}

/// Of two standbys, one of which may have acknowledged, none is sealed when the grace ends; the
/// stopped primary alone could be elected at once.
#[test]
fn a_primary_that_is_to_be_replaced_does_not_win_by_the_slowness_of_the_others() {
    let mut peers = peers(&[(5, 50), (5, 50), (5, 50)]);
    peers[1].sealed = false;
    peers[2].sealed = false;
    let record = record(&peers, any_one_of(2));
    let planned = Election { planned: true, ..election() };
    let mut view = view(&peers);
    let timers = record.settings.timers();
    view.phase_since = Millis(NOW - timers.election_grace_ms - 1);
    let early = choose(&record, &view, &planned, now(), 0);
    assert_eq!(early, Choice::Wait(Waiting::Answers([NodeId(2), NodeId(3)].into())));
    view.phase_since = Millis(NOW - timers.node_timeout_ms);
    assert_eq!(elected(&choose(&record, &view, &planned, now(), 0)), Some(PRIMARY));
}

#[test]
fn a_node_that_was_asked_for_is_waited_for() {
    let mut peers = peers(&[(5, 50), (5, 50), (5, 50)]);
    peers[2].sealed = false;
    let record = record(&peers, any_one_of(2));
    let asked = Election { planned: true, preferred: Some(NodeId(3)), ..election() };
    let mut view = view(&peers);
    let timers = record.settings.timers();
    view.phase_since = Millis(NOW - timers.election_grace_ms - 1);
    let early = choose(&record, &view, &asked, now(), 0);
    assert_eq!(early, Choice::Wait(Waiting::Answers([NodeId(3)].into())));
    view.phase_since = Millis(NOW - timers.node_timeout_ms);
    assert_eq!(elected(&choose(&record, &view, &asked, now(), 0)), Some(NodeId(2)));
}

#[test]
fn without_cover_nobody_is_elected_and_the_missing_are_named() {
    let mut peers = peers(&[(3, 50), (5, 50), (5, 50)]);
    peers[0].alive = false;
    peers[0].sealed = false;
    peers[2].alive = false;
    peers[2].sealed = false;
    let choice = winner(&peers, &election(), 0);
    assert_eq!(choice, Choice::Wait(Waiting::Witnesses([NodeId(1), NodeId(3)].into())));
}

/// A primary that is to hand over serves until it has stopped, also where no standby proves that it may: what
/// it does before, an operator's hook included, must not end in a fence.
#[test]
fn a_primary_that_hands_over_keeps_its_lease_until_it_has_stopped() {
    let asynchronous = vec![spec(1, 0, BTreeSet::new())];
    let mut record = record(&peers(&[(5, 50), (5, 50)]), asynchronous);
    let leases = |record: &Record| [PRIMARY, NodeId(2)].map(|id| lease(record, id).is_some());
    record.phase = Phase::Electing(Election { drain: true, planned: true, ..election() });
    assert_eq!(leases(&record), [true, false]);
    record.phase = Phase::Electing(Election { drain: false, planned: true, ..election() });
    assert_eq!(leases(&record), [false, false]);
}
