//! What operators ask for, and what becomes of it.

use super::error::Failure;
use super::extract::{Body, Parameters, PathPart};
use super::{LONGEST_WAIT_MS, Result, State, not_found};
use crate::group::Group;
use axum::Json;
use axum::http::{HeaderMap, StatusCode};
use serde::Deserialize;
use shared::api::{Action, OperationResult, Outcome};
use shared::ids::FormationId;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Long enough for every way to make a unique key.
const LONGEST_KEY: usize = 200;

/// `POST .../actions`, with an `Idempotency-Key`: a request that comes again is answered by what
/// became of the first.
pub(super) async fn act(
    service: State,
    path: PathPart,
    headers: HeaderMap,
    Body(action): Body<Action>,
) -> Result<Json<OperationResult>> {
    let formation: FormationId = path.parse("formation")?;
    let group = service.group(&formation)?;
    let key = key(&headers)?;
    if let Some(key) = &key
        && let Some((request, result)) = service.store()?.receipt(&formation, key).await?
    {
        if serde_json::to_value(&action).ok().as_ref() != Some(&request) {
            let message = "this Idempotency-Key was used for another request";
            return Err(Failure::new(StatusCode::CONFLICT, 1, "key_reused", message));
        }
        let present = find(&group, result.id).await?;
        return Ok(Json(present.unwrap_or(result)));
    }
    Ok(Json(group.act(action, key).await?))
}

fn key(headers: &HeaderMap) -> Result<Option<String>> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    match value.to_str() {
        Ok(key) if (1..=LONGEST_KEY).contains(&key.len()) => Ok(Some(key.to_owned())),
        Ok(_) | Err(_) => {
            let message = format!("an Idempotency-Key has 1 to {LONGEST_KEY} visible characters");
            Err(Failure::bad_value(&message))
        }
    }
}

/// `?wait_ms=N`.
#[derive(Deserialize)]
pub(super) struct WaitParameters {
    #[serde(default)]
    wait_ms: u64,
}

/// `GET .../operations/{id}`: waits until it has ended, or for `wait_ms`.
pub(super) async fn operation(
    service: State,
    path: PathPart,
    Parameters(parameters): Parameters<WaitParameters>,
) -> Result<Json<OperationResult>> {
    let group = service.group(&path.parse("formation")?)?;
    let id = path.parse("id")?;
    let wait = Duration::from_millis(parameters.wait_ms.min(LONGEST_WAIT_MS));
    let deadline = Instant::now() + wait;
    let mut watched = group.watch();
    let mut stopping = service.stopping();
    loop {
        watched.borrow_and_update();
        let result = find(&group, id).await?.ok_or_else(|| {
            not_found("unknown_operation", format!("there is no operation {id}, or no longer"))
        })?;
        if result.outcome != Outcome::Accepted {
            return Ok(Json(result));
        }
        let changed = async {
            tokio::select! {
                changed = watched.changed() => changed.is_ok(),
                _ = stopping.wait_for(|stopping| *stopping) => false,
            }
        };
        if !timeout_at(deadline, changed).await.unwrap_or(false) {
            return Ok(Json(result));
        }
    }
}

async fn find(group: &Group, id: u64) -> Result<Option<OperationResult>> {
    Ok(group.inspect(move |record, _, _| record.operation_result(id)).await?)
}
