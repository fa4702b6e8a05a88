//! Who may join, and who is told why not.

use fsm::group::Record;
use fsm::group::join::{Joined, join};
use shared::api::{Identity, JoinRequest};
use shared::ids::{GroupId, NodeId, SystemIdentifier};
use shared::report::Data;
use shared::settings::Settings;
use sim::at;
use sim::node::SYSTEM;
use sim::world::{present, request};

fn empty() -> Record {
    Record::new("default".parse().unwrap(), GroupId(0), Settings::default())
}

fn joined(record: &Record, request: &JoinRequest) -> (Record, Joined) {
    let joined = join(record, request, "secret", at(1)).unwrap();
    let next = joined.decision.as_ref().map_or_else(|| record.clone(), |d| d.record.clone());
    next.validate().unwrap();
    (next, joined)
}

/// Node 1 has joined, and the group has its cluster.
fn record() -> Record {
    let (record, _) = joined(&empty(), &request(1));
    Record { system_identifier: Some(SYSTEM), ..record }
}

fn identity(secret: &str) -> Identity {
    Identity {
        formation: "default".parse().unwrap(),
        node_id: NodeId(1),
        secret: secret.to_owned(),
    }
}

#[track_caller]
fn refused(request: &JoinRequest, code: u8, reason: &str) {
    let error = join(&record(), request, "secret", at(1)).unwrap_err();
    assert_eq!((error.code, error.reason.as_str()), (code, reason), "{}", error.message);
}

#[test]
fn names_and_addresses_are_unique() {
    refused(&JoinRequest { name: request(1).name, ..request(2) }, 3, "duplicate_name");
    let JoinRequest { host, port, .. } = request(1);
    refused(&JoinRequest { host, port, ..request(2) }, 3, "duplicate_address");
    let same_host = JoinRequest { host: request(1).host, port: 5433, ..request(2) };
    assert_eq!(joined(&record(), &same_host).0.nodes.len(), 2);
}

#[test]
fn another_cluster_stays_out() {
    let data = Data::Present { system_identifier: SystemIdentifier(1) };
    refused(&JoinRequest { data, ..request(2) }, 3, "other_cluster");
    refused(
        &JoinRequest { data, identity: Some(identity("secret")), ..request(1) },
        3,
        "other_cluster",
    );
    joined(&record(), &JoinRequest { data: present(), ..request(2) });
    joined(&empty(), &JoinRequest { data, ..request(1) });
}

#[test]
fn identities_are_proved() {
    refused(&JoinRequest { identity: Some(identity("wrong")), ..request(1) }, 3, "bad_secret");
    let strange = Some(Identity { node_id: NodeId(7), ..identity("secret") });
    refused(&JoinRequest { identity: strange, ..request(1) }, 3, "unknown_node");
}

#[test]
fn priorities_have_bounds() {
    refused(&JoinRequest { candidate_priority: 101, ..request(2) }, 1, "bad_value");
    joined(&record(), &JoinRequest { candidate_priority: 100, ..request(2) });
}

#[test]
fn coming_back_changes_nothing_but_the_address() {
    let again = JoinRequest { identity: Some(identity("secret")), ..request(1) };
    let (same, back) = joined(&record(), &again);
    assert_eq!((back.node, back.decision.is_none()), (NodeId(1), true));
    assert_eq!(same, record());
    let moved = JoinRequest { host: "elsewhere".to_owned(), candidate_priority: 1, ..again };
    let (next, back) = joined(&record(), &moved);
    let node = &next.nodes[&NodeId(1)];
    assert_eq!(
        (back.node, node.host.as_str(), node.candidate_priority),
        (NodeId(1), "elsewhere", 50)
    );
    assert_eq!(next.next_node, NodeId(2));
}

/// A primary that has moved is not where it was asked for before: that is no sign of its death.
#[test]
fn a_node_that_joins_lives() {
    use fsm::Millis;
    use fsm::group::detector::verdict;
    use fsm::group::view::{Evidence, Probe, View};
    use shared::settings::Settings;
    let refused = Probe::Refused(Millis(900));
    let mut view = View::starting(Millis(0), 0);
    let gone = Evidence { closed: true, keeper: refused, postgres: refused, ..Evidence::default() };
    view.nodes.insert(NodeId(1), gone);
    let timers = Settings::default().timers();
    assert!(verdict(&view, NodeId(1), &timers, Millis(1000)).is_dead());
    view.note_join(NodeId(1), Millis(1000));
    view.nodes.get_mut(&NodeId(1)).unwrap().postgres = Probe::Refused(Millis(1050));
    assert!(!verdict(&view, NodeId(1), &timers, Millis(1100)).is_dead());
}

/// A keeper that was told what it was told before does not take back what an operator has set.
#[test]
fn what_an_operator_has_set_stands() {
    let mut record = record();
    let node = record.nodes.get_mut(&NodeId(1)).unwrap();
    (node.port, node.zone) = (6000, Some("east".to_owned()));
    node.name = "other".parse().unwrap();
    let again = JoinRequest { identity: Some(identity("secret")), unchanged: true, ..request(1) };
    let (same, back) = joined(&record, &again);
    assert!(back.decision.is_none());
    assert_eq!(same, record);
    record.nodes.get_mut(&NodeId(1)).unwrap().host = "fd00::1".to_owned();
    let (same, _) = joined(&record, &again);
    assert_eq!(same.nodes[&NodeId(1)].rest, "[fd00::1]:6432");
    let (next, _) = joined(&record, &JoinRequest { unchanged: false, ..again });
    let node = &next.nodes[&NodeId(1)];
    assert_eq!((node.port, &node.zone, &node.name), (request(1).port, &None, &request(1).name));
}

#[test]
fn numbers_are_not_used_again() {
    let (record, first) = joined(&record(), &request(2));
    assert_eq!(first.node, NodeId(2));
    let mut record = record;
    record.nodes.remove(&NodeId(2));
    let (_, second) = joined(&record, &request(2));
    assert_eq!(second.node, NodeId(3));
}
