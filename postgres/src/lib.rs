//! Everything about one Postgres instance: its programs, control file, data directory, configuration,
//! HBA rules, process, copies, rewinds and SQL. Used by the keeper and by the monitor.
//!
//! Nothing here decides anything: a caller says what shall be, and is told what is. What must hold
//! everywhere: a file that matters is written durably ([`durable`]); no password stands on a command
//! line, in a log or in a process title; every wait has a limit; a child process runs in a process
//! group of its own, so that signals for the keeper do not reach it.

mod archiver;
pub mod backup;
pub mod config;
pub mod conninfo;
pub mod control;
pub mod datadir;
pub mod durable;
pub mod embedded;
pub mod hba;
pub mod insist;
pub mod instance;
pub mod owner;
pub mod pidfile;
pub mod postmaster;
pub mod process;
pub mod programs;
pub mod rewind;
pub mod run;
mod segment;
pub mod session;
pub mod storage;
pub mod timelines;
pub mod transfer;
pub mod waldump;
