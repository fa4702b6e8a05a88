//! Promotion: the reserved timeline, the end of recovery, its verification, the checkpoint after it.

use super::StepError;
use crate::node::{Checkpoint, Node, disk};
use fsm::node::primary::promotion;
use postgres::timelines;
use shared::history::History;
use shared::ids::TimelineId;
use std::time::Duration;
use tokio::time::Instant;

/// Recovery ends once the startup process has read what is there: local WAL only.
pub(super) const PROMOTE_LIMIT: Duration = Duration::from_mins(1);
/// A checkpoint writes what is dirty, which may be much.
pub(super) const CHECKPOINT_LIMIT: Duration = Duration::from_hours(1);

impl Node {
    /// Rule 8, then `pg_promote`, then the wait for the end of recovery.
    pub(super) async fn promote(&mut self, reserved: TimelineId) -> Result<(), StepError> {
        let control = self.instance.control_data().await?;
        let instance = self.instance.clone();
        disk(|| -> Result<(), StepError> {
            let own = timelines::own_history(&instance.data_dir, &control)?;
            timelines::place_placeholders(
                &instance.data_dir,
                own.timeline,
                reserved,
                &instance.owner,
            )?;
            Ok(())
        })?;
        let session = self.session().await?;
        if !session.promote().await? {
            return Err(StepError::NotSo("postgres refused to be promoted".to_owned()));
        }
        let deadline = Instant::now() + PROMOTE_LIMIT;
        while self.session().await?.recovery().await?.in_recovery {
            if Instant::now() > deadline {
                return Err(StepError::NotYet("the end of recovery"));
            }
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        self.seen.control = None;
        self.seen.sealed = false;
        self.seen.sync = fsm::node::Sync::Unknown;
        self.seen.checkpoint = Checkpoint::Unknown;
        Ok(())
    }

    /// Done only when the new timeline is verified: Postgres writes to it, and its history file says
    /// where it begins.
    pub(super) async fn confirm_promotion(&mut self) -> Result<(), StepError> {
        let timeline = self.session().await?.current_timeline().await?;
        let path = self.instance.data_dir.wal_dir().join(format!("{:08X}.history", timeline.0));
        let history = match disk(|| std::fs::read_to_string(&path)) {
            Ok(content) => History::parse(timeline, &content)
                .map_err(|error| StepError::NotSo(error.to_string()))?,
            Err(_) if timeline == TimelineId(1) => History { ancestors: Vec::new(), timeline },
            Err(error) => {
                return Err(StepError::NotSo(format!("cannot read {}: {error}", path.display())));
            }
        };
        self.persist(|state| {
            if let Some(persisted) = &mut state.persisted {
                let assignment = &persisted.assignment;
                let promoted = promotion(&history, &assignment.lineage, assignment.epoch);
                persisted.promoted = Some(promoted);
                persisted.admitted = None;
            }
        })?;
        Ok(())
    }

    /// In the background: `pg_rewind` of a former primary needs it, clients do not.
    pub(super) async fn begin_checkpoint(&mut self) -> Result<(), StepError> {
        let session = self.connect().await?;
        self.seen.checkpoint = Checkpoint::Running(tokio::spawn(async move {
            match session.checkpoint(CHECKPOINT_LIMIT).await {
                Ok(()) => true,
                Err(error) => {
                    tracing::info!("the checkpoint after the promotion was not written: {error}");
                    false
                }
            }
        }));
        Ok(())
    }
}
