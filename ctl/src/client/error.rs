//! How a request can end other than with its answer.

use shared::api::ApiError;

/// How a request failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// No way to the monitor gave an answer.
    #[error("cannot reach the monitor ({why})")]
    Unreachable {
        /// The URLs that were tried, in this order.
        tried: Vec<String>,
        /// What went wrong with each.
        why: String,
        /// Whether a monitor may have received the request nevertheless.
        maybe_delivered: bool,
    },
    /// The monitor answered with an error.
    #[error("{error}")]
    Api {
        /// The HTTP status.
        status: u16,
        /// What it said.
        error: ApiError,
    },
    /// This node has been dropped from its formation (status 410 of a report or a join).
    #[error("the node has been dropped from its formation")]
    Dropped,
    /// Something answered, but not as a monitor does.
    #[error("{url} did not answer as a monitor does: {why}")]
    Protocol {
        /// Where.
        url: String,
        /// What is wrong with the answer.
        why: String,
    },
    /// The client cannot be set up, or the request cannot be written.
    #[error("cannot prepare the request: {0}")]
    Setup(String),
}

impl ClientError {
    /// The error as commands show it; its code is the exit code.
    pub fn to_api_error(&self) -> ApiError {
        let (code, reason) = match self {
            Self::Api { error, .. } => return error.clone(),
            Self::Dropped => (3, "dropped"),
            Self::Unreachable { .. } => (4, "monitor_unreachable"),
            Self::Protocol { .. } => (8, "protocol"),
            Self::Setup(_) => (8, "setup"),
        };
        let (reason, message) = (reason.to_owned(), self.to_string());
        ApiError { code, reason, message, nodes: Vec::new() }
    }
}
