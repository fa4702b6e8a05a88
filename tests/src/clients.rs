//! Clients as their users write them, each a program of its own: they write numbered rows, all at the same
//! time, while a cluster is broken below them.
//!
//! The programs are in `tests/clients/` and `src/bin/client/`; each is given what `pgtandem uri` prints for
//! it and nothing else. What they say is read in [`account`], and judged by what is in the table. They end
//! with their standard input, and so with the test, however that ends.
//!
//! What must hold: a client writes each number once. It goes on with the next one after an error.

pub mod account;
mod program;

use crate::harness::certificates::{Certificate, text};
use crate::harness::wait::{DEADLINE, eventually};
use crate::harness::{Cluster, Node};
use account::{Account, Rows, now};
use anyhow::{Context as _, Result, ensure};
use program::Running;
use std::path::{Path, PathBuf};
use std::process::Command;

/// No key: a row that is there twice shall be seen. Who took it tells one primary from the next.
const TABLE: &str = "create table if not exists client_rows (\
    client text not null, id bigint not null, port int not null default inet_server_port())";

/// A client, or the library that it is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// libpq; a connection for each row.
    Psql,
    /// Python, with a libpq of its own.
    Psycopg,
    /// libpq; a connection for ten rows.
    Pgbench,
    /// Rust; finds the primary itself.
    TokioPostgres,
    /// Rust; one host at a time.
    Sqlx,
    /// JavaScript; one host at a time.
    NodePostgres,
}

/// All of them.
pub const ALL: [Client; 6] = [
    Client::Psql,
    Client::Psycopg,
    Client::Pgbench,
    Client::TokioPostgres,
    Client::Sqlx,
    Client::NodePostgres,
];

impl Client {
    /// What it is called in its rows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Psql => "psql",
            Self::Psycopg => "psycopg",
            Self::Pgbench => "pgbench",
            Self::TokioPostgres => "tokio-postgres",
            Self::Sqlx => "sqlx",
            Self::NodePostgres => "node-postgres",
        }
    }

    /// What `pgtandem uri --client` calls it.
    fn kind(self) -> &'static str {
        match self {
            Self::Psql | Self::Psycopg | Self::Pgbench => "libpq",
            Self::TokioPostgres | Self::Sqlx | Self::NodePostgres => self.name(),
        }
    }

    /// The command that runs it.
    fn command(self, mode: &str, uris: &[String]) -> Result<Command> {
        let mut command = match self {
            Self::Psql => program::script("bash", "psql.sh")?,
            Self::Pgbench => program::script("bash", "pgbench.sh")?,
            Self::Psycopg => program::script("python3", "psycopg_rows.py")?,
            Self::NodePostgres => program::script("node", "node_postgres.js")?,
            Self::TokioPostgres | Self::Sqlx => program::ours(self.name())?,
        };
        command.arg(mode).args(uris);
        Ok(command)
    }
}

/// Clients at work.
#[derive(Debug)]
pub struct Clients {
    running: Vec<Running>,
}

impl Clients {
    /// Makes the table, starts all of them, and waits until each has written.
    pub async fn start(cluster: &Cluster) -> Result<Self> {
        cluster.primary().await?.sql().await?.run(TABLE).await?;
        let dir = dir(cluster)?;
        let mut running = Vec::new();
        for client in ALL {
            let command = client.command("write", &uris(cluster, client, &[]).await?)?;
            running.push(Running::start(client, command, &dir)?);
        }
        let clients = Self { running };
        clients.go_on().await?;
        Ok(clients)
    }

    /// Waits until each has written a row that it began to write from now on.
    pub async fn go_on(&self) -> Result<()> {
        let since = now()?;
        for running in &self.running {
            let what = format!("an acknowledged row of {}", running.client().name());
            eventually(&what, DEADLINE, async || {
                running.is_up()?;
                let account = running.account()?;
                let goes_on = account.acknowledged().any(|attempt| attempt.began >= since);
                Ok(if goes_on { Ok(()) } else { Err(account.last()) })
            })
            .await?;
        }
        Ok(())
    }

    /// What each has said so far.
    pub fn accounts(&self) -> Result<Vec<(Client, Account)>> {
        let account = |running: &Running| Ok((running.client(), running.account()?));
        self.running.iter().map(account).collect()
    }

