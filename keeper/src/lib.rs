//! The keeper: one per data node. It looks at what Postgres really is, compares it with the goal that
//! the monitor gave, takes the next step, and reports; and it stops a primary that has lost its proof
//! of being one. What the next step is, and whether the proof holds, is decided in `fsm::node`.

mod address;
pub mod agent;
pub mod archive;
mod attach;
pub mod attachment;
pub mod backoff;
pub mod cli;
pub mod clock;
pub mod config;
pub mod crashes;
pub mod create;
mod destroy;
mod fetching;
pub mod guard;
pub mod hooks;
mod leave;
pub mod link;
pub mod local;
pub mod managed;
pub mod node;
pub mod pgsettings;
pub mod rest;
mod run;
mod service;
pub mod state;
mod status;
pub mod steps;
pub mod trace;
pub mod upstream;
pub mod vitals;
pub mod watchdog;
