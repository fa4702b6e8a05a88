//! Whether the upstream still has the WAL that this node lacks. PostgreSQL says it in its logs only,
//! and asks for ever; a node that can never stream again has to be copied anew.
//!
//! Asked in the background: an upstream that does not answer must not hold up anything else.

use crate::clock;
use crate::node::{Node, SQL_LIMIT};
use fsm::Millis;
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
    task: Option<JoinHandle<Option<bool>>>,
    /// It has not got what comes after `end`.
    gone: bool,
}

impl Drop for Question {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Node {
    /// Whether the upstream is known to lack the WAL from the local end of log on.
    pub async fn is_wal_gone(&mut self, file: &File, server: Option<&Server>) -> bool {
        let waiting = server.filter(|server| server.in_recovery && !server.streaming);
        let (Some(upstream), Some(end)) = (&file.upstream, waiting.and_then(|s| s.end)) else {
            self.seen.question = None;
            return false;
        };
        let now = clock::now();
        let same = |q: &Question| q.upstream == *upstream && q.end == end;
        let mut question = match self.seen.question.take().filter(same) {
            Some(question) => question,
            None => {
                Question { upstream: upstream.clone(), end, since: now, task: None, gone: false }
            }
        };
        if let Some(task) = question.task.take_if(|task| task.is_finished()) {
            // No answer is no reason for anything.
            question.gone = task.await.ok().flatten() == Some(false);
            question.since = now;
        }
        if question.task.is_none() && !question.gone && now.since(question.since) >= PATIENCE_MS {
            question.task = self.ask_upstream(upstream, end);
        }
        let gone = question.gone;
        self.seen.question = Some(question);
        gone
    }

    fn ask_upstream(&self, upstream: &Upstream, end: Lsn) -> Option<JoinHandle<Option<bool>>> {
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
                return Some(false);
            }
            let slots = session.slots().await.ok()?;
            let own = slots.into_iter().find(|own| Some(&own.name) == slot.as_ref());
            Some(!own.is_some_and(|own| own.is_lost()))
        }))
    }
}
