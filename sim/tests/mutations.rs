//! The checks can fail: a rule is taken away in the world (never in `fsm`), and walks find what it was
//! there for. `docs/proof.md` has the table.

use sim::disturb::{CASCADES, LOSSES, Mix};
use sim::ledger::Violation;
use sim::{Mutation, Walk};

/// More seeds than any of these needs.
const SEEDS: u64 = 20_000;

/// What is to be found.
#[derive(Clone, Copy, Debug)]
enum Harm {
    /// A commit is lost, or acknowledged by two primaries.
    Unsafe,
    /// A decision that must not be made.
    Decision,
    /// A group that does not converge.
    Stuck,
}

fn is(violation: &Violation, harm: Harm) -> bool {
    match violation {
        Violation::Lost { .. } | Violation::TwoWriters { .. } => matches!(harm, Harm::Unsafe),
        Violation::NoEpoch { .. } | Violation::Record(_) => matches!(harm, Harm::Decision),
        Violation::Stuck(_) => matches!(harm, Harm::Stuck),
    }
}

/// The walk that finds what a rule is for fastest.
fn walk(mutation: Mutation, nodes: u64, harm: Harm) -> Walk {
    let heals = matches!(harm, Harm::Stuck);
    Walk { mutation, heals, calm: 30, ..Walk::new(nodes) }
}

fn narrow(mutation: Mutation, nodes: u64, mix: Mix) -> Walk {
    Walk { mix, calm: 12, actions: 600, ..walk(mutation, nodes, Harm::Unsafe) }
}

/// Walks until the harm is done that the rule prevents. One more walk of the same seed with everything
/// in place shows that it was the rule.
fn is_found(walk: &Walk, harm: Harm) {
    let mutation = walk.mutation;
    let found = (0..SEEDS).find_map(|seed| {
        let failure = walk.run(seed).err()?;
        is(&failure.violation, harm).then_some(failure)
    });
    let failure = found.unwrap_or_else(|| panic!("nothing is wrong without {mutation}"));
    println!("{mutation}: seed {}: {:.100}", failure.seed, format!("{:?}", failure.violation));
    let whole = Walk { mutation: Mutation::None, ..walk.clone() };
    if let Err(failure) = whole.run(failure.seed) {
        panic!("with everything in place: {failure}");
    }
}

#[test]
fn elections_without_cover_lose_commits() {
    is_found(&walk(Mutation::IgnoreCovers, 3, Harm::Unsafe), Harm::Unsafe);
}

#[test]
fn inherited_specs_are_needed() {
    is_found(&walk(Mutation::DropInherited, 4, Harm::Unsafe), Harm::Unsafe);
}

#[test]
fn pending_specs_are_needed() {
    is_found(&walk(Mutation::IgnorePending, 3, Harm::Unsafe), Harm::Unsafe);
}

#[test]
fn seals_have_to_be_durable() {
    is_found(&walk(Mutation::ForgetSeal, 2, Harm::Unsafe), Harm::Unsafe);
}

#[test]
fn seals_belong_to_one_election() {
    is_found(&walk(Mutation::OldSeals, 2, Harm::Unsafe), Harm::Unsafe);
}

#[test]
fn an_unsealed_node_is_no_witness() {
    is_found(&walk(Mutation::Unsealed, 3, Harm::Unsafe), Harm::Unsafe);
}

#[test]
fn positions_are_compared() {
    is_found(&walk(Mutation::NoPositions, 3, Harm::Unsafe), Harm::Unsafe);
}

#[test]
fn a_timeline_of_no_epoch_has_no_rank() {
    is_found(&walk(Mutation::NumberedPositions, 3, Harm::Unsafe), Harm::Unsafe);
}

#[test]
fn what_is_promoted_is_what_was_elected() {
    is_found(&walk(Mutation::PromotesStrays, 2, Harm::Decision), Harm::Decision);
}

#[test]
fn timeline_numbers_are_unique() {
    is_found(&walk(Mutation::PlainTimelines, 2, Harm::Unsafe), Harm::Unsafe);
}

