//! The crate on real servers, one property a test. Every test has directories of its own, listens on
//! its own unix socket, and ends what it started also when it fails.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may fail by panicking, in its helpers too"
)]

mod embedded;
mod harness;
mod lifecycle;
mod probes;
mod replication;

impl harness::Place {
    /// With the programs that are installed.
    pub fn new() -> Self {
        Self::within("/tmp", postgres::programs::Programs::find(None).unwrap())
    }
}
