//! Copies, standbys, seals, the end of the log, promotions, rewinds.

use crate::harness::{
    LIMIT, Place, clone, configure, connect, eventually, follow, source, start, stop,
};
use postgres::backup::{self, BackupOptions};
use postgres::control::ClusterState;
use postgres::datadir::Contents;
use postgres::instance::Instance;
use postgres::postmaster::Signal;
use postgres::process;
use postgres::rewind::{self, RewindOptions, Rewound};
use postgres::session::standby::RETRY_WAIT;
use postgres::timelines;
use shared::ids::TimelineId;
use shared::lsn::Lsn;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

const SEGMENT: u64 = 16 << 20;

async fn wait_streaming(primary: &Instance, application_name: &str) {
    let session = connect(primary).await;
    eventually("streaming", async || {
        let rows = session.replication().await.unwrap();
        let end = session.flush_lsn().await.unwrap();
        let fine = rows.iter().any(|row| {
            row.application_name == application_name
                && row.state == "streaming"
                && row.flush_lsn.is_some_and(|lsn| lsn >= end)
        });
        if fine { Ok(()) } else { Err(format!("{rows:?}, end {end}")) }
    })
    .await;
}

/// Seals a running standby by reload and returns its position.
async fn seal(standby: &Instance, server: &postgres::postmaster::Postmaster) -> Lsn {
    configure(standby, &[]);
    server.signal(Signal::Reload).unwrap();
    eventually("the signs of the seal", async || {
        let signs = connect(standby).await.seal_signs().await.unwrap();
        signs.sealed_position().ok_or(format!("{signs:?}"))
    })
    .await
}

#[tokio::test]
async fn a_standby_streams_and_is_sealed() {
    let place = Place::new();
    let (a, b) = (place.cluster("a").await, place.instance("b"));
    start(&a).await;
    let on_a = connect(&a).await;
    on_a.create_slot("pgtandem_2_7", false).await.unwrap();
    clone(&a, &b, "pgtandem_2", "pgtandem_2_7").await;
    let server = start(&b).await;
    wait_streaming(&a, "pgtandem_2").await;
    let row = on_a.replication().await.unwrap().remove(0);
    assert_eq!(row.slot_name.as_deref(), Some("pgtandem_2_7"));
    assert_eq!(row.sync_priority, 0);
    assert!(row.reply_time.is_some());

    let on_b = connect(&b).await;
    let recovery = on_b.recovery().await.unwrap();
    assert!(recovery.in_recovery && !recovery.replay_paused);
    assert_eq!(recovery.walreceivers, 1);
    let receiver = recovery.receiver.unwrap();
    assert_eq!(receiver.status, "streaming");
    assert_eq!(receiver.received_timeline, Some(TimelineId(1)));
    assert_eq!(recovery.primary_slot_name, "pgtandem_2_7");
    let signs = on_b.seal_signs().await.unwrap();
    assert!(!signs.is_sealed() && !signs.conninfo_empty, "{signs:?}");

    let position = seal(&b, &server).await;
    assert_eq!(position, on_a.flush_lsn().await.unwrap());
    // The old session goes on showing the setting that it has.
    on_a.write_record().await.unwrap();
    assert_eq!(seal(&b, &server).await, position);
    // The same position after a restart.
    stop(&server, Signal::ImmediateStop).await;
    let server = start(&b).await;
    assert_eq!(seal(&b, &server).await, position);
    let recovery = connect(&b).await.recovery().await.unwrap();
    assert_eq!(recovery.startup_wait_event.as_deref(), Some(RETRY_WAIT));
    assert_eq!((recovery.receive_lsn, recovery.receiver), (None, None));

    // A walsender does not save its slot.
    follow(&a, &b, "pgtandem_2", "pgtandem_2_7");
    server.signal(Signal::Reload).unwrap();
    wait_streaming(&a, "pgtandem_2").await;
    assert!(on_a.drop_slot("pgtandem_2_7").await.unwrap());
}

