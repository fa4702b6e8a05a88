//! The keeper's side: what to do next on one node, and whether a primary may go on.

pub mod archive;
pub mod consent;
pub mod lease;
pub mod pgsettings;
pub mod plan;
pub mod primary;
pub mod standby;
pub mod view;
pub mod vitals;

pub use plan::{Plan, Step, plan};
pub use view::{Archive, Data, File, LocalView, Process, Server, Sync, Upstream};
