//! Rule 9: why there is a blocking step (C7 of docs/safety.md). From `ANY 2 (B, C)` to `ANY 1 (C)` on A:
//! B's walsender has not reloaded and counts still, C's has and needs only one, hence W is acknowledged
//! with B alone, although {C} satisfies both specs and lacks it.

use crate::commit::Commit;
use crate::harness::eventually;
use crate::node::Node;
use crate::processes::{Held, walreceiver};
use crate::stage::{Stage, any, holds, meanwhile};
use shared::lsn::Lsn;
use shared::spec::Spec;

/// A, B and C under `ANY 2 (B, C)`, W waiting: B has it and has said so, C lacks it.
struct Scene {
    a: Node,
    b: Node,
    c: Node,
    commit: Commit,
    /// Where W ends.
    end: Lsn,
    walsender_of_b: Held,
    /// With an answer of C unread in its socket, from before W.
    walsender_of_c: Held,
    walreceiver_of_c: Held,
}

impl Scene {
    async fn set(stage: &Stage) -> Self {
        let mut a = stage.primary(1, &[]).await;
        let (b, c) = (stage.standby(2, &a).await, stage.standby(3, &a).await);
        a.apply_spec(&any(2, &[&b, &c])).await;
        for standby in [&b, &c] {
            a.sees(standby, "counts", |row| row.sync_priority == 1).await;
        }
        let (walsender_of_c, walreceiver_of_c) = queue_an_answer(&a, &c).await;

        let mut commit = Commit::probe(&a).await;
        commit.waits(&a).await;
        let end = a.flushed().await;
        let row =
            a.sees(&b, "W on B", |row| row.flush_lsn.is_some_and(|flushed| flushed >= end)).await;
        let walsender_of_b = Held::new(row.pid).await;
        let scene = Self { a, b, c, commit, end, walsender_of_b, walsender_of_c, walreceiver_of_c };
        scene.c_lacks_it().await;
        scene
    }

    async fn c_lacks_it(&self) {
        let received = self.c.received().await.unwrap();
        assert!(received < self.end, "C has W: {received}, W ends at {}", self.end);
    }

    /// The hole: these files are written while both walsenders are held, and C's goes on first.
    async fn acknowledged_by_b_alone(mut self, specs: &[String]) {
        for spec in specs {
            self.a.apply_spec(spec).await;
        }
        self.commit.waits(&self.a).await;
        drop(self.walsender_of_c);
        self.commit.returns().await;
        let received = self.c.received().await.unwrap();
        assert!(received < self.end, "C has W, so nothing was shown");
        drop((self.walsender_of_b, self.walreceiver_of_c));
    }
}

/// Holds C's walsender while an answer of C waits in its socket, and then C's walreceiver.
async fn queue_an_answer(a: &Node, c: &Node) -> (Held, Held) {
    let walreceiver = walreceiver(c).await;
    let silent = Held::new(walreceiver).await;
    let on_a = a.connect().await;
    on_a.write_record().await.unwrap();
    let sent = on_a.flush_lsn().await.unwrap();
    let is_sent = format!(
        "(SELECT sent_lsn >= '{sent}' FROM pg_stat_replication WHERE application_name = '{}')",
        c.name()
    );
    eventually("a record on its way to C", async || {
        if holds(&on_a, &is_sent).await { Ok(()) } else { Err(is_sent.clone()) }
    })
    .await;
    let walsender = Held::new(a.walsender_of(c).await.unwrap().pid).await;
    drop(silent);
    // It answers right after it has flushed (XLogWalRcvFlush in walreceiver.c), then waits for more.
    eventually("the record on C", async || match c.received().await {
        Some(received) if received >= sent => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    let on_c = c.connect().await;
    eventually("C's walreceiver waits for more", async || {
        match on_c.backend_wait_event(walreceiver).await.unwrap() {
            Some(event) if event == "WalReceiverMain" => Ok(()),
            other => Err(format!("it waits for {other:?}")),
        }
    })
    .await;
    (walsender, Held::new(walreceiver).await)
}

fact!(
    without_blocking,
    "3 (C7)",
    "between ANY 2 (B, C) and ANY 1 (C), without the blocking step, a commit on B alone is acknowledged"
);

pub async fn without_blocking(stage: &Stage) {
    let scene = Scene::set(stage).await;
    let after = any(1, &[&scene.c]);
    scene.acknowledged_by_b_alone(&[after]).await;
}

fact!(
    unseen_blocking,
    "3 (C7)",
    "with the blocking step, but without waiting for its signs, the same commit is acknowledged"
);

pub async fn unseen_blocking(stage: &Stage) {
    let scene = Scene::set(stage).await;
    let after = any(1, &[&scene.c]);
    scene.acknowledged_by_b_alone(&[Spec::blocking_setting(), after]).await;
}

fact!(
    with_blocking,
    "3 (C7)",
    "with the blocking step and its signs a commit on B alone is not acknowledged, in whichever order walsenders reload"
);

pub async fn with_blocking(stage: &Stage) {
    let mut scene = Scene::set(stage).await;
    let after = any(1, &[&scene.c]);
    scene.a.apply_spec(&Spec::blocking_setting()).await;
    meanwhile("no sign of (i) while walsenders are held", async || {
        for standby in [&scene.b, &scene.c] {
            let row = scene.a.walsender_of(standby).await.unwrap();
            if row.sync_priority == 0 {
                return Err(format!("{row:?}"));
            }
        }
        Ok(())
    })
    .await;
    // The answer that acknowledged W above is read now.
    drop(scene.walsender_of_c);
    scene.a.sees(&scene.c, "the sign of (i)", |row| row.sync_priority == 0).await;
    scene.commit.stays().await;
    drop(scene.walsender_of_b);
    scene.a.sees(&scene.b, "the sign of (i)", |row| row.sync_priority == 0).await;

    scene.a.apply_spec(&after).await;
    scene.a.sees(&scene.c, "the sign of (ii)", |row| row.sync_priority == 1).await;
    scene.a.connect().await.write_record().await.unwrap();
    scene.commit.stays().await;
    let received = scene.c.received().await.unwrap();
    assert!(received < scene.end, "C has W, so nothing was shown");

    drop(scene.walreceiver_of_c);
    scene.a.connect().await.write_record().await.unwrap();
    scene.commit.returns().await;
    assert!(scene.c.received().await.unwrap() >= scene.end);
}
