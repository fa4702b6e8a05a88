//! How far each hook has been told the history of a formation.

use super::{Store, StoreError, bigint, limited, unsigned};
use shared::ids::FormationId;

impl Store {
    /// The newest event that a hook has been told (by its key, `hooks::Hook::key`); of one that is new, `newest`, so that it hears what happens from
    /// now on.
    pub async fn hook_cursor(
        &self,
        formation: &FormationId,
        hook: &str,
        newest: u64,
    ) -> Result<u64, StoreError> {
        let newest = bigint(newest)?;
        let told: i64 = limited(async {
            sqlx::query(
                "INSERT INTO hook_cursor (formation, hook_hash, event_id)
                 VALUES ($1, decode($2, 'hex'), $3) ON CONFLICT DO NOTHING",
            )
            .bind(formation.as_str())
            .bind(hook)
            .bind(newest)
            .execute(self.pool())
            .await?;
            Ok(sqlx::query_scalar(
                "SELECT event_id FROM hook_cursor
                 WHERE formation = $1 AND hook_hash = decode($2, 'hex')",
            )
            .bind(formation.as_str())
            .bind(hook)
            .fetch_one(self.pool())
            .await?)
        })
        .await?;
        unsigned(told)
    }

    /// The hook has been told everything up to this event.
    pub async fn move_hook_cursor(
        &self,
        formation: &FormationId,
        hook: &str,
        told: u64,
    ) -> Result<(), StoreError> {
        let told = bigint(told)?;
        limited(async {
            sqlx::query(
                "UPDATE hook_cursor SET event_id = $3
                 WHERE formation = $1 AND hook_hash = decode($2, 'hex')",
            )
            .bind(formation.as_str())
            .bind(hook)
            .bind(told)
            .execute(self.pool())
            .await?;
            Ok(())
        })
        .await
    }
}
