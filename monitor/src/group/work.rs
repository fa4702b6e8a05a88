//! What a group's task has under way at the database, and what it does with the outcome.
//!
//! After a commit whose outcome is unknown the record is read again before anything is decided: it is
//! either as it was, or the decision that was being stored.

use super::command::JoinReply;
use super::{Context, Task, Watched};
use crate::store::{CommitError, Receipt, StoreError};
use crate::{clock, http, secret};
use fsm::group::request::Reply;
use fsm::group::{Decision, Record};
use fsm::group::{join, request};
use fsm::trace::Cause;
use fsm::{Millis, Now};
use futures::future::BoxFuture;
use shared::api::{Action, ApiError, JoinRequest, OperationResult};
use shared::ids::Revision;
use shared::report::Lease;
use std::sync::Arc;
use tokio::sync::oneshot;

/// How long to wait before the database is tried again, at first and at most.
const RETRY_MS: (u64, u64) = (50, 1000);
/// Only for requests repeated while the first is being served; older ones are in the database.
const RECEIPTS_KEPT: usize = 64;

/// Something asked for that needs a decision.
pub(super) enum Request {
    Action {
        action: Action,
        key: Option<String>,
        reply: oneshot::Sender<Result<OperationResult, ApiError>>,
    },
    Join {
        request: Box<JoinRequest>,
        reply: oneshot::Sender<JoinReply>,
    },
}

impl Request {
    /// Answers with a refusal. Nobody listens if the asker has gone, here and below.
    pub(super) fn refuse(self, error: ApiError) {
        match self {
            Self::Action { reply, .. } => drop(reply.send(Err(error))),
            Self::Join { reply, .. } => drop(reply.send(Err(error))),
        }
    }
}

/// Whom to tell once a decision is durable.
pub(super) enum Asker {
    Action { result: OperationResult, reply: oneshot::Sender<Result<OperationResult, ApiError>> },
    Join { answer: JoinReply, reply: oneshot::Sender<JoinReply> },
}

impl Asker {
    fn tell(self) {
        match self {
            Self::Action { result, reply } => drop(reply.send(Ok(result))),
            Self::Join { answer, reply } => drop(reply.send(answer)),
        }
    }

    fn refuse(self, error: ApiError) {
        match self {
            Self::Action { reply, .. } => drop(reply.send(Err(error))),
            Self::Join { reply, .. } => drop(reply.send(Err(error))),
        }
    }
}

/// A decision to be stored, and whom to tell.
pub(super) struct Proposal {
    decision: Box<Decision>,
    asker: Option<Asker>,
    receipt: Option<Receipt>,
}

impl From<Decision> for Proposal {
    fn from(decision: Decision) -> Self {
        Self { decision: Box::new(decision), asker: None, receipt: None }
    }
}

/// What came of it.
#[expect(clippy::large_enum_variant, reason = "there is one at a time, and it is moved once")]
pub(super) enum Done {
    Committed {
        decision: Box<Decision>,
        asker: Option<Asker>,
        begun: Millis,
        receipt: Option<Receipt>,
        result: Result<(), CommitError>,
    },
    Loaded(Result<Option<Record>, StoreError>),
}

/// The state of a group's dealings with the database.
pub(super) struct Work {
    under_way: Option<BoxFuture<'static, Done>>,
    /// Tried again at this time.
    away: Option<Millis>,
    /// The last wait in milliseconds: kept until something has been stored, so that a database that
    /// can be read and not be written is not asked at full speed.
    wait: u64,
    /// The decision whose commit has an unknown outcome.
    unsettled: Option<Box<Decision>>,
}

impl Work {
    pub(super) fn new() -> Self {
        Self { under_way: None, away: None, wait: 0, unsettled: None }
    }

    pub(super) fn is_busy(&self) -> bool {
        self.under_way.is_some()
    }

    pub(super) fn is_away(&self) -> bool {
        self.away.is_some()
    }

    pub(super) fn may_retry(&self, now: Millis) -> bool {
        self.away.is_some_and(|at| now >= at)
    }

