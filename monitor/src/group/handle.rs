//! How the rest of the process reaches a group's task.

use super::command::{Command, Incoming, JoinReply, ReportReply, Watched};
use super::{Answers, Context, Feed, Task, Work};
use crate::clock;
use crate::hooks::Troubles;
use crate::http::unavailable;
use crate::probe::Prober;
use fsm::Now;
use fsm::group::{Record, View};
use shared::api::{Action, ApiError, JoinRequest, OperationResult};
use shared::ids::NodeId;
use shared::report::Report;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// Commands that wait for the task; it takes all of them at each turn, so that this is only reached
/// by a flood, which then has to wait.
const COMMANDS_WAITING: usize = 1024;
/// How long a request may wait for its decision: a store call's limit and some more.
const REQUEST_LIMIT: Duration = Duration::from_secs(15);

/// A group, as the HTTP side sees it.
#[derive(Clone, Debug)]
pub struct Group {
    commands: mpsc::Sender<Command>,
    watched: watch::Receiver<Watched>,
    seen: watch::Receiver<u64>,
    feed: Arc<Feed>,
    context: Arc<Context>,
    troubles: Troubles,
}

/// Says which report's connection was closed.
#[derive(Clone, Debug)]
pub struct Closed {
    /// The node.
    pub node: NodeId,
    keeper: String,
    seq: u64,
}

impl Closed {
    /// Whether this is the node's newest report.
    pub(super) fn is_of(&self, report: &Report) -> bool {
        self.keeper == report.keeper && self.seq == report.seq
    }
}

/// Sends [`Closed`] when it is dropped before the answer has come: the handler's future was dropped,
/// which is how the HTTP server says that the peer is gone.
struct Guard {
    commands: mpsc::Sender<Command>,
    closed: Option<Closed>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let Some(closed) = self.closed.take() else { return };
        if let Err(mpsc::error::TrySendError::Full(command)) =
            self.commands.try_send(Command::Closed(closed))
        {
            let commands = self.commands.clone();
            drop(tokio::spawn(async move { commands.send(command).await }));
        }
    }
}

impl Group {
    /// Starts the task of a group whose record is durable; the task raises its ticket first (rule 2).
    pub fn start(record: Record, context: Context) -> Self {
        let (sender, receiver) = mpsc::channel(COMMANDS_WAITING);
        let (publish, watched) = watch::channel(Watched {
            revision: record.revision,
            newest_event: record.next_event.saturating_sub(1),
        });
        let (show, seen) = watch::channel(0);
        let now = clock::millis();
        let context = Arc::new(context);
        let feed = Arc::new(Feed::default());
        let task = Task {
            view: View::starting(now, record.settings.timers().lease_ms),
            context: Arc::clone(&context),
            answers: Answers::new(),
            prober: Prober::new(sender.clone(), context.passwords.monitor.clone()),
            feed: Arc::clone(&feed),
            watched: publish,
            seen: show,
            work: Work::new(),
            requests: VecDeque::new(),
            receipts: VecDeque::new(),
            rounds: 0,
            started: false,
            waiting: (now, 0),
            gone: false,
            record,
        };
        drop(tokio::spawn(task.run(receiver)));
        Self { commands: sender, watched, seen, feed, context, troubles: Troubles::default() }
    }

    /// Whether the task is there: it ends only with its formation, the process, or by a bug.
    pub fn is_running(&self) -> bool {
        !self.commands.is_closed()
    }

    /// Delivers a report and waits for its answer.
    pub async fn report(
        &self,
        node: NodeId,
        secret: String,
        report: Report,
        hold_ms: u64,
    ) -> Result<ReportReply, ApiError> {
        let (reply, answer) = oneshot::channel();
        let closed = Closed { node, keeper: report.keeper.clone(), seq: report.seq };
        let deadline = clock::millis().plus(hold_ms);
        let incoming = Box::new(Incoming { node, secret, report, deadline, reply });
        self.send(Command::Report(incoming)).await?;
        let mut guard = Guard { commands: self.commands.clone(), closed: Some(closed) };
        let answer = answer.await;
        guard.closed = None;
        answer.map_err(|_| unavailable("the monitor is stopping"))
    }

    /// Looks at the group between two changes.
    pub async fn inspect<T, F>(&self, look: F) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: FnOnce(&Record, &View, Now) -> T + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let look = Box::new(move |record: &Record, view: &View, now| {
            // Nobody listens if the asker has gone.
            drop(reply.send(look(record, view, now)));
        });
        self.send(Command::Inspect(look)).await?;
        answer.await.map_err(|_| unavailable("the monitor is stopping"))
    }

    /// Does what an operator asks for.
    pub async fn act(
        &self,
        action: Action,
        key: Option<String>,
    ) -> Result<OperationResult, ApiError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Action { action, key, reply }).await?;
        decided(answer).await?
    }

    /// Registers a node.
    pub async fn join(&self, request: JoinRequest) -> JoinReply {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Join { request: Box::new(request), reply }).await?;
        decided(answer).await?
    }

    /// Ends the task: the formation has been dropped.
    pub async fn end(&self) {
        drop(self.commands.send(Command::Gone).await);
    }

    /// What can be waited for.
    pub fn watch(&self) -> watch::Receiver<Watched> {
        self.watched.clone()
    }

    /// Changes whenever something is seen of a node or decided: the status may be another one.
    pub fn seen(&self) -> watch::Receiver<u64> {
        self.seen.clone()
    }

    /// What is wrong with the hooks that are told its history; `status` warns of it.
    pub fn troubles(&self) -> &Troubles {
        &self.troubles
    }

    /// The newest events.
    pub fn feed(&self) -> &Feed {
        &self.feed
    }

    /// What the group shares.
    pub fn context(&self) -> &Context {
        &self.context
    }

    async fn send(&self, command: Command) -> Result<(), ApiError> {
        self.commands.send(command).await.map_err(|_| unavailable("the formation has been dropped"))
    }
}

async fn decided<T>(answer: oneshot::Receiver<T>) -> Result<T, ApiError> {
    match tokio::time::timeout(REQUEST_LIMIT, answer).await {
        Ok(Ok(reply)) => Ok(reply),
        Ok(Err(_)) => Err(unavailable("the monitor is stopping")),
        Err(_) => Err(unavailable("the monitor's database did not answer in time")),
    }
}
