//! What keepers call: join and report.

use super::error::Failure;
use super::extract::{Body, Parameters, PathPart};
use super::{LONGEST_WAIT_MS, Result, State};
use axum::Json;
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use serde::Deserialize;
use shared::api::{JoinAnswer, JoinRequest};
use shared::ids::FormationId;
use shared::report::{Answer, Report};

/// `?formation=NAME&wait_ms=N`.
#[derive(Deserialize)]
pub(super) struct ReportParameters {
    #[serde(default = "default_formation")]
    formation: String,
    #[serde(default)]
    wait_ms: u64,
}

fn default_formation() -> String {
    "default".to_owned()
}

/// `POST /v1/join`.
pub(super) async fn join(
    service: State,
    Body(request): Body<JoinRequest>,
) -> Result<Json<JoinAnswer>> {
    check_protocol(service.protocol(), request.protocol)?;
    let group = match &request.identity {
        Some(_) => service.group_or_lost(&request).await?,
        None => service.group(&request.formation)?,
    };
    let identity = request.identity.clone();
    let known = group.inspect(move |record, _, _| {
        let identity = identity.as_ref();
        identity.is_some_and(|given| {
            let kept = record.nodes.get(&given.node_id);
            kept.is_some_and(|node| crate::secret::equal(&given.secret, &node.secret))
        })
    });
    if !known.await? {
        let token = request.token.as_deref();
        if !service.store()?.token_admits(&request.formation, token).await? {
            let message = "this formation asks for a join token, and this is none of its tokens: \
                           make one with 'pgtandem token create'";
            return Err(Failure::unauthorized("bad_token", message));
        }
    }
    let (identity, number, timers) = group.join(request).await?;
    let passwords = group.context().passwords.clone();
    let monitors = service.monitors().to_vec();
    Ok(Json(JoinAnswer { identity, group: number, passwords, timers, monitors }))
}

/// `POST /v1/nodes/{id}/report`.
pub(super) async fn report(
    service: State,
    path: PathPart,
    Parameters(parameters): Parameters<ReportParameters>,
    headers: HeaderMap,
    Body(report): Body<Report>,
) -> Result<Json<Answer>> {
    check_protocol(service.protocol(), report.protocol)?;
    let node = path.parse("id")?;
    let formation: FormationId =
        parameters.formation.parse().map_err(|error| Failure::bad_value(&format!("{error}")))?;
    let group = service.group(&formation)?;
    let secret = bearer(&headers).ok_or_else(|| {
        Failure::unauthorized("bad_secret", "the node's secret is missing: Authorization: Bearer")
    })?;
    let hold_ms = parameters.wait_ms.min(LONGEST_WAIT_MS);
    let answer = group.report(node, secret.to_owned(), report, hold_ms).await??;
    Ok(Json(*answer))
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ").map(str::trim)
}

fn check_protocol(ours: u32, theirs: u32) -> Result<()> {
    if shared::version::serves(ours, theirs) {
        return Ok(());
    }
    let older = if theirs < ours { "keeper" } else { "monitor" };
    let message = format!(
        "the keeper speaks protocol {theirs}, this monitor {ours} and the one before it: upgrade the \
         {older} first"
    );
    Err(Failure::new(StatusCode::CONFLICT, 3, "protocol", &message))
}
