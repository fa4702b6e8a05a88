//! The task of one group: it alone holds the group's record and what is seen of its nodes, decides by
//! `fsm::group::rules::step`, and tells keepers what was decided once that is durable.
//!
//! The task never waits for the database: a commit is one of the things it waits for, together with
//! commands and the clock. Meanwhile, and while the database is away, keepers are answered (and leases
//! renewed) from the record that is durable; only what needs a new decision waits.

mod answers;
mod command;
mod feed;
mod handle;
mod work;

pub use command::{Command, JoinReply, ReportRefused, ReportReply, Watched};
pub use feed::Feed;
pub use handle::{Closed, Group};

use crate::clock;
use crate::metrics::Metrics;
use crate::probe::{Finding, Prober};
use crate::store::{Receipt, Store};
use crate::trace::Trace;
use answers::Answers;
use fsm::group::{Record, View};
use fsm::group::{detector, rules};
use fsm::trace::Cause;
use fsm::{Millis, Now};
use shared::api::{ApiError, RolePasswords};
use shared::ids::NodeId;
use shared::report::Report;
use shared::settings::Timers;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use work::{Request, Work};

/// Requests that wait for the decision before them; more than this many are told to come again.
const REQUESTS_WAITING: usize = 256;
/// Decisions in a row without anything new seen. A group settles within a few; more means that two
/// rules undo each other, which must not fill the disk with events.
const ROUNDS: u32 = 32;
/// The shortest time between two looks at the clock.
const SHORTEST_TICK_MS: u64 = 25;

/// What a group's task shares with those who ask.
#[derive(Debug)]
pub struct Context {
    /// Where decisions go.
    pub store: Store,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// The passwords of the formation's roles.
    pub passwords: RolePasswords,
    /// Becomes true when the process ends.
    pub stopping: watch::Receiver<bool>,
    /// Where tests want to know what is decided.
    pub trace: Option<Trace>,
}

/// The task's state.
struct Task {
    context: Arc<Context>,
    record: Record,
    view: View,
    answers: Answers,
    prober: Prober,
    feed: Arc<Feed>,
    watched: watch::Sender<Watched>,
    /// Counts what was seen or decided.
    seen: watch::Sender<u64>,
    work: Work,
    requests: VecDeque<Request>,
    /// What was answered to the newest requests that carried a key.
    receipts: VecDeque<Receipt>,
    rounds: u32,
    /// The ticket of this process is durable: nothing is told to anyone before (rule 2).
    started: bool,
    /// When the task last went to wait, and how long at most.
    waiting: (Millis, u64),
    /// The group was dropped.
    gone: bool,
}

