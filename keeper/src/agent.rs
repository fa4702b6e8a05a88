//! The loop: look, plan, report, act. One task owns the node; events wake it, a timer only bounds the
//! wait. What it reports is made in `describe`.

mod describe;

use crate::archive;
use crate::attachment::Attachment;
use crate::backoff::is_heavy;
use crate::clock;
use crate::guard::{Duty, Right};
use crate::hooks;
use crate::link::{Heard, flushed, is_news};
use crate::local::{Circumstances, Look};
use crate::node::Node;
use crate::steps::{LONGEST_STEP, StepError};
use crate::trace::Trace;
use describe::room;
use fsm::Millis;
use fsm::node::plan::Next;
use fsm::node::view::{OutOfOrder, Persisted};
use fsm::node::{Plan, Process, Step, plan};
use postgres::postmaster::Signal;
use postgres::storage::Room;
use program::notify::Line;
use shared::goal::Goal;
use shared::ids::Epoch;
use shared::report::{Report, StepView};
use shared::spec::Spec;
use shared::state::NodeState;
use std::time::Duration;
use tokio::sync::watch;

/// How often a wait for something that has no event is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// While a copy goes on.
const LOOK_AT_COPY: Duration = Duration::from_millis(100);
/// Where only the standbys prove that this is the primary: sooner than any of them, sealed, could have become it.
const LOOK_AT_STANDBYS: Duration = Duration::from_millis(100);
/// How long a planned stop waits for the monitor's consent.
pub(crate) const STOP_PATIENCE_MS: u64 = 30_000;

/// How the keeper was told to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Ending {
    /// It was not.
    #[default]
    No,
    /// Planned: hand over, leave the sync set, then stop Postgres.
    Planned,
    /// Stop Postgres now, fast.
    Fast,
    /// Stop Postgres at once.
    Immediate,
    /// End, but leave Postgres running.
    LeavePostgres,
}

/// Why the agent ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// As it was told.
    AsTold,
    /// The node was dropped.
    Dropped,
}

/// The agent.
#[derive(Debug)]
pub struct Agent {
    /// The node.
    pub node: Node,
    /// From the link.
    pub heard: watch::Receiver<Heard>,
    /// Which monitor is called.
    pub attachment: watch::Receiver<Attachment>,
    /// To the link.
    pub outgoing: watch::Sender<Option<Report>>,
    /// When it began its last look: whoever answers for the node asks how old that is.
    pub looked: watch::Sender<Millis>,
    /// The right to serve.
    pub right: Right,
    /// The room on its disks.
    pub room: watch::Receiver<Vec<Room>>,
    /// From the signal handler.
    pub ending: watch::Receiver<Ending>,
    /// Why the last step failed.
    pub trouble: Option<(Step, String)>,
    /// It was for lack of room.
    pub refused: bool,
    /// Since when the present step or wait has been going on.
    pub since: (String, Millis),
    /// When it last claimed a lease (rule 13).
    pub claimed_at: Millis,
    /// When a planned stop was asked for.
    pub leaving_since: Option<Millis>,
    /// Where tests want to know what happens.
    pub trace: Option<Trace>,
    /// To the service manager.
    pub line: Line,
    /// Marked when Postgres is to read its configuration again.
    pub reload: watch::Receiver<()>,
    /// To the operator's hooks.
    pub hooks: hooks::Desk,
    /// Where WAL is archived.
    pub archive: Option<archive::Desk>,
}

