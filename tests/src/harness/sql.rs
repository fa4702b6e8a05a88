//! Sessions with one node, as its superuser.

use anyhow::{Context as _, Result};
use std::ops::Deref;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_postgres::types::{FromSqlOwned, ToSql};
use tokio_postgres::{Client, Config, NoTls};

/// A node that is up answers within this.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// A session; ends when dropped.
#[derive(Debug)]
pub struct Sql {
    client: Client,
    task: JoinHandle<()>,
}

/// How to log in to a node on loopback.
pub fn config(ports: &[u16]) -> Config {
    let mut config = Config::new();
    config.user("postgres").dbname("postgres").connect_timeout(CONNECT_LIMIT);
    config.application_name("pgtandem-test");
    for port in ports {
        config.host("127.0.0.1").port(*port);
    }
    config
}

impl Sql {
    /// Connects to the server on a port.
    pub async fn connect(port: u16) -> Result<Self> {
        let config = config(&[port]);
        let connected = tokio::time::timeout(CONNECT_LIMIT, config.connect(NoTls)).await;
        let (client, connection) = connected
            .with_context(|| format!("no answer from port {port}"))?
            .with_context(|| format!("cannot connect to port {port}"))?;
        // Whatever ends the connection is told to whoever asks next.
        let task = tokio::spawn(async move { drop(connection.await) });
        Ok(Self { client, task })
    }

    /// The value that a query gives.
    pub async fn value<T: FromSqlOwned>(
        &self,
        query: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<T> {
        let row = self.client.query_one(query, parameters).await.with_context(|| query.to_owned());
        Ok(row?.try_get(0)?)
    }

    /// All rows' first columns.
    pub async fn column<T: FromSqlOwned>(&self, query: &str) -> Result<Vec<T>> {
        let rows = self.client.query(query, &[]).await.with_context(|| query.to_owned())?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// Runs statements.
    pub async fn run(&self, statements: &str) -> Result<()> {
        self.client.batch_execute(statements).await.with_context(|| statements.to_owned())
    }
}

impl Deref for Sql {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Drop for Sql {
    fn drop(&mut self) {
        self.task.abort();
    }
}