/// The shutdown checkpoint is put at several places relative to the end of a page, and of a segment.
#[tokio::test]
async fn the_end_of_the_log_of_a_stopped_primary_is_what_its_standby_has() {
    let place = Place::new();
    let (a, b) = (place.cluster("a").await, place.instance("b"));
    let mut server = start(&a).await;
    clone(&a, &b, "pgtandem_2", "").await;
    start(&b).await;
    let on_b = connect(&b).await;
    for (room, of_segment) in [
        (4096, false),
        (120, false),
        (112, false),
        (56, false),
        (24, false),
        (56, true),
        (24, true),
    ] {
        wait_streaming(&a, "pgtandem_2").await;
        if of_segment {
            fill_segment(&a).await;
        }
        pad_page(&a, room).await;
        wait_streaming(&a, "pgtandem_2").await;
        stop(&server, Signal::FastStop).await;
        let control = a.control_data().await.unwrap();
        assert_eq!(control.state, ClusterState::ShutDown);
        assert_eq!(control.checkpoint.0 % 8192, 8192 - room, "the record is where it was wanted");
        assert!(!of_segment || control.checkpoint.0 % SEGMENT == SEGMENT - room);
        let later = made_for_later(&a);
        let end = a.end_of_wal_after_clean_shutdown().await.unwrap();
        for path in later {
            fs::remove_file(path).unwrap();
        }
        eventually("the end of the log on the standby", async || {
            let recovery = on_b.recovery().await.unwrap();
            let position = recovery.receive_lsn.max(recovery.replay_lsn).unwrap();
            assert!(position <= end, "{position} is behind the end {end}");
            if position == end { Ok(()) } else { Err(format!("{position}, not {end}")) }
        })
        .await;
        server = start(&a).await;
    }
    stop(&server, Signal::ImmediateStop).await;
    assert!(a.end_of_wal_after_clean_shutdown().await.is_err());
}

/// Segments with nothing in them, as servers make some ahead: so many that whoever takes the first file of
/// the directory takes one of them.
fn made_for_later(instance: &Instance) -> Vec<PathBuf> {
    let name = |number| format!("0000000100000000000000{:02X}", 0x80 + number);
    let paths: Vec<_> = (0..64).map(|it| instance.data_dir.wal_dir().join(name(it))).collect();
    for path in &paths {
        fs::write(path, vec![0; 8192]).unwrap();
    }
    paths
}

/// Writes WAL until the last page but one of a segment.
async fn fill_segment(primary: &Instance) {
    let session = connect(primary).await;
    loop {
        let room = SEGMENT - session.insert_lsn().await.unwrap().0 % SEGMENT;
        let Some(more) = room.checked_sub(2 * 8192) else { break };
        // Headers of pages take their part.
        let bytes = more * 99 / 100;
        let sql = format!("SELECT pg_logical_emit_message(false, '', repeat('x', {bytes}))");
        session.execute(&sql).await.unwrap();
    }
}

/// Writes WAL until the next record begins `room` bytes before the end of a page.
async fn pad_page(primary: &Instance, room: u64) {
    let session = connect(primary).await;
    let emit = async |bytes: u64| {
        let sql = format!("SELECT pg_logical_emit_message(false, '', repeat('x', {bytes}))");
        session.execute(&sql).await.unwrap();
    };
    let end = async || session.insert_lsn().await.unwrap();
    // What a message costs besides its text, measured in the middle of a page.
    emit(9000 - end().await.0 % 8192).await;
    let before = end().await;
    emit(96).await;
    let overhead = end().await.0 - before.0 - 96;
    let left = 8192 - end().await.0 % 8192;
    emit(left - room - overhead).await;
    assert_eq!(end().await.0 % 8192, 8192 - room);
}

