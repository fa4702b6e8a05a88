//! The history in pages, the newest ones from memory. Who follows it is served by `stream`.

use super::extract::{Parameters, PathPart};
use super::{LONGEST_WAIT_MS, Result, State};
use crate::group::Group;
use crate::store::{Store, StoreError};
use axum::Json;
use serde::Deserialize;
use shared::event::Event;
use shared::ids::FormationId;
use std::sync::Arc;
use std::time::Duration;

/// How many events an answer has unless told otherwise, and at most.
const PAGE: (u32, u32) = (100, 10_000);

/// `?after=ID&count=N&wait_ms=N`.
#[derive(Deserialize)]
pub(super) struct EventParameters {
    after: Option<u64>,
    count: Option<u32>,
    #[serde(default)]
    wait_ms: u64,
}

/// `GET .../events`: those after an id, waiting for one if there is none yet; or the newest.
pub(super) async fn list(
    service: State,
    path: PathPart,
    Parameters(parameters): Parameters<EventParameters>,
) -> Result<Json<Vec<Arc<Event>>>> {
    let formation: FormationId = path.parse("formation")?;
    let group = service.group(&formation)?;
    let store = service.store()?;
    let (default, most) = PAGE;
    let count = parameters.count.unwrap_or(default).min(most);
    let Some(after) = parameters.after else {
        let newest = store.newest_events(&formation, count).await?;
        return Ok(Json(newest.into_iter().map(Arc::new).collect()));
    };
    let mut watched = group.watch();
    let mut stopping = service.stopping();
    tokio::select! {
        _ = watched.wait_for(|watched| watched.newest_event > after) => {}
        _ = stopping.wait_for(|stopping| *stopping) => {}
        () = tokio::time::sleep(Duration::from_millis(parameters.wait_ms.min(LONGEST_WAIT_MS))) => {}
    }
    Ok(Json(read(store, &group, (&formation, after), count).await?))
}

/// From memory where they are there, else from the database.
pub(super) async fn read(
    store: &Store,
    group: &Group,
    (formation, after): (&FormationId, u64),
    count: u32,
) -> std::result::Result<Vec<Arc<Event>>, StoreError> {
    if group.watch().borrow().newest_event <= after {
        return Ok(Vec::new());
    }
    let page = usize::try_from(count).unwrap_or(usize::MAX);
    if let Some(events) = group.feed().after(after, page) {
        return Ok(events);
    }
    let events = store.events_after(formation, after, count).await?;
    Ok(events.into_iter().map(Arc::new).collect())
}
