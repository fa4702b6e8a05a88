//! A keeper's turn: take the newest assignment, look, plan, report, act. The plan is the real one.

use crate::machine::{Frozen, Job, Keeper, Machine, ServerMemory};
use crate::node::{apply, begin_copy, finish_copy};
use crate::world::{Message, Mutation, World};
use fsm::Millis;
use fsm::node::consent::Asked;
use fsm::node::plan::Next;
use fsm::node::primary::cannot_serve;
use fsm::node::standby::{needs_primary, stray};
use fsm::node::view::{Due, Lack, Persisted, is_failed};
use fsm::node::vitals::Vitals;
use fsm::node::{Data, Plan, Process, Step, Sync, Upstream, plan};
use shared::goal::Goal;
use shared::ids::{Epoch, Gen, NodeId, Ticket};
use shared::lsn::Position;
use shared::pgsettings::SettingsReport;
use shared::report::{self, Accepted, InForce, Offer, PostgresView, Replica, Report, Sealed};
use shared::spec::Spec;
use shared::state::NodeState;
use std::collections::BTreeSet;

/// How long a keeper that was asked to stop waits for the monitor's consent; shorter than the real one,
/// as all timers are.
const STOP_PATIENCE_MS: u64 = 3000;
/// Calls under way at most.
const CALLS: usize = 2;

impl World {
    /// One turn of a node's keeper; says what it found to do.
    pub fn keeper_turn(&mut self, id: NodeId) -> Option<Next> {
        let mutation = self.mutation;
        if self.machines.get(id).is_some_and(|machine| machine.frozen == Frozen::Postgres) {
            self.repeat_report(id);
        }
        let machine = self.machines.get_mut(id).filter(|machine| machine.is_kept())?;
        let now = machine.time(self.now);
        if let Some(line) = machine.take_assignment(self.mutation) {
            self.say(|| line);
        }
        let copying = self.look_after_job(id);
        self.note_replies(id);
        let lacks = self.upstream_lacks(id);
        self.look_at_archive(id);
        let machine = self.machines.get_mut(id)?;
        machine.view.upstream_lacks = lacks;
        machine.look(now);
        machine.view.may_write |= mutation == Mutation::StartsAlone;
        if matches!(mutation, Mutation::IgnoresOrders | Mutation::SaysDone) {
            machine.view.due = None;
        }
        self.ask_hook(id, now);
        let machine = self.machines.get(id)?;
        let plan = if copying {
            Plan { state: NodeState::Catchingup, next: Next::Wait("the copy") }
        } else {
            planned(machine, mutation)
        };
        self.note_look(id, &plan);
        self.send_report(id, &plan);
        match &plan.next {
            Next::Do(step) => self.carry_out(id, step),
            Next::Reached => self.drop_old_slots(id),
            Next::Wait(_) => {}
        }
        if plan.next == Next::Reached {
            self.leave(id);
        }
        Some(plan.next)
    }

    /// A keeper that was asked to stop has nothing left to do.
    fn leave(&mut self, id: NodeId) {
        let stops = self.machines.get(id).is_some_and(|machine| {
            let leaving = machine.keeper.as_ref().is_some_and(|k| k.leaving_since.is_some());
            leaving && machine.view.stopping && machine.view.process == Process::Stopped
        });
        if stops {
            self.say(|| format!("node {id}: the keeper ends as asked"));
            self.end_keeper(id);
        }
    }

    /// What the upstream says that it has not got.
    fn upstream_lacks(&self, id: NodeId) -> Option<Lack> {
        let machine = self.machines.get(id)?;
        let waits = machine.view.server.as_ref().is_some_and(|s| s.in_recovery && !s.streaming);
        let upstream = machine.view.file.upstream.as_ref().filter(|_| waits)?;
        let (from, slot) = match upstream {
            Upstream::Member { node, admission } => (*node, Some((id, *admission))),
            Upstream::Fetch { node } => (*node, None),
        };
        let source = self.machines.get(from).filter(|m| m.is_ready() && self.reaches(id, from))?;
        if machine.log.records().len() < source.wal_from {
            return Some(Lack::Wal);
        }
        slot.filter(|slot| !source.slots.contains(slot)).map(|_| Lack::Slot)
    }

