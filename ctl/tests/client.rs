//! The client: which monitor answers, and what its answers mean.

use crate::server::{api_error, nobody, serve, silent};
use axum::extract::{Path, RawQuery};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{any, get, post};
use axum::{Json, Router};
use ctl::client::{Client, ClientError, MonitorUrl, Options, idempotency_key};
use serde_json::{Value, json};
use shared::api::{Action, Identity, Outcome};
use shared::ids::{FormationId, NodeId, Revision};
use shared::pgsettings::SettingsReport;
use shared::report::{Data, PostgresView, Report};
use shared::state::NodeState;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

fn client(urls: &[&MonitorUrl]) -> Client {
    Client::new(urls.iter().copied().cloned().collect(), Options::default()).unwrap()
}

fn formation() -> FormationId {
    "default".parse().unwrap()
}

fn identity() -> Identity {
    Identity { formation: formation(), node_id: NodeId(2), secret: "s3cret".to_owned() }
}

fn report() -> Report {
    Report {
        protocol: shared::PROTOCOL,
        keeper: "k".to_owned(),
        seq: 1,
        nonce: 1,
        accepted: None,
        revision: Revision(0),
        state: NodeState::Init,
        sealed: None,
        in_force: None,
        promoted: None,
        data: Data::Empty,
        postgres: PostgresView::default(),
        replicas: Vec::new(),
        streaming: false,
        failed: None,
        leaving: false,
        room: Vec::new(),
        silent_ms: 0,
        step: None,
        warnings: Vec::new(),
        keeper_version: "0".to_owned(),
        settings: SettingsReport::default(),
        catalogue: None,
        done: shared::goal::Orders::default(),
        stray: None,
    }
}

fn no_formations() -> Router {
    Router::new().route("/v1/formations", get(|| async { Json(json!([])) }))
}

/// Answers every request alike, and counts them.
fn always(status: StatusCode, body: &str) -> (Router, Arc<AtomicUsize>) {
    let (count, body) = (Arc::new(AtomicUsize::new(0)), body.to_owned());
    let counter = Arc::clone(&count);
    let answer = move || {
        counter.fetch_add(1, Ordering::Relaxed);
        let body = body.clone();
        async move { (status, body) }
    };
    (Router::new().fallback(any(answer)), count)
}

const SHORT: Duration = Duration::from_secs(2);

