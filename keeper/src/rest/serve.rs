//! Connections of those who ask: how many at a time, and for how long one may say nothing.
//!
//! What must hold: whoever opens connections and forgets them, or reads as slowly as it likes, cannot use up
//! the files that the keeper itself needs, and keeps others out for no longer than a limit. What is answered
//! is no business of this file.

use axum::Router;
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// How much is granted to those who ask.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Connections at a time; further ones wait in the kernel's queue. A quarter of the files that a process
    /// may have open where nobody has said more.
    pub(super) connections: usize,
    /// How long a connection may be open without a whole question. Checks come every second or so, on
    /// connections of their own; what collects metrics connects again.
    pub(super) silence: Duration,
    /// How long a connection may be open at all, which ends those that take no answers.
    pub(super) age: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let (silence, age) = (Duration::from_secs(20), Duration::from_mins(10));
        Self { connections: 256, silence, age }
    }
}

/// Answers for ever.
pub(super) async fn serve(mut listener: TcpListener, router: Router, limits: Limits) {
    let places = Arc::new(Semaphore::new(limits.connections));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits.silence);
    // Nobody closes it.
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        // It logs errors, and tries again by itself.
        let (stream, _) = Listener::accept(&mut listener).await;
        let (http, router) = (http.clone(), router.clone());
        tokio::spawn(async move {
            answer(stream, &http, router, limits.age).await;
            drop(place);
        });
    }
}

async fn answer(stream: TcpStream, http: &http1::Builder, router: Router, age: Duration) {
    let service = TowerToHyperService::new(router);
    let connection = http.serve_connection(TokioIo::new(stream), service);
    match timeout(age, connection).await {
        Ok(Ok(())) => {}
        // Who asks may go at any time, and load balancers do.
        Ok(Err(error)) => tracing::debug!("a connection to the REST interface has ended: {error}"),
        Err(_) => tracing::debug!("a connection to the REST interface was open for too long"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::{Result, ensure};
    use axum::routing::get;
    use std::net::SocketAddr;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    const HANG: Duration = Duration::from_secs(30);
    const SHORT: Duration = Duration::from_millis(100);

    /// An answer that is greater than what kernels keep for a peer that does not read.
    const MUCH: usize = 64 << 20;

    async fn server(limits: Limits) -> Result<SocketAddr> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let router = Router::new()
            .route("/", get(|| async { "yes" }))
            .route("/much", get(|| async { "x".repeat(MUCH) }));
        tokio::spawn(serve(listener, router, limits));
        Ok(address)
    }

    async fn connect(address: SocketAddr, says: &str) -> Result<TcpStream> {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(says.as_bytes()).await?;
        Ok(stream)
    }

    /// All that comes until the other side closes.
    async fn rest(stream: &mut TcpStream) -> Result<String> {
        let mut text = String::new();
        timeout(HANG, stream.read_to_string(&mut text)).await??;
        Ok(text)
    }

    /// Whoever opens a connection and says nothing, or half of something, or forgets it after an answer.
    #[tokio::test]
    async fn silent_connections_are_closed() -> Result<()> {
        let address = server(Limits { silence: SHORT, ..Limits::default() }).await?;
        for says in ["", "GET / HT"] {
            ensure!(rest(&mut connect(address, says).await?).await?.is_empty(), "{says}");
        }
        let mut kept = connect(address, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await?;
        let said = rest(&mut kept).await?;
        ensure!(said.starts_with("HTTP/1.1 200") && said.ends_with("yes"), "{said}");
        Ok(())
    }

    /// One connection after the other, for as long as it asks.
    #[tokio::test]
    async fn several_questions_on_one_connection() -> Result<()> {
        let address = server(Limits::default()).await?;
        let question = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let last = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        let mut stream = connect(address, &[question, question, last].concat()).await?;
        let said = rest(&mut stream).await?;
        ensure!(said.matches("200 OK").count() == 3, "{said}");
        Ok(())
    }

    /// Those beyond the limit wait until one goes, whether it says nothing or does not read.
    #[tokio::test]
    async fn forgotten_connections_keep_nobody_out_for_long() -> Result<()> {
        let limits = Limits { connections: 3, silence: SHORT, age: SHORT * 3 };
        let address = server(limits).await?;
        let mut forgotten = Vec::new();
        for says in ["", "GET /much HTTP/1.0\r\n\r\n", "GET /much HTTP/1.0\r\n\r\n"] {
            forgotten.push(connect(address, says).await?);
        }
        let mut asked = connect(address, "GET / HTTP/1.0\r\n\r\n").await?;
        let said = rest(&mut asked).await?;
        ensure!(said.ends_with("yes"), "{said}");
        ensure!(forgotten.len() == 3);
        Ok(())
    }

    /// No more are taken than there are places for: those that wait have not been accepted.
    #[tokio::test]
    async fn no_more_than_so_many_at_a_time() -> Result<()> {
        let address = server(Limits { connections: 1, ..Limits::default() }).await?;
        let silent = connect(address, "").await?;
        let mut asked = connect(address, "GET / HTTP/1.0\r\n\r\n").await?;
        let mut byte = [0];
        let early = timeout(SHORT, asked.read(&mut byte)).await;
        ensure!(early.is_err(), "{early:?}");
        drop(silent);
        ensure!(rest(&mut asked).await?.ends_with("yes"));
        Ok(())
    }
}
