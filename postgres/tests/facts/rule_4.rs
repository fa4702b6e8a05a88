//! Rule 4, positions: when the end of local WAL is known after a restart.

use crate::node::Node;
use crate::stage::{LOOK_AGAIN, Stage, meanwhile};
use postgres::postmaster::Signal;
use postgres::session::standby::RETRY_WAIT;
use shared::lsn::Lsn;

/// For `recovery_min_apply_delay`, in milliseconds: longer than any test.
const DELAY: &str = "3600000";

const SOME: &str = "SELECT pg_logical_emit_message(true, '', repeat('x', 100000))";

fact!(
    after_a_restart,
    "9 (position after a restart)",
    "received is NULL and replayed too low until the startup process waits in RecoveryRetrieveRetryInterval, then it is the end; a delay or a pause never shows that sign"
);

pub async fn after_a_restart(stage: &Stage) {
    let a = stage.primary(1, &[]).await;
    let mut b = stage.standby(2, &a).await;
    b.apply(&[("recovery_min_apply_delay", DELAY)]).await;
    let on_a = a.connect().await;
    for _ in 0..5 {
        on_a.execute(SOME).await.unwrap();
    }
    a.streams_to(&b).await;
    b.startup_waits_for("RecoveryApplyDelay").await;
    let end = b.received().await.unwrap();

    b.write(&[("primary_conninfo", "")]);
    b.stop(Signal::ImmediateStop).await;
    b.start().await;
    b.startup_waits_for("RecoveryApplyDelay").await;
    no_position(&b, end).await;

    b.connect().await.execute("SELECT pg_wal_replay_pause()").await.unwrap();
    b.apply(&[("recovery_min_apply_delay", "0")]).await;
    b.startup_waits_for("RecoveryPause").await;
    no_position(&b, end).await;

    b.connect().await.resume_replay().await.unwrap();
    let position = b.sealed().await;
    assert!(position >= end, "{position} of {end}");
    assert_eq!(b.received().await, None);

    // From the first moment on: the sign is never too early.
    for _ in 0..3 {
        b.stop(Signal::ImmediateStop).await;
        b.start().await;
        assert_eq!(b.sealed().await, position);
        assert_eq!(b.received().await, None);
    }
}

/// Replay is behind, and nothing says that it had reached the end.
async fn no_position(node: &Node, end: Lsn) {
    meanwhile("no sign of a position", async || {
        let signs = node.seal_signs().await;
        let recovery = node.connect().await.recovery().await.unwrap();
        let fine = signs.conninfo_empty
            && signs.sealed_position().is_none()
            && recovery.receive_lsn.is_none()
            && recovery.replay_lsn.is_some_and(|replayed| replayed < end);
        if fine { Ok(()) } else { Err(format!("{signs:?}, {recovery:?}, the end is {end}")) }
    })
    .await;
}

fact!(
    crashed_primary,
    "9 (position after a restart)",
    "a crashed primary that is started as a sealed standby shows at least what it had flushed"
);

pub async fn crashed_primary(stage: &Stage) {
    let mut a = stage.primary(1, &[("primary_conninfo", "")]).await;
    let session = a.connect().await;
    let begun = session.flush_lsn().await.unwrap();
    let writer = a.connect().await;
    let writer = tokio::spawn(async move { while writer.execute(SOME).await.is_ok() {} });
    let mut flushed = begun;
    while flushed.bytes_since(begun) < 3_000_000 {
        tokio::time::sleep(LOOK_AGAIN).await;
        flushed = session.flush_lsn().await.unwrap();
    }
    a.stop(Signal::ImmediateStop).await;
    writer.await.unwrap();

    a.instance.data_dir.set_standby(&a.instance.owner).unwrap();
    a.start().await;
    let position = a.sealed().await;
    assert!(position >= flushed, "{position} of {flushed}");
    let recovery = a.connect().await.recovery().await.unwrap();
    assert_eq!(recovery.startup_wait_event.as_deref(), Some(RETRY_WAIT));
    assert_eq!(recovery.receive_lsn, None);
}
