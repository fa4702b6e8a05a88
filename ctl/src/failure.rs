//! Every way in which a command fails, as the error that people and programs are shown.

use crate::exit::Exit;
use ctl::client::ClientError;
use shared::api::ApiError;
use std::io;

/// Why a command did not end with its result.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The monitor said no, or did not answer.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Found here, without the monitor.
    #[error(transparent)]
    Here(ApiError),
    /// Standard output does not take the result.
    #[error("cannot write to standard output: {0}")]
    Output(#[from] io::Error),
    /// The result cannot be written as JSON.
    #[error("cannot write the result as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl Failure {
    /// A failure found by the command itself.
    pub fn new(exit: Exit, reason: &str, message: impl Into<String>) -> Self {
        Self::Here(ApiError {
            code: exit.code(),
            reason: reason.to_owned(),
            message: message.into(),
            nodes: Vec::new(),
        })
    }

    /// Whether the reader of the output went away, as `head` does: nobody is left to be told.
    pub fn is_closed_output(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// The error as it is shown; its code is the exit code.
    pub fn to_api_error(&self) -> ApiError {
        let internal = |reason: &str| ApiError {
            code: Exit::Internal.code(),
            reason: reason.to_owned(),
            message: self.to_string(),
            nodes: Vec::new(),
        };
        let error = match self {
            Self::Client(error) => error.to_api_error(),
            Self::Here(error) => error.clone(),
            Self::Output(_) => internal("output"),
            Self::Json(_) => internal("json"),
        };
        ApiError { code: Exit::of_error(error.code).code(), ..error }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_exactly_the_fields_of_the_interface() {
        let failure = Failure::new(Exit::Refused, "no_candidate", "no node can take over");
        let json = serde_json::to_string(&failure.to_api_error()).unwrap();
        assert_eq!(
            json,
            r#"{"code":3,"reason":"no_candidate","message":"no node can take over","nodes":[]}"#
        );
    }

    #[test]
    fn the_monitors_code_is_authoritative() {
        let error = |code| {
            let (reason, message) = ("r".to_owned(), "m".to_owned());
            let error = ApiError { code, reason, message, nodes: Vec::new() };
            Failure::from(ClientError::Api { status: 409, error }).to_api_error().code
        };
        assert_eq!([1, 2, 3, 4, 5, 6, 7, 8].map(error), [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(error(0), 8);
    }

    #[test]
    fn an_unreachable_monitor_is_code_4() {
        let error = ClientError::Unreachable {
            tried: vec!["http://m1:7432".to_owned()],
            why: "http://m1:7432: connection refused".to_owned(),
            maybe_delivered: false,
        };
        let error = Failure::from(error).to_api_error();
        assert_eq!((error.code, error.reason.as_str()), (4, "monitor_unreachable"));
        assert!(error.message.contains("http://m1:7432"));
    }
}