impl Agent {
    /// Runs until told to end.
    pub async fn run(mut self) -> Ended {
        self.claim_lease();
        loop {
            self.follow_attachment();
            self.take_assignment();
            if let Some(ended) = self.should_end().await {
                return ended;
            }
            let rebuilding = self.node.look_after_job().await;
            let circumstances = self.circumstances();
            let crashes = self.node.crashes.newest();
            let began = clock::now();
            let mut look = self.node.look(circumstances).await;
            look.view.hook = self.hooks.asked(&look.view, self.node.persisted());
            if self.node.crashes.newest() > crashes && self.needs_standbys() {
                self.claim_lease();
            }
            self.note_proofs(&look);
            if let Some(archive) = &self.archive {
                archive.show(&self.node, &look, self.spec_in_force(&look));
            }
            let plan = if rebuilding {
                Plan { state: NodeState::Catchingup, next: Next::Wait("the copy") }
            } else {
                plan(&look.view, self.node.persisted())
            };
            if let Some(trace) = &mut self.trace {
                trace.looked(&look.view, self.node.persisted(), &plan, rebuilding);
            }
            let takes_writes = self.spec_in_force(&look).is_some();
            self.hooks.note(&look.view, self.node.persisted(), takes_writes);
            self.report(&look, &plan);
            self.looked.send_replace(began);
            self.line.ready(plan.state.as_str());
            self.line.alive();
            self.reload(&look);
            if let Some(ended) = Self::is_over(&look, &plan, circumstances) {
                return ended;
            }
            let pause = self.act(&plan, &look, rebuilding).await;
            self.wait(pause).await;
        }
    }

    /// A primary that was running, or that may start by itself (rule 13), has one lease to prove
    /// itself; one only, until it has done so or the monitor has granted another.
    fn claim_lease(&mut self) {
        let Some(persisted) = self.node.persisted() else { return };
        let primary = matches!(persisted.assignment.goal, Goal::Primary { .. });
        let promoted =
            persisted.promoted.as_ref().is_some_and(|p| p.epoch == persisted.assignment.epoch);
        let ms = persisted.assignment.timers.lease_ms;
        let order = persisted.assignment.order;
        if primary && promoted && persisted.sealed.is_none() && !self.node.state.claimed {
            if let Err(error) = self.node.persist(|state| state.claimed = true) {
                tracing::error!("no lease without a durable claim: {error}");
                return;
            }
            let lease = Some(shared::report::Lease::For { ms });
            self.claimed_at = clock::now();
            self.right.update(|tenure| tenure.grant(lease, order, self.claimed_at));
        }
    }

    /// Remembers which monitor was named, and whether the lease of a lost one is suspended: from the word
    /// of the operator until another monitor has answered.
    fn follow_attachment(&mut self) {
        let attachment = self.attachment.borrow().clone();
        let answered = self.heard.borrow().since_attached;
        let suspended = match attachment.detached {
            Some(_) => true,
            None => self.node.state.suspended && !answered,
        };
        if suspended && !self.node.state.suspended {
            tracing::warn!(
                "no lease is asked for any more: under an asynchronous spec this primary goes on without one, until a monitor has answered again"
            );
        }
        let given: Vec<_> = self.node.config.monitors.iter().map(ToString::to_string).collect();
        let stored = self.node.persist(|state| {
            state.suspended = suspended;
            state.take_up(&attachment, &given);
        });
        if let Err(error) = stored {
            tracing::error!("{error}");
        }
    }

    /// Accepts the newest assignment: persisted before anything is done about it.
    fn take_assignment(&mut self) {
        let heard = self.heard.borrow_and_update().clone();
        let Some(answer) = heard.answer else { return };
        // One that was granted before says nothing about what has become of the group since.
        let granted = answer.lease.is_some() && heard.at > Some(self.claimed_at);
        if granted && let Err(error) = self.node.persist(|state| state.claimed = false) {
            tracing::warn!("{error}");
        }
        self.node.backoff.told(&answer.assignment);
        match Persisted::accept(self.node.persisted(), &answer.assignment) {
            Ok(None) => {}
            Ok(Some(mut next)) => {
                next.own = Some(self.node.id);
                let (goal, epoch) = (next.assignment.goal_state, next.assignment.epoch);
                let before = self.node.persisted().map(|p| p.assignment.goal_state);
                if let Err(error) = self.node.persist(|state| state.persisted = Some(next)) {
                    tracing::error!("the assignment is not followed: {error}");
                    return;
                }
                if before != Some(goal) {
                    tracing::info!(
                        node.id = self.node.id.0,
                        epoch = epoch.0,
                        "goal state is now {goal}"
                    );
                }
            }
            Err(OutOfOrder) => {
                tracing::warn!("{OutOfOrder}: ticket {}", answer.assignment.order.ticket);
            }
        }
    }

