//! The walks of the simulator.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests: a failure is a panic, and what was walked is shown with --nocapture"
)]

mod counterexamples;
mod mutations;
mod searches;
mod traces;
mod walks;

/// Searches copy worlds all the time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
