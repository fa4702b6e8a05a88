//! The monitor's own server.

use crate::harness::{LIMIT, Place, eventually};
use postgres::embedded::Embedded;
use postgres::process;
use postgres::programs::Programs;
use postgres::session::Session;
use std::sync::Arc;

#[tokio::test]
async fn it_comes_back_whatever_happens_to_it() {
    let place = Place::new();
    // Owned by the place, so that its cluster is found and ended with it.
    let open = async || {
        Embedded::open(place.path(), Programs::find(None).unwrap(), Some(place.owner.clone()))
            .await
            .unwrap()
    };
    let embedded = Arc::new(open().await);
    assert!(embedded.url().starts_with("postgres://pgtandem@localhost:5432/pgtandem?host=/tmp/"));
    let session = Session::connect(&embedded.target(), LIMIT).await.unwrap();
    session.execute("CREATE TABLE t AS SELECT 1").await.unwrap();

    let supervised = Arc::clone(&embedded);
    let task = tokio::spawn(async move { supervised.supervise().await });
    for _ in 0..2 {
        let before = embedded.pid();
        let pid = rustix::process::Pid::from_raw(before).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        eventually("a server after the kill", async || {
            let pid = embedded.pid();
            if pid == before {
                return Err(format!("still {pid}"));
            }
            let session = Session::connect(&embedded.target(), LIMIT).await;
            let session = session.map_err(|error| error.to_string())?;
            session.execute("SELECT * FROM t").await.map_err(|error| error.to_string())
        })
        .await;
    }

    // A second one finds it running.
    let second = open().await;
    assert_eq!(second.pid(), embedded.pid());
    embedded.stop(LIMIT).await.unwrap();
    tokio::time::timeout(LIMIT, task).await.unwrap().unwrap();
    let data_dir = embedded.instance().data_dir.canonical();
    assert_eq!(process::postgres_in(&data_dir), Vec::<i32>::new());

    // The directory is used again.
    let third = open().await;
    Session::connect(&third.target(), LIMIT).await.unwrap().execute("TABLE t").await.unwrap();
    third.stop(LIMIT).await.unwrap();
}

#[tokio::test]
async fn a_long_path_gets_a_short_socket_directory() {
    let place = Place::new();
    let long = place.path().join("d".repeat(100));
    let programs = Programs::find(None).unwrap();
    let embedded = Embedded::open(&long, programs, Some(place.owner.clone())).await.unwrap();
    Session::connect(&embedded.target(), LIMIT).await.unwrap();
    embedded.stop(LIMIT).await.unwrap();
    let socket_dir = &embedded.instance().socket_dir;
    assert!(!socket_dir.starts_with(place.path()));
    std::fs::remove_dir_all(socket_dir).unwrap();
}

#[tokio::test]
async fn another_directory_is_not_touched() {
    let place = Place::new();
    std::fs::create_dir(place.path().join("pgdata")).unwrap();
    std::fs::write(place.path().join("pgdata/mine"), "").unwrap();
    let programs = Programs::find(None).unwrap();
    let error = Embedded::open(place.path(), programs, Some(place.owner.clone())).await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("pgdata"), "{error}");
}
