//! Real clusters for tests: real processes, real Postgres, on loopback.
//!
//! [`harness`] starts a monitor and keepers in a directory of their own, breaks them, writes to them
//! all the while, and gives a verdict at the end. The scenarios are in `tests/suite/`, one file per
//! subject; `src/bin/bench_failover/main.rs` measures. On hosts of a [`network`] of their own they can be cut off and
//! powered off; [`chaos`] does all of that at random.

#![expect(
    clippy::print_stderr,
    reason = "what is said about a failed test goes where the test runner looks for it"
)]

pub mod chaos;
pub mod clients;
pub mod first_hour;
pub mod harness;
pub mod network;