#[tokio::test]
async fn goes_on_to_the_one_that_answers_and_stays_there() {
    let (starting, asked) = always(StatusCode::SERVICE_UNAVAILABLE, "");
    let stray = always(StatusCode::NOT_FOUND, "<html>").0;
    let (first, second, third) = (serve(starting).await, nobody().await, serve(stray).await);
    let last = serve(no_formations()).await;
    let client = client(&[&first, &second, &third, &last]);
    for _ in 0..3 {
        assert_eq!(client.formations().await.unwrap(), []);
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn names_all_that_it_tried() {
    let (first, second) = (nobody().await, nobody().await);
    let error = client(&[&first, &second]).formations().await.unwrap_err();
    let ClientError::Unreachable { tried, why, maybe_delivered } = error else {
        panic!("{error:?}")
    };
    assert_eq!(tried, [first.to_string(), second.to_string()]);
    assert!(why.contains("refused") && !why.contains('\n'), "{why}");
    assert!(!maybe_delivered);
}

#[tokio::test]
async fn an_unready_monitor_is_told_apart_from_none() {
    let (router, _) = always(StatusCode::SERVICE_UNAVAILABLE, &api_error(4, "storage").to_string());
    let (first, second) = (serve(router).await, nobody().await);
    let error = client(&[&first, &second]).formations().await.unwrap_err();
    let ClientError::Api { status: 503, error } = error else { panic!("{error:?}") };
    assert_eq!((error.code, error.reason.as_str()), (4, "storage"));
}

#[tokio::test]
async fn a_report_keeps_its_time_and_begins_elsewhere_next_time() {
    let (first, answered) = (silent().await, AtomicUsize::new(0));
    let (router, _) = always(StatusCode::GONE, &api_error(3, "dropped").to_string());
    let second = serve(router).await;
    let client = client(&[&first, &second]);
    let started = Instant::now();
    for _ in 0..2 {
        match client.report(&identity(), &report(), 0, Duration::from_millis(200)).await {
            Err(ClientError::Unreachable { maybe_delivered: true, .. }) => {}
            Err(ClientError::Dropped) => {
                answered.fetch_add(1, Ordering::Relaxed);
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(started.elapsed() < Duration::from_secs(2));
    assert_eq!(answered.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_report_carries_the_secret_and_the_wait() {
    let handler = |Path(id): Path<String>, RawQuery(query): RawQuery, headers: HeaderMap| async move {
        assert_eq!((id.as_str(), query.as_deref()), ("2", Some("formation=default&wait_ms=150")));
        assert_eq!(headers["authorization"], "Bearer s3cret");
        (StatusCode::FORBIDDEN, Json(api_error(3, "wrong_secret")))
    };
    let url = serve(Router::new().route("/v1/nodes/{id}/report", post(handler))).await;
    let error = client(&[&url]).report(&identity(), &report(), 150, SHORT).await.unwrap_err();
    let ClientError::Api { status: 403, error } = error else { panic!("{error:?}") };
    assert_eq!(error.reason, "wrong_secret");
}

#[tokio::test]
async fn only_the_monitor_can_say_that_a_node_is_dropped() {
    let (router, _) = always(StatusCode::GONE, &api_error(3, "dropped").to_string());
    let monitor = serve(router).await;
    let answer = client(&[&monitor]).report(&identity(), &report(), 0, SHORT).await;
    assert_eq!(answer, Err(ClientError::Dropped));
    let (router, _) = always(StatusCode::GONE, "<html>gone</html>");
    let stray = serve(router).await;
    let answer = client(&[&stray]).report(&identity(), &report(), 0, SHORT).await;
    assert!(matches!(answer, Err(ClientError::Protocol { .. })), "{answer:?}");
}

#[tokio::test]
async fn what_is_no_monitors_answer_is_a_protocol_error() {
    for (status, body) in [
        (StatusCode::OK, "{\"not\": \"a list\"}"),
        (StatusCode::OK, "not json"),
        (StatusCode::OK, ""),
        (StatusCode::NOT_FOUND, ""),
        (StatusCode::FOUND, ""),
        (StatusCode::INTERNAL_SERVER_ERROR, "oops"),
    ] {
        let url = serve(always(status, body).0).await;
        let error = client(&[&url]).formations().await.unwrap_err();
        assert!(matches!(error, ClientError::Protocol { .. }), "{status} {body}: {error:?}");
        assert!(error.to_string().contains(&url.to_string()));
    }
}

#[tokio::test]
async fn a_refusal_without_a_body_still_says_what_it_is() {
    let url = serve(always(StatusCode::TOO_MANY_REQUESTS, "").0).await;
    let error = client(&[&url]).formations().await.unwrap_err();
    assert!(matches!(&error, ClientError::Api { status: 429, error } if error.code == 6));
}

#[tokio::test]
async fn an_action_carries_its_key() {
    let handler = |headers: HeaderMap, Json(action): Json<Value>| async move {
        assert_eq!(headers["idempotency-key"], "k1");
        assert_eq!(action, json!({ "action": "promote", "node": "node2" }));
        Json(json!({
            "id": 7, "outcome": "accepted", "reason": "", "old_primary": null,
            "new_primary": null, "timeline": null, "started_at": "2026-01-02T03:04:05Z",
            "finished_at": null
        }))
    };
    let url = serve(Router::new().route("/v1/formations/default/actions", post(handler))).await;
    let action = Action::Promote { node: "node2".parse().unwrap() };
    let result = client(&[&url]).action(&formation(), &action, "k1").await.unwrap();
    assert_eq!((result.id, result.outcome), (7, Outcome::Accepted));
    assert_ne!(idempotency_key(), idempotency_key());
}

#[tokio::test]
async fn asks_for_events_after_and_newest() {
    let handler = |RawQuery(query): RawQuery| async move {
        let expected = ["after=5&count=3&wait_ms=40", "count=10"];
        assert!(expected.contains(&query.as_deref().unwrap()), "{query:?}");
        Json(json!([]))
    };
    let url = serve(Router::new().route("/v1/formations/default/events", get(handler))).await;
    let client = client(&[&url]);
    assert_eq!(client.events(&formation(), Some(5), Some(3), 40).await.unwrap(), []);
    assert_eq!(client.events(&formation(), None, Some(10), 0).await.unwrap(), []);
}

#[tokio::test]
async fn a_monitor_that_is_not_ready_is_an_answer_to_ready() {
    let body = json!({
        "ready": false, "version": "1", "schema_version": 1,
        "started_at": "2026-01-02T03:04:05Z", "storage": { "kind": "embedded", "pid": 5 }
    });
    let url = serve(always(StatusCode::SERVICE_UNAVAILABLE, &body.to_string()).0).await;
    assert!(!client(&[&url]).ready().await.unwrap().ready);
}

#[tokio::test]
async fn a_new_list_of_monitors_keeps_the_one_in_use() {
    let (first, second) = (nobody().await, serve(no_formations()).await);
    let client = client(&[&first, &second]);
    client.formations().await.unwrap();
    client.set_monitors(vec![nobody().await, second.clone()]);
    client.formations().await.unwrap();
    client.set_monitors(Vec::new());
    assert_eq!(client.monitors().len(), 2);
    assert!(Client::new(Vec::new(), Options::default()).is_err());
}

#[tokio::test]
async fn connections_are_used_again() {
    use axum::extract::ConnectInfo;
    use std::net::SocketAddr;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url: MonitorUrl = listener.local_addr().unwrap().to_string().parse().unwrap();
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let handler = move |ConnectInfo(peer): ConnectInfo<SocketAddr>| async move {
        sender.send(peer).unwrap();
        Json(json!([]))
    };
    let router = Router::new().route("/v1/formations", get(handler));
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, service).await.unwrap() });
    let client = client(&[&url]);
    for _ in 0..3 {
        client.formations().await.unwrap();
    }
    let first = receiver.recv().await.unwrap();
    assert_eq!(receiver.recv().await.unwrap(), first);
    assert_eq!(receiver.recv().await.unwrap(), first);
}
