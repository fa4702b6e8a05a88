//! The searches of every test run, and that a search notices what is broken.

use sim::Mutation;
use sim::search::family::{Member, deep, quick};
use sim::search::{Budget, Search};

/// As many as the machines that the project is tested on have.
const THREADS: usize = 2;

/// The one place where the figures of searches stand.
const PROOF: &str = include_str!("../../docs/proof.md");

fn complete(member: Member) {
    let found = member.search().run(THREADS, None);
    println!("{member} {found:?}");
    assert!(found.broken.is_empty(), "{:#?}", found.broken);
    assert!(found.complete);
    let stated = stated(member);
    assert!(!stated.is_empty(), "docs/proof.md has no row {member}");
    // Another number is another world: look whether it is meant, then change docs/proof.md.
    assert_eq!(stated, vec![found.states; stated.len()], "docs/proof.md, {member}");
}

/// How many states a search has by each row that `docs/proof.md` has of it.
fn stated(member: Member) -> Vec<usize> {
    let row = member.to_string();
    let figures = PROOF.lines().filter_map(|line| line.strip_prefix(&row));
    let states = figures.map(|figures| figures.split('|').next().unwrap().trim().replace(',', ""));
    states.map(|states| states.parse().unwrap()).collect()
}

#[test]
fn two_nodes_in_every_state() {
    complete(quick().unwrap()[0]);
}

#[test]
fn three_nodes_in_every_state() {
    complete(quick().unwrap()[1]);
}

/// P1 to P4 in every state of what is small enough to ask each for its way back.
#[test]
fn each_fault_alone_finds_back() {
    let of_two = deep().unwrap().into_iter().filter(|member| member.nodes == 2);
    for member in of_two.filter(|member| is_small(&member.budget)) {
        let found = member.search().run(THREADS, None);
        assert!(found.complete && found.broken.is_empty(), "{member}: {:#?}", found.broken);
    }
}

/// One kind alone, and not one of those that are left to `make check-deep`.
fn is_small(budget: &Budget) -> bool {
    let bounds = budget.to_string();
    let slow = ["maintenances", "joins", "lost-disks"].iter().any(|kind| bounds.contains(kind));
    !slow && bounds.split(',').count() == 2
}

#[test]
fn what_is_broken_is_found() {
    let family = deep().unwrap();
    let drops = |member: &&Member| member.budget.to_string() == "writes=1,drops=1";
    let member = family.iter().find(drops).unwrap();
    let search = Search { mutation: Mutation::DroppedPromotes, ..member.search() };
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