    async fn should_end(&mut self) -> Option<Ended> {
        let ending = *self.ending.borrow_and_update();
        if ending != Ending::No {
            self.line.stopping();
        }
        match ending {
            Ending::LeavePostgres => return Some(Ended::AsTold),
            Ending::Immediate => {
                // A stop that was under way has lost sight of it.
                self.node.find_postmaster(true, self.right.fenced()).await;
                drop(self.node.carry_out(&Step::StopImmediate).await);
                self.hooks.note_end();
                return Some(Ended::AsTold);
            }
            Ending::Planned => {
                self.leaving_since.get_or_insert(clock::now());
            }
            Ending::No | Ending::Fast => {}
        }
        if self.heard.borrow().dropped {
            drop(self.node.carry_out(&Step::StopFast).await);
            self.hooks.note_end();
            // What is to be told may be among what is to be destroyed.
            self.hooks.last_moments().await;
            return Some(self.node.leave_for_good());
        }
        None
    }

    fn circumstances(&self) -> Circumstances {
        let heard = self.heard.borrow();
        let ending = *self.ending.borrow();
        let consent = heard.answer.as_ref().is_some_and(|answer| answer.assignment.may_stop);
        let waited = self.leaving_since.map_or(0, |since| clock::now().since(since));
        let alone = heard.unreachable.is_some() || heard.answer.is_none();
        let stopping = ending == Ending::Fast
            || self.leaving_since.is_some() && (consent || alone || waited > STOP_PATIENCE_MS);
        Circumstances {
            heard: heard.answer.is_some(),
            may_write: self.may_write(heard.answer.is_some() || self.is_suspended()),
            stopping,
            full: self.room.borrow().iter().any(|found| !room(found).suffices()),
            fetched: self.archive.as_ref().map(|archive| archive.condition().fetched),
            fenced: self.right.fenced(),
        }
    }

    /// Before anything was heard, a start needs a spec that is not asynchronous as well (rule 13).
    fn may_write(&self, heard: bool) -> bool {
        self.right.holds() && (heard || self.needs_standbys() || self.node.running().is_some())
    }

    /// Nothing would be acknowledged here without a standby.
    fn needs_standbys(&self) -> bool {
        self.node.file().spec.is_some_and(|spec| !spec.is_asynchronous())
    }

    /// Whether an operator's word stands in for the lease: the monitor is lost, and this is the primary
    /// under a spec by which nobody else can be elected.
    fn is_suspended(&self) -> bool {
        let asynchronous = self.node.file().spec.is_some_and(|spec| spec.is_asynchronous());
        let primary = self.node.persisted().is_some_and(|persisted| {
            let promoted = persisted.promoted.as_ref().map(|promoted| promoted.epoch);
            matches!(persisted.assignment.goal, Goal::Primary { .. })
                && promoted == Some(persisted.assignment.epoch)
                && persisted.sealed.is_none()
        });
        self.node.state.suspended && asynchronous && primary
    }

    /// The epoch whose promotion was verified here, of a primary that is to be one still and whose server
    /// has said that it is ready. Not on a lease that it has only claimed: it may have been replaced, and
    /// nobody should be sent to it before the monitor or its standbys have proved that it was not.
    fn reign(&self, look: &Look) -> Option<Epoch> {
        let persisted = self.node.persisted()?;
        let is_ready = look.view.is_primary() && look.view.process == Process::Running;
        let wanted = matches!(persisted.assignment.goal, Goal::Primary { .. });
        let promoted = persisted.promoted.as_ref().map(|promoted| promoted.epoch);
        // A proof makes the claim good in the state as well, but not where that cannot be written.
        let is_proven = !self.node.state.claimed || self.right.is_proven();
        let is_certain = is_proven && persisted.sealed.is_none() && self.is_backed(look);
        promoted.filter(|epoch| {
            is_ready && wanted && is_certain && *epoch == persisted.assignment.epoch
        })
    }

    /// Whether its standbys stream, or need not: a server that does not answer shows none.
    fn is_backed(&self, look: &Look) -> bool {
        let streaming = look.streaming().map(|(node, _)| node).collect();
        self.right.is_backed(self.spec_in_force(look).as_ref(), &streaming)
    }

    fn spec_in_force(&self, look: &Look) -> Option<Spec> {
        self.node.persisted()?.in_force(&look.view.file, self.node.seen.sync)
    }