    fn look_after_job(&mut self, id: NodeId) -> bool {
        let Some(machine) = self.machines.get_mut(id) else { return false };
        let wanted = machine.persisted.as_ref().and_then(|persisted| {
            let assignment = &persisted.assignment;
            Some((assignment.goal.upstream()?, assignment.epoch))
        });
        let Some(job) = machine.job.clone() else { return false };
        if wanted != Some((job.from, job.epoch)) {
            machine.job = None;
            return false;
        }
        if self.random.one_in(3) {
            return true;
        }
        let source = self
            .confirm_upstream(id, job.from)
            .map(|m| (m.log.clone(), m.view.file.clone(), m.wal_from));
        let broken = self.faulty && self.random.one_in(6);
        let backup = self.backup();
        let Some(machine) = self.machines.get_mut(id) else { return false };
        let restores = job.restores && backup.is_some();
        machine.job = None;
        let (Some((log, file, wal_from)), false) = (source, broken) else { return false };
        if let Some(backup) = backup.filter(|_| restores) {
            machine.restore(backup);
            self.say(|| format!("node {id}: restored from a backup"));
            return false;
        }
        if let Some(persisted) = machine.persisted.as_mut() {
            machine.view.file = file;
            finish_copy(&mut machine.view, persisted, job.from, &log.history());
            let slot = persisted.admitted.map(|admitted| (id, admitted.admission));
            machine.control = log.timeline();
            machine.log = log;
            machine.asked = None;
            machine.from_backup = false;
            machine.wal_from = wal_from;
            machine.slots.clear();
            machine.refresh();
            if let Some(source) = self.machines.get_mut(job.from) {
                source.slots.extend(slot);
            }
        }
        false
    }

    /// The upstream itself confirms that it is the running primary of the assigned epoch (rule 10).
    fn confirm_upstream(&self, id: NodeId, from: NodeId) -> Option<&Machine> {
        let assignment = &self.machines.get(id)?.persisted.as_ref()?.assignment;
        let timeline = assignment.lineage.entry(assignment.epoch)?.timeline;
        let upstream = self.machines.get(from).filter(|_| self.reaches(id, from))?;
        if self.mutation == Mutation::CloneFromAny {
            let other = |m: &&Machine| m.id != id && m.is_ready() && self.reaches(id, m.id);
            return self.machines.values().filter(other).find(|m| m.id != from).or(Some(upstream));
        }
        (upstream.is_writable() && upstream.log.timeline() == timeline).then_some(upstream)
    }

    /// A standby confirms that it streams, as it was admitted, what the primary of the assigned epoch writes.
    fn confirm_standby(&self, id: NodeId, from: NodeId) -> Option<&Machine> {
        let assignment = &self.machines.get(id)?.persisted.as_ref()?.assignment;
        let timeline = assignment.lineage.entry(assignment.epoch)?.timeline;
        let admission = assignment.member(from)?.admission;
        let upstream = self.machines.get(from).filter(|_| self.reaches(id, from))?;
        let streams = upstream.view.server.as_ref().is_some_and(|server| server.in_recovery)
            && upstream.server.receiver.as_ref().is_some_and(|r| r.slot == Some(admission));
        (streams && upstream.log.timeline() == timeline).then_some(upstream)
    }

    fn confirms(&self, id: NodeId, from: NodeId) -> bool {
        let goal = self.machines.get(id).and_then(|m| m.persisted.as_ref());
        match goal.map(|persisted| &persisted.assignment.goal) {
            Some(Goal::Follow { upstream }) if upstream.is_standby() => {
                self.confirm_standby(id, from).is_some()
            }
            Some(_) | None => self.confirm_upstream(id, from).is_some(),
        }
    }

    fn carry_out(&mut self, id: NodeId, step: &Step) {
        self.say(|| format!("node {id}: {step:?}"));
        match step {
            Step::Admit { upstream, admission } => self.admit(id, *upstream, *admission),
            Step::Rewind { from } if self.mutation == Mutation::NoPrefixCheck => {
                let own = self.machines.get(id).and_then(|m| m.persisted.as_ref());
                if let Some(admission) = own.and_then(|p| Some(p.assignment.member(id)?.admission))
                {
                    self.admit(id, *from, admission);
                }
            }
            Step::Clone { from } | Step::Rewind { from } => self.begin_job(id, *from, step),
            Step::Promote { timeline } => self.promote(id, *timeline),
            Step::StopFast => {
                self.send_all(id);
                self.simple(id, step);
            }
            Step::Restart => self.restart_postgres(id),
            Step::Barrier(spec) => self.barrier(id, spec),
            Step::Block => {
                self.end_old_admissions(id);
                self.change_sync(id, step);
            }
            Step::Set(_) => self.change_sync(id, step),
            Step::Initialise
            | Step::Adopt
            | Step::Configure(_)
            | Step::StartStandby
            | Step::StartPrimary
            | Step::StopImmediate
            | Step::ConfirmPromotion
            | Step::CatchUp
            | Step::Checkpoint => self.simple(id, step),
        }
        self.acknowledge(id);
    }

