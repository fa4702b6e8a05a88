//! The operator's hooks on this node.
//!
//! Two kinds, and two ways. What *has happened* (`on_role_change`, `post_promote`, `on_fence`) is told by the
//! runner, a task of its own with a durable queue, which nothing waits for. What is *about to happen*
//! (`pre_promote`, `pre_demote`) is asked by the desk, beside the agent's loop, and only the one step that it is
//! about waits for the answer (`fsm::node::consent`). What must hold: neither the lease nor the guard waits for
//! a hook, and every hook has a limit.

mod desk;
mod facts;
mod runner;

pub use desk::Desk;
pub use facts::{Facts, Peer, Role};
pub use runner::{Message, Runner};

use std::time::Duration;

/// Before this node is promoted; may refuse.
pub const PRE_PROMOTE: &str = "pre_promote";
/// Before this primary stops so that another can take over.
pub const PRE_DEMOTE: &str = "pre_demote";
/// This node is the primary of a new epoch, and takes writes.
pub const POST_PROMOTE: &str = "post_promote";
/// This node is no longer what it was: primary, standby or none.
pub const ON_ROLE_CHANGE: &str = "on_role_change";
/// The guard has stopped this primary, since its right to serve had ended.
pub const ON_FENCE: &str = "on_fence";

/// All of them.
pub const EVENTS: [&str; 5] = [ON_ROLE_CHANGE, PRE_PROMOTE, POST_PROMOTE, PRE_DEMOTE, ON_FENCE];

/// How long a hook may take unless the operator says otherwise: time for a connection pooler to let transactions
/// end, and a third of the default drain timeout.
pub const DEFAULT_LIMIT: Duration = Duration::from_secs(10);
/// What an operator may say: it is a wait of clients that a longer one is for.
pub const LONGEST_LIMIT: Duration = Duration::from_mins(10);
