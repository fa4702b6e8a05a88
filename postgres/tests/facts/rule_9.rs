//! Rule 9, changing the spec: what its signs show while processes of the primary are held.

use crate::commit::Commit;
use crate::harness::{eventually, source};
use crate::node::Node;
use crate::processes::{Held, checkpointer};
use crate::stage::{Stage, any, meanwhile};
use postgres::session::primary::Walsender;
use shared::ids::NodeId;
use shared::spec::{BLOCKING_NAME, Spec};
use std::process::Stdio;

/// In seconds; so long that no standby answers by itself while a test waits (`stage::FACT_LIMIT`).
const SILENCE: (&str, &str) = ("wal_receiver_status_interval", "600");

fact!(
    held_walsender,
    "1 (sync_priority of a held walsender)",
    "a walsender held across a reload shows its old priority until it goes on, the others the new one"
);

pub async fn held_walsender(stage: &Stage) {
    let mut a = stage.primary(1, &[]).await;
    let (b, c) = (stage.standby(2, &a).await, stage.standby(3, &a).await);
    let both = any(2, &[&b, &c]);
    let one = any(1, &[&b, &c]);
    a.apply_spec(&both).await;
    a.sees(&b, "counts", |row| row.sync_priority == 1).await;
    let changes = [(Spec::blocking_setting(), 0), (one.clone(), 1), (String::new(), 0), (one, 1)];
    for (spec, priority) in changes {
        let held = Held::new(a.walsender_of(&b).await.unwrap().pid).await;
        a.apply_spec(&spec).await;
        a.sees(&c, "the other one follows", |row| row.sync_priority == priority).await;
        let old = 1 - priority;
        meanwhile("the held walsender's old priority", async || {
            let row = a.walsender_of(&b).await.unwrap();
            let fine = row.sync_priority == old && row.flush_lsn.is_some();
            if fine { Ok(()) } else { Err(format!("{row:?} under '{spec}'")) }
        })
        .await;
        drop(held);
        a.sees(&b, "it follows too", |row| row.sync_priority == priority).await;
    }
}

fact!(
    held_checkpointer,
    "2 (checkpointer and probe)",
    "while the checkpointer is held, commits return under the blocking spec and wait under none, whatever a new connection shows; a probe shows what is"
);

pub async fn held_checkpointer(stage: &Stage) {
    let mut a = stage.primary(1, &[]).await;
    Commit::probe(&a).await.returns().await;

    let held = Held::new(checkpointer(&a)).await;
    a.apply_spec(&Spec::blocking_setting()).await;
    for _ in 0..3 {
        Commit::probe(&a).await.returns().await;
    }
    drop(held);
    let mut waiting = Commit::first_that_waits(&a).await;
    waiting.waits(&a).await;

    // Going to asynchronous: only a probe that returns by itself proves it (C18).
    let held = Held::new(checkpointer(&a)).await;
    a.apply_spec("").await;
    waiting.waits(&a).await;
    Commit::probe(&a).await.waits(&a).await;
    drop(held);
    waiting.returns().await;
    Commit::probe(&a).await.returns().await;
}

fact!(
    null_flush,
    "6 (walsenders that connect in between)",
    "a walsender whose flush_lsn is NULL shows priority 0 although the spec in force names it"
);