    pub(crate) fn simple(&mut self, id: NodeId, step: &Step) {
        let lags = self.lags;
        let Some(machine) = self.machines.get_mut(id) else { return };
        if matches!(step, Step::StartStandby | Step::StartPrimary) && machine.cannot_start {
            return;
        }
        let Some(persisted) = machine.persisted.as_mut() else { return };
        let history = machine.log.history();
        apply(&mut machine.view, persisted, step, &history);
        match step {
            Step::Initialise => machine.log = crate::log::Log::new(id),
            Step::Checkpoint => machine.control = machine.log.timeline(),
            Step::StartStandby
            | Step::StartPrimary
            | Step::StopFast
            | Step::StopImmediate
            | Step::Restart => {
                machine.server = ServerMemory::default();
                machine.server.waiting_from = machine.log.records().len();
                machine.replay_stuck = false;
            }
            Step::Configure(_) | Step::CatchUp | Step::Block | Step::Set(_) | Step::Adopt => {
                if let Some(keeper) = &mut machine.keeper {
                    keeper.sealing_since = None;
                }
            }
            Step::Admit { .. }
            | Step::Clone { .. }
            | Step::Rewind { .. }
            | Step::Promote { .. }
            | Step::ConfirmPromotion
            | Step::Barrier(_) => {}
        }
        // A reload, or a start, puts the file in force.
        let file = machine.view.file.spec.clone();
        let before = std::mem::replace(&mut machine.server.spec, file);
        let reloads = machine.view.server.is_some() && before != machine.server.spec;
        if reloads && lags {
            machine.server.fall_behind(before.as_ref());
        }
        machine.refresh();
    }

    fn admit(&mut self, id: NodeId, upstream: NodeId, admission: Ticket) {
        if !self.confirms(id, upstream) {
            return;
        }
        if let Some(upstream) = self.machines.get_mut(upstream) {
            upstream.slots.insert((id, admission));
        }
        self.simple(id, &Step::Admit { upstream, admission });
    }

    fn begin_job(&mut self, id: NodeId, from: NodeId, step: &Step) {
        let checkpointed = |m: &Machine| m.control == m.log.timeline();
        let rewind = matches!(step, Step::Rewind { .. });
        if self.confirm_upstream(id, from).is_none_or(|m| rewind && !checkpointed(m)) {
            return;
        }
        let end = self.confirm_upstream(id, from).map(|upstream| upstream.log.end());
        let trusts = self.mutation == Mutation::TrustsBackups;
        let again = self.machines.get(id).is_some_and(|machine| machine.from_backup);
        let restores = !rewind && self.archives && !again && self.random.one_in(2);
        if let Some(machine) = self.machines.get_mut(id)
            && let Some(persisted) = machine.persisted.as_mut()
        {
            let epoch = persisted.assignment.epoch;
            machine.server = ServerMemory::default();
            machine.replay_stuck = false;
            begin_copy(&mut machine.view, persisted);
            if let Some(lsn) = end.filter(|_| !rewind && !trusts) {
                persisted.owes = Some(Position { epoch, lsn });
            }
            machine.job = Some(Job { from, epoch, restores });
            if !rewind {
                if let Some(keeper) = &mut machine.keeper {
                    keeper.down_since = None;
                }
                self.remember(id, Due::Copy);
            }
        }
    }

