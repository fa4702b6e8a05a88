//! Join tokens.

use super::extract::PathPart;
use super::{Result, State, not_found};
use axum::Json;
use axum::http::StatusCode;
use shared::api::JoinToken;
use shared::ids::FormationId;

/// `GET .../tokens`.
pub(super) async fn list(service: State, path: PathPart) -> Result<Json<Vec<JoinToken>>> {
    let formation: FormationId = path.parse("formation")?;
    service.group(&formation)?;
    Ok(Json(service.store()?.tokens(&formation).await?))
}

/// `POST .../tokens`: the only answer with the token itself.
pub(super) async fn create(service: State, path: PathPart) -> Result<Json<JoinToken>> {
    let formation: FormationId = path.parse("formation")?;
    service.group(&formation)?;
    Ok(Json(service.store()?.create_token(&formation).await?))
}

/// `DELETE .../tokens/{id}`.
pub(super) async fn revoke(service: State, path: PathPart) -> Result<StatusCode> {
    let formation: FormationId = path.parse("formation")?;
    service.group(&formation)?;
    let id: String = path.parse("id")?;
    if service.store()?.revoke_token(&formation, &id).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(not_found("unknown_token", format!("there is no token {id}")).into())
    }
}
