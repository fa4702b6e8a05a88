//! A fast stop that would wait for the archiver, and what ending that one leaves behind (section 12).

use crate::harness::LIMIT;
use crate::node::Node;
use crate::stage::{Stage, holds};
use postgres::control::ClusterState;
use postgres::instance::Instance;
use postgres::postmaster::Signal;
use std::time::{Duration, Instant};

/// Longer than any test.
const HANGS: [(&str, &str); 2] = [("archive_mode", "always"), ("archive_command", "sleep 1000")];

/// A second for an archiver that works, half of one for the end, and the rest for a loaded machine.
const SOON: Duration = Duration::from_secs(6);

fact!(
    hanging_archive_command,
    "12 (archiver)",
    "once the control file says 'shut down' the archiver can be ended: nothing is recovered, statistics and segments to be archived stay"
);

pub async fn hanging_archive_command(stage: &Stage) {
    let mut a = stage.primary(1, &HANGS).await;
    let session = a.connect().await;
    session.execute("CREATE TABLE t AS SELECT generate_series(1, 100)").await.unwrap();
    session.execute("SELECT count(*) FROM t").await.unwrap();
    session.execute("SELECT pg_switch_wal()").await.unwrap();
    stops_soon(&a).await;
    assert_eq!(a.instance.control_data().await.unwrap().state, ClusterState::ShutDown);
    let waiting = archive_status(&a.instance, ".ready");
    assert!(!waiting.is_empty());

    a.write(&[("archive_command", "true")]);
    a.start().await;
    let log = a.server.log_tail().await;
    assert!(log.contains("database system was shut down at"), "{log}");
    assert!(!log.contains("recovery"), "{log}");
    let session = a.connect().await;
    assert!(
        holds(&session, "(SELECT seq_scan > 0 FROM pg_stat_user_tables)").await,
        "no statistics"
    );
    crate::harness::eventually("the archiver", async || {
        let left = archive_status(&a.instance, ".ready");
        if left.iter().any(|left| waiting.contains(left)) { Err(left.join(", ")) } else { Ok(()) }
    })
    .await;
}

fact!(
    hanging_on_a_standby,
    "12 (archiver)",
    "a standby that archives is held up in the same way, and ends shut down in recovery"
);

pub async fn hanging_on_a_standby(stage: &Stage) {
    let a = stage.primary(1, &[]).await;
    let mut b = stage.standby(2, &a).await;
    b.stop(Signal::FastStop).await;
    b.write(&HANGS);
    b.start().await;
    let session = a.connect().await;
    for _ in 0..2 {
        session.execute("SELECT pg_logical_emit_message(true, '', '')").await.unwrap();
        session.execute("SELECT pg_switch_wal()").await.unwrap();
    }
    a.streams_to(&b).await;
    stops_soon(&b).await;
    let state = b.instance.control_data().await.unwrap().state;
    assert_eq!(state, ClusterState::ShutDownInRecovery);
}

async fn stops_soon(node: &Node) {
    crate::harness::eventually("a segment to archive", async || {
        let waiting = archive_status(&node.instance, ".ready");
        if waiting.is_empty() { Err("none".to_owned()) } else { Ok(()) }
    })
    .await;
    let began = Instant::now();
    let stages = [(Signal::FastStop, LIMIT)];
    assert_eq!(node.server.stop(&stages).await.unwrap(), Some(Signal::FastStop));
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

/// The names in `archive_status` that end so.
fn archive_status(instance: &Instance, end: &str) -> Vec<String> {
    let dir = instance.data_dir.join("pg_wal/archive_status");
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.ends_with(end)).collect()
}