    /// Ends them; what they have said.
    pub async fn finish(mut self) -> Result<Vec<(Client, Account)>> {
        for running in &mut self.running {
            running.end().await?;
        }
        self.accounts()
    }
}

/// What `pgtandem uri` prints for a client, with further arguments.
pub async fn uris(cluster: &Cluster, client: Client, further: &[&str]) -> Result<Vec<String>> {
    uris_of(cluster, client, "postgres", further).await
}

/// The same for another user.
pub async fn uris_of(
    cluster: &Cluster,
    client: Client,
    user: &str,
    further: &[&str],
) -> Result<Vec<String>> {
    let arguments = ["uri", "--user", user, "--client", client.kind()];
    let arguments = [&arguments[..], further].concat();
    let answer = cluster.pgtandem(&arguments).await?;
    ensure!(answer.code == 0, "pgtandem {arguments:?}: {answer:?}");
    let uris = answer.json.get("uris").context("no URIs")?;
    Ok(serde_json::from_value(uris.clone())?)
}

/// Lets a client connect by these URIs; what it finds there: `primary` or `standby`.
pub async fn finds(client: Client, uris: &[String]) -> Result<String> {
    finds_with(client, uris, &[]).await
}

async fn finds_with(client: Client, uris: &[String], variables: &[(&str, &str)]) -> Result<String> {
    let mut command = tokio::process::Command::from(client.command("read", uris)?);
    command.envs(variables.iter().copied()).kill_on_drop(true);
    let output = tokio::time::timeout(DEADLINE, command.output()).await;
    let output = output.with_context(|| format!("{} does not end", client.name()))??;
    ensure!(output.status.success(), "{} cannot read: {output:?}", client.name());
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Whom a client believes that insists on TLS, and what it shows of itself.
#[derive(Clone, Copy, Debug)]
pub struct Tls<'a> {
    /// The authority.
    pub root: &'a Path,
    /// Its own certificate.
    pub own: Option<&'a Certificate>,
}

impl Client {
    /// The strictest mode that fits nodes which are known by their addresses.
    fn strictest(self) -> &'static str {
        match self {
            Self::Psql | Self::Psycopg | Self::Pgbench | Self::Sqlx => "verify-full",
            // Its connector checks everything.
            Self::TokioPostgres => "require",
            // It looks for the name of the host in a certificate, and for `localhost` where there is none.
            Self::NodePostgres => "verify-ca",
        }
    }
}

/// Lets a client connect by TLS as a user; what it finds there.
pub async fn finds_by_tls(
    cluster: &Cluster,
    client: Client,
    user: &str,
    tls: Tls<'_>,
) -> Result<String> {
    let root = text(tls.root)?;
    let own = tls.own.map(|own| Ok::<_, anyhow::Error>((text(&own.file)?, text(&own.key)?)));
    let own = own.transpose()?;
    let mut arguments = vec!["--sslmode", client.strictest()];
    let mut variables = Vec::new();
    if client == Client::TokioPostgres {
        variables.push(("PGSSLROOTCERT", root));
        variables
            .extend(own.iter().flat_map(|(file, key)| [("PGSSLCERT", *file), ("PGSSLKEY", *key)]));
    } else {
        arguments.extend(["--sslrootcert", root]);
        arguments.extend(own.iter().flat_map(|(file, key)| ["--sslcert", *file, "--sslkey", *key]));
    }
    let uris = uris_of(cluster, client, user, &arguments).await?;
    finds_with(client, &uris, &variables).await
}

/// All rows that are on a node.
pub async fn rows(node: &Node) -> Result<Rows> {
    let rows = node.sql().await?.query("select client, id, port from client_rows", &[]).await?;
    let mut found = Rows::default();
    for row in rows {
        let (client, id, port): (String, i64, i32) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        found.add(&client, id, u16::try_from(port)?);
    }
    Ok(found)
}

fn dir(cluster: &Cluster) -> Result<PathBuf> {
    let dir = cluster.sandbox().root().join("clients");
    std::fs::create_dir_all(&dir)?;
    Ok(dir)
}
