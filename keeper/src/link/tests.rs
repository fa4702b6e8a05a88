//! Against a monitor that is a real HTTP server with a prepared answer.

use super::{Heard, Link};
use crate::attachment::Attachment;
use crate::guard::Right;
use crate::vitals::Health;
use anyhow::{Context as _, Result, ensure};
use axum::Json;
use axum::extract::State;
use axum::routing::post;
use ctl::client::{Client, Options, parse_monitor_urls};
use fsm::group::{Record, View, goals, join};
use fsm::{Millis, Now};
use shared::api::{Identity, JoinRequest};
use shared::ids::{FormationId, GroupId, NodeId};
use shared::report::{Answer, Data, Report};
use shared::settings::Settings;
use std::io::ErrorKind;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

const HANG: Duration = Duration::from_secs(10);

fn formation() -> Result<FormationId> {
    "default".parse().context("a name")
}

fn join_request() -> Result<JoinRequest> {
    Ok(JoinRequest {
        protocol: shared::PROTOCOL,
        formation: formation()?,
        name: "node1".parse().context("a name")?,
        host: "127.0.0.1".to_owned(),
        port: 5432,
        rest: "127.0.0.1:8008".to_owned(),
        candidate_priority: 50,
        replication_quorum: true,
        zone: None,
        token: None,
        data: Data::Empty,
        standby: false,
        identity: None,
        passwords: None,
        unchanged: false,
    })
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

/// A call whose first packets are lost is not waited for: another one beside it gets through.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_overdue_call_is_not_waited_for() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let monitors = parse_monitor_urls(&format!("http://{}", listener.local_addr()?))?;
    let (outgoing, incoming) = watch::channel(Some(report()));
    let (health, seen) = watch::channel(Health::default());
    let (heard, mut told) = watch::channel(Heard::default());
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
    let calling = tokio::spawn(link.run());
    // It is never answered.
    let (swallowed, _) = tokio::time::timeout(HANG, listener.accept()).await??;
    let routes =
        axum::Router::new().route("/v1/nodes/{node}/report", post(answered)).with_state(answer()?);
    let monitor = tokio::spawn(async move { axum::serve(listener, routes).await });
    tokio::time::timeout(HANG, told.wait_for(|heard| heard.answer.is_some())).await??;
    ensure!(!has_ended(&swallowed)?, "the first call was given up before the second was made");
    drop((outgoing, health, attachment));
    calling.abort();
    monitor.abort();
    Ok(())
}
