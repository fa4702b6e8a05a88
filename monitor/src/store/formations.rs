//! Formations: their groups and the passwords of their roles.

use super::{Store, StoreError, bigint, checked, damaged, group_number, limited, unsigned};
use fsm::group::Record;
use shared::api::RolePasswords;
use shared::ids::{FormationId, GroupId, Revision};
use sqlx::types::Json;

/// What is stored of a group.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its record.
    pub record: Record,
    /// The passwords of its formation.
    pub passwords: RolePasswords,
}

impl Store {
    /// Everything: a record that cannot be read stops the monitor rather than being skipped.
    pub async fn load(&self) -> Result<Vec<Stored>, StoreError> {
        type Row = (String, i64, serde_json::Value, String, String, String);
        let rows: Vec<Row> = limited(async {
            Ok(sqlx::query_as(
                "SELECT r.formation, r.revision, r.record, s.replicator, s.monitor, s.keeper
                 FROM group_record AS r JOIN formation_secret AS s USING (formation)
                 ORDER BY r.formation, r.group_id",
            )
            .fetch_all(self.pool())
            .await?)
        })
        .await?;
        rows.into_iter()
            .map(|(formation, revision, record, replicator, monitor, keeper)| {
                let record = parse(&formation, revision, record)?;
                Ok(Stored { record, passwords: RolePasswords { replicator, monitor, keeper } })
            })
            .collect()
    }

    /// The record of a group; `None` where the formation has been dropped.
    pub async fn load_record(
        &self,
        formation: &FormationId,
        group: GroupId,
    ) -> Result<Option<Record>, StoreError> {
        let group = group_number(group)?;
        let row: Option<(i64, serde_json::Value)> = limited(async {
            Ok(sqlx::query_as(
                "SELECT revision, record FROM group_record WHERE formation = $1 AND group_id = $2",
            )
            .bind(formation.as_str())
            .bind(group)
            .fetch_optional(self.pool())
            .await?)
        })
        .await?;
        row.map(|(revision, record)| parse(formation.as_str(), revision, record)).transpose()
    }

    /// Adds a formation with its first group; `false` if there is one of this name. The history of
    /// an earlier formation of the same name goes on: the record is given its next event id.
    pub async fn create_formation(
        &self,
        record: &mut Record,
        passwords: &RolePasswords,
    ) -> Result<bool, StoreError> {
        *record = checked(record.clone())?;
        let formation = record.formation.clone();
        limited(async {
            let mut transaction = self.pool().begin().await?;
            let newest: Option<i64> =
                sqlx::query_scalar("SELECT max(id) FROM event WHERE formation = $1")
                    .bind(formation.as_str())
                    .fetch_one(&mut *transaction)
                    .await?;
            record.next_event = unsigned(newest.unwrap_or(0))?.saturating_add(1);
            let added = sqlx::query(
                "INSERT INTO group_record (formation, group_id, revision, record)
                 VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
            )
            .bind(formation.as_str())
            .bind(group_number(record.group)?)
            .bind(bigint(record.revision.0)?)
            .bind(Json(&*record))
            .execute(&mut *transaction)
            .await?
            .rows_affected();
            if added == 0 {
                transaction.rollback().await?;
                return Ok(false);
            }
            sqlx::query(
                "INSERT INTO formation_secret (formation, replicator, monitor, keeper)
                 VALUES ($1, $2, $3, $4)",
            )
            .bind(formation.as_str())
            .bind(&passwords.replicator)
            .bind(&passwords.monitor)
            .bind(&passwords.keeper)
            .execute(&mut *transaction)
            .await?;
            transaction.commit().await?;
            Ok(true)
        })
        .await
    }

    /// Removes a formation that has no nodes; `false` if it has some, or there is none. Its history
    /// stays.
    pub async fn drop_formation(&self, formation: &FormationId) -> Result<bool, StoreError> {
        limited(async {
            let mut transaction = self.pool().begin().await?;
            let removed = sqlx::query(
                "DELETE FROM group_record WHERE formation = $1 AND record -> 'nodes' = '{}'",
            )
            .bind(formation.as_str())
            .execute(&mut *transaction)
            .await?
            .rows_affected();
            if removed == 0 {
                transaction.rollback().await?;
                return Ok(false);
            }
            for table in [
                "DELETE FROM formation_secret WHERE formation = $1",
                "DELETE FROM join_token WHERE formation = $1",
                "DELETE FROM idempotency WHERE formation = $1",
            ] {
                sqlx::query(table).bind(formation.as_str()).execute(&mut *transaction).await?;
            }
            transaction.commit().await?;
            Ok(true)
        })
        .await
    }
}

fn parse(formation: &str, revision: i64, record: serde_json::Value) -> Result<Record, StoreError> {
    let what = format!("the record of formation {formation}");
    let record: Record = serde_json::from_value(record).map_err(|error| damaged(&what, &error))?;
    if record.revision != Revision(unsigned(revision)?) {
        return Err(damaged(&what, &"its revision is not the one of its row"));
    }
    checked(record)
}
