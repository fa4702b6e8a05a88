//! The commit that is watched: W in docs/postgres-facts.md.

use crate::harness::{LIMIT, eventually};
use crate::node::Node;
use crate::stage::{FACT_LIMIT, LOOK};
use postgres::session::primary::{Probe, SYNC_WAIT};
use postgres::session::{Session, SessionError};
use tokio::task::JoinHandle;

/// A commit that has been sent.
pub struct Commit {
    pid: i32,
    task: JoinHandle<Result<Probe, SessionError>>,
}

impl Commit {
    /// The probe that ships, under `synchronous_commit = on`.
    pub async fn probe(on: &Node) -> Self {
        let session = connect(on).await;
        let pid = session.backend_pid();
        Self { pid, task: tokio::spawn(async move { session.probe(FACT_LIMIT).await }) }
    }

    /// A statement of its own, under any `synchronous_commit`.
    pub async fn of(on: &Node, level: &str, sql: &'static str) -> Self {
        let session = connect(on).await;
        // In a message of its own: it counts for the statements after its message.
        session.execute(&format!("SET synchronous_commit = {level}")).await.unwrap();
        let pid = session.backend_pid();
        Self { pid, task: tokio::spawn(run(session, sql)) }
    }

    /// It is seen waiting for standbys, and goes on waiting for as long as is looked.
    pub async fn waits(&mut self, on: &Node) {
        let watcher = on.connect().await;
        eventually("a commit that waits", async || {
            assert!(!self.task.is_finished(), "the commit has returned");
            match watcher.backend_wait_event(self.pid).await.unwrap() {
                Some(event) if event == SYNC_WAIT => Ok(()),
                other => Err(format!("it waits for {other:?}")),
            }
        })
        .await;
        self.stays().await;
    }

    /// It does not return for as long as is looked.
    pub async fn stays(&mut self) {
        if let Ok(outcome) = tokio::time::timeout(LOOK, &mut self.task).await {
            panic!("the commit returned: {outcome:?}");
        }
    }

    /// It returns as acknowledged: by itself, without a warning.
    pub async fn returns(self) {
        let Ok(outcome) = tokio::time::timeout(LIMIT, self.task).await else {
            panic!("the commit goes on waiting");
        };
        assert_eq!(outcome.unwrap().unwrap(), Probe::Released);
    }

    /// Commits again and again, until one is seen waiting: step (i) ends with that.
    pub async fn first_that_waits(on: &Node) -> Self {
        eventually("a commit that waits", async || {
            let commit = Self::probe(on).await;
            if commit.is_seen_waiting(on).await {
                Ok(commit)
            } else {
                Err("it returned".to_owned())
            }
        })
        .await
    }

    /// Whether it is seen waiting; else it has returned.
    async fn is_seen_waiting(&self, on: &Node) -> bool {
        let watcher = on.connect().await;
        eventually("a commit that waits or has returned", async || {
            if self.task.is_finished() {
                return Ok(false);
            }
            match watcher.backend_wait_event(self.pid).await.unwrap() {
                Some(event) if event == SYNC_WAIT => Ok(true),
                other => Err(format!("it waits for {other:?}")),
            }
        })
        .await
    }
}

/// A session whose statements may take as long as the whole look at a fact.
async fn connect(on: &Node) -> Session {
    Session::connect(&on.target(), FACT_LIMIT).await.unwrap()
}

async fn run(session: Session, sql: &str) -> Result<Probe, SessionError> {
    drop(session.take_notices());
    session.execute(sql).await?;
    let warning = session.take_notices().into_iter().find(|notice| notice.is_warning);
    Ok(warning.map_or(Probe::Released, Probe::Cancelled))
}
