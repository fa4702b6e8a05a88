//! Real clients, all at the same time, through a killed primary and a switchover.

use anyhow::{Result, ensure};
use std::fs;
use tests::clients::account::{Account, now};
use tests::clients::{ALL, Client, Clients, Tls, finds, finds_by_tls, rows, uris, uris_of};
use tests::harness::certificates::{Authority, text};
use tests::harness::sandbox::give_to_postgres;
use tests::harness::wait::{DEADLINE, eventually};
use tests::harness::{Cluster, Node};

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

/// One node is enough for what stands in a string.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_string_is_read_as_it_is_meant() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    names_may_be_odd(&cluster).await?;
    tls_is_as_the_string_says(&cluster).await?;
    cluster
        .judge()
        .expecting("division by zero", "how pgbench tells a primary")
        .expecting("requires a valid client certificate", "one that shows none is turned away")
        .without_workload()
        .await
}

/// Databases and users may be called anything; node-postgres cannot be told of some, and is not.
async fn names_may_be_odd(cluster: &Cluster) -> Result<()> {
    const USER: &str = "o'neil@x:/?#[]% ö\"";
    const EVERY: &str = "a&b=c;d+e,f@g:h$ %41 ö'";
    const MOST: &str = "a&b/c?d#e %2F";
    let sql = cluster.primary().await?.sql().await?;
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    sql.run(&format!("create role {} login", quoted(USER))).await?;
    for name in [EVERY, MOST] {
        sql.run(&format!("create database {}", quoted(name))).await?;
    }
    for client in ALL {
        for name in [EVERY, MOST] {
            if name == MOST && client == Client::NodePostgres {
                continue;
            }
            let uris = uris_of(cluster, client, USER, &["--dbname", name]).await?;
            let found = finds(client, &uris).await;
            ensure!(found.is_ok(), "{} by {uris:?}: {found:?}", client.name());
        }
    }
    Ok(())
}

/// Certificates are looked for where the string says, those of somebody else are not believed, and a client
/// shows its own.
async fn tls_is_as_the_string_says(cluster: &Cluster) -> Result<()> {
    const USER: &str = "certified";
    let own = Authority::new(cluster.sandbox().dir("own")?, "authority")?;
    let other = Authority::new(cluster.sandbox().dir("other")?, "somebody")?;
    speak_tls(cluster.primary().await?, &own).await?;
    let certificate = own.sign(USER, "extendedKeyUsage=clientAuth")?;
    for client in ALL {
        let name = client.name();
        for (authority, is_believed) in [(&own, true), (&other, false)] {
            let tls = Tls { root: authority.root(), own: None };
            let found = finds_by_tls(cluster, client, "postgres", tls).await;
            ensure!(found.is_ok() == is_believed, "{name} by {tls:?}: {found:?}");
            let why = found.err().map(|error| format!("{error:#}")).unwrap_or_default();
            ensure!(is_believed || why.contains("certificate"), "{name}: {why}");
        }
        for (certificate, is_let_in) in [(Some(&certificate), true), (None, false)] {
            let tls = Tls { root: own.root(), own: certificate };
            let found = finds_by_tls(cluster, client, USER, tls).await;
            ensure!(found.is_ok() == is_let_in, "{name} by {tls:?}: {found:?}");
        }
        let plain = finds(client, &uris(cluster, client, &["--sslmode", "disable"]).await?).await;
        ensure!(plain.is_ok(), "{name} without TLS: {plain:?}");
    }
    Ok(())
}

/// By a certificate for its address; and one user has to show one as well.
async fn speak_tls(node: &Node, authority: &Authority) -> Result<()> {
    let server = authority.sign("server", "subjectAltName=IP:127.0.0.1")?;
    [&server.file, &server.key].iter().try_for_each(|path| give_to_postgres(path))?;
    let rules = node.pgdata().join("pg_hba.conf");
    let others = fs::read_to_string(&rules)?;
    fs::write(
        &rules,
        format!("hostssl all certified all cert\nhostnossl all certified all reject\n{others}"),
    )?;
    let sql = node.sql().await?;
    sql.run("create role certified login").await?;
    for (setting, value) in [
        ("ssl_cert_file", text(&server.file)?),
        ("ssl_key_file", text(&server.key)?),
        ("ssl_ca_file", text(authority.root())?),
        ("ssl", "on"),
    ] {
        sql.run(&format!("alter system set {setting} = '{value}'")).await?;
    }
    sql.run("select pg_reload_conf()").await
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
