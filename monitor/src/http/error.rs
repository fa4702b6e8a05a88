//! Errors as answers: the status follows from the code of the operator's command and the reason.

use crate::group::ReportRefused;
use crate::store::StoreError;
use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use shared::api::ApiError;

/// An error on its way out.
#[derive(Debug)]
pub(super) struct Failure {
    status: StatusCode,
    error: ApiError,
}

impl Failure {
    pub(super) fn new(status: StatusCode, code: u8, reason: &str, message: &str) -> Self {
        Self { status, error: api_error(code, reason, message) }
    }

    /// A value that cannot be used.
    pub(super) fn bad_value(message: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, 1, "bad_value", message)
    }

    /// Who asks has not shown what is needed.
    pub(super) fn unauthorized(reason: &str, message: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, 3, reason, message)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.status, Json(self.error)).into_response()
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        let status = match (error.code, error.reason.as_str()) {
            (1, reason) if reason.starts_with("unknown_") => StatusCode::NOT_FOUND,
            (1 | 2, _) => StatusCode::BAD_REQUEST,
            (_, "bad_token" | "bad_secret") => StatusCode::UNAUTHORIZED,
            (3, "dropped") => StatusCode::GONE,
            // In quarantine, too, another way to this monitor would say the same.
            (3, _) | (6, "quarantine") => StatusCode::CONFLICT,
            (5, _) => StatusCode::GATEWAY_TIMEOUT,
            (6, "busy" | "changed_meanwhile" | "no_catalogue") => StatusCode::TOO_MANY_REQUESTS,
            (4 | 6, _) => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self { status, error }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        store_failed(&error).into()
    }
}

impl From<ReportRefused> for Failure {
    fn from(refused: ReportRefused) -> Self {
        match refused {
            ReportRefused::Secret => Self::unauthorized("bad_secret", &refused.to_string()),
            ReportRefused::Dropped => api_error(3, "dropped", refused.to_string()).into(),
            ReportRefused::Unknown => api_error(3, "unknown_node", refused.to_string()).into(),
            ReportRefused::Quarantine => api_error(6, "quarantine", refused.to_string()).into(),
            ReportRefused::Duplicate => api_error(3, "duplicate", refused.to_string()).into(),
        }
    }
}

fn api_error(code: u8, reason: &str, message: impl Into<String>) -> ApiError {
    ApiError { code, reason: reason.to_owned(), message: message.into(), nodes: Vec::new() }
}

/// There is no such thing.
pub fn not_found(reason: &str, message: impl Into<String>) -> ApiError {
    api_error(1, reason, message)
}

/// Not now.
pub fn unavailable(message: &str) -> ApiError {
    api_error(6, "unavailable", message)
}

/// The database is away; whether the request was stored is not known.
pub fn store_away() -> ApiError {
    let message = "the monitor's database is away: try again, with the same Idempotency-Key";
    api_error(6, "store_away", message)
}

/// A bug.
pub fn internal(message: &str) -> ApiError {
    api_error(8, "internal", message)
}

/// A call of the store that failed.
pub fn store_failed(error: &StoreError) -> ApiError {
    if error.is_away() {
        return store_away();
    }
    let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    tracing::error!("{error}: {cause}");
    internal(&error.to_string())
}

/// Every other path.
pub(super) async fn no_such_path() -> Failure {
    let message = "there is no such path; GET /v1/openapi.json lists them";
    not_found("unknown_path", message).into()
}

/// Every other method.
pub(super) async fn no_such_method() -> Failure {
    let message = "this path does not take this method; GET /v1/openapi.json lists them";
    Failure::new(StatusCode::METHOD_NOT_ALLOWED, 1, "unknown_method", message)
}
