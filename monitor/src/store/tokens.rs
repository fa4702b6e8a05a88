//! Join tokens: kept as hashes, shown once.

use super::{Store, StoreError, limited};
use crate::{clock, secret};
use shared::Timestamp;
use shared::api::JoinToken;
use shared::ids::FormationId;

impl Store {
    /// Makes a token.
    pub async fn create_token(&self, formation: &FormationId) -> Result<JoinToken, StoreError> {
        let made = JoinToken {
            id: secret::short_id(),
            token: Some(secret::generate()),
            created_at: clock::wall(),
        };
        limited(async {
            sqlx::query(
                "INSERT INTO join_token (formation, id, token_hash, created_at)
                 VALUES ($1, $2, sha256(convert_to($3, 'UTF8')), $4)",
            )
            .bind(formation.as_str())
            .bind(&made.id)
            .bind(&made.token)
            .bind(made.created_at)
            .execute(self.pool())
            .await?;
            Ok(())
        })
        .await?;
        Ok(made)
    }

    /// The tokens, without what makes them work.
    pub async fn tokens(&self, formation: &FormationId) -> Result<Vec<JoinToken>, StoreError> {
        let rows: Vec<(String, Timestamp)> = limited(async {
            Ok(sqlx::query_as(
                "SELECT id, created_at FROM join_token WHERE formation = $1 ORDER BY created_at, id",
            )
            .bind(formation.as_str())
            .fetch_all(self.pool())
            .await?)
        })
        .await?;
        Ok(rows
            .into_iter()
            .map(|(id, created_at)| JoinToken { id, token: None, created_at })
            .collect())
    }

    /// Takes a token back; `false` if there is none of this id.
    pub async fn revoke_token(
        &self,
        formation: &FormationId,
        id: &str,
    ) -> Result<bool, StoreError> {
        limited(async {
            let result = sqlx::query("DELETE FROM join_token WHERE formation = $1 AND id = $2")
                .bind(formation.as_str())
                .bind(id)
                .execute(self.pool())
                .await?;
            Ok(result.rows_affected() == 1)
        })
        .await
    }

    /// Whether a keeper with this token may join: always where the formation has no tokens.
    pub async fn token_admits(
        &self,
        formation: &FormationId,
        token: Option<&str>,
    ) -> Result<bool, StoreError> {
        limited(async {
            Ok(sqlx::query_scalar(
                "SELECT count(*) = 0
                     OR coalesce(bool_or(token_hash = sha256(convert_to($2, 'UTF8'))), false)
                 FROM join_token WHERE formation = $1",
            )
            .bind(formation.as_str())
            .bind(token)
            .fetch_one(self.pool())
            .await?)
        })
        .await
    }
}