#[tokio::test]
async fn a_diverged_old_primary_is_rewound() {
    let place = Place::new();
    let (a, b) = (place.cluster("a").await, place.instance("b"));
    let old = start(&a).await;
    clone(&a, &b, "pgtandem_2", "").await;
    let new = start(&b).await;
    wait_streaming(&a, "pgtandem_2").await;
    connect(&a).await.execute("CREATE TABLE t AS SELECT 1 AS a").await.unwrap();
    wait_streaming(&a, "pgtandem_2").await;
    let fork = seal(&b, &new).await;

    // Both go on: B is promoted to a reserved number, A writes what nobody else has.
    let (own, reserved) = (TimelineId(1), TimelineId(5));
    let control = b.control_data().await.unwrap();
    assert_eq!(timelines::own_history(&b.data_dir, &control).unwrap().timeline, own);
    let placed = timelines::place_placeholders(&b.data_dir, own, reserved, &b.owner).unwrap();
    assert_eq!(placed, 3);
    let on_b = connect(&b).await;
    assert!(on_b.promote().await.unwrap());
    eventually("the promotion", async || {
        let recovery = on_b.recovery().await.unwrap();
        if recovery.in_recovery { Err("in recovery".to_owned()) } else { Ok(()) }
    })
    .await;
    assert_eq!(on_b.current_timeline().await.unwrap(), reserved);
    let control = b.control_data().await.unwrap();
    let history = timelines::own_history(&b.data_dir, &control).unwrap();
    assert_eq!((history.timeline, history.start()), (reserved, fork));
    assert!(!b.data_dir.is_standby());
    on_b.execute("INSERT INTO t VALUES (2)").await.unwrap();
    connect(&a).await.execute("INSERT INTO t VALUES (3)").await.unwrap();
    stop(&old, Signal::ImmediateStop).await;

    // Else pg_rewind might take the source to be on the old timeline still.
    on_b.checkpoint(LIMIT).await.unwrap();
    assert_eq!(on_b.checkpoint_timeline().await.unwrap(), reserved);
    a.crash_recover(LIMIT).await.unwrap();
    assert_eq!(a.control_data().await.unwrap().state, ClusterState::ShutDown);
    let mut rewind = rewind::start(&a, &source(&b), "postgres", RewindOptions::default()).unwrap();
    let progress = rewind.progress();
    assert_eq!(rewind.wait().await.unwrap(), Rewound::Changed);
    let progress = *progress.borrow();
    assert!(progress.total > 0 && progress.done == progress.total, "{progress:?}");

    a.data_dir.set_standby(&a.owner).unwrap();
    follow(&b, &a, "pgtandem_1", "");
    let again = start(&a).await;
    wait_streaming(&b, "pgtandem_1").await;
    let sql = "SELECT 1 / (count(*) = 2 AND max(a) = 2)::int FROM t";
    eventually("the rows of the new primary", async || {
        connect(&a).await.execute(sql).await.map_err(|error| error.to_string())
    })
    .await;
    stop(&again, Signal::FastStop).await;
    let mut rewind = rewind::start(&a, &source(&b), "postgres", RewindOptions::default()).unwrap();
    assert_eq!(rewind.wait().await.unwrap(), Rewound::NotRequired);
}

#[tokio::test]
async fn another_cluster_is_no_source_of_a_rewind() {
    let place = Place::new();
    let (a, b) = (place.cluster("a").await, place.cluster("b").await);
    start(&a).await;
    let mut rewind = rewind::start(&b, &source(&a), "postgres", RewindOptions::default()).unwrap();
    let error = rewind.wait().await.unwrap_err();
    assert!(matches!(error, rewind::RewindError::NoCommonAncestor(_)), "{error}");
}

#[tokio::test]
async fn a_copy_tells_its_progress_and_can_be_cancelled() {
    let place = Place::new();
    let (a, b) = (place.cluster("a").await, place.instance("b"));
    start(&a).await;
    let slow = BackupOptions { max_rate: Some("2M".to_owned()), ..BackupOptions::default() };
    let mut copy = backup::start(&b, &source(&a), &slow).await.unwrap();
    let mut progress = copy.progress();
    let seen = tokio::time::timeout(LIMIT, progress.wait_for(|p| p.total > 0 && p.done > 0)).await;
    let seen = *seen.unwrap().unwrap();
    assert!(seen.total > 10 << 20, "{seen:?}");
    let rows = connect(&a).await.replication().await.unwrap();
    assert!(rows.iter().any(|row| row.application_name == backup::APPLICATION_NAME), "{rows:?}");
    assert_eq!(process::tools_on(b.data_dir.path()).len(), 2, "pg_basebackup has a child");
    copy.cancel(Duration::from_secs(5)).await;
    eventually("the end of the copy", async || match process::tools_on(b.data_dir.path()) {
        pids if pids.is_empty() => Ok(()),
        pids => Err(format!("{pids:?}")),
    })
    .await;
    assert!(matches!(b.data_dir.contents(), Contents::Empty | Contents::Unusable { .. }));

    // An orphan of a killed keeper is found and ended.
    let c = place.instance("c");
    let orphan = backup::start(&c, &source(&a), &slow).await.unwrap();
    assert!(!process::tools_on(c.data_dir.path()).is_empty());
    assert!(process::end_tools_on(c.data_dir.path(), Duration::ZERO).await);
    drop(orphan);
}

#[tokio::test]
async fn a_copy_that_fails_tells_why() {
    let place = Place::new();
    let (a, b) = (place.instance("a"), place.instance("b"));
    let mut copy = backup::start(&b, &source(&a), &BackupOptions::default()).await.unwrap();
    let error = copy.wait().await.unwrap_err().to_string();
    assert!(error.contains("pg_basebackup") && error.contains(".s.PGSQL.5432"), "{error}");
}
