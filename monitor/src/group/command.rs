//! What a group's task can be told and asked.

use super::handle::Closed;
use crate::probe::Finding;
use fsm::group::{Record, View};
use fsm::{Millis, Now};
use shared::api::{Action, ApiError, Identity, JoinRequest, OperationResult};
use shared::ids::{GroupId, NodeId, Revision};
use shared::report::{Answer, Report};
use shared::settings::Timers;
use std::fmt;
use tokio::sync::oneshot;

/// The answer to a report, or why there is none.
pub type ReportReply = Result<Box<Answer>, ReportRefused>;
/// The answer to a join, as far as the group knows it.
pub type JoinReply = Result<(Identity, GroupId, Timers), ApiError>;
/// A look at the group between two changes.
pub type Look = Box<dyn FnOnce(&Record, &View, Now) + Send>;

/// What a group's task can be told and asked.
pub enum Command {
    /// A keeper's report.
    Report(Box<Incoming>),
    /// The connection of a report was closed before it was answered.
    Closed(Closed),
    /// A probe found something.
    Found(Finding),
    /// Somebody wants to look.
    Inspect(Look),
    /// An operator wants something.
    Action {
        /// What.
        action: Action,
        /// The request's Idempotency-Key.
        key: Option<String>,
        /// What became of it.
        reply: oneshot::Sender<Result<OperationResult, ApiError>>,
    },
    /// A keeper registers; its token has been checked.
    Join {
        /// What it says.
        request: Box<JoinRequest>,
        /// What became of it.
        reply: oneshot::Sender<JoinReply>,
    },
    /// The formation has been dropped.
    Gone,
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Report(_) => "Report",
            Self::Closed(_) => "Closed",
            Self::Found(_) => "Found",
            Self::Inspect(_) => "Inspect",
            Self::Action { .. } => "Action",
            Self::Join { .. } => "Join",
            Self::Gone => "Gone",
        })
    }
}

/// A report that has come in.
#[derive(Debug)]
pub struct Incoming {
    /// From whom.
    pub node: NodeId,
    /// What it proves itself with.
    pub secret: String,
    /// What it says.
    pub report: Report,
    /// Until when it may be held.
    pub deadline: Millis,
    /// Where the answer goes.
    pub reply: oneshot::Sender<ReportReply>,
}

/// Why a report was not taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReportRefused {
    /// The secret is not the node's.
    #[error("the secret is not this node's")]
    Secret,
    /// There is no such node any more.
    #[error("this node is no longer part of the formation")]
    Dropped,
    /// There never was, as far as this monitor knows; it may join again.
    #[error("this monitor does not know this node")]
    Unknown,
    /// The report was taken in, and no order is given on a record that is not to be trusted (rule 14).
    #[error(
        "the monitor is in quarantine: it gives no orders until it has heard what the keepers know"
    )]
    Quarantine,
    /// Another keeper process reports for this node.
    #[error("another keeper process reports for this node")]
    Duplicate,
}

/// What others may wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watched {
    /// The revision that is durable.
    pub revision: Revision,
    /// The id of the newest event that is durable; 0: none.
    pub newest_event: u64,
}
