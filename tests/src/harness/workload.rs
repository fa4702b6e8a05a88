//! Writers: one that is connected straight to each node, whatever that node is, and one that finds
//! the primary by itself as an application would, by a list of hosts.
//!
//! The writers on the nodes try wherever somebody takes writes, so a second primary is noticed. On a
//! standby they only look again and again whether it is one still.

mod writer;

use super::history::{Attempt, History};
use super::sql::Sql;
use super::wait::{DEADLINE, eventually};
use crate::network::Host;
use anyhow::{Context as _, Result};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use writer::Writer;

/// The table that is written to. No key: a row that is there twice shall be seen.
const TABLE: &str = "create table if not exists ledger (\
    writer int not null, id bigint not null, at timestamptz not null default clock_timestamp())";

/// The attempts so far, shared by the writers.
type Ledger = Arc<Mutex<Vec<Attempt>>>;

/// Writers at work. They stop when it is dropped.
#[derive(Debug)]
pub struct Workload {
    ledger: Ledger,
    stop: watch::Sender<bool>,
    writers: JoinSet<()>,
}

impl Workload {
    /// Makes the table on the primary and starts a writer to each node and one to all of them.
    pub async fn start(primary: SocketAddr, nodes: &[SocketAddr]) -> Result<Self> {
        Sql::connect(primary).await?.run(TABLE).await.context("cannot make the table")?;
        let (stop, _) = watch::channel(false);
        let mut workload = Self { ledger: Ledger::default(), stop, writers: JoinSet::new() };
        let targets = nodes.iter().map(|node| vec![*node]).chain([nodes.to_vec()]);
        for (number, nodes) in (1..).zip(targets) {
            workload.start_writer(number, &nodes);
        }
        workload.goes_on().await?;
        Ok(workload)
    }

    fn start_writer(&mut self, number: i32, nodes: &[SocketAddr]) {
        self.writers.spawn(self.writer(number, nodes));
    }

    /// Starts a writer on a host of its own, which may be cut off together with the node that it writes to.
    pub fn start_writer_on(&mut self, host: &Host, node: SocketAddr) -> Result<()> {
        // Its end is awaited like that of the others.
        let (done, ended) = oneshot::channel();
        let number = i32::try_from(self.writers.len())? + 1;
        let writer = self.writer(number, &[node]);
        host.spawn(async move {
            writer.await;
            // Nobody waits where the workload was dropped.
            let _ = done.send(());
        })?;
        self.writers.spawn(async move { drop(ended.await) });
        Ok(())
    }

    fn writer(&self, number: i32, nodes: &[SocketAddr]) -> impl Future<Output = ()> + 'static {
        let writer = Writer::new(number, nodes, Arc::clone(&self.ledger));
        let mut stop = self.stop.subscribe();
        async move {
            tokio::select! {
                () = writer.run(stop.clone()) => {}
                // A writer whose attempt hangs is left behind after a while.
                () = async {
                    // An error means that the workload was dropped.
                    drop(stop.wait_for(|stop| *stop).await);
                    tokio::time::sleep(writer::ATTEMPT_LIMIT).await;
                } => {}
            }
        }
    }

    /// Waits until a write that begins from now on is acknowledged.
    pub async fn goes_on(&self) -> Result<()> {
        self.goes_on_for(Duration::ZERO).await
    }

    /// Waits until a write is acknowledged that begins so long from now.
    pub async fn goes_on_for(&self, span: Duration) -> Result<()> {
        let since = Instant::now() + span;
        eventually("an acknowledged write", span + DEADLINE, async || {
            let ledger = self.ledger();
            let acknowledged = |a: &&Attempt| a.acknowledged_by().is_some();
            let last = ledger.iter().rev().find(acknowledged).map(|a| a.started);
            Ok(match last {
                Some(last) if last >= since => Ok(()),
                Some(last) => Err(format!("the last one began {:?} ago", last.elapsed())),
                None => Err("there was none yet".to_owned()),
            })
        })
        .await
    }

    /// How many writes have been acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.ledger().iter().filter(|attempt| attempt.acknowledged_by().is_some()).count()
    }

    /// Waits until so many more writes are acknowledged.
    pub async fn acknowledges(&self, more: usize) -> Result<()> {
        let wanted = self.acknowledged() + more;
        eventually("acknowledged writes", DEADLINE, async || {
            let count = self.acknowledged();
            Ok(if count >= wanted { Ok(()) } else { Err(format!("{count} of {wanted}")) })
        })
        .await
    }

    /// What has happened so far.
    pub fn so_far(&self) -> History {
        History::new(self.ledger().clone(), Instant::now())
    }

    /// Stops the writers.
    pub async fn finish(mut self) -> History {
        self.stop.send_replace(true);
        while self.writers.join_next().await.is_some() {}
        self.so_far()
    }

    fn ledger(&self) -> MutexGuard<'_, Vec<Attempt>> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
