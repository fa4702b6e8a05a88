//! A Postgres of its own for each test, a monitor in this process, and a scripted keeper.

use crate::http;
use crate::service::{Identity, Service};
use crate::store::Store;
use postgres::embedded::Embedded;
use postgres::programs::Programs;
use reqwest::StatusCode;
use rustix::process::{Pid, Signal, kill_process};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use shared::PROTOCOL;
use shared::api::{JoinAnswer, JoinRequest};
use shared::ids::{NodeName, Revision};
use shared::report::{Answer, Report};
use shared::settings::Settings;
use sqlx::postgres::PgConnectOptions;
use std::os::unix::fs::PermissionsExt as _;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// A database that is gone when this is dropped.
pub(super) struct Database {
    pub(super) embedded: Arc<Embedded>,
    _dir: tempfile::TempDir,
}

impl Database {
    pub(super) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // The user of Postgres must be able to pass.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let programs = Programs::find(None).unwrap();
        let embedded = Embedded::open(&dir.path().join("data"), programs, None).await.unwrap();
        Self { embedded: Arc::new(embedded), _dir: dir }
    }

    pub(super) fn store(&self) -> Store {
        Store::new(PgConnectOptions::from_str(&self.embedded.url()).unwrap())
    }

    pub(super) fn kill(&self) {
        let pid = Pid::from_raw(self.embedded.pid()).unwrap();
        kill_process(pid, Signal::KILL).unwrap();
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let Some(pid) = Pid::from_raw(self.embedded.pid()) else { return };
        let pid_file = self.embedded.instance().data_dir.join("postmaster.pid");
        if kill_process(pid, Signal::QUIT).is_ok() {
            for _ in 0..250 {
                if !pid_file.exists() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

/// A monitor in this process.
pub(super) struct Monitor {
    pub(super) service: Arc<Service>,
    pub(super) url: String,
    pub(super) client: reqwest::Client,
    stop: watch::Sender<bool>,
}

impl Monitor {
    /// Starts over a database whose schema may be missing.
    pub(super) async fn start(store: Store) -> Self {
        store.migrate().await.unwrap();
        let (stop, stopping) = watch::channel(false);
        let service = Arc::new(Service::new(Identity {
            protocol: PROTOCOL,
            monitors: vec!["http://monitor:7432".to_owned()],
            storage: "embedded".to_owned(),
            stopping,
            hooks: Vec::new(),
        }));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = http::router(Arc::clone(&service));
        drop(tokio::spawn(async move { axum::serve(listener, router).await }));
        service.open(store, Some(Settings::default())).await.unwrap();
        let client = client();
        let monitor = Self { service, url, client, stop };
        monitor.until("the start is decided", |status| status["ticket"] != 0).await;
        monitor
    }

    pub(super) fn stop(&self) {
        self.stop.send_replace(true);
    }

    pub(super) async fn get(&self, path: &str) -> (StatusCode, Value) {
        body(self.client.get(format!("{}{path}", self.url))).await
    }

    pub(super) async fn post(&self, path: &str, sent: &Value) -> (StatusCode, Value) {
        body(self.client.post(format!("{}{path}", self.url)).json(sent)).await
    }

    pub(super) async fn delete(&self, path: &str) -> (StatusCode, Value) {
        body(self.client.delete(format!("{}{path}", self.url))).await
    }

    pub(super) async fn status(&self) -> Value {
        self.get("/v1/formations/default/status").await.1
    }

    /// Waits until the status is so.
    pub(super) async fn until(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        for _ in 0..100 {
            last = self.status().await;
            if is_so(&last) {
                return last;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("never came: {what}; the last status: {last:#}");
    }

    /// Registers a node.
    pub(super) async fn join(&self, name: &str) -> Keeper {
        let (status, answer) = self.post("/v1/join", &join_request(name, None)).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        Keeper::new(self, parse(answer))
    }
}

/// Whatever is not answered within this time is not answered.
fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(25)).build().unwrap()
}

async fn body(request: reqwest::RequestBuilder) -> (StatusCode, Value) {
    let answer = request.send().await.unwrap();
    let status = answer.status();
    (status, answer.json().await.unwrap_or(Value::Null))
}

pub(super) fn parse<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

pub(super) fn join_request(name: &str, token: Option<&str>) -> Value {
    let name: NodeName = name.parse().unwrap();
    json!(JoinRequest {
        // Another one for each name, and nobody listens there.
        port: name.as_str().bytes().map(u16::from).sum(),
        rest: "127.0.0.1:2".to_owned(),
        token: token.map(ToOwned::to_owned),
        ..JoinRequest::of_new_node("default".parse().unwrap(), name)
    })
}

/// A keeper that does nothing but talk.
#[derive(Clone)]
pub(super) struct Keeper {
    pub(super) joined: JoinAnswer,
    pub(super) report: Report,
    url: String,
    client: reqwest::Client,
}

impl Keeper {
    fn new(monitor: &Monitor, joined: JoinAnswer) -> Self {
        let id = joined.identity.node_id;
        let mut keeper = Self {
            url: format!("{}/v1/nodes/{id}/report", monitor.url),
            client: monitor.client.clone(),
            report: report(),
            joined,
        };
        keeper.restart();
        keeper
    }

    /// A new process: nothing of what the old one was told is known.
    pub(super) fn restart(&mut self) {
        self.report.keeper = crate::secret::short_id();
        self.report.seq = 0;
        self.report.revision = Revision(0);
        self.client = client();
    }

    /// Sends a report without taking in what is answered.
    pub(super) async fn send(&mut self, wait_ms: u64) -> (StatusCode, Value) {
        self.report.seq += 1;
        self.report.nonce += 1;
        let request = self
            .client
            .post(&self.url)
            .query(&[("wait_ms", wait_ms)])
            .bearer_auth(&self.joined.identity.secret)
            .json(&self.report);
        body(request).await
    }

    /// Sends a report and takes in the answer.
    pub(super) async fn talk(&mut self, wait_ms: u64) -> Answer {
        let (status, answer) = self.send(wait_ms).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        let answer: Answer = parse(answer);
        assert_eq!(answer.nonce, self.report.nonce);
        self.report.revision = answer.revision;
        answer
    }

    /// Talks until there is no news.
    pub(super) async fn settle(&mut self) {
        for _ in 0..20 {
            let known = self.report.revision;
            if self.talk(300).await.revision == known {
                return;
            }
        }
        panic!("node {} is told something new for ever", self.joined.identity.node_id);
    }
}

fn report() -> Report {
    Report { nonce: 1000, ..Report::of_new_node("") }
}
