//! Writers: one that is connected straight to each node, whatever that node is, and one that finds
//! the primary by itself as an application would, by a list of hosts. And callers, for tests that ask
//! for them: they share registers and lists.
//!
//! The writers on the nodes try wherever somebody takes writes, so a second primary is noticed. On a
//! standby they only look again and again whether it is one still.

mod caller;
mod session;
mod writer;

use super::history::{Attempt, History};
use super::sql::Sql;
use super::wait::{DEADLINE, eventually};
use crate::network::Host;
use anyhow::{Context as _, Result};
use caller::{Caller, Shared};
use session::{ATTEMPT_LIMIT, Work, to_nodes};
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

/// Clients at work. They stop when it is dropped.
#[derive(Debug)]
pub struct Workload {
    nodes: Vec<SocketAddr>,
    ledger: Ledger,
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    clients: JoinSet<()>,
}

impl Workload {
    /// Makes the tables on the primary and starts a writer to each node and one to all of them.
    pub async fn start(primary: SocketAddr, nodes: &[SocketAddr]) -> Result<Self> {
        let tables = format!("{TABLE}; {}", caller::tables());
        Sql::connect(primary).await?.run(&tables).await.context("cannot make the tables")?;
        let (stop, _) = watch::channel(false);
        let mut workload = Self {
            nodes: nodes.to_vec(),
            ledger: Ledger::default(),
            shared: Arc::default(),
            stop,
            clients: JoinSet::new(),
        };
        for nodes in nodes.iter().map(|node| vec![*node]).chain([nodes.to_vec()]) {
            let writer = Writer::new(workload.next_number(), Arc::clone(&workload.ledger));
            workload.clients.spawn(workload.client(&nodes, writer));
        }
        workload.goes_on().await?;
        Ok(workload)
    }

    /// Starts a writer on a host of its own, which may be cut off together with the node that it writes to.
    pub fn start_writer_on(&mut self, host: &Host, node: SocketAddr) -> Result<()> {
        let writer = Writer::new(self.next_number(), Arc::clone(&self.ledger));
        self.spawn_on(host, self.client(&[node], writer))
    }

    /// Starts so many callers, which find the primary by the list of nodes.
    pub fn start_callers(&mut self, count: usize) {
        for _ in 0..count {
            let caller = Caller::new(self.next_number(), Arc::clone(&self.shared));
            self.clients.spawn(self.client(&self.nodes, caller));
        }
    }

    /// Starts a caller on a host of its own, on one node.
    pub fn start_caller_on(&mut self, host: &Host, node: SocketAddr) -> Result<()> {
        let caller = Caller::new(self.next_number(), Arc::clone(&self.shared));
        self.spawn_on(host, self.client(&[node], caller))
    }

    /// Of the client to be started next.
    fn next_number(&self) -> i32 {
        i32::try_from(self.clients.len()).unwrap_or(i32::MAX).saturating_add(1)
    }

    /// Its end is awaited like that of the others.
    fn spawn_on(
        &mut self,
        host: &Host,
        client: impl Future<Output = ()> + Send + 'static,
    ) -> Result<()> {
        let (done, ended) = oneshot::channel();
        host.spawn(async move {
            client.await;
            // Nobody waits where the workload was dropped.
            let _ = done.send(());
        })?;
        self.clients.spawn(async move { drop(ended.await) });
        Ok(())
    }

    fn client<W: Work + 'static>(
        &self,
        nodes: &[SocketAddr],
        work: W,
    ) -> impl Future<Output = ()> + use<W> {
        let mut stop = self.stop.subscribe();
        let working = session::run(to_nodes(nodes), work, stop.clone());
        async move {
            tokio::select! {
                () = working => {}
                // A client whose attempt hangs is left behind after a while.
                () = async {
                    // An error means that the workload was dropped.
                    drop(stop.wait_for(|stop| *stop).await);
                    tokio::time::sleep(ATTEMPT_LIMIT).await;
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

    /// Waits until an operation that begins from now on is acknowledged, and a write.
    pub async fn callers_go_on(&self) -> Result<()> {
        let since = Instant::now();
        self.goes_on().await?;
        eventually("an acknowledged operation", DEADLINE, async || {
            let operations = self.shared.operations();
            let last = operations.iter().rev().find(|operation| operation.reply().is_some());
            Ok(match last.map(|operation| operation.started) {
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
        let operations = self.shared.operations().clone();
        History::new(self.ledger().clone(), Instant::now()).with_operations(operations)
    }

    /// Stops the clients.
    pub async fn finish(mut self) -> History {
        self.stop.send_replace(true);
        while self.clients.join_next().await.is_some() {}
        self.so_far()
    }

    fn ledger(&self) -> MutexGuard<'_, Vec<Attempt>> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
