//! The database ends and comes back, and so does the monitor.

use super::harness::{Database, Keeper, Monitor};
use reqwest::StatusCode;
use serde_json::{Value, json};
use std::sync::Arc;

#[tokio::test]
async fn keepers_are_answered_while_the_database_is_away() {
    let database = Database::start().await;
    let monitor = Monitor::start(database.store()).await;
    let mut keeper = monitor.join("one").await;
    keeper.settle().await;
    database.kill();
    let watched = tokio::spawn({
        let service = Arc::clone(&monitor.service);
        async move { service.watch_store().await }
    });

    let path = "/v1/formations/default/actions";
    let action =
        |value| json!({ "action": "set_formation", "key": "stall-timeout", "value": value });
    // A backend may live a moment longer than its postmaster, and commit.
    let mut answer = (StatusCode::OK, Value::Null);
    for n in 1..100 {
        answer = monitor.post(path, &action(format!("{n}s"))).await;
        if answer.0 != StatusCode::OK {
            break;
        }
    }
    let (status, error) = answer;
    assert_eq!((status, &error["reason"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("store_away")));
    keeper.talk(50).await;
    assert_eq!(monitor.get("/healthz").await.0, StatusCode::OK);
    until_ready(&monitor, &mut keeper, false).await;

    let supervised = Arc::clone(&database.embedded);
    let supervised = tokio::spawn(async move { supervised.supervise().await });
    until_ready(&monitor, &mut keeper, true).await;
    // The group looks once a second.
    for _ in 0..100 {
        if monitor.post(path, &action("77s".to_owned())).await.0 == StatusCode::OK {
            break;
        }
        keeper.talk(50).await;
    }
    let settings = monitor.get("/v1/formations/default/settings").await.1;
    assert_eq!(settings["timers"]["stall_timeout_ms"], 77_000);
    watched.abort();
    supervised.abort();
}

/// The keeper is answered all the while.
async fn until_ready(monitor: &Monitor, keeper: &mut Keeper, ready: bool) {
    for _ in 0..200 {
        if (monitor.get("/readyz").await.0 == StatusCode::OK) == ready {
            return;
        }
        keeper.talk(50).await;
    }
    panic!("/readyz never was {ready}");
}

#[tokio::test]
async fn the_next_process_knows_what_this_one_knew() {
    let database = Database::start().await;
    let monitor = Monitor::start(database.store()).await;
    let mut keeper = monitor.join("one").await;
    keeper.settle().await;
    monitor.stop();
    let before = monitor.status().await;
    drop(monitor);

    let monitor = Monitor::start(database.store()).await;
    let after = monitor.until("the start is decided", |status| status["ticket"] != 1).await;
    assert_eq!(after["nodes"][0]["name"], "one");
    assert_eq!(before["reason"], "unavailable", "{before}");
    let events = monitor.get("/v1/formations/default/events?after=0").await.1;
    for (event, id) in events.as_array().unwrap().iter().zip(1..) {
        assert_eq!(event["id"], id, "{events}");
    }
}

#[tokio::test]
async fn a_second_writer_is_noticed() {
    let database = Database::start().await;
    let one = Monitor::start(database.store()).await;
    let two = Monitor::start(database.store()).await;
    let action =
        |value| json!({ "action": "set_formation", "key": "node-timeout", "value": value });
    let path = "/v1/formations/default/actions";
    assert_eq!(two.post(path, &action("5s")).await.0, StatusCode::OK);
    // The first has an old revision: it is refused by the door, reads again, and goes on.
    assert_ne!(one.post(path, &action("6s")).await.0, StatusCode::OK);
    one.until("it has read the record", |status| status["ticket"].as_u64() > Some(2)).await;
    assert_eq!(one.post(path, &action("6s")).await.0, StatusCode::OK);
}
