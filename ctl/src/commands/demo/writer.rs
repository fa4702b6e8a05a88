//! The demo's client: writes one row after the other through a connection string with all hosts, as
//! an application would, and remembers what was acknowledged.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio_postgres::config::TargetSessionAttrs;
use tokio_postgres::{Client, Config, NoTls};

/// A write that takes longer than this is given up; it may or may not have happened.
const WRITE_LIMIT: Duration = Duration::from_secs(1);
/// Between two attempts to connect.
const RETRY: Duration = Duration::from_millis(20);

/// Acknowledged writes, in their order.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger(Vec<(i64, Instant)>);

impl Ledger {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The longest time without an acknowledgement that ended after `moment`: the kill takes effect a
    /// moment after it was given, and writes may come through meanwhile.
    pub(super) fn outage(&self, moment: Instant) -> Duration {
        let gap = |pair: &[(i64, Instant)]| match pair {
            [(_, before), (_, after)] if *after > moment => Some(*after - *before),
            _ => None,
        };
        self.0.windows(2).filter_map(gap).max().unwrap_or_default()
    }

    fn acknowledged_after(&self, moment: Instant) -> bool {
        self.0.last().is_some_and(|(_, at)| *at > moment)
    }
}

/// The running writer.
#[derive(Debug)]
pub(super) struct Writer {
    ledger: Arc<Mutex<Ledger>>,
    task: JoinHandle<()>,
}

async fn connect(addresses: &[SocketAddr], attrs: TargetSessionAttrs) -> Result<Client, String> {
    let mut config = Config::new();
    for address in addresses {
        config.host(address.ip().to_string()).port(address.port());
    }
    config.user("postgres").dbname("postgres").connect_timeout(WRITE_LIMIT);
    config.target_session_attrs(attrs);
    let connected = tokio::time::timeout(WRITE_LIMIT * 2, config.connect(NoTls)).await;
    let (client, connection) =
        connected.map_err(|_| "no answer".to_owned())?.map_err(|error| error.to_string())?;
    tokio::spawn(async move { drop(connection.await) });
    Ok(client)
}

impl Writer {
    pub(super) async fn start(addresses: Vec<SocketAddr>) -> Result<Self, String> {
        let client = connect(&addresses, TargetSessionAttrs::ReadWrite).await?;
        client
            .batch_execute("CREATE TABLE demo_ledger (id bigint PRIMARY KEY)")
            .await
            .map_err(|error| error.to_string())?;
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        let task = tokio::spawn(write(addresses, client, Arc::clone(&ledger)));
        Ok(Self { ledger, task })
    }

    fn ledger(&self) -> Ledger {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for an acknowledgement after `moment`.
    pub(super) async fn acknowledged_since(
        &mut self,
        moment: Instant,
        limit: Duration,
    ) -> Result<(), String> {
        let deadline = Instant::now() + limit;
        while !self.ledger().acknowledged_after(moment) {
            if Instant::now() > deadline {
                return Err("no write has been acknowledged since the kill".to_owned());
            }
            tokio::time::sleep(RETRY).await;
        }
        Ok(())
    }

    pub(super) async fn stop(self) -> Ledger {
        self.task.abort();
        let ledger = self.ledger();
        drop(self.task.await);
        ledger
    }
}

async fn write(addresses: Vec<SocketAddr>, first: Client, ledger: Arc<Mutex<Ledger>>) {
    let mut client = Some(first);
    for id in 1_i64.. {
        let Some(connected) = &client else {
            client = connect(&addresses, TargetSessionAttrs::ReadWrite).await.ok();
            if client.is_none() {
                tokio::time::sleep(RETRY).await;
            }
            continue;
        };
        let values: [&(dyn tokio_postgres::types::ToSql + Sync); 1] = [&id];
        let insert = connected.execute("INSERT INTO demo_ledger VALUES ($1)", &values);
        match tokio::time::timeout(WRITE_LIMIT, insert).await {
            Ok(Ok(_)) => {
                let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
                ledger.0.push((id, Instant::now()));
            }
            Ok(Err(_)) | Err(_) => client = None,
        }
    }
}

/// How many acknowledged rows are not on `primary`.
pub(super) async fn lost(primary: &SocketAddr, ledger: &Ledger) -> Result<usize, String> {
    let client = connect(&[*primary], TargetSessionAttrs::Any).await?;
    let rows =
        client.query("SELECT id FROM demo_ledger", &[]).await.map_err(|error| error.to_string())?;
    let there: std::collections::BTreeSet<i64> =
        rows.iter().filter_map(|row| row.try_get(0).ok()).collect();
    Ok(ledger.0.iter().filter(|(id, _)| !there.contains(id)).count())
}
