//! Starting and stopping Postgres.

use super::StepError;
use crate::node::{Node, disk};
use postgres::postmaster::{Postmaster, PostmasterError, Signal, end_children};
use postgres::timelines;
use std::time::Duration;

/// How long a fast stop may take: its checkpoint writes what is dirty.
pub(super) const FAST_PATIENCE: Duration = Duration::from_secs(30);
/// An immediate stop writes nothing; PostgreSQL itself kills what does not end within 5 s.
const IMMEDIATE_PATIENCE: Duration = Duration::from_secs(6);
/// A killed process ends unless the kernel is stuck.
const KILL_PATIENCE: Duration = Duration::from_secs(5);
/// All of them, one after the other.
pub(crate) const LONGEST_STOP: Duration = FAST_PATIENCE.saturating_add(LONGEST_IMMEDIATE_STOP);
/// The last two.
pub(super) const LONGEST_IMMEDIATE_STOP: Duration =
    IMMEDIATE_PATIENCE.saturating_add(KILL_PATIENCE);

impl Node {
    /// Starts Postgres; whether it gets ready is seen later.
    pub(super) async fn start(&mut self, standby: bool) -> Result<(), StepError> {
        if self.running().is_some() {
            return Ok(());
        }
        match end_children(&self.instance).await {
            // It is found by the next look, once it has written its lock file.
            Err(PostmasterError::Another { .. }) => {
                return Err(StepError::NotYet("the server that somebody else has started"));
            }
            outcome => outcome?,
        }
        let control = self.instance.control_data().await?;
        let instance = self.instance.clone();
        disk(|| -> Result<(), StepError> {
            postgres::durable::create_dir(&instance.socket_dir, 0o755, &instance.owner)?;
            if standby {
                instance.data_dir.set_standby(&instance.owner)?;
            } else {
                instance.data_dir.clear_standby()?;
            }
            // As newest history file, a placeholder would keep a standby from starting.
            timelines::remove_trailing_placeholders(&instance.data_dir, &control)?;
            Ok(())
        })?;
        self.forget_server();
        self.crashes.is_starting();
        let postmaster = Postmaster::start(&self.instance).await?;
        self.postmaster.send_replace(Some(postmaster));
        Ok(())
    }

    /// So that it starts with other settings; the plan says how.
    pub(crate) async fn stop_for_settings(&mut self) -> Result<(), StepError> {
        self.stop(false).await
    }

    /// Stops Postgres so that it is started again. Most of what the last checkpoint would have to write is
    /// written before, while clients go on.
    pub(super) async fn stop_to_restart(&mut self) -> Result<(), StepError> {
        let order = self.assignment()?.orders.restart;
        let session = self.session().await?;
        let checkpoint = tokio::time::timeout(FAST_PATIENCE, session.execute("CHECKPOINT"));
        if let Ok(outcome) = checkpoint.await {
            outcome?;
        } else {
            tracing::warn!("the checkpoint before a restart takes long: going on");
        }
        self.stop(false).await?;
        self.persist(|state| state.done.restart = order)?;
        Ok(())
    }

    /// Stops Postgres, at once or letting sessions and standbys finish.
    pub(super) async fn stop(&mut self, at_once: bool) -> Result<(), StepError> {
        let Some(postmaster) = self.running() else { return Ok(()) };
        self.session = None;
        let immediate = (Signal::ImmediateStop, IMMEDIATE_PATIENCE);
        let kill = (Signal::Kill, KILL_PATIENCE);
        let fast = (Signal::FastStop, FAST_PATIENCE);
        let stages: &[_] = if at_once { &[immediate, kill] } else { &[fast, immediate, kill] };
        // It ends because we want it to: nobody is to take that for a crash.
        self.postmaster.send_replace(None);
        let stopped = postmaster.stop(stages).await;
        if stopped.is_err() {
            self.postmaster.send_replace(Some(postmaster));
        }
        self.forget_server();
        stopped?;
        Ok(())
    }
}
