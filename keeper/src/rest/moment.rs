//! All that is known of this node at one moment, and what follows from it for clients.
//!
//! What must hold: whether it is the primary comes from the live right to serve, from a server that lives
//! and from what the monitor wants now, and never outlives any of them; whatever else is said comes from a
//! look that is not too old. What the monitor said is used as long as it is fresh.

use crate::attachment::Attachment;
use crate::link::Heard;
use crate::local::LOOK_LIMIT;
use fsm::Millis;
use shared::goal::{Assignment, Goal};
use shared::ids::{Epoch, NodeId};
use shared::lsn::Lsn;
use shared::report::Report;
use shared::settings::{Settings, Timers};
use shared::state::NodeState;

/// The agent's loop is stuck where it has not come by for so long, beyond the limit of the step that it
/// is in. A look takes a second at most, and what Postgres or a disk does not do within the node timeout
/// has already been reported by a task that waits for neither: this is for a keeper that will not go on
/// by itself, and whose restart costs something in a container, where Postgres goes with it.
const STUCK_MS: u64 = 30_000;

/// Standbys that were seen to stream no longer ago have not been sealed with one of them promoted meanwhile: each
/// of a seal, an election and a promotion takes a part of that. Looks come ten times a second then.
const PROOF_MS: u64 = 500;

/// All that is known at one moment.
#[derive(Clone, Debug)]
pub(super) struct Moment {
    /// This node.
    pub(super) id: NodeId,
    /// Its name.
    pub(super) name: String,
    /// The epoch whose primary it is, with the right to serve and ready for sessions.
    pub(super) reign: Option<Epoch>,
    /// It needs no standby for that right: the monitor has granted a lease, or an operator's word stands for one.
    pub(super) granted: bool,
    /// Its postmaster runs and is not being stopped.
    pub(super) lives: bool,
    /// Postgres or its storage has not answered for longer than the node timeout.
    pub(super) ails: bool,
    /// The newest report.
    pub(super) report: Option<Report>,
    /// What was heard from the monitor.
    pub(super) heard: Heard,
    /// Which monitor is called.
    pub(super) attachment: Attachment,
    /// How long the step under way may take.
    pub(super) step_limit_ms: Option<u64>,
    /// When the agent began its last look.
    pub(super) looked: Millis,
    /// Now.
    pub(super) now: Millis,
}

/// The log position from which a standby's lag is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Behind {
    /// What it has replayed, hence what its sessions see.
    #[default]
    Apply,
    /// What it has on disk.
    Write,
}

impl Moment {
    /// What the monitor wants, as last heard.
    pub(super) fn assignment(&self) -> Option<&Assignment> {
        self.heard.answer.as_ref().map(|answer| &answer.assignment)
    }

    pub(super) fn timers(&self) -> Timers {
        self.assignment().map_or_else(|| Settings::default().timers(), |told| told.timers)
    }

    pub(super) fn look_age_ms(&self) -> u64 {
        self.now.since(self.looked)
    }

    /// Whether the agent's loop goes round.
    pub(super) fn is_alive(&self) -> bool {
        let limit = STUCK_MS.saturating_add(self.step_limit_ms.unwrap_or_default());
        self.look_age_ms() <= limit
    }

    /// The newest report, as long as it still says how things are: the agent looks at least four times in
    /// a report interval, and a look waits a second for Postgres. Twice that is a loop that does something
    /// else, or stands still.
    fn fresh(&self) -> Option<&Report> {
        let look_limit = u64::try_from(LOOK_LIMIT.as_millis()).unwrap_or(u64::MAX);
        let limit = look_limit.saturating_mul(2).saturating_add(self.timers().report_interval_ms);
        self.report.as_ref().filter(|_| self.look_age_ms() <= limit)
    }

    /// The epoch of whose primary this is, or was last told of.
    pub(super) fn epoch(&self) -> Option<Epoch> {
        let accepted = self.report.as_ref().and_then(|report| report.accepted);
        let heard = self.assignment().map(|told| told.epoch);
        heard.or(accepted.map(|accepted| accepted.epoch))
    }

    /// Whether Postgres accepts connections.
    pub(super) fn is_up(&self) -> bool {
        self.lives && !self.ails && self.fresh().is_some_and(|report| report.postgres.running)
    }

    /// Whether this is the writable primary of the newest epoch that it knows of. The age of the look does
    /// not matter where there is a lease, which ends by itself, and what the monitor wants is heard meanwhile.
    /// Where only standbys prove it, they have to have been seen just now.
    pub(super) fn is_primary(&self) -> bool {
        let is_wanted = self
            .assignment()
            .is_none_or(|told| is_primary(&told.goal) && self.reign == Some(told.epoch));
        let is_proved = self.granted || self.look_age_ms() <= PROOF_MS;
        self.reign.is_some() && is_proved && self.lives && !self.ails && is_wanted
    }

    /// Whether this is a standby that streams and stays: not one that is sealed, in maintenance, on its way
    /// there, being stopped, or being copied.
    pub(super) fn is_replica(&self) -> bool {
        let Some(report) = self.fresh() else { return false };
        let goal_state = self.assignment().map_or(report.state, |told| told.goal_state);
        self.is_up()
            && report.streaming
            && report.postgres.in_recovery == Some(true)
            && !report.leaving
            && goal_state == NodeState::Secondary
    }

    /// How far a standby is behind the primary, in bytes; `None`: that is not known. The primary's end is
    /// what the stream itself says, and what the monitor last heard from there, whichever is more; the
    /// monitor's word counts for a node timeout.
    pub(super) fn lag(&self, behind: Behind) -> Option<u64> {
        let postgres = &self.fresh()?.postgres;
        let replayed = postgres.replayed?;
        let own = match behind {
            Behind::Apply => replayed,
            Behind::Write => postgres.received.map_or(replayed, |received| received.max(replayed)),
        };
        let end = postgres.upstream_end.max(self.told_end())?;
        Some(end.max(postgres.received.unwrap_or(end)).bytes_since(own))
    }

    /// Where the primary's log ended, by the monitor's word.
    fn told_end(&self) -> Option<Lsn> {
        let age = self.now.since(self.heard.at?);
        let answer = self.heard.answer.as_ref().filter(|_| age <= self.timers().node_timeout_ms)?;
        let primary = answer.assignment.goal.primary()?;
        answer.flushed.iter().find(|(id, _)| *id == primary).map(|(_, end)| *end)
    }

    /// Whether commits may wait for this node: it is in the sync set in force, as last heard.
    pub(super) fn is_member(&self) -> bool {
        self.heard.answer.as_ref().is_some_and(|answer| answer.sync_members.contains(&self.id))
    }
}

fn is_primary(goal: &Goal) -> bool {
    match goal {
        Goal::Primary { .. } => true,
        Goal::Wait
        | Goal::Follow { .. }
        | Goal::Seal { .. }
        | Goal::FastForward { .. }
        | Goal::Maintenance
        | Goal::Dropped => false,
    }
}
