//! Rule 8, identity: two promotions from one point take the same number (C6 of docs/safety.md), unless
//! all numbers up to a reserved one are taken by placeholders.

use crate::harness::LIMIT;
use crate::harness::source;
use crate::node::Node;
use crate::stage::{Stage, holds};
use postgres::postmaster::Signal;
use postgres::rewind::{self, RewindOptions, Rewound};
use postgres::timelines;
use shared::ids::TimelineId;

const OWN: TimelineId = TimelineId(1);
const RESERVED: TimelineId = TimelineId(9);

fact!(
    timeline_numbers,
    "8 (C6, placeholders)",
    "two promotions take the same timeline and pg_rewind sees no divergence; empty history files of all numbers in between reserve one, that of the last alone does not"
);

pub async fn timeline_numbers(stage: &Stage) {
    let a = stage.primary(1, &[]).await;
    a.connect().await.execute("CREATE TABLE t (n int)").await.unwrap();
    let b = stage.standby(2, &a).await;
    let c = stage.standby(3, &a).await;
    let d = stage.standby(4, &a).await;
    a.stop(Signal::FastStop).await;

    let last = c.instance.data_dir.wal_dir().join("00000008.history");
    postgres::durable::write(&last, b"", 0o600, &c.instance.owner).unwrap();
    let placed =
        timelines::place_placeholders(&d.instance.data_dir, OWN, RESERVED, &d.instance.owner);
    assert_eq!(placed.unwrap(), 7);
    assert_eq!(promote(&b).await, TimelineId(2));
    assert_eq!(promote(&c).await, TimelineId(2), "with a placeholder of number 8 alone");
    assert_eq!(promote(&d).await, RESERVED);

    // Each has a row of its own now; B is to follow another.
    b.stop(Signal::FastStop).await;
    assert_eq!(rewound(&b, &c).await, Rewound::NotRequired);
    assert_eq!(rewound(&b, &d).await, Rewound::Changed);
}

/// Promotes a node, lets it write its own number, and returns its timeline.
async fn promote(node: &Node) -> TimelineId {
    node.promote().await;
    let session = node.connect().await;
    session.execute(&format!("INSERT INTO t VALUES ({})", node.id)).await.unwrap();
    let own = format!("(SELECT array_agg(n) FROM t) = ARRAY[{}]", node.id);
    assert!(holds(&session, &own).await);
    // pg_rewind goes by the timeline of the last checkpoint.
    session.checkpoint(LIMIT).await.unwrap();
    let timeline = session.current_timeline().await.unwrap();
    assert_eq!(session.checkpoint_timeline().await.unwrap(), timeline);
    timeline
}

async fn rewound(target: &Node, from: &Node) -> Rewound {
    let from = source(&from.instance);
    let mut rewind =
        rewind::start(&target.instance, &from, "postgres", RewindOptions::default()).unwrap();
    rewind.wait().await.unwrap()
}
