//! A cluster under test: start it, break it, write to it, judge it.
//!
//! What must hold: nothing that was started survives the test, however it ends; clusters of several
//! tests do not disturb each other; every wait has a deadline and says what it last saw.

pub mod binaries;
pub mod certificates;
pub mod clock;
pub mod cluster;
pub mod distribution;
pub mod faults;
pub mod haproxy;
pub mod history;
pub mod monitor;
pub mod node;
pub mod operator;
pub mod place;
pub mod ports;
pub mod process;
pub mod repository;
pub mod roles;
pub mod sandbox;
pub mod scratch;
pub mod site;
pub mod sql;
pub mod terminal;
pub mod verdict;
pub mod volume;
pub mod wait;
pub mod workload;

pub use cluster::{Builder, Cluster};
pub use history::{Attempt, History, Outcome};
pub use node::{Node, NodeOptions};
pub use place::Place;
pub use terminal::Terminal;
pub use verdict::Verdict;
pub use volume::{Storage, Volume};
pub use workload::Workload;
