//! The history: pages of it, and as it goes on. Followers are woken by the group, and read the newest
//! events from memory.

use super::extract::{Parameters, PathPart};
use super::{LONGEST_WAIT_MS, Result, State};
use crate::group::Group;
use crate::store::{Store, StoreError};
use axum::Json;
use axum::response::Sse;
use axum::response::sse::{Event as SseEvent, KeepAlive};
use futures::Stream;
use serde::Deserialize;
use shared::event::Event;
use shared::ids::FormationId;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How many events an answer has unless told otherwise, and at most.
const PAGE: (u32, u32) = (100, 10_000);
/// How many a follower reads at once.
const BATCH: u32 = 256;
/// How long a follower waits after the database has failed.
const PAUSE: Duration = Duration::from_secs(1);

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
async fn read(
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

/// Someone who follows the history.
struct Follower {
    store: Store,
    group: Group,
    formation: FormationId,
    after: u64,
    read: VecDeque<Arc<Event>>,
    stopping: watch::Receiver<bool>,
}

impl Follower {
    /// The next event; `None` when the formation or the process ends.
    async fn next(&mut self) -> Option<Arc<Event>> {
        loop {
            if let Some(event) = self.read.pop_front() {
                self.after = event.id;
                return Some(event);
            }
            let mut watched = self.group.watch();
            let after = self.after;
            tokio::select! {
                woken = watched.wait_for(|watched| watched.newest_event > after) => { woken.ok()?; }
                _ = self.stopping.wait_for(|stopping| *stopping) => return None,
            }
            match read(&self.store, &self.group, (&self.formation, after), BATCH).await {
                Ok(events) if !events.is_empty() => self.read.extend(events),
                Ok(_) | Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }
}

/// `GET .../stream`: server-sent events, from now on or after an id.
pub(super) async fn stream(
    service: State,
    path: PathPart,
    Parameters(parameters): Parameters<EventParameters>,
    headers: axum::http::HeaderMap,
) -> Result<Sse<impl Stream<Item = std::result::Result<SseEvent, Infallible>>>> {
    let formation: FormationId = path.parse("formation")?;
    let group = service.group(&formation)?;
    // A browser that connects again says what it had last.
    let seen = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let newest = group.watch().borrow().newest_event;
    let follower = Follower {
        store: service.store()?.clone(),
        after: seen.or(parameters.after).unwrap_or(newest),
        group,
        formation,
        read: VecDeque::new(),
        stopping: service.stopping(),
    };
    let events = futures::stream::unfold(follower, |mut follower| async {
        let event = follower.next().await?;
        let data = serde_json::to_string(&*event).unwrap_or_default();
        let sent = SseEvent::default().id(event.id.to_string()).event(&event.kind).data(data);
        Some((Ok(sent), follower))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}
