//! Against a monitor that is a real HTTP server with a prepared answer.

use super::{Heard, Link};
use crate::attachment::Attachment;
use crate::guard::Right;
use crate::vitals::Health;
use anyhow::{Context as _, Result, ensure};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use ctl::client::{Client, Options, parse_monitor_urls};
use fsm::group::{Record, View, goals, join};
use fsm::{Millis, Now};
use shared::api::{ApiError, Identity, JoinRequest};
use shared::ids::{FormationId, GroupId, NodeId};
use shared::report::{Answer, Report};
use shared::settings::Settings;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

const HANG: Duration = Duration::from_secs(10);

fn formation() -> Result<FormationId> {
    "default".parse().context("a name")
}

fn join_request() -> Result<JoinRequest> {
    Ok(JoinRequest::of_new_node(formation()?, "node1".parse().context("a name")?))
}

/// What a monitor answers to the only node of a new formation.
fn answer() -> Result<Answer> {
    let record = Record::new(formation()?, GroupId(0), Settings::default());
    let now = Now { mono: Millis(0), wall: chrono::Utc::now() };
    let joined = join::join(&record, &join_request()?, "secret", now).ok().context("a node")?;
    let record = joined.decision.context("a decision")?.record;
    let assignment =
        goals::assignment(&record, &View::default(), joined.node).context("an assignment")?;
    Ok(Answer {
        nonce: 0,
        revision: record.revision,
        assignment,
        lease: None,
        flushed: Vec::new(),
        sync_members: Vec::new(),
        monitors: Vec::new(),
        wants_catalogue: false,
        archived: shared::report::Archived::default(),
    })
}

fn report() -> Report {
    Report::of_new_node("")
}

async fn answered(State(answer): State<Answer>, Json(report): Json<Report>) -> Json<Answer> {
    Json(Answer { nonce: report.nonce, ..answer })
}

/// Whether the other side has hung up.
fn has_ended(stream: &TcpStream) -> Result<bool> {
    loop {
        match stream.try_read(&mut [0; 4096]) {
            Ok(0) => return Ok(true),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
}

/// A link that calls, and what it is connected to.
struct Calling {
    told: watch::Receiver<Heard>,
    outgoing: watch::Sender<Option<Report>>,
    task: JoinHandle<()>,
    _others: (watch::Sender<Health>, watch::Sender<Attachment>),
}

impl Drop for Calling {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn call(monitor: SocketAddr) -> Result<Calling> {
    let monitors = parse_monitor_urls(&format!("http://{monitor}"))?;
    let (outgoing, incoming) = watch::channel(Some(report()));
    let (health, seen) = watch::channel(Health::default());
    let (heard, told) = watch::channel(Heard::default());
    let (attachment, attached) = watch::channel(Attachment::default());
    let link = Link {
        client: Client::new(monitors, Options::default())?,
        identity: Identity {
            formation: formation()?,
            node_id: NodeId(1),
            secret: "secret".to_owned(),
        },
        join: join_request()?,
        attachment: attached,
        keeper: "keeper".to_owned(),
        outgoing: incoming,
        health: seen,
        heard,
        right: Right::default(),
    };
    let task = tokio::spawn(link.run());
    Ok(Calling { told, outgoing, task, _others: (health, attachment) })
}

/// A call whose first packets are lost is not waited for: another one beside it gets through.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_overdue_call_is_not_waited_for() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let mut calling = call(listener.local_addr()?)?;
    // It is never answered.
    let (swallowed, _) = timeout(HANG, listener.accept()).await??;
    let routes =
        axum::Router::new().route("/v1/nodes/{node}/report", post(answered)).with_state(answer()?);
    let monitor = tokio::spawn(async move { axum::serve(listener, routes).await });
    timeout(HANG, calling.told.wait_for(|heard| heard.answer.is_some())).await??;
    ensure!(!has_ended(&swallowed)?, "the first call was given up before the second was made");
    monitor.abort();
    Ok(())
}

/// A monitor that is in quarantine by the second call, and whose answer to the first comes late.
#[derive(Clone)]
struct Lost {
    answer: Answer,
    calls: watch::Sender<usize>,
    late: Arc<Notify>,
}

async fn quarantined(
    State(lost): State<Lost>,
    Json(report): Json<Report>,
) -> std::result::Result<Json<Answer>, (StatusCode, Json<ApiError>)> {
    lost.calls.send_modify(|calls| *calls += 1);
    if report.seq == 1 {
        lost.late.notified().await;
        return Ok(Json(Answer { nonce: report.nonce, ..lost.answer }));
    }
    let refused = ApiError {
        code: 6,
        reason: "quarantine".to_owned(),
        message: "the keepers have to be heard first".to_owned(),
        nodes: Vec::new(),
    };
    Err((StatusCode::CONFLICT, Json(refused)))
}

/// What a lost monitor said comes before the offer of this node, or never: the record that is made from the
/// offers would not know of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_lost_monitor_said_does_not_come_after_the_offer() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let mut calling = call(listener.local_addr()?)?;
    let (calls, mut counted) = watch::channel(0);
    let lost = Lost { answer: answer()?, calls, late: Arc::default() };
    let late = Arc::clone(&lost.late);
    let routes =
        axum::Router::new().route("/v1/nodes/{node}/report", post(quarantined)).with_state(lost);
    let monitor = tokio::spawn(async move { axum::serve(listener, routes).await });
    timeout(HANG, counted.wait_for(|calls| *calls >= 1)).await??;
    // There is news, for which a second call is made while the first is held.
    calling.outgoing.send_replace(Some(Report { streaming: true, ..report() }));
    timeout(HANG, calling.told.wait_for(|heard| heard.quarantined)).await??;
    late.notify_one();
    let so_far = *counted.borrow();
    timeout(HANG, counted.wait_for(|calls| *calls >= so_far + 3)).await??;
    let heard = calling.told.borrow().clone();
    ensure!(heard.answer.is_none() && heard.quarantined, "{heard:?}");
    monitor.abort();
    Ok(())
}
