//! Rule 10, connecting: a diverged standby is counted (C5 of docs/safety.md), and a slot that does not
//! exist is the lock that PostgreSQL itself enforces.

use crate::commit::Commit;
use crate::stage::{Stage, any, holds, meanwhile};
use postgres::postmaster::Signal;
use postgres::session::Session;
use postgres::session::slots::Created;
use shared::ids::{Ticket, TimelineId};
use shared::spec::Spec;

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

fact!(
    promoted_upstream,
    "14",
    "a slot can be made on a standby, which says what it streams; who streams from it stays connected when it is promoted, and counts"
);

/// C20: the walsender of before is let out by dropping its slot only.
pub async fn promoted_upstream(stage: &Stage) {
    let a = stage.primary(1, &[]).await;
    a.connect().await.execute("CREATE TABLE t (n int)").await.unwrap();
    let mut w = stage.standby(2, &a).await;
    let own = w.id.admission_slot(Ticket(3));
    assert_eq!(a.connect().await.create_slot(&own, true).await.unwrap(), Created::Now);
    w.follow(&a, &own);
    w.apply(&[("primary_slot_name", &own)]).await;
    let session = w.connect().await;
    crate::harness::eventually("what a standby streams", async || {
        let stream = session.stream().await.unwrap();
        let expected = Some((own.clone(), TimelineId(1)));
        if stream.in_recovery && stream.receives == expected {
            Ok(())
        } else {
            Err(format!("{stream:?}"))
        }
    })
    .await;

    let mut d = stage.copy(3, &w).await;
    let slot = d.id.admission_slot(Ticket(4));
    assert_eq!(session.create_slot(&slot, true).await.unwrap(), Created::Now);
    d.follow(&w, &slot);
    d.apply(&[("primary_slot_name", &slot)]).await;
    let through = |session: Session| async move {
        let slots = session.slots().await.unwrap();
        slots.into_iter().find_map(|found| found.active_pid)
    };
    crate::harness::eventually("a stream through the slot", async || {
        through(w.connect().await).await.map(drop).ok_or("nobody uses it".to_owned())
    })
    .await;
    let before = through(w.connect().await).await;

    w.write(&[("synchronous_standby_names", &Spec::blocking_setting())]);
    w.apply(&[("primary_conninfo", "")]).await;
    w.promote().await;
    let stream = w.connect().await.stream().await.unwrap();
    assert!(!stream.in_recovery && stream.receives.is_none(), "{stream:?}");
    let mut commit = Commit::of(&w, "on", "INSERT INTO t VALUES (1)").await;
    commit.waits(&w).await;
    w.streams_to(&d).await;
    assert_eq!(through(w.connect().await).await, before, "the walsender is another one");

    // Without rule 9 (i) it would count, whatever its standby has.
    w.apply_spec(&any(1, &[&d])).await;
    w.connect().await.write_record().await.unwrap();
    commit.returns().await;
    w.apply_spec(&Spec::blocking_setting()).await;
    let mut commit = Commit::of(&w, "on", "INSERT INTO t VALUES (2)").await;
    assert!(w.connect().await.drop_slot(&slot).await.unwrap());
    w.apply_spec(&any(1, &[&d])).await;
    meanwhile("nobody comes back without the slot", async || match w.walsender_of(&d).await {
        Some(row) if row.flush_lsn.is_some() => Err(format!("{row:?}")),
        Some(_) | None => Ok(()),
    })
    .await;
    commit.waits(&w).await;
}
