//! Hooks: what an operator wants to be run or called when something happens.
//!
//! Here is what one hook is ([`hook`]), how it is run once ([`mod@run`], [`web`]), whether it can be
//! ([`presence`]), what it is told ([`notice`]), and the queue of what is yet to be delivered ([`queue`], pure). Not here: which events there are, and where a queue
//! is kept; those are the keeper's and the monitor's.

pub mod hook;
pub mod notice;
pub mod presence;
pub mod queue;
pub mod run;
pub mod web;

pub use hook::{Hook, Target};
pub use notice::Notice;
pub use queue::Queue;
pub use run::{Outcome, run};
pub use web::Web;