#[test]
fn commits_wait_for_the_barrier() {
    is_found(&walk(Mutation::NoBarrier, 3, Harm::Unsafe), Harm::Unsafe);
}

#[test]
fn a_primary_stops_at_the_end_of_its_lease() {
    is_found(&narrow(Mutation::NoLease, 3, LOSSES), Harm::Unsafe);
}

#[test]
fn with_loss_the_end_of_leases_is_waited_for() {
    is_found(&narrow(Mutation::NoLeaseWait, 2, LOSSES), Harm::Unsafe);
}

#[test]
fn diverged_nodes_must_not_connect() {
    is_found(&walk(Mutation::NoPrefixCheck, 2, Harm::Stuck), Harm::Stuck);
}

#[test]
fn a_fenced_primary_has_to_find_back() {
    is_found(&walk(Mutation::FencedStays, 2, Harm::Stuck), Harm::Stuck);
}

#[test]
fn a_dropped_node_must_not_promote_itself() {
    is_found(&walk(Mutation::DroppedPromotes, 3, Harm::Stuck), Harm::Stuck);
}

#[test]
fn who_has_diverged_is_a_witness() {
    is_found(&walk(Mutation::OnPathOnly, 2, Harm::Stuck), Harm::Stuck);
}

#[test]
fn a_pending_change_can_be_followed_by_another() {
    is_found(&walk(Mutation::OnePending, 3, Harm::Stuck), Harm::Stuck);
}

#[test]
fn a_primary_without_data_is_replaced() {
    is_found(&walk(Mutation::EmptyIsAlive, 2, Harm::Stuck), Harm::Stuck);
}

#[test]
fn with_loss_the_old_primary_is_fenced() {
    is_found(&narrow(Mutation::Unfenced, 3, LOSSES), Harm::Unsafe);
}

#[test]
fn nothing_is_stored_over_what_it_was_not_decided_on() {
    is_found(&walk(Mutation::StaleView, 3, Harm::Decision), Harm::Decision);
}

#[test]
fn a_promoted_node_begins_blocked() {
    is_found(&walk(Mutation::PromotesOpen, 3, Harm::Unsafe), Harm::Unsafe);
}

#[test]
fn priority_zero_is_never_elected_by_itself() {
    is_found(&walk(Mutation::ZeroPriority, 2, Harm::Decision), Harm::Decision);
}

#[test]
fn during_a_pause_nobody_is_replaced() {
    is_found(&walk(Mutation::NoPause, 3, Harm::Decision), Harm::Decision);
}

#[test]
fn orders_come_to_an_end() {
    is_found(&walk(Mutation::IgnoresOrders, 2, Harm::Stuck), Harm::Stuck);
}

#[test]
fn what_is_called_done_has_been_done() {
    is_found(&walk(Mutation::SaysDone, 2, Harm::Decision), Harm::Decision);
}

#[test]
fn who_streams_from_a_standby_is_not_waited_for() {
    let walk = walk(Mutation::CountsCascaded, 4, Harm::Decision);
    is_found(&Walk { mix: CASCADES, cascades: true, ..walk }, Harm::Decision);
}

/// A backup is older than what its node had acknowledged before it lost its disk (C15).
#[test]
fn what_was_restored_is_no_witness_before_it_has_caught_up() {
    is_found(&walk(Mutation::TrustsBackups, 3, Harm::Unsafe), Harm::Unsafe);
}

/// Whoever adds a mutation adds what finds it, and a row of the table.
#[test]
fn each_is_found_and_written_down() {
    let tests = [
        include_str!("mutations.rs"),
        include_str!("counterexamples.rs"),
        include_str!("traces.rs"),
        include_str!("searches.rs"),
    ];
    let table = include_str!("../../docs/proof.md");
    for mutation in Mutation::ALL.into_iter().filter(|mutation| *mutation != Mutation::None) {
        let used = format!("Mutation::{mutation:?}");
        assert!(tests.iter().any(|test| test.contains(&used)), "no test takes away {mutation}");
        assert!(table.contains(&format!("| `{mutation}` |")), "docs/proof.md lacks {mutation}");
    }
}
