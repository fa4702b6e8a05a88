//! sqlx, which takes one host: several URIs are tried in turn, and each server is asked what it is.
//!
//! It hands no warnings to the program, only to its log: a commit that was not waited for looks like any
//! other here. Nothing in this program cancels one.

use crate::{ANSWER_LIMIT, CONNECT_LIMIT, Outcome, Rows, WHERE};
use anyhow::{Context as _, Result};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgDatabaseError, PgSeverity};
use sqlx::{ConnectOptions as _, Executor as _};
use tokio::time::timeout;

const INSERT: &str = "insert into client_rows (client, id) values ('sqlx', $1)";

/// See the module.
pub(crate) struct Writer {
    /// In the order in which they are tried: the one that was right is tried first, and last when it is lost, so
    /// that a host that is gone holds nobody up.
    servers: Vec<PgConnectOptions>,
    connection: Option<PgConnection>,
}

impl Writer {
    pub(crate) fn new(uris: &[String]) -> Result<Self> {
        Ok(Self { servers: servers(uris)?, connection: None })
    }
}

impl Rows for Writer {
    async fn write(&mut self, number: i64) -> Outcome {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => match connect(&self.servers, "primary").await {
                Ok((connection, found)) => {
                    self.servers.rotate_left(found);
                    connection
                }
                Err(error) => return Outcome::Unreachable(format!("{error:#}")),
            },
        };
        let insert = sqlx::query(INSERT).bind(number);
        let failure = match timeout(ANSWER_LIMIT, connection.execute(insert)).await {
            Err(_) => Outcome::Unknown(format!("no answer within {ANSWER_LIMIT:?}")),
            Ok(Err(error)) => failed(&error),
            Ok(Ok(_)) => {
                self.connection = Some(connection);
                return Outcome::Acknowledged;
            }
        };
        // Whatever went wrong, the next attempt looks for the primary anew.
        self.servers.rotate_left(1);
        failure
    }
}

/// What the server is that is found: a standby, or the primary where there is none.
pub(crate) async fn read(uris: &[String]) -> Result<String> {
    let servers = servers(uris)?;
    let (mut connection, _) = match connect(&servers, "standby").await {
        Ok(found) => found,
        Err(_) => connect(&servers, "primary").await?,
    };
    Ok(sqlx::query_scalar(WHERE).fetch_one(&mut connection).await?)
}

fn servers(uris: &[String]) -> Result<Vec<PgConnectOptions>> {
    uris.iter().map(|uri| Ok(uri.parse()?)).collect()
}

/// Connects to the first server that is what is wanted, and says which that is. The limit is for one server,
/// and for all of it.
async fn connect(servers: &[PgConnectOptions], wanted: &str) -> Result<(PgConnection, usize)> {
    let mut last = None;
    for (index, server) in servers.iter().enumerate() {
        let look = async {
            let mut connection = server.connect().await?;
            let is: String = sqlx::query_scalar(WHERE).fetch_one(&mut connection).await?;
            Ok::<_, sqlx::Error>((connection, is))
        };
        match timeout(CONNECT_LIMIT, look).await {
            Ok(Ok((connection, is))) if is == wanted => return Ok((connection, index)),
            Ok(Ok((_, is))) => last = Some(format!("it is a {is}")),
            Ok(Err(error)) => last = Some(error.to_string()),
            Err(_) => last = Some(format!("no answer within {CONNECT_LIMIT:?}")),
        }
    }
    Err(anyhow::anyhow!(last.context("no URI")?))
}

/// Only an answer of severity ERROR says that it was not done.
fn failed(error: &sqlx::Error) -> Outcome {
    let answer = error.as_database_error().and_then(|e| e.try_downcast_ref::<PgDatabaseError>());
    match answer.map(PgDatabaseError::severity) {
        Some(PgSeverity::Error) => Outcome::Refused(error.to_string()),
        Some(_) | None => Outcome::Unknown(error.to_string()),
    }
}
