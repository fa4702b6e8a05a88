//! Answers to "why?" and "what if?". They are made on copies of the record and of what is seen, so that
//! the group's task does not wait for them.

use super::extract::{Body, Parameters, PathPart};
use super::{Result, State, internal};
use crate::group::Group;
use axum::Json;
use fsm::Now;
use fsm::group::request::unknown_node;
use fsm::group::{Record, View, explain as why, timelines as history, whatif};
use serde::Deserialize;
use shared::api::{Action, ApiError, Explanation, Prediction, Timelines};
use shared::ids::{FormationId, InvalidName, NodeId, NodeName};
use std::collections::BTreeSet;

/// From so many of the last changes of the primary it is estimated how long the next one takes.
const CHANGES: u32 = 5;
/// Of so many changes of the phase it is told why they were: some five belong to each election.
const PHASES: u32 = 10_000;

/// `?node=NAME&if_dies=NAME,NAME`.
#[derive(Deserialize)]
pub(super) struct ExplainParameters {
    node: Option<NodeName>,
    if_dies: Option<String>,
}

/// `GET .../explain`.
pub(super) async fn explain(
    service: State,
    path: PathPart,
    Parameters(parameters): Parameters<ExplainParameters>,
) -> Result<Json<Explanation>> {
    let formation: FormationId = path.parse("formation")?;
    let group = service.group(&formation)?;
    let past = service.store()?.newest_stages(&formation, CHANGES).await?;
    let explanation = on_a_copy(&group, move |record, view, now| {
        let node = parameters.node.as_ref().map(|name| id_of(record, name)).transpose()?;
        let gone = parameters.if_dies.as_deref().map(|names| ids_of(record, names)).transpose()?;
        let mut explanation = why::explain(record, view, node, now);
        if node.is_none() {
            explanation.succession = why::succession(record, view, &past, now);
        }
        explanation.prediction = gone.map(|gone| whatif::if_dies(record, view, &gone, now));
        Ok(explanation)
    });
    Ok(Json(explanation.await?))
}

/// `POST .../predictions`: what would come of an action. Nothing is stored.
pub(super) async fn predict(
    service: State,
    path: PathPart,
    Body(action): Body<Action>,
) -> Result<Json<Prediction>> {
    let group = service.group(&path.parse("formation")?)?;
    let prediction =
        on_a_copy(&group, move |record, view, now| whatif::ask(record, view, &action, now));
    Ok(Json(prediction.await?))
}

/// `GET .../timelines`.
pub(super) async fn timelines(service: State, path: PathPart) -> Result<Json<Timelines>> {
    let formation: FormationId = path.parse("formation")?;
    let group = service.group(&formation)?;
    let phases = service.store()?.newest_phases(&formation, PHASES).await?;
    let told = on_a_copy(&group, move |record, view, now| {
        Ok(history::timelines(record, view, &phases, now))
    });
    Ok(Json(told.await?))
}

async fn on_a_copy<T: Send + 'static>(
    group: &Group,
    look: impl FnOnce(&Record, &View, Now) -> std::result::Result<T, ApiError> + Send + 'static,
) -> std::result::Result<T, ApiError> {
    let copy = group.inspect(|record, view, now| (record.clone(), view.clone(), now));
    let (record, view, now) = copy.await?;
    let looked = tokio::task::spawn_blocking(move || look(&record, &view, now)).await;
    looked.unwrap_or_else(|error| Err(internal(&format!("the prediction failed: {error}"))))
}

fn id_of(record: &Record, name: &NodeName) -> std::result::Result<NodeId, ApiError> {
    let found = record.node_named(name).map(|(id, _)| id);
    found.ok_or_else(|| unknown_node(record, name))
}

fn ids_of(record: &Record, names: &str) -> std::result::Result<BTreeSet<NodeId>, ApiError> {
    let parse = |name: &str| {
        name.parse().map_err(|error: InvalidName| ApiError {
            code: 1,
            reason: "bad_value".to_owned(),
            message: error.to_string(),
            nodes: Vec::new(),
        })
    };
    names.split(',').map(|name| id_of(record, &parse(name)?)).collect()
}
