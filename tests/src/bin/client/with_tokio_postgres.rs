//! tokio-postgres: one URI with all hosts; the library looks for the one that takes writes.
//!
//! What TLS it speaks, and who is believed, is the business of a connector. This one is told by the variables
//! that libpq has for it, since nothing of that can stand in the URI.

use crate::{ANSWER_LIMIT, CONNECT_LIMIT, Outcome, Rows, WHERE};
use anyhow::{Context as _, Result};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use std::env::var_os;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_postgres::error::{DbError, Severity};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{AsyncMessage, Client, Config, Connection, NoTls, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

const INSERT: &str = "insert into client_rows (client, id) values ('tokio-postgres', $1)";

/// A session, and whether the server has warned that a commit was not waited for.
struct Session {
    client: Client,
    warned: Arc<AtomicBool>,
}

/// See the module.
pub(crate) struct Writer {
    config: Config,
    session: Option<Session>,
}

impl Writer {
    pub(crate) fn new(uris: &[String]) -> Result<Self> {
        Ok(Self { config: config(uris)?, session: None })
    }
}

impl Rows for Writer {
    async fn write(&mut self, number: i64) -> Outcome {
        let session = match self.session.take() {
            Some(session) => session,
            None => match connect(&self.config).await {
                Ok(session) => session,
                Err(error) => return Outcome::Unreachable(format!("{error:#}")),
            },
        };
        session.warned.store(false, Ordering::SeqCst);
        let outcome = match timeout(ANSWER_LIMIT, session.client.execute(INSERT, &[&number])).await
        {
            Err(_) => Outcome::Unknown(format!("no answer within {ANSWER_LIMIT:?}")),
            Ok(Err(error)) => failed(&error),
            Ok(Ok(_)) if session.warned.load(Ordering::SeqCst) => {
                Outcome::Unknown("committed there, but not waited for".to_owned())
            }
            Ok(Ok(_)) => Outcome::Acknowledged,
        };
        // Whatever went wrong, the next attempt looks for the primary anew.
        if matches!(outcome, Outcome::Acknowledged) {
            self.session = Some(session);
        }
        outcome
    }
}

/// What the server is that is found.
pub(crate) async fn read(uris: &[String]) -> Result<String> {
    let session = connect(&config(uris)?).await?;
    Ok(session.client.query_one(WHERE, &[]).await?.try_get(0)?)
}

fn config(uris: &[String]) -> Result<Config> {
    Ok(uris.first().context("no URI")?.parse()?)
}

async fn connect(config: &Config) -> Result<Session> {
    match tls()? {
        Some(tls) => connect_with(config, MakeRustlsConnect::new(tls)).await,
        None => connect_with(config, NoTls).await,
    }
}

/// Whoever has a certificate of one of these authorities for the name of the host is believed, no matter what
/// `sslmode` is; `None`: no TLS.
fn tls() -> Result<Option<ClientConfig>> {
    let Some(file) = var_os("PGSSLROOTCERT") else { return Ok(None) };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file)? {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let client = client.with_root_certificates(roots);
    Ok(Some(match (var_os("PGSSLCERT"), var_os("PGSSLKEY")) {
        (Some(file), Some(key)) => {
            let chain = CertificateDer::pem_file_iter(file)?.collect::<Result<_, _>>()?;
            client.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(key)?)?
        }
        _ => client.with_no_client_auth(),
    }))
}

/// The library's own limit is for the socket of each host; a server that accepts and says nothing is not in it.
async fn connect_with<T>(config: &Config, tls: T) -> Result<Session>
where
    T: MakeTlsConnect<Socket, Stream: Send + 'static>,
{
    let hosts = u32::try_from(config.get_hosts().len())?;
    let (client, connection) = timeout(CONNECT_LIMIT * hosts, config.connect(tls)).await??;
    let warned = Arc::new(AtomicBool::new(false));
    drop(tokio::spawn(listen(connection, Arc::clone(&warned))));
    Ok(Session { client, warned })
}

/// A warning comes before the answer that it belongs to.
async fn listen<S>(mut connection: Connection<Socket, S>, warned: Arc<AtomicBool>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(Ok(message)) =
        std::future::poll_fn(|context| connection.poll_message(context)).await
    {
        if let AsyncMessage::Notice(notice) = message
            && notice.message().contains("synchronous replication")
        {
            warned.store(true, Ordering::SeqCst);
        }
    }
}

/// Only an answer of severity ERROR says that it was not done.
fn failed(error: &tokio_postgres::Error) -> Outcome {
    let text = error.as_db_error().map_or_else(|| error.to_string(), ToString::to_string);
    match error.as_db_error().and_then(DbError::parsed_severity) {
        Some(Severity::Error) => Outcome::Refused(text),
        Some(_) | None => Outcome::Unknown(text),
    }
}
