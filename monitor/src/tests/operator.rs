//! What operators and their programs call.

use super::harness::{Database, Monitor, join_request};
use reqwest::StatusCode;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn set_timeout(value: &str) -> Value {
    json!({ "action": "set_formation", "key": "node-timeout", "value": value })
}

#[tokio::test]
async fn formations_come_and_go() {
    let database = Database::start().await;
    let monitor = Monitor::start(database.store()).await;
    let wanted = json!({ "name": "second" });
    for _ in 0..2 {
        assert_eq!(monitor.post("/v1/formations", &wanted).await.0, StatusCode::OK);
    }
    let (_, all) = monitor.get("/v1/formations").await;
    let names: Vec<_> = all.as_array().unwrap().iter().map(|f| f["name"].clone()).collect();
    assert_eq!(names, ["default", "second"]);
    let other = json!({ "name": "second", "settings": { "node_timeout_ms": 9000 } });
    assert_eq!(monitor.post("/v1/formations", &other).await.0, StatusCode::CONFLICT);
    let bad = json!({ "name": "bad", "settings": { "node_timeout_ms": 1 } });
    assert_eq!(monitor.post("/v1/formations", &bad).await.0, StatusCode::BAD_REQUEST);

    assert_eq!(monitor.delete("/v1/formations/second").await.0, StatusCode::NO_CONTENT);
    assert_eq!(monitor.delete("/v1/formations/second").await.0, StatusCode::NOT_FOUND);
    monitor.join("one").await;
    let (status, error) = monitor.delete("/v1/formations/default").await;
    assert_eq!((status, &error["nodes"]), (StatusCode::CONFLICT, &json!(["one"])));

    // The history of a name goes on.
    assert_eq!(monitor.post("/v1/formations", &wanted).await.0, StatusCode::OK);
    let path = "/v1/formations/second/events?after=1&wait_ms=5000";
    assert_eq!(monitor.get(path).await.1[0]["id"], 2);
}