    fn promote(&mut self, id: NodeId, timeline: shared::ids::TimelineId) {
        let interrupted = if self.faulty { self.random.below(16) } else { 2 };
        let mutation = self.mutation;
        let Some(machine) = self.machines.get_mut(id) else { return };
        machine.log.fork(timeline);
        if interrupted == 0 {
            // The history file is there, and nothing on the new timeline yet.
            machine.stop_postgres(false);
            self.say(|| format!("node {id}: the promotion was interrupted early"));
            return;
        }
        machine.log.push_own(id);
        let epoch = machine.persisted.as_ref().map(|persisted| persisted.assignment.epoch);
        let log = machine.log.records().to_vec();
        if interrupted == 1 {
            machine.stop_postgres(false);
            self.say(|| format!("node {id}: the promotion was interrupted late"));
            return;
        }
        self.simple(id, &Step::Promote { timeline });
        if let Some(machine) = self.machines.get_mut(id) {
            machine.server.receiver = None;
            machine.server.waiting_from = machine.log.records().len();
            // What the history file says, not what the abstract step made of it.
            machine.refresh();
            if mutation == Mutation::PromotesOpen {
                let epoch = epoch.unwrap_or_default();
                machine.server.spec = Some(nobody(id, epoch));
            }
        }
        if let Some(epoch) = epoch {
            self.ledger.promote(epoch, &log);
        }
    }

    fn barrier(&mut self, id: NodeId, spec: &Spec) {
        let mutation = self.mutation;
        let Some(machine) = self.machines.get_mut(id) else { return };
        let barrier = match machine.server.barrier {
            Some((generation, barrier)) if generation == spec.generation => barrier,
            Some(_) | None => {
                machine.log.push_own(id);
                machine.refresh();
                machine.log.end()
            }
        };
        machine.server.barrier = Some((spec.generation, barrier));
        let rows = &machine.server.rows;
        let required = if mutation == Mutation::NoBarrier { 0 } else { spec.required };
        let counted = mutation == Mutation::CountConnected;
        let passed = spec.standbys.iter().filter_map(|id| rows.get(id));
        if passed.filter(|row| counted || row.flushed >= barrier).count() >= required {
            self.simple(id, &Step::Barrier(spec.clone()));
        }
    }

    fn drop_old_slots(&mut self, id: NodeId) {
        let Some(machine) = self.machines.get_mut(id) else { return };
        let Some(persisted) = &machine.persisted else { return };
        let assignment = &persisted.assignment;
        let lets_in = matches!(assignment.goal, Goal::Primary { .. } | Goal::Follow { .. });
        // One of a later admission than this node has heard of stays.
        machine.slots.retain(|(node, ticket)| {
            lets_in && assignment.member(*node).is_some_and(|m| *ticket >= m.admission)
        });
    }

    /// Rule 9, i: whoever was let in before, while this was a standby perhaps, is let out before anybody is
    /// counted.
    fn end_old_admissions(&mut self, id: NodeId) {
        if self.mutation == Mutation::KeepsOldSlots {
            return;
        }
        let Some(machine) = self.machines.get_mut(id) else { return };
        let Some(persisted) = &machine.persisted else { return };
        let members = persisted.assignment.members.clone();
        let stands = |node: NodeId, ticket: Ticket| {
            // Whoever is no member any more is in no new spec.
            let member = members.iter().find(|member| member.id == node);
            member.is_none_or(|member| ticket >= member.admission)
        };
        machine.slots.retain(|(node, ticket)| stands(*node, *ticket));
        machine.server.rows.retain(|node, row| stands(*node, row.slot));
    }

    /// The agent waits for an answer of Postgres; the link sends what the agent last said.
    fn repeat_report(&mut self, id: NodeId) {
        let mutation = self.mutation;
        let Some(machine) = self.machines.get(id).filter(|machine| machine.is_guarded()) else {
            return;
        };
        let plan = planned(machine, mutation);
        self.send_report(id, &plan);
    }

    fn send_report(&mut self, id: NodeId, plan: &Plan) {
        let mutation = self.mutation;
        let Some(machine) = self.machines.get_mut(id) else { return };
        let now = machine.time(self.now);
        let Some(mut report) = machine.describe(plan, now) else { return };
        let numbered = machine.numbered_position();
        let persisted = machine.persisted.as_ref();
        let ordered = persisted.map_or(report.done, |persisted| persisted.assignment.orders);
        let Some(keeper) = machine.keeper.as_mut() else { return };
        let limit = self.monitor.record.settings.timers().report_interval_ms * 2;
        if mutation == Mutation::NumberedPositions
            && let Some(sealed) = report.sealed.as_mut().filter(|sealed| sealed.position.is_none())
        {
            sealed.position = numbered;
        }
        if mutation == Mutation::SaysDone {
            report.done = ordered;
        }
        keeper.calls.retain(|call| now < call.1 + limit);
        if keeper.calls.len() >= CALLS {
            return;
        }
        // Its last answer was that it has to say all that it knows.
        let absent = self.monitor.record.nodes.get(&id).is_none_or(|node| node.absent);
        if self.monitor.record.quarantined || absent {
            report.offer = machine.persisted.as_ref().map(offer);
        }
        keeper.seq += 1;
        keeper.calls.push((keeper.seq, now));
        report.seq = keeper.seq;
        self.messages.push(Message::Report(id, Box::new(report)));
    }
}

