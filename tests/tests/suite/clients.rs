//! Real clients, all at the same time, through a killed primary and a switchover.

use anyhow::{Context as _, Result, ensure};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use tests::clients::account::{Account, now};
use tests::clients::{ALL, Client, Clients, finds, rows, uris};
use tests::harness::Cluster;
use tests::harness::sandbox::give_to_postgres;
use tests::harness::wait::{DEADLINE, eventually};

/// What each was told is true, whoever lost its server noticed, and a warning is not taken for success.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn find_the_new_primary() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let mut standbys = Vec::new();
    for client in ALL {
        standbys.push((client, uris(&cluster, client, &["--role", "standby"]).await?));
    }
    let clients = Clients::start(&cluster).await?;
    waits_are_cancelled(&cluster, &clients).await?;

    let old = cluster.primary().await?;
    let fault = now()?;
    old.kill_both()?;
    cluster.settled().await?;
    clients.go_on().await?;
    let there = rows(cluster.primary().await?).await?;
    for (client, account) in clients.accounts()? {
        let recovery = account.recovery(client.name(), &there, fault, old.port());
        let noticed = recovery.is_some_and(|r| r.failed + r.unreachable > 0);
        ensure!(noticed, "{} has not noticed: {recovery:?}", client.name());
    }

    old.start_keeper()?;
    cluster.settled().await?;
    clients.go_on().await?;
    cluster.perform(&["switchover"]).await?;
    cluster.settled().await?;
    clients.go_on().await?;

    // By URIs from before: who was a standby then may be the primary now.
    for (client, uris) in standbys {
        let found = finds(client, &uris).await?;
        ensure!(found == "standby", "{} by {uris:?} finds a {found}", client.name());
    }
    let accounts = clients.finish().await?;
    are_true(&cluster, &accounts).await?;
    cluster.judge().without_workload().await
}

/// Somebody cancels commits that wait for a standby: the server says COMMIT after a warning. sqlx tells its
/// program nothing of it.
async fn waits_are_cancelled(cluster: &Cluster, clients: &Clients) -> Result<()> {
    const WAIT: &str = "from pg_stat_activity \
        where wait_event = 'SyncRep' and query like 'insert into client_rows%'";
    let standbys = cluster.standbys().await?;
    let sql = cluster.primary().await?.sql().await?;
    standbys.iter().try_for_each(|standby| standby.freeze_postgres())?;
    let all_wait = eventually("all clients to wait for a standby", DEADLINE, async || {
        let count: i64 = sql.value(&format!("select count(*) {WAIT}"), &[]).await?;
        Ok(if usize::try_from(count)? == ALL.len() { Ok(()) } else { Err(format!("{count} wait")) })
    });
    all_wait.await?;
    let since: String = sql.value("select clock_timestamp()::text", &[]).await?;
    sql.column::<bool>(&format!("select pg_cancel_backend(pid) {WAIT}")).await?;
    // A standby that goes on too soon confirms what was to be cancelled.
    let old = format!("select count(*) {WAIT} and query_start < '{since}'");
    eventually("all waits to be over", DEADLINE, async || {
        let count: i64 = sql.value(&old, &[]).await?;
        Ok(if count == 0 { Ok(()) } else { Err(format!("{count} wait")) })
    })
    .await?;
    for standby in standbys {
        standby.thaw_postgres();
    }
    clients.go_on().await?;
    for (client, account) in clients.accounts()? {
        let is_told = client != Client::Sqlx;
        ensure!(account.was_warned() == is_told, "{}: {}", client.name(), account.last());
    }
    cluster.settled().await?;
    Ok(())
}

/// Certificates are looked for where the string says, and those of somebody else are not believed. The two in
/// Rust are built without TLS here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_is_as_the_string_says() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let node = cluster.primary().await?;
    let other = cluster.sandbox().dir("other")?;
    certify(&node.pgdata())?;
    certify(&other)?;
    let sql = node.sql().await?;
    sql.run("alter system set ssl = on").await?;
    sql.run("select pg_reload_conf()").await?;
    for (client, mode) in [
        (Client::Psql, "verify-full"),
        (Client::Psycopg, "verify-full"),
        (Client::Pgbench, "verify-full"),
        // It looks for the name of the host in a certificate, and for `localhost` where there is none.
        (Client::NodePostgres, "verify-ca"),
    ] {
        for (dir, is_believed) in [(node.pgdata(), true), (other.clone(), false)] {
            let root = dir.join("server.crt");
            let root = root.to_str().context("a path")?;
            let tls = ["--sslmode", mode, "--sslrootcert", root];
            let found = finds(client, &uris(&cluster, client, &tls).await?).await;
            ensure!(found.is_ok() == is_believed, "{} by {root}: {found:?}", client.name());
        }
        let plain = finds(client, &uris(&cluster, client, &["--sslmode", "disable"]).await?).await;
        ensure!(plain.is_ok(), "{} without TLS: {plain:?}", client.name());
    }
    let judge = cluster.judge().expecting("division by zero", "how pgbench tells a primary");
    judge.without_workload().await
}

/// A certificate that vouches for itself, as PostgreSQL looks for it.
fn certify(dir: &Path) -> Result<()> {
    let (key, certificate) = (dir.join("server.key"), dir.join("server.crt"));
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-nodes", "-days", "2", "-newkey", "ec"]);
    openssl.args(["-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", "/CN=pgtandem-test"]);
    openssl.args(["-addext", "subjectAltName=IP:127.0.0.1"]);
    openssl.arg("-keyout").arg(&key).arg("-out").arg(&certificate);
    let output = openssl.output().context("cannot run openssl")?;
    ensure!(output.status.success(), "{output:?}");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
    [key, certificate].iter().try_for_each(|path| give_to_postgres(path))
}

/// Every acknowledged row is there exactly once.
async fn are_true(cluster: &Cluster, accounts: &[(Client, Account)]) -> Result<()> {
    cluster.settled().await?;
    let there = rows(cluster.primary().await?).await?;
    let wrong = accounts.iter().flat_map(|(client, account)| account.wrong(client.name(), &there));
    let wrong: Vec<_> = wrong.collect();
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}
