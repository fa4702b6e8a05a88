//! What an HTTP answer means: the value asked for, the monitor's error, or neither.

use super::error::ClientError;
use reqwest::StatusCode;
use serde::de::DeserializeOwned;
use shared::api::ApiError;

/// An answer as it came.
#[derive(Debug)]
pub(super) struct RawAnswer {
    pub(super) url: String,
    pub(super) status: StatusCode,
    pub(super) body: Vec<u8>,
}

impl RawAnswer {
    /// The value of a success.
    pub(super) fn json<T: DeserializeOwned>(self) -> Result<T, ClientError> {
        if self.status.is_success() { self.json_whatever_the_status() } else { Err(self.error()) }
    }

    /// The value where the body has it; else the error that the status stands for.
    pub(super) fn json_whatever_the_status<T: DeserializeOwned>(self) -> Result<T, ClientError> {
        match serde_json::from_slice(&self.body) {
            Ok(value) => Ok(value),
            Err(error) if self.status.is_success() => {
                Err(self.protocol(&format!("unexpected JSON: {error}")))
            }
            Err(_) => Err(self.error()),
        }
    }

    /// A success of which only the status counts.
    pub(super) fn nothing(self) -> Result<(), ClientError> {
        if self.status.is_success() { Ok(()) } else { Err(self.error()) }
    }

    /// Turns 410 into [`ClientError::Dropped`]. Only where the monitor itself says so, in an error
    /// of its own: a stray web server must not make a node leave.
    pub(super) fn dropped_if_gone(self) -> Result<Self, ClientError> {
        if self.status == StatusCode::GONE && self.api_error().is_some() {
            return Err(ClientError::Dropped);
        }
        Ok(self)
    }

    /// Whether another way to the monitor should be tried: this one leads to a monitor that is not
    /// ready, or to something that is no monitor.
    pub(super) fn may_be_better_elsewhere(&self) -> bool {
        match self.status {
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::BAD_GATEWAY => true,
            status if status.is_success() => false,
            _ => self.api_error().or_else(|| self.stand_in()).is_none(),
        }
    }

    fn api_error(&self) -> Option<ApiError> {
        serde_json::from_slice(&self.body).ok()
    }

    /// The error that an answer which is no success stands for.
    pub(super) fn error(self) -> ClientError {
        match self.api_error().or_else(|| self.stand_in()) {
            Some(error) => ClientError::Api { status: self.status.as_u16(), error },
            None => self.protocol("the error is not in the monitor's form"),
        }
    }

    /// For statuses that say enough without a body, whoever sent them.
    fn stand_in(&self) -> Option<ApiError> {
        let (code, reason, message) = match self.status.as_u16() {
            401 | 403 => (3, "forbidden", "the monitor does not allow this"),
            429 => (6, "busy", "the monitor is busy: try again"),
            502 | 503 => (4, "unavailable", "the monitor is not ready to serve requests"),
            504 => (5, "timeout", "the monitor did not answer in time"),
            _ => return None,
        };
        let (reason, message) = (reason.to_owned(), format!("{message} ({})", self.url));
        Some(ApiError { code, reason, message, nodes: Vec::new() })
    }

    fn protocol(self, why: &str) -> ClientError {
        ClientError::Protocol { url: self.url, why: format!("status {}, {why}", self.status) }
    }
}
