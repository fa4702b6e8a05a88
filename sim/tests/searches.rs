//! The searches of every test run, and that a search notices what is broken.

use sim::Mutation;
use sim::search::family::{DEEP, Member, QUICK};
use sim::search::{Budget, Search};

/// As many as the machines that the project is tested on have.
const THREADS: usize = 2;

fn complete((member, states): (Member, usize)) {
    let found = member.search(false).unwrap().run(THREADS, None);
    println!("{member} {found:?}");
    assert!(found.broken.is_empty(), "{:#?}", found.broken);
    assert!(found.complete);
    // Another number is another world: look whether it is meant, then change it here.
    assert_eq!(found.states, states, "{member}");
}

#[test]
fn two_nodes_in_every_state() {
    complete(QUICK[0]);
}

#[test]
fn three_nodes_in_every_state() {
    complete(QUICK[1]);
}

/// P1 to P4 in every state of what is small enough to ask each for its way back.
#[test]
fn each_fault_alone_finds_back() {
    for member in DEEP {
        let alone = member.nodes == 2 && member.bounds.split(',').count() == 2;
        if alone && !SLOW.iter().any(|kind| member.bounds.contains(kind)) {
            let found = member.search(true).unwrap().run(THREADS, None);
            assert!(found.complete && found.broken.is_empty(), "{member}: {:#?}", found.broken);
        }
    }
}

/// They are left to `make check-deep`.
const SLOW: [&str; 3] = ["maintenances", "joins", "lost-disks"];

#[test]
fn what_is_broken_is_found() {
    let member: Member = *DEEP.iter().find(|m| m.bounds.contains("drops")).unwrap();
    let mutation = Mutation::DroppedPromotes;
    let search = Search { mutation, ..member.search(true).unwrap() };
    assert!(!search.run(THREADS, None).broken.is_empty());
}

#[test]
fn bounds_are_read_as_they_are_shown() {
    let text = "writes=2,crashes=1,late=1";
    assert_eq!(text.parse::<Budget>().unwrap().to_string(), text);
    for wrong in ["writes", "writes=x", "mistakes=1"] {
        assert!(wrong.parse::<Budget>().is_err(), "{wrong}");
    }
}
