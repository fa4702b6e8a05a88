//! Carrying out one step. Each is small, idempotent, and safe to repeat after a crash at any point.

mod configure;
mod copy;
mod process;
mod promote;
mod room;
mod slots;
mod sync;

pub(crate) use process::LONGEST_STOP;

/// What goes on for longer than any step may (initdb may take five minutes) hangs.
pub(crate) const LONGEST_STEP: Duration = Duration::from_mins(6);

use crate::node::Node;
use crate::state::StateError;
use fsm::node::Step;
use postgres::config::ConfigError;
use postgres::durable::DurableError;
use postgres::hba::HbaError;
use postgres::instance::InstanceError;
use postgres::postmaster::PostmasterError;
use postgres::session::SessionError;
use postgres::timelines::TimelinesError;
use std::path::PathBuf;
use std::time::Duration;

/// Why a step did not succeed. It is planned again from what is there then.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// Postgres did not answer as it should.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The process did not do as it should.
    #[error(transparent)]
    Postmaster(#[from] PostmasterError),
    /// A program did not.
    #[error(transparent)]
    Instance(#[from] InstanceError),
    /// The managed file cannot be written.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The HBA block cannot be written.
    #[error(transparent)]
    Hba(#[from] HbaError),
    /// Another file cannot be.
    #[error(transparent)]
    Durable(#[from] DurableError),
    /// The keeper's state cannot be.
    #[error(transparent)]
    State(#[from] StateError),
    /// History files cannot be used.
    #[error(transparent)]
    Timelines(#[from] TimelinesError),
    /// The control file cannot be read.
    #[error(transparent)]
    Control(#[from] postgres::control::ControlError),
    /// Something is not as it has to be.
    #[error("{0}")]
    NotSo(String),
    /// The disk is too full; to be tried again.
    #[error(
        "{what} needs {} MB in {}, where {} MB are free: free some, and it begins by itself",
        need >> 20,
        path.display(),
        free >> 20
    )]
    NoRoom {
        /// For what.
        what: String,
        /// Where.
        path: PathBuf,
        /// How many bytes.
        need: u64,
        /// How many there are.
        free: u64,
    },
    /// Not yet: to be tried again at once.
    #[error("{0} is not there yet")]
    NotYet(&'static str),
}

impl StepError {
    /// What went wrong, with its causes.
    pub fn in_full(&self) -> String {
        program::causes::in_full(self)
    }
}

/// How long one attempt at a step may take; `None`: as long as it takes.
pub(crate) fn limit(step: &Step) -> Option<Duration> {
    match step {
        Step::Initialise => Some(postgres::instance::INITDB_LIMIT),
        Step::StopFast => Some(LONGEST_STOP),
        // With the checkpoint before it.
        Step::Restart => Some(LONGEST_STOP.saturating_add(process::FAST_PATIENCE)),
        Step::StopImmediate => Some(process::LONGEST_IMMEDIATE_STOP),
        Step::Promote { .. } => Some(promote::PROMOTE_LIMIT),
        Step::Checkpoint => Some(promote::CHECKPOINT_LIMIT),
        Step::Clone { .. } | Step::Rewind { .. } | Step::Barrier(_) => None,
        Step::Adopt
        | Step::CatchUp
        | Step::Configure(_)
        | Step::StartStandby
        | Step::StartPrimary
        | Step::Admit { .. }
        | Step::ConfirmPromotion
        | Step::Block
        | Step::Set(_) => Some(LONGEST_STEP),
    }
}

impl Node {
    /// Carries out a step, or begins it where it is long.
    pub async fn carry_out(&mut self, step: &Step) -> Result<(), StepError> {
        match step {
            Step::Initialise => self.initialise().await,
            Step::Adopt => self.adopt().await,
            Step::Configure(file) => self.configure(file).await,
            Step::StartStandby => self.start(true).await,
            Step::StartPrimary => self.start(false).await,
            Step::StopFast => self.stop(false).await,
            Step::StopImmediate => self.stop(true).await,
            Step::Restart => self.stop_to_restart().await,
            Step::Admit { upstream, admission } => self.admit(*upstream, *admission).await,
            Step::Clone { from } => self.begin_clone(*from).await,
            Step::CatchUp => self.catch_up().await,
            Step::Rewind { from } => self.begin_rewind(*from).await,
            Step::Promote { timeline } => self.promote(*timeline).await,
            Step::ConfirmPromotion => self.confirm_promotion().await,
            Step::Block => self.block().await,
            Step::Set(spec) => self.set_spec(spec).await,
            Step::Barrier(spec) => self.barrier(spec).await,
            Step::Checkpoint => self.begin_checkpoint().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::ids::{NodeId, TimelineId};

    /// What is given up after a while says so; a copy takes as long as it takes.
    #[test]
    fn limits() {
        let from = NodeId(1);
        assert_eq!(limit(&Step::Clone { from }), None);
        assert_eq!(limit(&Step::Rewind { from }), None);
        let timeline = TimelineId(3);
        let ours = [Step::Initialise, Step::StopFast, Step::StopImmediate, Step::StartStandby];
        for step in ours.into_iter().chain([Step::Promote { timeline }, Step::Block]) {
            let limit = limit(&step).unwrap();
            assert!(!limit.is_zero() && limit <= LONGEST_STEP, "{step:?}: {limit:?}");
        }
    }
}
