//! Properties of the machine: the keeper's plan, elections, decisions, requests.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "tests: a failure is a panic"
)]

mod accept;
mod acceptance;
mod adopt;
mod answers;
mod archive;
mod birth;
mod cascades;
mod catching_up;
mod decisions;
mod election;
mod explain;
mod group;
mod joins;
mod pgsettings;
mod plan;
mod predictions;
mod requests;
mod rig;
