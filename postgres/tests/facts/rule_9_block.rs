//! Rule 9: nothing is acknowledged from the first moment of a primary that starts, or is promoted, with
//! the blocking spec in its file.

use crate::harness::{LIMIT, eventually};
use crate::node::Node;
use crate::stage::{FACT_LIMIT, LOOK_AGAIN, Stage, any, holds, meanwhile};
use postgres::postmaster::Signal;
use postgres::session::primary::{Probe, Walsender};
use postgres::session::{Session, SessionError, Target};
use shared::spec::Spec;
use tokio::task::JoinHandle;
use tokio_postgres::error::SqlState;

/// How many commits are tried from the first moment on.
const CLIENTS: usize = 4;

/// Clients that commit as soon as they can, once each.
struct Clients(Vec<JoinHandle<Result<Probe, SessionError>>>);

impl Clients {
    fn begin(node: &Node) -> Self {
        let target = node.target();
        Self((0..CLIENTS).map(|_| tokio::spawn(first_commit(target.clone()))).collect())
    }

    /// All of them wait for standbys, and go on doing so.
    async fn wait(&self, node: &Node) {
        let watcher = node.connect().await;
        let all = format!(
            "(SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep') = {CLIENTS}"
        );
        eventually("the first commits wait", async || {
            assert_eq!(self.none_returned(), Ok(()));
            if holds(&watcher, &all).await { Ok(()) } else { Err("not all".to_owned()) }
        })
        .await;
        meanwhile("the first commits wait", async || self.none_returned()).await;
    }

    fn none_returned(&self) -> Result<(), String> {
        let returned = self.0.iter().filter(|client| client.is_finished()).count();
        if returned == 0 { Ok(()) } else { Err(format!("{returned} commits returned")) }
    }

    /// All of them are acknowledged.
    async fn return_all(self) {
        for client in self.0 {
            assert_eq!(client.await.unwrap().unwrap(), Probe::Released);
        }
    }
}

/// Connects and commits, again and again until a server takes it; then waits with it.
async fn first_commit(target: Target) -> Result<Probe, SessionError> {
    loop {
        match Session::connect(&target, LIMIT).await {
            Ok(session) => match session.probe(FACT_LIMIT).await {
                // In recovery still: "cannot assign TransactionIds" (varsup.c), which has no code of its own.
                Err(error) if error.code() == Some(&SqlState::INTERNAL_ERROR) => {}
                outcome => return outcome,
            },
            Err(SessionError::Refused { .. } | SessionError::NotNow { .. }) => {}
            Err(error) => return Err(error),
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

fact!(
    restarted,
    "4 (standby that is promoted with BLOCK in its file)",
    "a primary that starts with the blocking spec in its file acknowledges no commit from the first moment on"
);

pub async fn restarted(stage: &Stage) {
    let block = Spec::blocking_setting();
    let mut a = stage.primary(1, &[("synchronous_standby_names", &block)]).await;
    for signal in [Signal::FastStop, Signal::ImmediateStop] {
        a.stop(signal).await;
        let clients = Clients::begin(&a);
        a.start().await;
        clients.wait(&a).await;
    }
}

fact!(
    promoted,
    "4 (standby that is promoted with BLOCK in its file)",
    "a standby promoted with the blocking spec in its file acknowledges no commit from the first one on, also with a standby of its own attached"
);

pub async fn promoted(stage: &Stage) {
    let block = Spec::blocking_setting();
    let a = stage.primary(1, &[]).await;
    let mut b = stage.standby(2, &a).await;
    b.apply_spec(&block).await;
    let c = stage.copy(3, &b).await;
    a.stop(Signal::ImmediateStop).await;
    let silent = |row: &Walsender| row.flush_lsn.is_some() && row.sync_priority == 0;
    b.sees(&c, "a standby of a standby", silent).await;

    let clients = Clients::begin(&b);
    b.promote().await;
    clients.wait(&b).await;
    b.streams_to(&c).await;
    assert_eq!(b.walsender_of(&c).await.unwrap().sync_priority, 0);
    clients.none_returned().unwrap();

    b.apply_spec(&any(1, &[&c])).await;
    b.sees(&c, "counts", |row| row.sync_priority == 1).await;
    b.connect().await.write_record().await.unwrap();
    clients.return_all().await;
}
