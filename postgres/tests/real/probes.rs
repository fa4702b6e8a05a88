//! What a primary is asked and told: settings and their faults, slots, the probe commit.

use crate::harness::{LIMIT, Place, configure, connect, eventually, start};
use postgres::postmaster::Signal;
use postgres::session::primary::{Probe, SYNC_WAIT};
use postgres::session::retention::Unarchived;
use postgres::session::slots::Created;
use std::time::Duration;

#[tokio::test]
async fn a_probe_waits_is_cancelled_and_is_released() {
    let place = Place::new();
    let instance = place.cluster("a").await;
    let blocked = "x".repeat(75);
    configure(&instance, &[("synchronous_standby_names", &blocked)]);
    let server = start(&instance).await;
    let watcher = connect(&instance).await;
    // Orders of our own do not wait.
    watcher.execute("CREATE TABLE t (a int)").await.unwrap();
    watcher.write_record().await.unwrap();

    let waits = async |pid| {
        eventually("the probe waits", async || {
            match watcher.backend_wait_event(pid).await.unwrap() {
                Some(event) if event == SYNC_WAIT => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    };
    let session = connect(&instance).await;
    let pid = session.backend_pid();
    let probe = tokio::spawn(async move { session.probe(LIMIT).await });
    waits(pid).await;
    watcher.execute(&format!("SELECT pg_cancel_backend({pid})")).await.unwrap();
    let Probe::Cancelled(notice) = probe.await.unwrap().unwrap() else { panic!("no warning") };
    assert_eq!(notice.routine, "SyncRepWaitForLSN");

    let session = connect(&instance).await;
    let pid = session.backend_pid();
    let probe = tokio::spawn(async move { session.probe(LIMIT).await });
    waits(pid).await;
    configure(&instance, &[("synchronous_standby_names", "")]);
    server.signal(Signal::Reload).unwrap();
    assert_eq!(probe.await.unwrap().unwrap(), Probe::Released);

    // One that runs over its limit is cancelled at the server.
    configure(&instance, &[("synchronous_standby_names", &blocked)]);
    server.signal(Signal::Reload).unwrap();
    let session = connect(&instance).await;
    let pid = session.backend_pid();
    eventually("a probe that waits again", async || {
        match session.probe(Duration::from_millis(200)).await {
            Err(_) => Ok(()),
            Ok(probe) => Err(format!("{probe:?}")),
        }
    })
    .await;
    eventually("the end of the wait", async || {
        match watcher.backend_wait_event(pid).await.unwrap() {
            Some(event) if event == SYNC_WAIT => Err(event),
            _ => Ok(()),
        }
    })
    .await;
}

#[tokio::test]
async fn settings_and_their_faults() {
    let place = Place::new();
    let instance = place.cluster("a").await;
    let server = start(&instance).await;
    let session = connect(&instance).await;
    assert_eq!(session.file_errors().await.unwrap(), []);
    assert_eq!(session.setting("no_such").await.unwrap(), None);
    configure(&instance, &[("work_mem", "lots"), ("max_connections", "30")]);
    let faults = session.file_errors().await.unwrap();
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert_eq!(faults[0].name.as_deref(), Some("work_mem"));
    server.signal(Signal::Reload).unwrap();
    eventually("the setting that waits for a restart", async || {
        let names = connect(&instance).await.pending_restart().await.unwrap();
        if names == ["max_connections".to_owned()].into() {
            Ok(())
        } else {
            Err(format!("{names:?}"))
        }
    })
    .await;
}

#[tokio::test]
async fn what_a_server_says_of_its_settings() {
    let place = Place::new();
    let instance = place.cluster("a").await;
    configure(
        &instance,
        &[("work_mem", "8MB"), ("synchronous_commit", "remote_write"), ("x.y", "7")],
    );
    let server = start(&instance).await;
    let session = connect(&instance).await;
    let shown = session.in_force(&["work_mem", "synchronous_commit", "x.y", "none.such"]).await;
    let shown: Vec<_> = shown.unwrap().into_iter().collect();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    // Not what our own sessions run with.
    let commit = pair("synchronous_commit", "remote_write");
    assert_eq!(shown, [commit, pair("work_mem", "8MB"), pair("x.y", "7")]);

    let catalogue = session.catalogue().await.unwrap();
    assert_eq!(catalogue.settings["work_mem"].unit.as_deref(), Some("kB"));
    assert!(catalogue.settings["wal_level"].enumvals.contains(&"replica".to_owned()));

    configure(&instance, &[("max_connections", "30")]);
    server.signal(Signal::Reload).unwrap();
    let required = session.required().await.unwrap();
    assert_eq!(required.len(), 5, "{required:?}");
    let connections = required["max_connections"];
    assert_eq!(
        (connections.running, connections.next, connections.beneath),
        (20, Some(30), Some(100))
    );
    assert_eq!(instance.configured("max_connections").await.unwrap(), "30");
    let control = instance.control_data().await.unwrap().required;
    assert_eq!(control["max_connections"], 20);
    configure(&instance, &[("max_connections", "many")]);
    let error = instance.configured("max_connections").await.unwrap_err().to_string();
    assert!(error.contains("\"max_connections\""), "{error}");
}

#[tokio::test]
async fn slots() {
    let place = Place::new();
    let instance = place.cluster("a").await;
    start(&instance).await;
    let session = connect(&instance).await;
    assert_eq!(session.create_slot("one", false).await.unwrap(), Created::Now);
    assert_eq!(session.create_slot("one", false).await.unwrap(), Created::Already);
    assert_eq!(session.create_slot("two", true).await.unwrap(), Created::Now);
    let slots = session.slots().await.unwrap();
    assert_eq!(slots[0].restart_lsn, None);
    let kept = slots[1].restart_lsn.unwrap();
    session.write_record().await.unwrap();
    let end = session.flush_lsn().await.unwrap();
    assert!(end > kept);
    assert!(!session.advance_slot("one", end).await.unwrap(), "it keeps nothing");
    assert!(session.advance_slot("two", end).await.unwrap());
    assert!(!session.advance_slot("two", kept).await.unwrap(), "never backwards");
    assert_eq!(session.slots().await.unwrap()[1].restart_lsn, Some(end));
    // A new cluster begins with its second segment.
    assert!(session.keeps_wal_from(end).await.unwrap());
    assert!(!session.keeps_wal_from(shared::lsn::Lsn(1)).await.unwrap());
    assert!(!session.slots().await.unwrap()[1].is_lost());
    assert!(session.drop_slot("one").await.unwrap());
    assert!(!session.drop_slot("one").await.unwrap());
}

#[tokio::test]
async fn what_waits_to_be_archived_can_be_read() {
    let place = Place::new();
    let instance = place.cluster("a").await;
    configure(&instance, &[("archive_mode", "on"), ("archive_command", "false")]);
    start(&instance).await;
    let session = connect(&instance).await;
    assert!(session.unarchived().await.unwrap().is_empty());
    session.write_record().await.unwrap();
    session.switch_wal().await.unwrap();
    let waiting = session.unarchived().await.unwrap();
    let [Unarchived { file, bytes }] = waiting.as_slice() else { panic!("{waiting:?}") };
    assert_eq!(*bytes, 16 << 20);
    let on_disk = std::fs::read(instance.data_dir.wal_dir().join(file)).unwrap();
    let part = session.wal_bytes(file, 8192, 100).await.unwrap().unwrap();
    assert_eq!(part, on_disk[8192..8292]);
    let last = session.wal_bytes(file, *bytes - 10, 100).await.unwrap().unwrap();
    assert_eq!(last.len(), 10);
    assert_eq!(session.wal_bytes(file, *bytes, 100).await.unwrap(), Some(Vec::new()));
    assert_eq!(session.wal_bytes("0000000100000000000000FF", 0, 100).await.unwrap(), None);
}
