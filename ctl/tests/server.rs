//! A server that answers as a test wants it to.

use axum::Router;
use ctl::client::MonitorUrl;
use tokio::net::TcpListener;

/// Serves on a free port of this host until the test's runtime ends.
pub async fn serve(router: Router) -> MonitorUrl {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = listener.local_addr().unwrap().to_string().parse().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    url
}

/// A URL where nobody listens.
pub async fn nobody() -> MonitorUrl {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().to_string().parse().unwrap()
}

/// A URL where connections are accepted and nothing is ever said.
pub async fn silent() -> MonitorUrl {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = listener.local_addr().unwrap().to_string().parse().unwrap();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            held.push(connection);
        }
    });
    url
}

/// An error in the monitor's form.
pub fn api_error(code: u8, reason: &str) -> serde_json::Value {
    serde_json::json!({ "code": code, "reason": reason, "message": format!("says {reason}"), "nodes": ["node1"] })
}
