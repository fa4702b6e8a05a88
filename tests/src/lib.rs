//! Real clusters for tests: real processes, real Postgres, on loopback.
//!
//! [`harness`] starts a monitor and keepers in a directory of their own, breaks them, writes to them
//! all the while, and gives a verdict at the end. The scenarios are in `tests/suite/`, one file per
//! subject; `src/bin/bench_failover.rs` measures.

#![expect(
    clippy::print_stderr,
    reason = "what is said about a failed test goes where the test runner looks for it"
)]

pub mod harness;
pub mod network;
