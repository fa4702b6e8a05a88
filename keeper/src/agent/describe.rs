//! What the keeper says of its node: the report, made from one look and what is persisted. Facts only;
//! who hears of them, and when, is the agent's and the link's.

use super::Agent;
use crate::archive::Desk;
use crate::archive::condition::Condition;
use crate::clock;
use crate::local::Look;
use crate::watchdog::Watchdog;
use fsm::node::plan::Next;
use fsm::node::primary::cannot_serve;
use fsm::node::standby::{needs_primary, stray};
use fsm::node::view::is_failed;
use fsm::node::{Plan, Sync};
use postgres::storage::Room;
use shared::pgsettings::SettingsReport;
use shared::report::{Accepted, Data, InForce, Offer, Report, Sealed};

impl Agent {
    /// The report of this look; the link adds what counts the calls.
    pub(super) fn describe(&mut self, look: &Look, plan: &Plan) -> Report {
        let replicas = self.node.replicas(look);
        let persisted = self.node.persisted();
        let accepted = persisted.map(|persisted| Accepted {
            order: persisted.assignment.order,
            epoch: persisted.assignment.epoch,
        });
        let in_force = match (self.node.seen.sync, persisted) {
            (Sync::InForce(generation), Some(persisted)) if look.view.is_writable() => {
                Some(InForce { epoch: persisted.assignment.epoch, generation })
            }
            _ => None,
        };
        let promoted = persisted
            .and_then(|persisted| persisted.promoted.clone())
            .filter(|_| look.view.is_writable());
        let mut warnings: Vec<_> = self.node.warnings.values().cloned().collect();
        if let Some((step, error)) = &self.trouble {
            warnings.push(format!("{}: {error}", step.name()));
        }
        warnings.extend(self.hooks.warnings());
        warnings.extend(self.node.watchdog.as_ref().and_then(Watchdog::warning));
        let archive = self.archive.as_ref().map(Desk::condition);
        warnings.extend(archive.iter().flat_map(Condition::warnings));
        Report {
            protocol: self.node.config.protocol,
            keeper: String::new(),
            seq: 0,
            nonce: 0,
            accepted,
            revision: shared::ids::Revision(0),
            state: plan.state,
            sealed: self.sealed(look),
            in_force,
            promoted,
            data: data(&look.view.data),
            postgres: look.postgres.clone(),
            replicas,
            streaming: look.view.server.as_ref().is_some_and(|server| server.streaming),
            failed: self.failed(look),
            silent_ms: 0,
            leaving: self.leaving_since.is_some(),
            room: self.room.borrow().iter().map(room).collect(),
            done: self.node.state.done,
            stray: persisted.and_then(|persisted| stray(&look.view, persisted)),
            vetoes: self.hooks.vetoes(),
            behind: persisted.is_some_and(|persisted| persisted.is_behind(&look.view)),
            archive: archive.map(|condition| condition.view()),
            cascades: true,
            needs_primary: needs_primary(plan),
            step: self.node.step.borrow().clone().filter(|_| plan.next != Next::Reached),
            warnings,
            keeper_version: env!("CARGO_PKG_VERSION").to_owned(),
            settings: self.settings(),
            offer: self.offer().map(Box::new),
            catalogue: self.node.settings.catalogue().filter(|_| self.wants_catalogue()),
        }
    }

    /// All that is known here of the group, where the monitor wants to hear it. Not while there is
    /// something newer to be accepted: nothing that a lost monitor said may be followed after the offer.
    fn offer(&self) -> Option<Offer> {
        let persisted = self.node.persisted()?;
        let heard = self.heard.borrow();
        let newest = heard.answer.as_ref().map(|answer| answer.assignment.order);
        let is_all = newest.is_none_or(|order| order <= persisted.assignment.order);
        (heard.quarantined && is_all).then(|| Offer {
            assignment: persisted.assignment.clone(),
            sealed: persisted.sealed,
            promoted: persisted.promoted.clone(),
        })
    }

    fn settings(&self) -> SettingsReport {
        let told = self.node.persisted().map(|known| &known.assignment.settings);
        told.map(|told| self.node.settings.report(told)).unwrap_or_default()
    }

    pub(super) fn wants_catalogue(&self) -> bool {
        self.heard.borrow().answer.as_ref().is_some_and(|answer| answer.wants_catalogue)
    }

    /// The seal holds once nothing can be acknowledged any more: Postgres is down, or a standby whose
    /// walreceiver has been seen to be gone.
    fn sealed(&self, look: &Look) -> Option<Sealed> {
        let persisted = self.node.persisted()?;
        let ticket = persisted.sealed?;
        let quiet = match (&look.view.server, self.node.running()) {
            (Some(server), _) => server.in_recovery && server.sealed,
            (None, running) => running.is_none(),
        };
        if !quiet {
            return None;
        }
        Some(Sealed { ticket, position: persisted.position(&look.view) })
    }

    fn failed(&self, look: &Look) -> Option<String> {
        let persisted = self.node.persisted();
        if let Some(why) = persisted.and_then(|persisted| cannot_serve(&look.view, persisted)) {
            return Some(why.to_owned());
        }
        let budget = self.node.persisted()?.assignment.timers.restart_budget_ms;
        let crashes = &self.node.crashes;
        let now = clock::now();
        let (since, times) = (crashes.down_since(), crashes.times());
        if look.view.server.is_some() || !is_failed(since, &times, now, budget) {
            return None;
        }
        let down = since.map_or(0, |since| now.since(since));
        let trouble = self.trouble.as_ref().map(|(_, error)| error.as_str());
        let data = self.node.warnings.get("data directory").map(String::as_str);
        let why = trouble.or(data).or(crashes.why()).map(|why| format!(": {why}"));
        Some(format!(
            "postgres has been down for {down} ms and has ended by itself {} times of late{}",
            times.len(),
            why.unwrap_or_default()
        ))
    }
}

pub(super) fn room(room: &Room) -> shared::report::Room {
    let path = room.path.display().to_string();
    shared::report::Room { path, free: room.free, total: room.total }
}

fn data(data: &fsm::node::Data) -> Data {
    match data {
        fsm::node::Data::Empty => Data::Empty,
        fsm::node::Data::Rebuilding => Data::Rebuilding,
        fsm::node::Data::Present { system_identifier, .. } => {
            Data::Present { system_identifier: *system_identifier }
        }
        fsm::node::Data::Unusable => Data::Unusable,
    }
}
