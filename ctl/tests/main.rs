//! The client and the command against a real server on TCP that plays the monitor.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that meets the unexpected fails, in its helpers too"
)]

mod client;
mod command;
mod config;
mod server;