    /// Begins to store a decision that was made on this revision.
    pub(super) fn commit(
        &mut self,
        context: &Arc<Context>,
        expected: Revision,
        proposal: Proposal,
    ) {
        let Proposal { decision, asker, receipt } = proposal;
        let (store, begun) = (context.store.clone(), clock::millis());
        self.under_way = Some(Box::pin(async move {
            let result = store.commit(expected, &decision, receipt.as_ref()).await;
            Done::Committed { decision, asker, begun, receipt, result }
        }));
    }

    /// Begins to read the record again.
    pub(super) fn reload(&mut self, context: &Arc<Context>, record: &Record) {
        let store = context.store.clone();
        let (formation, group) = (record.formation.clone(), record.group);
        self.under_way =
            Some(Box::pin(async move { Done::Loaded(store.load_record(&formation, group).await) }));
    }

    /// Waits for what is under way; for ever if nothing is. Can be dropped and called again.
    pub(super) async fn finished(&mut self) -> Done {
        let done = match self.under_way.as_mut() {
            Some(work) => work.await,
            None => std::future::pending().await,
        };
        self.under_way = None;
        done
    }

    fn back_off(&mut self, now: Millis) {
        let (first, most) = RETRY_MS;
        self.wait = self.wait.saturating_mul(2).clamp(first, most);
        self.away = Some(now.plus(self.wait));
    }
}

impl Task {
    /// Writes a decision on the present record down, where somebody wants to know.
    pub(super) fn note(&self, cause: impl FnOnce() -> Cause, decision: &Decision, now: Now) {
        if let Some(trace) = &self.context.trace {
            trace.decided(cause(), (&self.record, &self.view), decision, now);
        }
    }

    /// Begins to store a decision on the present record.
    pub(super) fn commit(&mut self, proposal: impl Into<Proposal>) {
        self.work.commit(&self.context, self.record.revision, proposal.into());
    }

    /// Applies what an operator or a keeper asks for.
    pub(super) fn serve_request(&mut self, request: Request, now: Now) {
        match request {
            Request::Action { action, key, reply } => {
                if let Some(result) = self.answered_before(key.as_deref()) {
                    drop(reply.send(Ok(result)));
                    return;
                }
                match request::apply(&self.record, &self.view, &action, now) {
                    Err(error) => drop(reply.send(Err(error))),
                    Ok(Reply::Already(result)) => drop(reply.send(Ok(result))),
                    Ok(Reply::Decided(decision, result)) => {
                        self.note(|| Cause::Action(action.clone()), &decision, now);
                        let receipt = key.map(|key| receipt(key, &action, &result));
                        let asker = Some(Asker::Action { result, reply });
                        self.commit(Proposal { decision, asker, receipt });
                    }
                }
            }
            Request::Join { request, reply } => self.serve_join(&request, reply, now),
        }
    }

    fn serve_join(&mut self, request: &JoinRequest, reply: oneshot::Sender<JoinReply>, now: Now) {
        let joined = match join::join(&self.record, request, &secret::generate(), now) {
            Ok(joined) => joined,
            Err(error) => return drop(reply.send(Err(error))),
        };
        self.view.note_join(joined.node, now.mono);
        let next = joined.decision.as_ref().map_or(&self.record, |decision| &decision.record);
        let answer = next
            .identity_of(joined.node)
            .map(|identity| (identity, next.group, next.settings.timers()))
            .ok_or_else(|| http::internal("the node that joined is not there"));
        let asker = Asker::Join { answer, reply };
        match joined.decision {
            None => asker.tell(),
            Some(decision) => {
                let said = || JoinRequest { passwords: None, ..request.clone() };
                self.note(|| Cause::Join(Box::new(said())), &decision, now);
                self.commit(Proposal { decision, asker: Some(asker), receipt: None });
            }
        }
    }

    /// Two requests with one key, the second sent before the first was answered.
    fn answered_before(&self, key: Option<&str>) -> Option<OperationResult> {
        let key = key?;
        self.receipts.iter().find(|receipt| receipt.key == key).map(|r| r.result.clone())
    }