impl Keeper {
    /// Why it is not to be promoted now, as long as the refusal counts.
    fn vetoes(&self, now: u64) -> Option<String> {
        let said = self.hook.filter(|hook| hook.said == Asked::Refused && now < hook.until)?;
        Some(format!("not in epoch {}", said.about.1))
    }

    fn holds(&self, in_force: Option<&Spec>, lease_ms: u64, now: u64) -> bool {
        self.tenure.until(in_force, lease_ms).is_none_or(|until| Millis(now) < until)
    }
}

impl Machine {
    /// Accepts the newest assignment; says what it is.
    fn take_assignment(&mut self, mutation: Mutation) -> Option<String> {
        let answer = self.keeper.as_ref()?.heard.clone()?;
        self.make_good();
        let before = self.persisted.clone();
        let mut known = before.clone().filter(|_| mutation != Mutation::Unordered);
        if let Some(known) = known.as_mut().filter(|_| mutation == Mutation::NoGenerations) {
            known.assignment.order.generation = Gen(0);
        }
        let Ok(Some(mut next)) = Persisted::accept(known.as_ref(), &answer.assignment) else {
            return None;
        };
        next.own = Some(self.id);
        if let Some(before) = before.as_ref().filter(|_| mutation == Mutation::Unordered) {
            if before.assignment == next.assignment {
                return None;
            }
            next.promoted.clone_from(&before.promoted);
            next.admitted = before.admitted;
        }
        let (order, goal) = (next.assignment.order, next.assignment.goal.clone());
        let line = format!("node {}: told {order:?} {goal:?}", self.id);
        self.persisted_before = before.filter(|_| mutation == Mutation::ForgetSeal);
        self.persisted = Some(next);
        Some(line)
    }

    /// What it claimed is made good by an answer to a report that was sent later: one to an older report says
    /// nothing about what has become of the group since.
    fn make_good(&mut self) {
        let granted = |keeper: &Keeper| keeper.granted_at > keeper.claimed_at;
        if self.keeper.as_ref().is_some_and(granted) {
            self.end_claim();
        }
    }

    fn end_claim(&mut self) {
        self.claimed = false;
        if let Some(keeper) = &mut self.keeper {
            keeper.claimed_at = None;
        }
    }

    /// What the keeper sees.
    fn look(&mut self, now: u64) {
        self.note_wake(false, now);
        self.refresh();
        self.unclaim(now);
        self.view.due = self.due();
        let in_force = self.spec_in_force();
        let primary = self.persisted.as_ref().is_some_and(|p| p.assignment.goal.spec().is_some());
        let alone = self.view.file.spec.as_ref().is_some_and(|spec| !spec.is_asynchronous());
        let lease_ms = self.lease_ms();
        let writable = self.view.is_primary();
        let accepted = self.persisted.as_ref().map(|persisted| persisted.assignment.order);
        let Some(keeper) = self.keeper.as_mut() else { return };
        if let Some(accepted) = accepted.filter(|_| !primary && !writable) {
            keeper.tenure.end(accepted);
        }
        let heard = keeper.heard.is_some();
        let running = self.view.process != Process::Stopped;
        let consent = keeper.heard.as_ref().is_some_and(|answer| answer.assignment.may_stop);
        self.view.stopping = keeper
            .leaving_since
            .is_some_and(|since| consent || !heard || now.saturating_sub(since) > STOP_PATIENCE_MS);
        self.view.heard = heard;
        self.view.may_write =
            keeper.holds(in_force.as_ref(), lease_ms, now) && (heard || alone || running);
        let sealing = self.view.file.upstream.is_none()
            && self.view.server.as_ref().is_some_and(|s| s.in_recovery && !s.sealed);
        if sealing {
            let since = *keeper.sealing_since.get_or_insert(now);
            self.view.sealing_for_ms = now.saturating_sub(since);
        } else {
            keeper.sealing_since = None;
            self.view.sealing_for_ms = 0;
        }
    }

