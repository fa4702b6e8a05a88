//! The client of the monitor's HTTP API, which the keepers use as well, and the operator's command
//! `pgtandem`: it asks the monitor, shows what it says, and waits for what was asked for.
//!
//! The client carries requests and answers, the command shows them; neither decides or stores anything,
//! the monitor validates every request. The types that travel are those of `shared`.

// The command's own modules name the client as everybody else does.
extern crate self as ctl;

pub mod cli;
pub mod client;

mod commands;
mod config;
mod context;
mod exit;
mod failure;
mod logging;
mod operation;
mod output;
mod prediction;
mod text;
mod version;
