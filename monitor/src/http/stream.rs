//! Server-sent events: the history as it goes on and, for who asks for it, the status as it changes.
//!
//! Log positions and lags move without a new revision, so that who follows the status is woken by all
//! that the group sees. Nothing is sent twice, nor more often than people can read.

use super::events::read;
use super::extract::{Parameters, PathPart};
use super::{Result, State};
use crate::group::Group;
use crate::store::Store;
use axum::response::Sse;
use axum::response::sse::{Event as SseEvent, KeepAlive};
use fsm::group::{Record, View, status::status};
use fsm::{Millis, Now};
use futures::Stream;
use serde::Deserialize;
use shared::api::Status;
use shared::event::Event;
use shared::ids::{FormationId, NodeId};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// How many events a follower reads at once.
const BATCH: u32 = 256;
/// How long a follower waits after the database has failed.
const PAUSE: Duration = Duration::from_secs(1);
/// The shortest time between two statuses.
const SHORTEST: Duration = Duration::from_millis(250);
/// So often something is sent, if only a comment: who hears nothing for several times as long knows that
/// the monitor, or the way to it, is gone.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

/// `?after=ID&status=true`.
#[derive(Deserialize)]
pub(super) struct StreamParameters {
    after: Option<u64>,
    #[serde(default)]
    status: bool,
}

/// What a follower is sent.
enum Sent {
    Event(Arc<Event>),
    Status(Box<Status>),
}

impl Sent {
    /// A status has no id, so that what a browser had last stays an event's.
    fn into_event(self) -> SseEvent {
        match self {
            Self::Event(event) => SseEvent::default()
                .id(event.id.to_string())
                .event(&event.kind)
                .data(serde_json::to_string(&*event).unwrap_or_default()),
            Self::Status(status) => SseEvent::default()
                .event("status")
                .data(serde_json::to_string(&*status).unwrap_or_default()),
        }
    }
}

/// Someone who follows.
struct Follower {
    store: Store,
    group: Group,
    formation: FormationId,
    after: u64,
    read: VecDeque<Arc<Event>>,
    pictures: Option<Pictures>,
    stopping: watch::Receiver<bool>,
}

impl Follower {
    /// What comes next, events first; `None` when the formation or the process ends.
    async fn next(&mut self) -> Option<Sent> {
        loop {
            if let Some(event) = self.read.pop_front() {
                self.after = event.id;
                return Some(Sent::Event(event));
            }
            let mut watched = self.group.watch();
            let after = self.after;
            tokio::select! {
                biased;
                _ = self.stopping.wait_for(|stopping| *stopping) => return None,
                woken = watched.wait_for(|watched| watched.newest_event > after) => { woken.ok()?; }
                status = next_status(self.pictures.as_mut(), &self.group) => {
                    return status.map(Box::new).map(Sent::Status);
                }
            }
            match read(&self.store, &self.group, (&self.formation, after), BATCH).await {
                Ok(events) if !events.is_empty() => self.read.extend(events),
                Ok(_) | Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }
}

/// For ever, where nobody asked for it.
async fn next_status(pictures: Option<&mut Pictures>, group: &Group) -> Option<Status> {
    match pictures {
        Some(pictures) => pictures.next(group).await,
        None => std::future::pending().await,
    }
}

/// The statuses that a follower is sent.
struct Pictures {
    seen: watch::Receiver<u64>,
    /// Something was seen since the last look.
    due: bool,
    not_before: Instant,
    last: Option<Essence>,
}

/// What makes two statuses different: not that time has passed.
#[derive(PartialEq)]
struct Essence {
    status: Status,
    heard: Vec<(NodeId, Millis)>,
}

impl Pictures {
    /// Begins with the status as it is.
    fn new(group: &Group) -> Self {
        Self { seen: group.seen(), due: true, not_before: Instant::now(), last: None }
    }

    /// The next one that differs from the last; `None` when the formation ends. Can be dropped and called
    /// again.
    async fn next(&mut self, group: &Group) -> Option<Status> {
        loop {
            if !self.due {
                self.seen.changed().await.ok()?;
                self.due = true;
            }
            tokio::time::sleep_until(self.not_before).await;
            // What is seen from here on is for the next look.
            self.seen.mark_unchanged();
            let (mut status, mut essence) = group.inspect(look).await.ok()?;
            let troubles = group.troubles().all();
            essence.status.warnings.extend_from_slice(&troubles);
            status.warnings.extend(troubles);
            self.due = false;
            self.not_before = Instant::now() + SHORTEST;
            if self.last.as_ref() != Some(&essence) {
                self.last = Some(essence);
                return Some(status);
            }
        }
    }
}

fn look(record: &Record, view: &View, now: Now) -> (Status, Essence) {
    let status = status(record, view, now);
    let mut timeless = status.clone();
    timeless.taken_at = None;
    timeless.lease_left = None;
    for node in &mut timeless.nodes {
        node.health_checked_at = None;
        node.last_report_at = None;
    }
    let heard = view.nodes.iter().map(|(id, evidence)| (*id, evidence.reported_at)).collect();
    (status, Essence { status: timeless, heard })
}

/// `GET .../stream`: from now on, or after an id.
pub(super) async fn stream(
    service: State,
    path: PathPart,
    Parameters(parameters): Parameters<StreamParameters>,
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
        pictures: parameters.status.then(|| Pictures::new(&group)),
        group,
        formation,
        read: VecDeque::new(),
        stopping: service.stopping(),
    };
    let sent = futures::stream::unfold(follower, |mut follower| async {
        let sent = follower.next().await?;
        Some((Ok(sent.into_event()), follower))
    });
    Ok(Sse::new(sent).keep_alive(KeepAlive::new().interval(SIGN_OF_LIFE)))
}