pub async fn null_flush(stage: &Stage) {
    let mut a = stage.primary(1, &[]).await;
    let b = stage.standby(2, &a).await;
    let c = NodeId(3);
    let spec = format!("ANY 1 ({}, {})", b.name(), c.application_name());
    a.apply_spec(&spec).await;
    a.sees(&b, "counts", |row| row.sync_priority == 1).await;

    // It streams, and does not tell what it has flushed.
    let target = stage.place.path().join("received");
    postgres::durable::create_dir(&target, 0o700, &stage.place.owner).unwrap();
    let mut command = a.instance.owner.command(a.instance.programs.dir().join("pg_receivewal"));
    command.arg("-D").arg(&target).arg("--no-loop");
    command.arg("--dbname").arg(source(&a.instance).conninfo(&c.application_name(), &[]));
    command.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let mut receiver = command.spawn().unwrap();
    let row_of_c = async || {
        let rows = a.connect().await.replication().await.unwrap();
        rows.into_iter().find(|row| row.application_name == c.application_name())
    };
    let is_silent = |row: &Walsender| row.state == "streaming" && row.flush_lsn.is_none();
    eventually("a walsender without an answer", async || match row_of_c().await {
        Some(row) if is_silent(&row) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    a.connect().await.write_record().await.unwrap();
    meanwhile("a NULL flush_lsn hides the priority", async || match row_of_c().await {
        Some(row) if is_silent(&row) && row.sync_priority == 0 => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    receiver.kill().await.unwrap();
}

fact!(
    blocking_name,
    "6 (walsenders that connect in between)",
    "nobody matches a blocking name of 64 or more bytes; an ordinary reserved name is matched in any letter case"
);

pub async fn blocking_name(stage: &Stage) {
    let mut a = stage.primary(1, &[]).await;
    let mut b = stage.standby(2, &a).await;
    let upstream = source(&a.instance);

    a.apply_spec("ANY 1 (reserved)").await;
    let mut commit = Commit::probe(&a).await;
    commit.waits(&a).await;
    b.apply(&[("primary_conninfo", &upstream.conninfo("ReServed", &[]))]).await;
    eventually("a walsender of that name", async || {
        let rows = a.connect().await.replication().await.unwrap();
        let counts = rows.iter().any(|row| {
            row.application_name == "ReServed" && row.state == "streaming" && row.sync_priority == 1
        });
        if counts { Ok(()) } else { Err(format!("{rows:?}")) }
    })
    .await;
    a.connect().await.write_record().await.unwrap();
    commit.returns().await;

    a.apply_spec(&Spec::blocking_setting()).await;
    b.apply(&[("primary_conninfo", &upstream.conninfo(BLOCKING_NAME, &[]))]).await;
    let cut = &BLOCKING_NAME[..63];
    eventually("a walsender of that name", async || {
        let rows = a.connect().await.replication().await.unwrap();
        let fine = rows.iter().all(|row| {
            row.application_name == cut && row.flush_lsn.is_some() && row.sync_priority == 0
        }) && rows.len() == 1;
        if fine { Ok(()) } else { Err(format!("{rows:?}")) }
    })
    .await;
    Commit::probe(&a).await.waits(&a).await;
}

fact!(
    probe,
    "2 (checkpointer and probe)",
    "pg_logical_emit_message(true, ...) waits for standbys under on and remote_apply and not under local; outside of a transaction it never waits"
);

pub async fn probe(stage: &Stage) {
    const MESSAGE: &str = "SELECT pg_logical_emit_message(true, 'pgtandem', '')";
    const OUTSIDE: &str = "SELECT pg_logical_emit_message(false, 'pgtandem', '')";
    let a = stage.primary(1, &[("synchronous_standby_names", &Spec::blocking_setting())]).await;
    Commit::probe(&a).await.waits(&a).await;
    for level in ["on", "remote_apply"] {
        Commit::of(&a, level, MESSAGE).await.waits(&a).await;
    }
    Commit::of(&a, "local", MESSAGE).await.returns().await;
    Commit::of(&a, "on", OUTSIDE).await.returns().await;
    a.connect().await.write_record().await.unwrap();
}

fact!(
    own_record,
    "5 (cost)",
    "after (ii) commits go on waiting for the next answer of the standbys; one record makes them answer at once"
);

pub async fn own_record(stage: &Stage) {
    let mut a = stage.primary(1, &[]).await;
    let mut b = stage.standby(2, &a).await;
    b.apply(&[SILENCE]).await;
    block(&mut a, &b).await;
    let mut commit = Commit::probe(&a).await;
    commit.waits(&a).await;
    a.streams_to(&b).await;

    a.apply_spec(&any(1, &[&b])).await;
    a.sees(&b, "counts", |row| row.sync_priority == 1).await;
    commit.waits(&a).await;
    a.connect().await.write_record().await.unwrap();
    commit.returns().await;
}

/// Step (i) of rule 9 with its signs, for one standby.
async fn block(a: &mut Node, b: &Node) {
    a.apply_spec(&Spec::blocking_setting()).await;
    a.sees(b, "the sign of (i)", |row| row.flush_lsn.is_some() && row.sync_priority == 0).await;
    Commit::first_that_waits(a).await;
}
