//! What pgtandem promises, shown with real processes and real Postgres on loopback.
//!
//! Each test is one story; its end is the verdict (see `tests::harness::verdict`). Waits have
//! deadlines and print what they last saw; a failed test leaves its directory and says where.

mod adoption;
mod archiving;
mod backups;
mod birth;
mod cannot_run;
mod cascading;
mod catching_up;
mod chaos;
mod clients;
mod clocks;
mod commands;
mod demo;
mod deploy;
mod drops;
mod elections;
mod first_hour;
mod formations;
mod frozen;
mod haproxy;
mod hooks;
mod hosts;
mod judgement;
mod kills;
mod lost_monitor;
mod maintenance;
mod monitor;
mod orders;
mod pgbouncer;
mod postgres_settings;
mod predictions;
mod readdressing;
mod refusals;
mod registers;
mod replicas;
mod services;
mod settings;
mod standbys;
mod stops;
mod switchovers;
mod tablespaces;
mod timelines;
mod tools;
mod upgrades;
mod watch;
mod watchdog;