    fn lease_ms(&self) -> u64 {
        self.persisted.as_ref().map_or(0, |persisted| persisted.assignment.timers.lease_ms)
    }

    fn spec_in_force(&self) -> Option<Spec> {
        self.persisted.as_ref()?.in_force(&self.view.file, self.view.sync)
    }

    /// The standbys prove that it still is the primary: what it claimed has been made good.
    fn unclaim(&mut self, now: u64) {
        let (in_force, lease_ms) = (self.spec_in_force(), self.lease_ms());
        let proven =
            |keeper: &Keeper| keeper.tenure.is_proven(in_force.as_ref(), lease_ms, Millis(now));
        if self.keeper.as_ref().is_some_and(proven) {
            self.end_claim();
        }
    }

    /// Until when it may serve, on its own clock; `None` without a limit.
    pub fn right_until(&self) -> Option<u64> {
        let in_force = self.spec_in_force();
        let tenure = &self.keeper.as_ref()?.tenure;
        tenure.until(in_force.as_ref(), self.lease_ms()).map(|until| until.0)
    }

    /// Whether the guard stops this primary now.
    pub fn is_fenced(&self, now: u64) -> bool {
        let ours = self.persisted.as_ref().is_some_and(|p| p.promoted.is_some());
        let in_force = self.spec_in_force();
        let lease_ms = self.lease_ms();
        let over = |keeper: &Keeper| {
            let woke = keeper.woke.map(Millis);
            let at = keeper.tenure.fence_at(in_force.as_ref(), lease_ms, woke);
            at.is_some_and(|at| at <= Millis(now))
        };
        self.is_writable() && ours && self.keeper.as_ref().is_some_and(over)
    }

    /// Whether its keeper stood still while its right ended (`slept`: until now), or did before and has no right
    /// again yet.
    pub fn note_wake(&mut self, slept: bool, now: u64) {
        let over = self.right_until().is_some_and(|until| until <= now);
        let writable = self.is_writable();
        if let Some(keeper) = &mut self.keeper {
            let woke = keeper.woke.or(slept.then_some(now));
            keeper.woke = woke.filter(|_| over && writable);
        }
    }

    fn describe(&self, plan: &Plan, now: u64) -> Option<Report> {
        let keeper = self.keeper.as_ref()?;
        let persisted = self.persisted.as_ref();
        let writable = self.is_writable();
        let accepted =
            persisted.map(|p| Accepted { order: p.assignment.order, epoch: p.assignment.epoch });
        let in_force = match (self.view.sync, persisted) {
            (Sync::InForce(generation), Some(persisted)) if writable => {
                Some(InForce { epoch: persisted.assignment.epoch, generation })
            }
            _ => None,
        };
        Some(Report {
            protocol: shared::PROTOCOL,
            keeper: keeper.name.clone(),
            seq: 0,
            nonce: keeper.seq,
            accepted,
            revision: keeper.heard.as_ref().map(|answer| answer.revision).unwrap_or_default(),
            state: plan.state,
            sealed: self.sealed(),
            in_force,
            promoted: persisted.and_then(|p| p.promoted.clone()).filter(|_| writable),
            data: data(&self.view.data),
            postgres: self.postgres_view(),
            replicas: self.replicas(now),
            streaming: self.view.server.as_ref().is_some_and(|server| server.streaming),
            failed: self.failed(keeper, now),
            leaving: keeper.leaving_since.is_some(),
            room: Vec::new(),
            silent_ms: 0,
            step: None,
            warnings: Vec::new(),
            keeper_version: String::new(),
            settings: SettingsReport::default(),
            catalogue: None,
            offer: None,
            done: self.done,
            vetoes: keeper.vetoes(now),
            stray: self.persisted.as_ref().and_then(|known| stray(&self.view, known)),
            behind: self.persisted.as_ref().is_some_and(|known| known.is_behind(&self.view)),
            archive: None,
            cascades: true,
            needs_primary: needs_primary(plan),
        })
    }