impl Task {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut stopping = self.context.stopping.clone();
        self.advance(clock::now());
        while !self.gone {
            let wait = self.next_wake();
            tokio::select! {
                biased;
                _ = stopping.wait_for(|stopping| *stopping) => break,
                done = self.work.finished() => self.take_work(done, clock::now()),
                command = commands.recv() => match command {
                    Some(command) => self.take(command),
                    None => break,
                },
                () = tokio::time::sleep(Duration::from_millis(wait)) => self.rounds = 0,
            }
            self.notice_freeze();
            // Everything that has come meanwhile is looked at before anything is decided.
            for _ in 0..commands.len() {
                if let Ok(command) = commands.try_recv() {
                    self.take(command);
                }
            }
            let now = clock::now();
            self.track_replicas(now.mono);
            self.view.doubt(&self.timers(), now.mono);
            self.view.follow_course(&self.record, now.mono);
            self.advance(now);
            if self.started {
                self.answers.refresh(&self.record, &self.view);
                self.answers.answer(&self.record, &mut self.view, now.mono);
            }
            self.probe(now.mono);
        }
        if self.started {
            self.answers.answer_all(&self.record, &mut self.view, clock::millis());
        }
        tracing::debug!(formation.id = %self.record.formation, "the group's task has ended");
    }

    fn timers(&self) -> Timers {
        self.record.settings.timers()
    }

    /// How long nothing needs to be looked at, in milliseconds.
    fn next_wake(&mut self) -> u64 {
        let tick = (self.timers().report_interval_ms / 4).max(SHORTEST_TICK_MS);
        let now = clock::millis();
        let deadline = self.answers.next_deadline();
        let wait = deadline.map_or(tick, |deadline| deadline.since(now).clamp(1, tick));
        self.waiting = (now, wait);
        wait
    }

    /// A process that was stopped, or a machine that slept, has not seen what happened meanwhile.
    fn notice_freeze(&mut self) {
        let now = clock::millis();
        let (since, wait) = self.waiting;
        let late = now.since(since).saturating_sub(wait);
        if late > self.timers().node_timeout_ms / 2 {
            self.view.woke(now);
            tracing::warn!(
                formation.id = %self.record.formation,
                duration_ms = late,
                "the monitor was stopped for {late} ms: it judges nobody until it has watched again"
            );
        }
    }

    fn take(&mut self, command: Command) {
        let now = clock::millis();
        match command {
            Command::Report(incoming) => {
                let (node, report) = (incoming.node, incoming.report.clone());
                if self.answers.admit(&self.record, &self.view, incoming, now) {
                    self.take_report(node, report, now);
                }
            }
            Command::Closed(closed) => {
                self.take_closed(&closed);
                self.show();
            }
            Command::Found(finding) => {
                self.take_finding(finding);
                self.show();
            }
            Command::Inspect(look) => look(&self.record, &self.view, clock::now()),
            Command::Action { action, key, reply } => {
                self.queue(Request::Action { action, key, reply });
            }
            Command::Join { request, reply } => self.queue(Request::Join { request, reply }),
            Command::Gone => self.gone = true,
        }
        self.rounds = 0;
    }

    fn take_report(&mut self, node: NodeId, report: Report, now: Millis) {
        self.context.metrics.report();
        if !self.view.take_report(node, report, now) {
            tracing::debug!(node.id = node.0, "a late report of node {node} is ignored");
        }
        self.show();
    }

    /// Wakes those who follow the status.
    fn show(&self) {
        self.seen.send_modify(|seen| *seen = seen.wrapping_add(1));
    }

    fn track_replicas(&mut self, now: Millis) {
        if let Some(primary) = self.record.primary {
            let members: Vec<_> =
                self.record.nodes.keys().copied().filter(|id| *id != primary).collect();
            self.view.track_replicas(primary, &members, now);
        }
    }

    /// A keeper, or its host, has closed the connection of the report that was held for it.
    fn take_closed(&mut self, closed: &Closed) {
        if let Some(evidence) = self.view.nodes.get_mut(&closed.node)
            && evidence.report.as_ref().is_some_and(|report| closed.is_of(report))
        {
            evidence.closed = true;
            tracing::debug!(
                formation.id = %self.record.formation,
                node.id = closed.node.0,
                "node {} has closed its connection",
                closed.node
            );
        }
    }

    fn take_finding(&mut self, finding: Finding) {
        match finding {
            Finding::Keeper { node, probe } => {
                if let Some(evidence) = self.view.nodes.get_mut(&node) {
                    evidence.keeper = probe;
                }
            }
            Finding::Postgres { node, probe } => {
                if let Some(evidence) = self.view.nodes.get_mut(&node) {
                    evidence.postgres = probe;
                }
            }
            Finding::Peer { node, peer, probe } => {
                if let Some(evidence) = self.view.nodes.get_mut(&node) {
                    evidence.peers.insert(peer, probe);
                }
            }
            Finding::Finished { node } => self.prober.finished(node),
        }
    }

    fn queue(&mut self, request: Request) {
        if self.requests.len() >= REQUESTS_WAITING {
            request.refuse(ApiError {
                code: 6,
                reason: "busy".to_owned(),
                message: "too many requests are waiting for this formation: try again".to_owned(),
                nodes: Vec::new(),
            });
        } else {
            self.requests.push_back(request);
        }
    }

    /// Decides what is to be decided, as long as nothing is being stored.
    fn advance(&mut self, now: Now) {
        if self.work.is_busy() {
            return;
        }
        if self.work.is_away() {
            // Who asks is told what is so now, not what was when it was last tried.
            if self.work.may_retry(now.mono) || !self.requests.is_empty() {
                self.work.reload(&self.context, &self.record);
            }
            return;
        }
        if !self.started {
            let decision = self.record.monitor_started(now);
            self.note(|| Cause::Started, &decision, now);
            self.commit(decision);
            return;
        }
        while let Some(request) = self.requests.pop_front() {
            self.serve_request(request, now);
            if self.work.is_busy() {
                return;
            }
        }
        if self.rounds >= ROUNDS {
            return;
        }
        let tie_break = rand::random();
        if let Some(decision) = rules::step(&self.record, &self.view, now, tie_break) {
            self.note(|| Cause::Rule(tie_break), &decision, now);
            self.rounds += 1;
            if self.rounds == ROUNDS {
                tracing::error!(
                    formation.id = %self.record.formation,
                    "the group has not settled after {ROUNDS} decisions in a row: waiting"
                );
            }
            self.commit(decision);
        } else {
            self.rounds = 0;
        }
    }

    fn probe(&mut self, now: Millis) {
        let timers = self.timers();
        for id in self.record.nodes.keys() {
            if detector::wants_probe(&self.view, *id, &timers, now)
                && let Some(asked) = self.prober.start(&self.record, &self.view, *id, now)
            {
                // What a peer said that is not asked any more must not stay for ever.
                let evidence = self.view.nodes.entry(*id).or_default();
                evidence.peers.retain(|peer, _| asked.contains(peer));
            }
        }
    }
}