    /// Tells the guard what there is to guard, and what the standbys prove.
    fn note_proofs(&mut self, look: &Look) {
        let now = clock::now();
        let stamps: Vec<_> = look
            .streaming()
            .filter_map(|(node, sender)| Some((node, sender.reply_time?)))
            .collect();
        let primary = self
            .node
            .persisted()
            .is_some_and(|persisted| matches!(persisted.assignment.goal, Goal::Primary { .. }));
        let accepted = self.node.persisted().map(|persisted| persisted.assignment.order);
        self.right.update(|tenure| {
            if let Some(accepted) = accepted.filter(|_| !primary && !look.view.is_primary()) {
                tenure.end(accepted);
            }
            for (node, stamp) in stamps {
                tenure.saw_reply(node, stamp, now);
            }
        });
        let timers = self.node.persisted().map(|persisted| persisted.assignment.timers);
        self.right.set_duty(Duty {
            // A cluster that is not ours yet has no lease to lose.
            writable: look.view.is_primary()
                && self.node.persisted().is_some_and(|persisted| persisted.promoted.is_some()),
            reign: self.reign(look),
            in_force: self.spec_in_force(look),
            lease_ms: timers.map_or(0, |timers| timers.lease_ms),
            suspended: self.is_suspended(),
            timers,
        });
        if self.node.state.claimed
            && self.right.is_proven()
            && let Err(error) = self.node.persist(|state| state.claimed = false)
        {
            tracing::warn!("{error}");
        }
    }

    fn report(&mut self, look: &Look, plan: &Plan) {
        let report = self.describe(look, plan);
        self.outgoing.send_if_modified(|before| {
            let news = before.as_ref().is_none_or(|before| is_news(before, &report));
            *before = Some(report);
            news
        });
    }

    /// Only a server that has answered: one that is just being started would be killed by the signal.
    fn reload(&mut self, look: &Look) {
        let answers = look.view.server.is_some() && self.reload.has_changed().unwrap_or(false);
        let Some(running) = self.node.running().filter(|_| answers) else { return };
        self.reload.mark_unchanged();
        match running.signal(Signal::Reload) {
            Ok(()) => tracing::info!(node.id = self.node.id.0, "postgres reads its configuration"),
            Err(error) => {
                tracing::warn!("postgres cannot be told to read its configuration: {error}");
            }
        }
    }

    fn is_over(look: &Look, plan: &Plan, circumstances: Circumstances) -> Option<Ended> {
        let stopped = look.view.process == Process::Stopped;
        if circumstances.stopping && stopped && plan.next == Next::Reached {
            return Some(Ended::AsTold);
        }
        None
    }

    /// Does what was planned; says how long to wait for an event afterwards.
    async fn act(&mut self, plan: &Plan, look: &Look, rebuilding: bool) -> Duration {
        let interval = self.interval();
        match &plan.next {
            Next::Do(step) => self.act_on(step).await,
            Next::Wait(what) => {
                if !rebuilding {
                    self.look_after_settings(look).await;
                    self.begin(what);
                    let since = self.since.1;
                    self.node.show_step(what, None, since);
                }
                if self.right.runs_out() {
                    // A primary that is to drain, and whose hook takes its time.
                    self.node.ask_for_replies().await;
                }
                if rebuilding { LOOK_AT_COPY } else { LOOK_AGAIN }
            }
            Next::Reached => {
                self.node.step.send_replace(None);
                self.trouble = None;
                self.look_after_settings(look).await;
                if look.view.server.is_some() {
                    let flushed = flushed(&self.heard.borrow());
                    self.node.look_after_slots(&flushed).await;
                }
                if self.right.runs_out() {
                    self.node.ask_for_replies().await;
                }
                // Nothing tells when a standby begins or ceases to stream.
                let alone = self.right.serves() && !self.right.is_granted();
                if alone { LOOK_AT_STANDBYS.min(interval / 4) } else { interval / 4 }
            }
        }
    }

    /// The operator's settings: how far the server is, and whether it has to be restarted for them.
    async fn look_after_settings(&mut self, look: &Look) {
        if look.view.server.is_none() {
            return;
        }
        let wants_catalogue = self.wants_catalogue();
        self.node.look_after_settings(wants_catalogue).await;
        if self.archive.as_mut().is_some_and(|archive| archive.is_due(clock::now())) {
            self.node.look_after_archiving().await;
        }
        if let Err(error) = self.node.restart_if_stuck().await {
            tracing::warn!("postgres cannot be restarted: {}", error.in_full());
        }
    }

