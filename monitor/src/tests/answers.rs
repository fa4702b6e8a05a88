//! When reports are answered, and which are refused.

use super::harness::{Database, Monitor, join_request};
use reqwest::StatusCode;
use serde_json::json;
use shared::PROTOCOL;
use shared::pgsettings::{Catalogue, Known};
use std::time::{Duration, Instant};

#[tokio::test]
async fn a_report_is_held_until_the_assignment_changes_or_the_wait_ends() {
    let database = Database::start().await;
    let monitor = Monitor::start(database.store()).await;
    let mut first = monitor.join("one").await;

    let answer = first.talk(5000).await;
    assert!(answer.revision.0 > 0);
    assert_eq!(answer.assignment.members.len(), 1);
    first.settle().await;

    let begun = Instant::now();
    first.talk(400).await;
    assert!(begun.elapsed() >= Duration::from_millis(390), "{:?}", begun.elapsed());

    let mut waiting = first.clone();
    let waiting = tokio::spawn(async move { waiting.talk(20_000).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let begun = Instant::now();
    monitor.join("two").await;
    let answer = waiting.await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(answer.assignment.members.len(), 2);
}

#[tokio::test]
async fn a_newer_report_answers_the_older_one() {
    let database = Database::start().await;
    let monitor = Monitor::start(database.store()).await;
    let mut keeper = monitor.join("one").await;
    keeper.settle().await;
    let mut older = keeper.clone();
    let older = tokio::spawn(async move { older.talk(20_000).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    keeper.report.seq += 1;
    keeper.report.nonce += 1;
    keeper.talk(100).await;
    let answer = tokio::time::timeout(Duration::from_secs(1), older).await.unwrap().unwrap();
    assert_eq!(answer.revision, keeper.report.revision);
}

#[tokio::test]
async fn who_may_report() {
    let database = Database::start().await;
    let monitor = Monitor::start(database.store()).await;
    let mut keeper = monitor.join("one").await;
    keeper.settle().await;

    let mut stranger = keeper.clone();
    stranger.joined.identity.secret = "wrong".to_owned();
    let (status, error) = stranger.send(0).await;
    assert_eq!((status, &error["reason"]), (StatusCode::UNAUTHORIZED, &json!("bad_secret")));

    // The same identity in use twice: the second is refused, the first goes on.
    let mut second = keeper.clone();
    second.restart();
    assert_eq!(second.send(0).await.0, StatusCode::CONFLICT);
    keeper.talk(0).await;

    let unknown = monitor.post("/v1/nodes/77/report", &json!(keeper.report)).await;
    assert_eq!(unknown.0, StatusCode::UNAUTHORIZED, "no secret at all");
    // It may be this monitor that has lost what it knew: nobody is told to stop for that.
    let strange = monitor
        .client
        .post(format!("{}/v1/nodes/77/report", monitor.url))
        .bearer_auth("x")
        .json(&keeper.report)
        .send()
        .await
        .unwrap();
    assert_eq!(strange.status(), StatusCode::CONFLICT);
    let broken = monitor.post("/v1/nodes/1/report", &json!({ "protocol": 1 })).await;
    assert_eq!((broken.0, &broken.1["code"]), (StatusCode::BAD_REQUEST, &json!(1)));
}

#[tokio::test]
async fn keepers_of_another_protocol_are_refused() {
    let database = Database::start().await;
    let monitor = Monitor::start(database.store()).await;
    let mut keeper = monitor.join("one").await;
    for theirs in [PROTOCOL + 1, u32::MAX] {
        let mut request = join_request("two", None);
        request["protocol"] = json!(theirs);
        let (status, error) = monitor.post("/v1/join", &request).await;
        assert_eq!((status, &error["code"]), (StatusCode::CONFLICT, &json!(3)));
        assert_eq!(error["reason"], "protocol");
        assert!(error["message"].as_str().unwrap().contains("upgrade the monitor"));
    }
    keeper.report.protocol = PROTOCOL + 1;
    assert_eq!(keeper.send(0).await.0, StatusCode::CONFLICT);
    keeper.report.protocol = PROTOCOL - 1;
    assert_eq!(keeper.send(0).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_closed_connection_is_noticed_and_lets_the_next_process_in() {
    let database = Database::start().await;
    let monitor = Monitor::start(database.store()).await;
    let mut keeper = monitor.join("one").await;
    keeper.settle().await;
    let mut dying = keeper.clone();
    let dying = tokio::spawn(async move { dying.talk(20_000).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    keeper.restart();
    assert_eq!(keeper.send(0).await.0, StatusCode::CONFLICT);
    dying.abort();
    monitor.until("the node is dead", |status| status["nodes"][0]["health"] == "bad").await;
    assert_eq!(keeper.send(0).await.0, StatusCode::OK);
    monitor.until("the node is back", |status| status["nodes"][0]["health"] == "ok").await;
}

#[tokio::test]
async fn a_monitor_that_stops_answers_what_it_holds() {
    let database = Database::start().await;
    let monitor = Monitor::start(database.store()).await;
    let mut keeper = monitor.join("one").await;
    keeper.settle().await;
    let held = tokio::spawn(async move { keeper.talk(20_000).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    monitor.stop();
    tokio::time::timeout(Duration::from_secs(1), held).await.unwrap().unwrap();
}

/// Reports stay small: what a server knows of its settings is sent when it is asked for.
#[tokio::test]
async fn a_catalogue_of_settings_is_asked_for_until_it_is_there() {
    let database = Database::start().await;
    let monitor = Monitor::start(database.store()).await;
    let mut keeper = monitor.join("one").await;
    keeper.settle().await;
    let path = "/v1/formations/default/actions";
    let set = json!({ "action": "configure", "changes": { "work_mem": "8MB" }, "by": "ann" });
    let (status, error) = monitor.post(path, &set).await;
    assert_eq!((status, &error["code"]), (StatusCode::TOO_MANY_REQUESTS, &json!(6)));

    keeper.report.postgres.version = Some("15.18".to_owned());
    keeper.report.postgres.running = true;
    assert!(keeper.talk(0).await.wants_catalogue);
    let known = Known {
        vartype: "integer".to_owned(),
        unit: Some("kB".to_owned()),
        min_val: Some("64".to_owned()),
        max_val: Some("2147483647".to_owned()),
        enumvals: Vec::new(),
        context: "user".to_owned(),
    };
    let settings = [("work_mem".to_owned(), known)].into();
    let catalogue = Catalogue { version: "15.18".to_owned(), settings };
    keeper.report.catalogue = Some(Box::new(catalogue));
    assert!(!keeper.talk(0).await.wants_catalogue);
    keeper.report.catalogue = None;
    assert!(!keeper.talk(0).await.wants_catalogue);

    let (status, done) = monitor.post(path, &set).await;
    assert_eq!((status, &done["outcome"]), (StatusCode::OK, &json!("done")));
    let told = keeper.talk(5000).await.assignment.settings;
    assert_eq!(told.values["work_mem"], "8MB");
    let path = "/v1/formations/default/postgres-settings";
    let applied = |seen: &serde_json::Value| seen["nodes"][0]["applied"].clone();
    assert_eq!(applied(&monitor.get(path).await.1), json!(false));
    keeper.report.settings.revision = told.revision;
    keeper.talk(0).await;
    assert_eq!(applied(&monitor.get(path).await.1), json!(true));
}
