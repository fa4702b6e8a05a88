//! Properties of the machine: the keeper's plan, elections, decisions, requests.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::match_same_arms,
    clippy::print_stdout,
    clippy::unnecessary_wraps,
    clippy::wildcard_enum_match_arm,
    reason = "tests: a failure is a panic, and tables read better row by row"
)]

mod accept;
mod decisions;
mod election;
mod joins;
mod plan;
mod requests;
mod rig;
