//! The searches of every test run, and that a search notices what is broken.

use sim::Mutation;
use sim::search::family::{Member, QUICK};
use sim::search::{Budget, Found, Search};

/// As many as the machines that the project is tested on have.
const THREADS: usize = 2;

fn complete((member, states): (Member, usize), finds_back: bool) {
    let found = member.search(finds_back).unwrap().run(THREADS, None);
    println!("{member} {found:?}");
    assert!(found.broken.is_empty(), "{:#?}", found.broken);
    assert!(found.complete);
    // Another number is another world: look whether it is meant, then change it here.
    assert_eq!(found.states, states, "{member}");
}

#[test]
fn two_nodes_in_every_state() {
    complete(QUICK[0], true);
}

#[test]
fn three_nodes_in_every_state() {
    complete(QUICK[1], false);
}

fn without(mutation: Mutation, member: Member) -> Found {
    let search = Search { mutation, ..member.search(true).unwrap() };
    search.run(THREADS, Some(2_000_000))
}

#[test]
fn bounds_are_read_as_they_are_shown() {
    let text = "writes=2,crashes=1,late=1";
    assert_eq!(text.parse::<Budget>().unwrap().to_string(), text);
    for wrong in ["writes", "writes=x", "mistakes=1"] {
        assert!(wrong.parse::<Budget>().is_err(), "{wrong}");
    }
}
