//! The checks can fail: a rule is taken away in the world (never in `fsm`), and walks find what it was
//! there for.

use sim::ledger::Violation;
use sim::{Mutation, Walk};

/// The first seed on which the promises are broken without this rule.
fn found(mutation: Mutation, nodes: u64, seeds: u64) -> Option<(u64, Violation)> {
    let walk = Walk { mutation, heals: false, calm: 30, ..Walk::new(nodes) };
    let failures = (0..seeds).filter_map(|seed| Some((seed, walk.run(seed).err()?.violation)));
    let mut unsafe_ones = failures.filter(|(_, violation)| match violation {
        Violation::Lost { .. } | Violation::TwoWriters { .. } => true,
        Violation::NoEpoch { .. } | Violation::Record(_) | Violation::Stuck(_) => false,
    });
    unsafe_ones.next()
}

fn is_found(mutation: Mutation, nodes: u64) {
    let (seed, violation) = found(mutation, nodes, 10_000)
        .unwrap_or_else(|| panic!("nothing is wrong without the rule behind {mutation:?}"));
    println!("{mutation:?}: seed {seed}: {violation:?}");
}

#[test]
fn elections_without_cover_lose_commits() {
    is_found(Mutation::IgnoreCovers, 3);
}

#[test]
fn inherited_specs_are_needed() {
    is_found(Mutation::DropInherited, 3);
}

#[test]
fn seals_have_to_be_durable() {
    is_found(Mutation::ForgetSeal, 3);
}

#[test]
fn diverged_nodes_must_not_connect() {
    is_found(Mutation::NoPrefixCheck, 3);
}

#[test]
fn assignments_have_an_order() {
    is_found(Mutation::Unordered, 3);
}
