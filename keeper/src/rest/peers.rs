//! `/peers/{id}`: what this node can reach of another member, for the monitor's verdict.

use super::Source;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use postgres::insist::insist;
use serde_json::json;
use shared::ids::NodeId;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// What this node sees of another member: asked by the monitor when it suspects that one.
pub(super) async fn answer(State(source): State<Source>, Path(id): Path<u64>) -> Response {
    let member = source().assignment().and_then(|told| told.member(NodeId(id)).cloned());
    let Some(member) = member else { return StatusCode::NOT_FOUND.into_response() };
    let limit = Duration::from_millis(500);
    let keeper = reach(&member.rest, limit, b"GET /liveness HTTP/1.0\r\n\r\n");
    let address = format!("{}:{}", bracketed(&member.host), member.port);
    // SSLRequest: any Postgres that lives answers it with one byte, before any login.
    let postgres = reach(&address, limit, &[0, 0, 0, 8, 4, 210, 22, 47]);
    let (keeper, postgres) = tokio::join!(keeper, postgres);
    Json(json!({ "keeper": keeper, "postgres": postgres })).into_response()
}

fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

async fn reach(address: &str, limit: Duration, question: &[u8]) -> &'static str {
    let reached = insist(limit, || async {
        let asked = async {
            let mut stream = TcpStream::connect(address).await?;
            stream.write_all(question).await?;
            stream.read_u8().await
        };
        match asked.await {
            Ok(_) => Some("answered"),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => Some("refused"),
            Err(_) => None,
        }
    });
    reached.await.unwrap_or("silent")
}
