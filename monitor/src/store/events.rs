//! The history: rows of `event`.

use super::{Store, StoreError, bigint, damaged, group_number, limited, unsigned};
use fsm::group::course::Stages;
use shared::Timestamp;
use shared::event::Event;
use shared::ids::{Epoch, FormationId, GroupId, NodeId, TimelineId};
use sqlx::{FromRow, Postgres, Transaction};

/// Where changes of the primary are looked for: far more than what is written between two of them, and
/// few enough to be read at any time.
const EVENTS_LOOKED_AT: i64 = 5000;

/// A row of `event`.
#[derive(FromRow)]
struct Row {
    formation: String,
    id: i64,
    at: Timestamp,
    group_id: i32,
    node: Option<String>,
    node_id: Option<i64>,
    epoch: i64,
    kind: String,
    rule: String,
    from_state: Option<String>,
    to_state: Option<String>,
    timeline: Option<i64>,
    lsn: Option<String>,
    reason: String,
    evidence: serde_json::Value,
}

pub(super) async fn insert(
    transaction: &mut Transaction<'_, Postgres>,
    events: &[Event],
) -> Result<(), StoreError> {
    for event in events {
        sqlx::query(
            "INSERT INTO event (formation, id, at, group_id, node, node_id, epoch, kind, rule,
                 from_state, to_state, timeline, lsn, reason, evidence)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
        )
        .bind(event.formation.as_str())
        .bind(bigint(event.id)?)
        .bind(event.at)
        .bind(group_number(event.group)?)
        .bind(event.node.as_ref().map(ToString::to_string))
        .bind(event.node_id.map(|id| bigint(id.0)).transpose()?)
        .bind(bigint(event.epoch.0)?)
        .bind(&event.kind)
        .bind(&event.rule)
        .bind(&event.from)
        .bind(&event.to)
        .bind(event.timeline.map(|timeline| i64::from(timeline.0)))
        .bind(event.lsn.map(|lsn| lsn.to_string()))
        .bind(&event.reason)
        .bind(&event.evidence)
        .execute(&mut **transaction)
        .await?;
    }
    Ok(())
}

impl Store {
    /// At most `count` events with ids above `after`, in order.
    pub async fn events_after(
        &self,
        formation: &FormationId,
        after: u64,
        count: u32,
    ) -> Result<Vec<Event>, StoreError> {
        let after = bigint(after)?;
        let rows: Vec<Row> = limited(async {
            Ok(sqlx::query_as(
                "SELECT * FROM event WHERE formation = $1 AND id > $2 ORDER BY id LIMIT $3",
            )
            .bind(formation.as_str())
            .bind(after)
            .bind(i64::from(count))
            .fetch_all(self.pool())
            .await?)
        })
        .await?;
        rows.into_iter().map(event).collect()
    }

    /// The newest `count` events, in order.
    pub async fn newest_events(
        &self,
        formation: &FormationId,
        count: u32,
    ) -> Result<Vec<Event>, StoreError> {
        let rows: Vec<Row> = limited(async {
            Ok(sqlx::query_as(
                "SELECT * FROM (
                     SELECT * FROM event WHERE formation = $1 ORDER BY id DESC LIMIT $2
                 ) AS newest ORDER BY id",
            )
            .bind(formation.as_str())
            .bind(i64::from(count))
            .fetch_all(self.pool())
            .await?)
        })
        .await?;
        rows.into_iter().map(event).collect()
    }

    /// The newest `count` changes of the group's phase, in order.
    pub async fn newest_phases(
        &self,
        formation: &FormationId,
        count: u32,
    ) -> Result<Vec<Event>, StoreError> {
        let rows: Vec<Row> = limited(async {
            Ok(sqlx::query_as(
                "SELECT * FROM (
                     SELECT * FROM event WHERE formation = $1 AND kind = 'phase'
                     ORDER BY id DESC LIMIT $2
                 ) AS newest ORDER BY id",
            )
            .bind(formation.as_str())
            .bind(i64::from(count))
            .fetch_all(self.pool())
            .await?)
        })
        .await?;
        rows.into_iter().map(event).collect()
    }

    /// How long the stages of the newest `count` changes of the primary took, the newest first; as far
    /// as they are in the newest part of the history, which is all that is looked at.
    pub async fn newest_stages(
        &self,
        formation: &FormationId,
        count: u32,
    ) -> Result<Vec<Stages>, StoreError> {
        let rows: Vec<(serde_json::Value,)> = limited(async {
            Ok(sqlx::query_as(
                "SELECT evidence FROM (
                     SELECT * FROM event WHERE formation = $1 ORDER BY id DESC LIMIT $2
                 ) AS newest
                 WHERE rule = 'sync-confirmed' AND evidence -> 'stages_ms' IS NOT NULL
                 ORDER BY id DESC LIMIT $3",
            )
            .bind(formation.as_str())
            .bind(EVENTS_LOOKED_AT)
            .bind(i64::from(count))
            .fetch_all(self.pool())
            .await?)
        })
        .await?;
        Ok(rows.iter().filter_map(|(evidence,)| stages(evidence)).collect())
    }
}

fn stages(evidence: &serde_json::Value) -> Option<Stages> {
    serde_json::from_value(evidence.get("stages_ms")?.clone()).ok()
}

fn event(row: Row) -> Result<Event, StoreError> {
    let what = format!("event {} of formation {}", row.id, row.formation);
    let timeline = row.timeline.map(u32::try_from).transpose();
    Ok(Event {
        id: unsigned(row.id)?,
        at: row.at,
        formation: row.formation.parse().map_err(|error| damaged(&what, &error))?,
        group: GroupId(u32::try_from(row.group_id).map_err(|error| damaged(&what, &error))?),
        node: row.node.map(|n| n.parse()).transpose().map_err(|error| damaged(&what, &error))?,
        node_id: row.node_id.map(unsigned).transpose()?.map(NodeId),
        epoch: Epoch(unsigned(row.epoch)?),
        kind: row.kind,
        rule: row.rule,
        from: row.from_state,
        to: row.to_state,
        timeline: timeline.map_err(|error| damaged(&what, &error))?.map(TimelineId),
        lsn: row.lsn.map(|l| l.parse()).transpose().map_err(|error| damaged(&what, &error))?,
        reason: row.reason,
        evidence: row.evidence,
    })
}
