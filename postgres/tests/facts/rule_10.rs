//! Rule 10, connecting: a diverged standby is counted (C5 of docs/safety.md), and a slot that does not
//! exist is the lock that PostgreSQL itself enforces.

use crate::commit::Commit;
use crate::stage::{Stage, any, holds, meanwhile};
use postgres::postmaster::Signal;
use postgres::session::slots::Created;
use shared::ids::Ticket;

/// More than C will write, within the segment of the fork: else PostgreSQL refuses by itself.
const TAIL: &str = "SELECT pg_logical_emit_message(true, '', repeat('x', 1000000))";

fact!(
    diverged_standby,
    "8 (C5)",
    "a diverged standby releases commits that it does not have, with an existing slot; a slot that does not exist refuses it"
);

pub async fn diverged_standby(stage: &Stage) {
    let mut a = stage.primary(1, &[]).await;
    let mut c = stage.standby(3, &a).await;
    a.connect().await.execute("CREATE TABLE t (n int)").await.unwrap();
    a.streams_to(&c).await;
    c.apply(&[("primary_conninfo", "")]).await;
    let fork = c.sealed().await;

    // A has a tail that nobody else has, and C is promoted without it.
    a.connect().await.execute(TAIL).await.unwrap();
    let tail = a.flushed().await;
    a.stop(Signal::ImmediateStop).await;
    c.write(&[("synchronous_standby_names", &any(1, &[&a]))]);
    c.apply(&[("primary_conninfo", "")]).await;
    c.promote().await;
    let mut commit = Commit::of(&c, "on", "INSERT INTO t VALUES (1)").await;
    commit.waits(&c).await;

    // Rule 10: the slot of an admission that has not been given.
    let slot = a.id.admission_slot(Ticket(9));
    a.instance.data_dir.set_standby(&a.instance.owner).unwrap();
    a.follow(&c, &slot);
    a.start().await;
    a.logs(&format!("replication slot \"{slot}\" does not exist")).await;
    meanwhile("no answer of A counts", async || match c.walsender_of(&a).await {
        Some(row) if row.flush_lsn.is_some() => Err(format!("{row:?}")),
        Some(_) | None => Ok(()),
    })
    .await;
    commit.waits(&c).await;

    // The hole: the same standby with the slot.
    assert_eq!(c.connect().await.create_slot(&slot, false).await.unwrap(), Created::Now);
    commit.returns().await;
    Commit::of(&c, "on", "INSERT INTO t VALUES (2)").await.returns().await;
    let end = c.flushed().await;
    assert!(fork < end && end < tail, "fork {fork}, C {end}, A {tail}");
    let on_a = a.connect().await;
    assert!(holds(&on_a, "pg_is_in_recovery()").await);
    assert!(holds(&on_a, "NOT EXISTS (SELECT FROM t)").await, "A has the rows");
}