    /// Goes on with what the database has done.
    pub(super) fn take_work(&mut self, done: Done, now: Now) {
        match done {
            Done::Committed { decision, asker, begun, receipt, result: Ok(()) } => {
                self.context.metrics.decision(now.mono.since(begun));
                self.adopt(*decision, now);
                self.started = true;
                self.work.wait = 0;
                self.receipts.extend(receipt);
                if self.receipts.len() > RECEIPTS_KEPT {
                    self.receipts.pop_front();
                }
                self.store_is_back();
                if let Some(asker) = asker {
                    asker.tell();
                }
            }
            Done::Committed { decision, asker, result: Err(error), .. } => {
                if let Some(asker) = asker {
                    asker.refuse(http::store_away());
                }
                self.commit_failed(decision, &error, now);
            }
            Done::Loaded(Ok(Some(record))) => self.take_loaded(record, now),
            Done::Loaded(Ok(None)) => {
                tracing::info!(formation.id = %self.record.formation, "the formation is gone");
                self.gone = true;
            }
            Done::Loaded(Err(error)) => {
                self.work.back_off(now.mono);
                for request in self.requests.drain(..) {
                    request.refuse(http::store_away());
                }
                if !error.is_away() {
                    self.log_failure(&error);
                }
            }
        }
    }

    fn commit_failed(&mut self, decision: Box<Decision>, error: &CommitError, now: Now) {
        match error {
            CommitError::Store(store) => {
                if self.work.away.is_none() {
                    self.log_failure(store);
                }
                self.work.unsettled = Some(decision);
                self.work.back_off(now.mono);
            }
            CommitError::Stale(_) => {
                // The same record as the one just read: somebody else writes. Not at full speed.
                self.work.back_off(now.mono);
                self.work.reload(&self.context, &self.record);
            }
            CommitError::Invalid(_) => {
                tracing::error!(formation.id = %self.record.formation, "{error}");
                self.work.away = Some(now.mono.plus(RETRY_MS.1));
            }
        }
    }

    fn log_failure(&self, error: &StoreError) {
        let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
        tracing::warn!(
            formation.id = %self.record.formation,
            "{error} ({cause}): nothing is decided until it is back, keepers are still answered"
        );
    }

    fn store_is_back(&mut self) {
        if self.work.away.take().is_some() {
            tracing::info!(formation.id = %self.record.formation, "the monitor's database is back");
        }
    }

    /// The record as it is stored, after an outcome was unknown or somebody else wrote it.
    fn take_loaded(&mut self, record: Record, now: Now) {
        let unsettled = self.work.unsettled.take();
        let known: Revision = self.record.revision;
        if let Some(decision) = unsettled.filter(|decision| decision.record == record) {
            self.adopt(*decision, now);
            self.started = true;
        } else if record != self.record {
            tracing::error!(
                formation.id = %self.record.formation,
                "the record was changed by somebody else (revision {known} became {}): does a \
                 second monitor use this database?",
                record.revision
            );
            self.feed.clear();
            self.adopt(Decision { record, events: Vec::new() }, now);
            // Like a monitor that has just started: with a ticket of its own.
            self.started = false;
        }
        self.store_is_back();
    }

    /// The decision is durable: it is what holds from now on.
    fn adopt(&mut self, decision: Decision, now: Now) {
        let Decision { record, events } = decision;
        if record.phase != self.record.phase || record.epoch != self.record.epoch {
            self.view.phase_since = now.mono;
        }
        if self.record.quarantined && !record.quarantined {
            // The lost monitor may have granted one until its end.
            let ms = record.settings.timers().lease_ms;
            self.view.note_lease(Some(Lease::For { ms }), now.mono);
        }
        self.view.nodes.retain(|id, _| record.nodes.contains_key(id));
        for event in &events {
            self.context.metrics.event(&event.kind);
            tracing::info!(
                formation.id = %record.formation,
                group.id = record.group.0,
                node.id = event.node_id.map(|id| id.0),
                rule = %event.rule,
                "{}",
                event.reason
            );
        }
        self.record = record;
        self.feed.push(events);
        self.watched.send_replace(Watched {
            revision: self.record.revision,
            newest_event: self.record.next_event.saturating_sub(1),
        });
        self.show();
    }
}

fn receipt(key: String, action: &Action, result: &OperationResult) -> Receipt {
    let request = serde_json::to_value(action).unwrap_or_default();
    Receipt { key, request, result: result.clone() }
}
