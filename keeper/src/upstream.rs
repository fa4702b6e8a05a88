//! Whether the upstream still has what this node needs to stream: the WAL that comes next, and its
//! admission slot. PostgreSQL says it in its logs only, and asks for ever.
//!
//! Asked in the background: an upstream that does not answer must not hold up anything else.

use crate::clock;
use crate::node::{Node, SQL_LIMIT};
use fsm::Millis;
use fsm::node::view::Lack;
use fsm::node::{File, Server, Upstream};
use postgres::session::Session;
use shared::lsn::Lsn;
use tokio::task::JoinHandle;

/// A stream that is about to begin needs no questions.
const PATIENCE_MS: u64 = 1000;

/// What has been asked of an upstream from which nothing comes.
#[derive(Debug)]
pub struct Question {
    upstream: Upstream,
    end: Lsn,
    since: Millis,
    task: Option<JoinHandle<Option<Answer>>>,
    answer: Answer,
}

/// What it has not got.
type Answer = Option<Lack>;

impl Drop for Question {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Node {
    /// What the upstream is known to have not got.
    pub async fn upstream_lacks(&mut self, file: &File, server: Option<&Server>) -> Option<Lack> {
        let waiting = server.filter(|server| server.in_recovery && !server.streaming);
        let (Some(upstream), Some(end)) = (&file.upstream, waiting.and_then(|s| s.end)) else {
            self.seen.question = None;
            return None;
        };
        let now = clock::now();
        let same = |q: &Question| q.upstream == *upstream && q.end == end;
        let mut question = match self.seen.question.take().filter(same) {
            Some(question) => question,
            None => {
                Question { upstream: upstream.clone(), end, since: now, task: None, answer: None }
            }
        };
        if let Some(task) = question.task.take_if(|task| task.is_finished()) {
            // No answer is no reason for anything.
            question.answer = task.await.ok().flatten().flatten();
            question.since = now;
        }
        if question.task.is_none()
            && question.answer.is_none()
            && now.since(question.since) >= PATIENCE_MS
        {
            question.task = self.ask_upstream(upstream, end);
        }
        let answer = question.answer;
        self.seen.question = Some(question);
        answer
    }

    fn ask_upstream(&self, upstream: &Upstream, end: Lsn) -> Option<JoinHandle<Option<Answer>>> {
        let (node, slot) = match upstream {
            Upstream::Member { node, admission } => {
                (*node, Some(self.id.admission_slot(*admission)))
            }
            Upstream::Fetch { node } => (*node, None),
        };
        let member = self.persisted()?.assignment.member(node)?;
        let target = self.replicator_at(member);
        Some(tokio::spawn(async move {
            let session = Session::connect(&target, SQL_LIMIT).await.ok()?;
            if !session.keeps_wal_from(end).await.ok()? {
                return Some(Some(Lack::Wal));
            }
            let Some(slot) = slot else { return Some(None) };
            let slots = session.slots().await.ok()?;
            Some(match slots.into_iter().find(|own| own.name == slot) {
                Some(own) => own.is_lost().then_some(Lack::Wal),
                None => Some(Lack::Slot),
            })
        }))
    }
}