#[tokio::test]
async fn joining_with_and_without_tokens() {
    let database = Database::start().await;
    let monitor = Monitor::start(database.store()).await;
    let path = "/v1/formations/default/tokens";
    let (_, token) = monitor.post(path, &json!({})).await;
    let text = token["token"].as_str().unwrap().to_owned();
    for bad in [None, Some("wrong")] {
        let (status, error) = monitor.post("/v1/join", &join_request("one", bad)).await;
        assert_eq!((status, &error["reason"]), (StatusCode::UNAUTHORIZED, &json!("bad_token")));
    }
    let (status, joined) = monitor.post("/v1/join", &join_request("one", Some(&text))).await;
    assert_eq!(status, StatusCode::OK, "{joined}");
    assert_eq!(joined["monitors"], json!(["http://monitor:7432"]));
    // Once in, the identity is enough.
    let mut again = join_request("one", None);
    again["identity"] = joined["identity"].clone();
    let (status, rejoined) = monitor.post("/v1/join", &again).await;
    assert_eq!((status, &rejoined["identity"]), (StatusCode::OK, &joined["identity"]));

    let (_, listed) = monitor.get(path).await;
    assert_eq!((&listed[0]["id"], &listed[0]["token"]), (&token["id"], &Value::Null));
    let one = format!("{path}/{}", token["id"].as_str().unwrap());
    assert_eq!(monitor.delete(&one).await.0, StatusCode::NO_CONTENT);
    assert_eq!(monitor.delete(&one).await.0, StatusCode::NOT_FOUND);
    assert_eq!(monitor.post("/v1/join", &join_request("two", None)).await.0, StatusCode::OK);
    let mut elsewhere = join_request("three", None);
    elsewhere["formation"] = json!("nowhere");
    assert_eq!(monitor.post("/v1/join", &elsewhere).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn events_are_waited_for() {
    let database = Database::start().await;
    let monitor = Monitor::start(database.store()).await;
    let (_, newest) = monitor.get("/v1/formations/default/events").await;
    let last = newest.as_array().unwrap().last().unwrap()["id"].as_u64().unwrap();
    let path = format!("/v1/formations/default/events?after={last}&wait_ms=10000");
    let begun = Instant::now();
    let action = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        monitor.post("/v1/formations/default/actions", &set_timeout("5s")).await
    };
    let ((_, events), (status, _)) = tokio::join!(monitor.get(&path), action);
    assert_eq!(status, StatusCode::OK);
    assert!(begun.elapsed() < Duration::from_secs(2));
    assert_eq!(events[0]["id"], last + 1);
    let (_, none) = monitor.get("/v1/formations/default/events?after=99&wait_ms=50").await;
    assert_eq!(none, json!([]));
    let (_, one) = monitor.get("/v1/formations/default/events?count=1").await;
    assert_eq!(one[0]["id"], last + 1);
}

#[tokio::test]
async fn the_stream_goes_on() {
    let database = Database::start().await;
    let monitor = Monitor::start(database.store()).await;
    let url = format!("{}/v1/formations/default/stream?after=0", monitor.url);
    let mut stream = monitor.client.get(url).send().await.unwrap();
    let mut text = String::new();
    monitor.post("/v1/formations/default/actions", &set_timeout("5s")).await;
    while !text.contains("id: 2\n") {
        let chunk = tokio::time::timeout(Duration::from_secs(5), stream.chunk()).await;
        text.push_str(std::str::from_utf8(&chunk.unwrap().unwrap().unwrap()).unwrap());
    }
    assert!(text.contains("id: 1\n") && text.contains("\"rule\":\"monitor-started\""), "{text}");
}

/// The status that comes next; events and comments are passed over.
async fn next_status(stream: &mut reqwest::Response, text: &mut String) -> Value {
    loop {
        if let Some((_, rest)) = text.split_once("event: status\ndata: ")
            && let Some((data, rest)) = rest.split_once("\n\n")
        {
            let status = serde_json::from_str(data).unwrap();
            *text = rest.to_owned();
            return status;
        }
        let chunk = tokio::time::timeout(Duration::from_secs(10), stream.chunk()).await;
        text.push_str(std::str::from_utf8(&chunk.unwrap().unwrap().unwrap()).unwrap());
    }
}

#[tokio::test]
async fn the_stream_has_the_status_for_who_asks_for_it() {
    let database = Database::start().await;
    let monitor = Monitor::start(database.store()).await;
    let mut node = monitor.join("one").await;
    node.settle().await;
    let url = format!("{}/v1/formations/default/stream?status=true", monitor.url);
    let mut stream = monitor.client.get(url).send().await.unwrap();
    let mut text = String::new();
    let first = next_status(&mut stream, &mut text).await;
    assert!(first["taken_at"].is_string(), "{first}");
    // A position that has moved is no new revision, and is told nevertheless.
    let place = |status: &Value| status["nodes"][0]["lsn"].clone();
    node.report.postgres.lsn = Some("7/7".parse().unwrap());
    node.talk(0).await;
    let mut moved = next_status(&mut stream, &mut text).await;
    while place(&moved) != "7/7" {
        moved = next_status(&mut stream, &mut text).await;
    }
    assert_ne!(place(&first), "7/7");
    assert_eq!(moved["revision"], monitor.status().await["revision"]);
    // Nobody reports: time alone is no news, and the stream shows that it lives.
    text.clear();
    while !text.contains(":\n\n") {
        let chunk = tokio::time::timeout(Duration::from_secs(10), stream.chunk()).await;
        text.push_str(std::str::from_utf8(&chunk.unwrap().unwrap().unwrap()).unwrap());
    }
}

#[tokio::test]
async fn a_request_that_comes_again_is_done_once() {
    let database = Database::start().await;
    let monitor = Monitor::start(database.store()).await;
    let url = format!("{}/v1/formations/default/actions", monitor.url);
    let send = |value: &str| {
        let request = monitor.client.post(&url).header("Idempotency-Key", "k1");
        request.json(&set_timeout(value)).send()
    };
    let (one, two) = tokio::join!(send("5s"), send("5s"));
    let one: Value = one.unwrap().json().await.unwrap();
    let two: Value = two.unwrap().json().await.unwrap();
    let three: Value = send("5s").await.unwrap().json().await.unwrap();
    assert_eq!((&one, &one), (&two, &three));
    assert_eq!(send("6s").await.unwrap().status(), StatusCode::CONFLICT);
    let (_, events) = monitor.get("/v1/formations/default/events").await;
    let settings = events.as_array().unwrap().iter().filter(|event| event["kind"] == "setting");
    assert_eq!(settings.count(), 1);
}

#[tokio::test]
async fn every_page_is_there() {
    let database = Database::start().await;
    let monitor = Monitor::start(database.store()).await;
    monitor.join("one").await;
    let (status, ready) = monitor.get("/readyz").await;
    assert_eq!(
        (status, &ready["schema_version"]),
        (StatusCode::OK, &json!(shared::version::SCHEMA))
    );
    for path in ["/healthz", "/metrics", "/", "/v1/rules", "/v1/openapi.json"] {
        assert_eq!(monitor.get(path).await.0, StatusCode::OK, "{path}");
    }
    for path in ["status", "settings", "members", "explain?node=one", "explain?if_dies=one"] {
        let (status, body) = monitor.get(&format!("/v1/formations/default/{path}")).await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
    }
    for path in ["/x", "/v1/formations/x/status", "/v1/formations/default/operations/7"] {
        let (status, body) = monitor.get(path).await;
        assert_eq!((status, &body["code"]), (StatusCode::NOT_FOUND, &json!(1)), "{path}");
    }
    for parameter in ["node=nobody", "if_dies=one,nobody"] {
        let path = format!("/v1/formations/default/explain?{parameter}");
        let (status, error) = monitor.get(&path).await;
        assert_eq!((status, &error["reason"]), (StatusCode::NOT_FOUND, &json!("unknown_node")));
        let message = error["message"].as_str().unwrap();
        assert!(message.ends_with("it has one"), "{message}");
    }
    let (status, _) = monitor.get("/v1/formations/default/events?after=x").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let document = monitor.get("/v1/openapi.json").await.1;
    for path in document["paths"].as_object().unwrap().keys() {
        let path = path.replace("{formation}", "default").replace("{id}", "1");
        // A method that no path has: only a path that is not there says so.
        let request = monitor.client.request(reqwest::Method::PATCH, monitor.url.clone() + &path);
        let status = request.send().await.unwrap().status();
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
    }
}

#[tokio::test]
async fn a_prediction_changes_nothing() {
    let database = Database::start().await;
    let monitor = Monitor::start(database.store()).await;
    monitor.join("one").await;
    let before = monitor.status().await["revision"].clone();
    let path = "/v1/formations/default/predictions";
    let (status, error) = monitor.post(path, &json!({ "action": "switchover" })).await;
    assert_eq!((status, &error["code"]), (StatusCode::CONFLICT, &json!(3)));
    assert_eq!(error["reason"], "no_primary");
    let (status, prediction) = monitor.post(path, &set_timeout("5s")).await;
    assert_eq!(status, StatusCode::OK, "{prediction}");
    assert_eq!(prediction["steps"][0]["reason"], "node-timeout is now 5s");
    let path = "/v1/formations/default/explain?if_dies=one";
    let (_, explanation) = monitor.get(path).await;
    assert_eq!(explanation["prediction"]["outcome"], "would_stand_still", "{explanation}");
    assert_eq!(explanation["succession"], Value::Null);
    assert_eq!(monitor.status().await["revision"], before);
}

#[tokio::test]
async fn the_status_is_waited_for() {
    let database = Database::start().await;
    let monitor = Monitor::start(database.store()).await;
    let revision = monitor.status().await["revision"].as_u64().unwrap();
    let path = format!("/v1/formations/default/status?wait_revision={revision}&wait_ms=10000");
    let begun = Instant::now();
    let change = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        monitor.post("/v1/formations/default/actions", &set_timeout("5s")).await
    };
    let ((_, status), _) = tokio::join!(monitor.get(&path), change);
    assert!(begun.elapsed() < Duration::from_secs(2));
    assert_eq!(status["revision"], revision + 1);
}