    fn sealed(&self) -> Option<Sealed> {
        let persisted = self.persisted.as_ref()?;
        let ticket = persisted.sealed?;
        let quiet = match &self.view.server {
            Some(server) => server.in_recovery && server.sealed,
            None => self.view.process == Process::Stopped,
        };
        if !quiet {
            return None;
        }
        Some(Sealed { ticket, position: persisted.position(&self.view) })
    }

    /// For a mutation: a timeline of no epoch is as good as the newest epoch with a lower number.
    fn numbered_position(&self) -> Option<Position> {
        let lineage = &self.persisted.as_ref()?.assignment.lineage;
        let (history, lsn) = self.view.established()?;
        let number = history.timeline_at(lsn);
        let epoch = lineage.0.iter().filter(|e| e.timeline < number).map(|e| e.epoch).max()?;
        Some(Position { epoch, lsn })
    }

    fn failed(&self, keeper: &Keeper, now: u64) -> Option<String> {
        let persisted = self.persisted.as_ref()?;
        if let Some(why) = cannot_serve(&self.view, persisted) {
            return Some(why.to_owned());
        }
        if let Some(since) = keeper.silent_since.filter(|_| self.frozen == Frozen::Postgres) {
            let mut vitals = Vitals::default();
            vitals.postgres.ask(Millis(since));
            return vitals.ailment(Millis(now), persisted.assignment.timers.node_timeout_ms);
        }
        let budget = persisted.assignment.timers.restart_budget_ms;
        let failed =
            self.view.server.is_none() && is_failed(keeper.down_since, &[], Millis(now), budget);
        failed.then(|| "postgres is down".to_owned())
    }

    fn postgres_view(&self) -> PostgresView {
        let mut postgres = PostgresView::default();
        match (&self.view.server, &self.view.data) {
            (Some(server), _) => {
                postgres.running = true;
                postgres.in_recovery = Some(server.in_recovery);
                postgres.lsn = server.end;
                postgres.timeline = if server.in_recovery {
                    server.end.map(|end| server.history.timeline_at(end))
                } else {
                    Some(server.history.timeline)
                };
            }
            (None, Data::Present { history, clean_end, standby_signal, .. }) => {
                postgres.in_recovery = standby_signal.then_some(true);
                postgres.timeline = Some(history.timeline);
                postgres.lsn = *clean_end;
            }
            (None, Data::Empty | Data::Rebuilding | Data::Unusable) => {}
        }
        postgres
    }

    fn replicas(&self, now: u64) -> Vec<Replica> {
        let rows = self.server.rows.iter().filter(|_| self.is_writable());
        rows.map(|(node, row)| Replica {
            node: *node,
            state: "streaming".to_owned(),
            slot: Some(node.admission_slot(row.slot)),
            flushed: Some(row.flushed),
            replayed: None,
            sync_state: String::new(),
            stalled_ms: if row.flushed >= self.log.end() { 0 } else { now - row.moved.min(now) },
            replay_lag_ms: None,
        })
        .collect()
    }

    /// Whether the file connects it under its member name.
    pub fn connects(&self) -> bool {
        matches!(self.view.file.upstream, Some(Upstream::Member { .. }))
    }
}

/// The asynchronous spec.
fn nobody(primary: NodeId, epoch: Epoch) -> Spec {
    Spec { generation: Gen(0), epoch, primary, required: 0, standbys: BTreeSet::new() }
}

/// The real plan, or what is left of it without a rule.
fn planned(machine: &Machine, mutation: Mutation) -> Plan {
    let persisted = machine.persisted.as_ref();
    let serves = persisted.is_some_and(|p| p.assignment.goal.spec().is_some());
    if mutation == Mutation::FencedStays && machine.was_fenced && !serves {
        let next = Next::Wait("to be the primary again");
        return Plan { state: NodeState::DemoteTimeout, next };
    }
    plan(&machine.view, persisted)
}

fn data(data: &Data) -> report::Data {
    match data {
        Data::Empty => report::Data::Empty,
        Data::Rebuilding => report::Data::Rebuilding,
        Data::Present { system_identifier, .. } => {
            report::Data::Present { system_identifier: *system_identifier }
        }
        Data::Unusable => report::Data::Unusable,
    }
}

/// All that a keeper knows of its group.
fn offer(persisted: &Persisted) -> Box<Offer> {
    Box::new(Offer {
        assignment: persisted.assignment.clone(),
        sealed: persisted.sealed,
        promoted: persisted.promoted.clone(),
    })
}
