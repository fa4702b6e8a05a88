//! Formations: the list, and looks at one of them.

use super::extract::{Body, Parameters, PathPart};
use super::{LONGEST_WAIT_MS, Result, State};
use crate::group::Group;
use crate::service::summary;
use axum::Json;
use axum::http::StatusCode;
use fsm::group::{pgsettings, status as state};
use serde::Deserialize;
use shared::api::{CreateFormation, FormationSettings, FormationSummary, Members, Status};
use shared::goal::Member;
use shared::ids::Revision;
use shared::pgsettings::PostgresConfig;
use std::time::Duration;

/// `GET /v1/formations`.
pub(super) async fn list(service: State) -> Result<Json<Vec<FormationSummary>>> {
    let mut all = Vec::new();
    for (_, group) in service.groups()? {
        all.push(group.inspect(|record, _, _| summary(record)).await?);
    }
    Ok(Json(all))
}

/// `POST /v1/formations`.
pub(super) async fn create(
    service: State,
    Body(wanted): Body<CreateFormation>,
) -> Result<Json<FormationSummary>> {
    Ok(Json(service.create_formation(wanted).await?))
}

/// `DELETE /v1/formations/{f}`.
pub(super) async fn remove(service: State, path: PathPart) -> Result<StatusCode> {
    service.drop_formation(&path.parse("formation")?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `?wait_revision=R&wait_ms=N`.
#[derive(Deserialize)]
pub(super) struct StatusParameters {
    wait_revision: Option<u64>,
    wait_ms: Option<u64>,
}

/// `GET .../status`: waits for a revision newer than `wait_revision`, or the end of `wait_ms`.
pub(super) async fn status(
    service: State,
    path: PathPart,
    Parameters(parameters): Parameters<StatusParameters>,
) -> Result<Json<Status>> {
    let group = service.group(&path.parse("formation")?)?;
    if let Some(known) = parameters.wait_revision {
        let wait_ms = parameters.wait_ms.unwrap_or(LONGEST_WAIT_MS).min(LONGEST_WAIT_MS);
        wait_for_revision(&service, &group, Revision(known), wait_ms).await;
    }
    let mut status = group.inspect(state::status).await?;
    status.warnings.extend(group.troubles().all());
    Ok(Json(status))
}

async fn wait_for_revision(service: &State, group: &Group, known: Revision, wait_ms: u64) {
    let mut watched = group.watch();
    let mut stopping = service.stopping();
    // Whatever ends the wait, the present status is the answer.
    tokio::select! {
        _ = watched.wait_for(|watched| watched.revision > known) => {}
        _ = stopping.wait_for(|stopping| *stopping) => {}
        () = tokio::time::sleep(Duration::from_millis(wait_ms)) => {}
    }
}

/// `GET .../settings`.
pub(super) async fn settings(service: State, path: PathPart) -> Result<Json<FormationSettings>> {
    let group = service.group(&path.parse("formation")?)?;
    let settings = group.inspect(|record, _, _| FormationSettings {
        formation: record.formation.clone(),
        settings: record.settings.clone(),
        timers: record.settings.timers(),
        number_sync_standbys: u32::try_from(record.number_sync_standbys()).unwrap_or(u32::MAX),
    });
    Ok(Json(settings.await?))
}

/// `GET .../postgres-settings`.
pub(super) async fn postgres_settings(
    service: State,
    path: PathPart,
) -> Result<Json<PostgresConfig>> {
    let group = service.group(&path.parse("formation")?)?;
    Ok(Json(group.inspect(pgsettings::config).await?))
}

/// `GET .../members`.
pub(super) async fn members(service: State, path: PathPart) -> Result<Json<Members>> {
    let group = service.group(&path.parse("formation")?)?;
    let members = group.inspect(|record, _, _| {
        let member = |(id, node): (_, &fsm::group::Node)| Member {
            id,
            name: node.name.clone(),
            host: node.host.clone(),
            port: node.port,
            rest: node.rest.clone(),
            admission: node.admission,
        };
        record.nodes.iter().map(|(id, node)| member((*id, node))).collect()
    });
    Ok(Json(Members { members: members.await? }))
}
