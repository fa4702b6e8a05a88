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

/// A stream that is about to begin needs no questions, and neither does one that has held for so long: an
/// upstream that lacks what comes next lets a stream begin, and ends it with its first message.
const PATIENCE_MS: u64 = 1000;

/// What has been asked of an upstream from which nothing comes.
#[derive(Debug)]
pub struct Question {
    upstream: Upstream,
    end: Lsn,
    since: Millis,
    /// Since when a stream has been seen again.
    streams_since: Option<Millis>,
    task: Option<JoinHandle<Option<Answer>>>,
    answer: Answer,
}

/// What it has not got.
type Answer = Option<Lack>;

impl Question {
    fn new(upstream: Upstream, end: Lsn, since: Millis) -> Self {
        Self { upstream, end, since, streams_since: None, task: None, answer: None }
    }

    /// What is left of it once a stream is seen: nothing, if that holds.
    fn beside_a_stream(mut self, now: Millis) -> Option<Self> {
        let since = *self.streams_since.get_or_insert(now);
        (now.since(since) < PATIENCE_MS).then_some(self)
    }
}

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
        let standby = server.filter(|server| server.in_recovery);
        let end = standby.and_then(|server| server.end);
        let (Some(upstream), Some(server), Some(end)) = (&file.upstream, standby, end) else {
            self.seen.question = None;
            return None;
        };
        let now = clock::now();
        let same = |q: &Question| q.upstream == *upstream && q.end == end;
        let before = self.seen.question.take().filter(same);
        if server.streaming {
            self.seen.question = before.and_then(|question| question.beside_a_stream(now));
            return None;
        }
        let mut question = before.unwrap_or_else(|| Question::new(upstream.clone(), end, now));
        question.streams_since = None;
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

#[cfg(test)]
mod tests {
    use super::*;
    use shared::ids::NodeId;

    #[test]
    fn only_a_stream_that_holds_makes_questions_needless() {
        let at = |ms| Millis(ms);
        let asked = Question::new(Upstream::Fetch { node: NodeId(1) }, Lsn(7), at(0));
        let asked = asked.beside_a_stream(at(500)).unwrap();
        let asked = asked.beside_a_stream(at(1400)).unwrap();
        assert_eq!(asked.since, at(0), "its patience goes on");
        assert!(asked.beside_a_stream(at(1500)).is_none());
    }
}
