//! Rule 3, the seal by reload: what its signs prove, and when they do not come (C19 of docs/safety.md).

use crate::commit::Commit;
use crate::harness::eventually;
use crate::node::Node;
use crate::stage::{FACT_LIMIT, Stage, any, meanwhile};
use postgres::postmaster::Signal;
use postgres::session::primary::Probe;
use shared::lsn::Lsn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// For `recovery_min_apply_delay`, in milliseconds: longer than any test.
const DELAY: &str = "3600000";

fact!(
    by_reload,
    "10 (seal)",
    "after a reload with empty primary_conninfo the signs come, with a position behind all that was acknowledged through it, and what was received does not move afterwards"
);

pub async fn by_reload(stage: &Stage) {
    let (a, mut b) = pair(stage).await;
    let load = Load::on(&a).await;
    let signs = b.seal_signs().await;
    assert!(!signs.is_sealed() && signs.walreceivers == 1, "{signs:?}");
    let before = load.wait_for_more(Lsn(0)).await;
    load.wait_for_more(before).await;

    b.apply(&[("primary_conninfo", "")]).await;
    let position = b.sealed().await;
    let received = b.received().await;
    assert!(received.is_some_and(|received| received <= position));
    meanwhile("the seal holds", async || {
        let signs = b.seal_signs().await;
        let fine = signs.sealed_position() == Some(position) && b.received().await == received;
        if fine { Ok(()) } else { Err(format!("{signs:?}, sealed at {position}")) }
    })
    .await;
    Commit::probe(&a).await.waits(&a).await;
    assert!(a.flushed().await > position, "there was something to receive");
    let acknowledged = load.acknowledged();
    assert!(acknowledged < position, "{acknowledged} is acknowledged, {position} is on B");
}

/// Commits, one after the other, for as long as they are acknowledged.
struct Load(Arc<AtomicU64>);

impl Load {
    async fn on(node: &Node) -> Self {
        let session = node.connect().await;
        let acknowledged = Arc::new(AtomicU64::new(0));
        let shared = Arc::clone(&acknowledged);
        tokio::spawn(async move {
            loop {
                let begin = session.insert_lsn().await.unwrap();
                if !matches!(session.probe(FACT_LIMIT).await, Ok(Probe::Released)) {
                    return;
                }
                shared.store(begin.0, Ordering::Relaxed);
            }
        });
        Self(acknowledged)
    }

    /// Where the last commit that was acknowledged begins.
    fn acknowledged(&self) -> Lsn {
        Lsn(self.0.load(Ordering::Relaxed))
    }

    async fn wait_for_more(&self, than: Lsn) -> Lsn {
        eventually("commits under load", async || {
            let now = self.acknowledged();
            if now > than { Ok(now) } else { Err(format!("the last begins at {now}")) }
        })
        .await
    }
}

fact!(
    paused,
    "10 (seal)",
    "with replay paused the walreceiver goes on after the reload, and a commit is acknowledged through it; a restart with the same files seals"
);

pub async fn paused(stage: &Stage) {
    let (mut a, mut b) = pair(stage).await;
    b.connect().await.execute("SELECT pg_wal_replay_pause()").await.unwrap();
    a.connect().await.write_record().await.unwrap();
    b.startup_waits_for("RecoveryPause").await;
    goes_on(&a, &mut b).await;

    b.stop(Signal::FastStop).await;
    b.start().await;
    b.sealed().await;
    no_more(&mut a, &b).await;
}

fact!(
    delayed,
    "10 (seal)",
    "with recovery_min_apply_delay the walreceiver goes on after the reload, and a commit is acknowledged through it; after a restart with the same files there is none"
);

pub async fn delayed(stage: &Stage) {
    let (mut a, mut b) = pair(stage).await;
    b.apply(&[("recovery_min_apply_delay", DELAY)]).await;
    Commit::probe(&a).await.returns().await;
    b.startup_waits_for("RecoveryApplyDelay").await;
    goes_on(&a, &mut b).await;

    b.stop(Signal::FastStop).await;
    b.start().await;
    no_more(&mut a, &b).await;
    // Nobody answers, but the position is known only when the delay is over.
    assert!(!b.seal_signs().await.is_sealed());
    b.apply(&[("recovery_min_apply_delay", "0")]).await;
    b.sealed().await;
}

/// A under `ANY 1 (B)`.
async fn pair(stage: &Stage) -> (Node, Node) {
    let mut a = stage.primary(1, &[]).await;
    let b = stage.standby(2, &a).await;
    a.apply_spec(&any(1, &[&b])).await;
    a.sees(&b, "counts", |row| row.sync_priority == 1).await;
    Commit::probe(&a).await.returns().await;
    (a, b)
}

/// The hole: the file is empty, a new connection shows it, and B acknowledges.
async fn goes_on(a: &Node, b: &mut Node) {
    b.apply(&[("primary_conninfo", "")]).await;
    meanwhile("the walreceiver goes on", async || {
        let signs = b.seal_signs().await;
        let fine = signs.conninfo_empty && signs.walreceivers == 1 && !signs.is_sealed();
        if fine { Ok(()) } else { Err(format!("{signs:?}")) }
    })
    .await;
    Commit::probe(a).await.returns().await;
    let receiver = b.connect().await.recovery().await.unwrap().receiver.unwrap();
    assert_eq!(receiver.status, "streaming");
}

/// B receives and acknowledges nothing.
async fn no_more(a: &mut Node, b: &Node) {
    Commit::probe(a).await.waits(a).await;
    let recovery = b.connect().await.recovery().await.unwrap();
    assert_eq!((recovery.walreceivers, recovery.receiver, recovery.receive_lsn), (0, None, None));
}
