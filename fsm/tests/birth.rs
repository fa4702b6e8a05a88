//! The first node of a group makes its cluster, also where it did not come to its end with that before.

use fsm::group::rules::step;
use fsm::group::view::Evidence;
use fsm::group::{Record, View, goals, join};
use fsm::node::plan::Next;
use fsm::node::view::Persisted;
use fsm::node::{Data, LocalView, Step, plan};
use shared::api::JoinRequest;
use shared::goal::{Assignment, Goal};
use shared::ids::{FormationId, GroupId};
use shared::report::Report;
use shared::settings::Settings;
use sim::at;
use sim::node::{SYSTEM, empty_view};

/// As many as there may be until the first node has been told to be the primary.
const DECISIONS: usize = 10;

/// What the first node is told.
fn told() -> Assignment {
    let formation: FormationId = "default".parse().unwrap();
    let mut record = Record::new(formation.clone(), GroupId(0), Settings::default());
    let request = JoinRequest::of_new_node(formation, "node1".parse().unwrap());
    let joined = join::join(&record, &request, "secret", at(0)).unwrap();
    record = joined.decision.unwrap().record;
    let mut view = View::default();
    let report = Some(Report::of_new_node("keeper"));
    view.nodes.insert(joined.node, Evidence { report, ..Evidence::default() });
    for _ in 0..DECISIONS {
        record = step(&record, &view, at(0), 0).map_or(record, |decision| decision.record);
    }
    goals::assignment(&record, &view, joined.node).unwrap()
}

fn next(assignment: Assignment, data: Data) -> Next {
    let view = LocalView { data, heard: true, ..empty_view() };
    plan(&view, Some(&Persisted::of(assignment))).next
}

#[test]
fn initdb_is_begun_anew() {
    let assignment = told();
    assert!(matches!(assignment.goal, Goal::Primary { timeline: None, .. }), "{assignment:?}");
    for data in [Data::Empty, Data::Rebuilding] {
        assert_eq!(next(assignment.clone(), data), Next::Do(Step::Initialise));
    }
    // From here on there is a cluster, and nothing is made in its place (rule 11).
    let known = Assignment { system_identifier: Some(SYSTEM), ..assignment };
    for data in [Data::Empty, Data::Rebuilding] {
        assert!(matches!(next(known.clone(), data), Next::Wait(_)));
    }
}