    async fn act_on(&mut self, step: &Step) -> Duration {
        self.begin(step.name());
        let since = self.since.1;
        self.node.show_work(step, since);
        let left = self.node.backoff.left(step, clock::now());
        if left > 0 {
            self.show_wait(step);
            return Duration::from_millis(left);
        }
        let Some(result) = self.carry_out(step).await else { return Duration::ZERO };
        self.refused = matches!(result, Err(StepError::NoRoom { .. }));
        if let Some(trace) = &mut self.trace {
            trace.acted(step, &result);
        }
        match result {
            Ok(()) => {
                // These have only begun: how they end is told where they are looked after.
                if !matches!(step, Step::Clone { .. } | Step::Rewind { .. }) {
                    tracing::info!(
                        node.id = self.node.id.0,
                        duration_ms = clock::now().since(since),
                        "{} done",
                        step.name()
                    );
                }
                self.trouble = None;
                if !is_heavy(step) {
                    self.node.backoff.succeeded(step);
                }
                Duration::ZERO
            }
            Err(StepError::NotYet(what)) => {
                tracing::debug!("{}: {what} is not there yet", step.name());
                LOOK_AGAIN
            }
            Err(error) => {
                let text = error.in_full();
                let known = self.trouble.as_ref().is_some_and(|(_, known)| *known == text);
                if !known {
                    tracing::warn!(
                        node.id = self.node.id.0,
                        "{} failed, will be tried again: {text}",
                        step.name()
                    );
                }
                self.trouble = Some((step.clone(), text));
                self.note_failure(step)
            }
        }
    }

    /// Carries out a step; `None` where it was a stop of Postgres and the keeper has been told meanwhile to stop
    /// that at once.
    async fn carry_out(&mut self, step: &Step) -> Option<Result<(), StepError>> {
        let may_be_hurried = matches!(step, Step::StopFast | Step::Restart);
        let mut ending = self.ending.clone();
        tokio::select! {
            result = self.line.alive_during(LONGEST_STEP, self.node.carry_out(step)) => Some(result),
            Ok(_) = ending.wait_for(|ending| *ending == Ending::Immediate), if may_be_hurried => None,
        }
    }

    /// A failed step waits; and where Postgres is down, that is why.
    fn note_failure(&mut self, step: &Step) -> Duration {
        let now = clock::now();
        self.node.backoff.failed(step, now);
        if self.node.running().is_none() {
            self.node.crashes.is_kept_down(now);
        }
        Duration::from_millis(self.node.backoff.left(step, now))
    }

    /// A step that has been refused for lack of room is shown as the wait that it is.
    fn show_wait(&self, step: &Step) {
        if self.refused {
            let what = format!("room on the disk for the {}", step.name());
            self.node.show_step(&what, None, self.since.1);
        }
    }

    fn begin(&mut self, what: &str) {
        if self.since.0 != what {
            self.since = (what.to_owned(), clock::now());
        }
    }

    fn interval(&self) -> Duration {
        let timers = self.node.persisted().map(|persisted| persisted.assignment.timers);
        timers.map_or(Duration::from_millis(500), |timers| timers.report_interval())
    }

    /// Waits for an event, at most for `pause`.
    async fn wait(&mut self, pause: Duration) {
        if pause.is_zero() {
            return;
        }
        let postmaster = self.node.running();
        let ended = async {
            match &postmaster {
                Some(postmaster) => drop(postmaster.exited().await),
                None => std::future::pending().await,
            }
        };
        let job = async {
            match &mut self.node.job {
                Some(job) => job.ended().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause.min(self.line.pause())) => {}
            _ = self.heard.changed() => {}
            _ = self.attachment.changed() => {}
            _ = self.ending.changed() => {}
            () = ended => {}
            () = job => {}
            () = self.hooks.answered() => {}
        }
    }
}

/// The present step, for `status`.
pub fn step_view(node: &Node) -> Option<StepView> {
    node.step.borrow().clone()
}
