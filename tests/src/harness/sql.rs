//! Sessions with one node, as its superuser.

use anyhow::{Context as _, Result};
use std::net::SocketAddr;
use std::ops::Deref;
use std::path::Path;
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

/// How to log in to the first of these that can be reached.
pub fn config(addresses: &[SocketAddr]) -> Config {
    let mut config = Config::new();
    config.user("postgres").dbname("postgres").connect_timeout(CONNECT_LIMIT);
    config.application_name("pgtandem-test");
    for address in addresses {
        config.host(address.ip().to_string()).port(address.port());
    }
    config
}

impl Sql {
    /// Connects to a server.
    pub async fn connect(address: SocketAddr) -> Result<Self> {
        Self::connect_with(&config(&[address]), &address.to_string()).await
    }

    /// Connects through a socket in a directory.
    pub async fn connect_locally(directory: &Path, port: u16) -> Result<Self> {
        let mut config = config(&[]);
        config.host_path(directory).port(port);
        Self::connect_with(&config, &directory.display().to_string()).await
    }

    async fn connect_with(config: &Config, place: &str) -> Result<Self> {
        let connected = tokio::time::timeout(CONNECT_LIMIT, config.connect(NoTls)).await;
        let (client, connection) = connected
            .with_context(|| format!("no answer from {place}"))?
            .with_context(|| format!("cannot connect to {place}"))?;
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
