//! What a keeper says of its node, and the calls under way.

use super::planned;
use crate::machine::{Frozen, Keeper, Machine};
use crate::world::{Message, Mutation, World};
use fsm::Millis;
use fsm::node::consent::Asked;
use fsm::node::primary::cannot_serve;
use fsm::node::standby::{needs_primary, stray};
use fsm::node::view::{Persisted, is_failed};
use fsm::node::vitals::Vitals;
use fsm::node::{Data, Plan, Process, Sync};
use shared::ids::NodeId;
use shared::lsn::Position;
use shared::pgsettings::SettingsReport;
use shared::report::{self, Accepted, InForce, Offer, PostgresView, Replica, Report, Sealed};

/// Calls under way at most.
const CALLS: usize = 2;

impl World {
    pub(super) fn send_report(&mut self, id: NodeId, plan: &Plan) {
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

    /// The agent waits for an answer of Postgres; the link sends what the agent last said.
    pub(super) fn repeat_report(&mut self, id: NodeId) {
        let mutation = self.mutation;
        let Some(machine) = self.machines.get(id).filter(|machine| machine.is_guarded()) else {
            return;
        };
        let plan = planned(machine, mutation);
        self.send_report(id, &plan);
    }
}

impl Keeper {
    /// Why it is not to be promoted now, as long as the refusal counts.
    fn vetoes(&self, now: u64) -> Option<String> {
        let said = self.hook.filter(|hook| hook.said == Asked::Refused && now < hook.until)?;
        Some(format!("not in epoch {}", said.about.1))
    }
}

impl Machine {
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
