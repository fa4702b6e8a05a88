//! The monitor: keeps the durable record of every group, runs the group's machine (`fsm::group`) over
//! it, and tells the keepers what to do. `docs/architecture.md` has the whole.

pub mod cli;
pub mod clock;
pub mod config;
pub mod group;
pub mod hooks;
pub mod http;
pub mod lock;
pub mod logging;
pub mod metrics;
pub mod probe;
pub mod run;
pub mod secret;
pub mod service;
pub mod store;
pub mod trace;

#[cfg(test)]
mod tests;
