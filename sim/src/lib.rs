//! The `fsm` crate in a made-up world: a monitor, keepers that carry out the real plan on abstract
//! Postgres nodes, a network that delays and loses, hosts and processes that crash. Every walk comes
//! from one seed, and the promises of `docs/safety.md` are checked after every action.
//!
//! Not here: what lies below a keeper's step (fsync, the order of the signs of rule 3) is shown on real
//! clusters; WAL is counted in whole records.

pub mod blind;
pub mod disturb;
pub mod fit;
pub mod keeper;
pub mod ledger;
pub mod log;
pub mod machine;
pub mod monitor;
pub mod node;
pub mod orders;
mod part;
pub mod random;
pub mod search;
pub mod walk;
pub mod world;

mod archive;
mod faults;
mod hook;
mod mutation;
mod reload;
mod replication;
mod requests;

pub use walk::{Failure, Summary, Walk};
pub use world::{Mutation, World};

use fsm::{Millis, Now};
use shared::Timestamp;

/// The time of a decision at so many milliseconds of the world.
pub fn at(ms: u64) -> Now {
    Now { mono: Millis(ms), wall: Timestamp::default() }
}
