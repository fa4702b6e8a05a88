//! Slots: the admission of a standby on its upstream, and the ones by which every node keeps WAL for
//! all others. Slots that are not ours are never touched.

use super::StepError;
use crate::clock;
use crate::managed;
use crate::node::{Node, SQL_LIMIT};
use fsm::node::view::Admitted;
use postgres::session::{Session, Target};
use shared::goal::{Assignment, Goal, Member};
use shared::ids::{NodeId, Ticket};
use shared::lsn::Lsn;
use std::collections::BTreeSet;

/// How often the slots are looked after.
const SLOTS_INTERVAL_MS: u64 = 2000;

impl Node {
    /// A member, as the replicator.
    pub fn replicator_at(&self, member: &Member) -> Target {
        let target = Target::tcp(&member.host, member.port, managed::REPLICATOR, "postgres");
        match &self.state.passwords {
            Some(passwords) => target.password(&passwords.replicator),
            None => target,
        }
    }

    /// The upstream itself confirms that it is the running primary of the assigned epoch (rule 10).
    pub(super) async fn confirm_upstream(&self, upstream: NodeId) -> Result<Session, StepError> {
        let assignment = self.assignment()?;
        let member = assignment
            .member(upstream)
            .ok_or_else(|| StepError::NotSo(format!("node {upstream} is not a member")))?;
        let session = Session::connect(&self.replicator_at(member), SQL_LIMIT).await?;
        let expected = assignment.lineage.entry(assignment.epoch).map(|entry| entry.timeline);
        // An error while it is in recovery: pg_current_wal_insert_lsn() is for primaries.
        let timeline = session.current_timeline().await?;
        if Some(timeline) != expected {
            return Err(StepError::NotSo(format!(
                "{} writes timeline {timeline}, which is not that of epoch {}",
                member.name, assignment.epoch
            )));
        }
        Ok(session)
    }

    /// A standby confirms that it is one, and streams, as it was admitted itself, what the primary of the assigned
    /// epoch writes: then its log is a prefix of the same history (rule 10).
    async fn confirm_standby(&self, session: &Session, upstream: NodeId) -> Result<(), StepError> {
        let assignment = self.assignment()?;
        let member = assignment
            .member(upstream)
            .ok_or_else(|| StepError::NotSo(format!("node {upstream} is not a member")))?;
        let found = session.stream().await?;
        let system = found.system_identifier;
        if let Some(own) = assignment.system_identifier.filter(|own| *own != system) {
            return Err(StepError::NotSo(format!(
                "{} has another cluster: its system identifier is {system}, ours is {own}",
                member.name
            )));
        }
        if !found.in_recovery {
            return Err(StepError::NotSo(format!("{} is no standby any more", member.name)));
        }
        let timeline = assignment.lineage.entry(assignment.epoch).map(|entry| entry.timeline);
        let slot = upstream.admission_slot(member.admission);
        let expected = timeline.map(|timeline| (slot, timeline));
        if expected.is_none() || found.receives != expected {
            return Err(StepError::NotYet("the upstream's own stream from the primary"));
        }
        Ok(())
    }

    /// The upstream of the goal, confirmed.
    async fn confirmed(&self, upstream: NodeId) -> Result<Session, StepError> {
        if !self.follows_standby()? {
            return self.confirm_upstream(upstream).await;
        }
        let member = self.assignment()?.member(upstream).cloned();
        let member =
            member.ok_or_else(|| StepError::NotSo(format!("node {upstream} is not a member")))?;
        let session = Session::connect(&self.replicator_at(&member), SQL_LIMIT).await?;
        self.confirm_standby(&session, upstream).await?;
        Ok(session)
    }

    fn follows_standby(&self) -> Result<bool, StepError> {
        let goal = &self.assignment()?.goal;
        Ok(matches!(goal, Goal::Follow { upstream } if upstream.is_standby()))
    }

    pub(super) fn assignment(&self) -> Result<&Assignment, StepError> {
        self.persisted()
            .map(|persisted| &persisted.assignment)
            .ok_or(StepError::NotYet("an assignment"))
    }

    /// Rule 10: the proof has been made; the slot that lets this node in is created, older ones go.
    pub(super) async fn admit(
        &mut self,
        upstream: NodeId,
        admission: Ticket,
    ) -> Result<(), StepError> {
        let session = self.confirmed(upstream).await?;
        let name = self.id.admission_slot(admission);
        if session.slots().await?.iter().any(|slot| slot.name == name && slot.is_lost()) {
            session.drop_slot(&name).await?;
        }
        session.create_slot(&name, true).await?;
        if self.follows_standby()? {
            // It may have been promoted before the slot was there: then it has dropped older ones already, and
            // this one would let in a log that has not been proved against what it writes now.
            self.confirm_standby(&session, upstream).await?;
        }
        // What was asked before may be otherwise now.
        self.seen.question = None;
        let epoch = self.assignment()?.epoch;
        self.persist(|state| {
            state.rebuilding = false;
            if let Some(persisted) = &mut state.persisted {
                persisted.admitted = Some(Admitted { upstream, epoch, admission });
                persisted.restored = false;
            }
        })?;
        Ok(())
    }

    /// Keeps WAL for every other member up to what it has, and drops what no present admission uses.
    pub async fn look_after_slots(&mut self, flushed: &[(NodeId, Lsn)]) {
        let now = clock::now();
        if self.seen.slots_at.is_some_and(|at| now.since(at) < SLOTS_INTERVAL_MS) {
            return;
        }
        self.seen.slots_at = Some(now);
        if let Err(error) = self.try_slots(flushed).await {
            tracing::warn!("cannot look after the replication slots: {error}");
        }
    }

    async fn try_slots(&mut self, flushed: &[(NodeId, Lsn)]) -> Result<(), StepError> {
        let own = self.id;
        let assignment = self.assignment()?.clone();
        let others = || assignment.members.iter().filter(|member| member.id != own);
        let mut wanted: BTreeSet<String> =
            others().map(|member| member.id.retention_slot()).collect();
        let lets_in = matches!(assignment.goal, Goal::Primary { .. } | Goal::Follow { .. });
        let session = self.session().await?;
        let mut slots = session.slots().await?;
        for slot in slots.extract_if(.., |slot| {
            // A newer one than the present admission is of a member that has heard of it first; and a
            // standby whose slot was lost has to see that.
            let admitted = lets_in
                && others().any(|member| {
                    admission_of(&slot.name, member.id).is_some_and(|t| t >= member.admission)
                });
            let keeps = wanted.contains(&slot.name) && !slot.is_lost();
            slot.name.starts_with("pgtandem_") && !keeps && !admitted
        }) {
            session.drop_slot(&slot.name).await?;
        }
        let existing: BTreeSet<_> = slots.iter().map(|slot| slot.name.clone()).collect();
        wanted.retain(|name| !existing.contains(name));
        for name in &wanted {
            session.create_slot(name, true).await?;
        }
        for (node, lsn) in flushed.iter().filter(|(node, _)| *node != own) {
            let name = node.retention_slot();
            let behind = slots.iter().find(|slot| slot.name == name && slot.active_pid.is_none());
            let at = behind.and_then(|slot| slot.restart_lsn);
            if at.is_some_and(|at| at < *lsn) {
                session.advance_slot(&name, *lsn).await?;
            }
        }
        Ok(())
    }
}

impl Node {
    /// Rule 9, i: lets out whoever was let in by an older admission, while this was a standby perhaps. From here on
    /// nobody can come back under one: a standby that is told to stream from this node as from a standby looks
    /// whether it still is one after it has made its slot.
    pub(super) async fn end_old_admissions(&mut self) -> Result<(), StepError> {
        let members = self.assignment()?.members.clone();
        let session = self.session().await?;
        for slot in session.slots().await? {
            let is_old = members.iter().any(|member| {
                admission_of(&slot.name, member.id).is_some_and(|ticket| ticket < member.admission)
            });
            if is_old {
                session.drop_slot(&slot.name).await?;
            }
        }
        Ok(())
    }
}

/// The ticket in the name of a member's admission slot.
fn admission_of(slot: &str, member: NodeId) -> Option<Ticket> {
    slot.strip_prefix(&format!("{}_", member.application_name()))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tickets_of_slots() {
        assert_eq!(admission_of("pgtandem_2_17", NodeId(2)), Some(Ticket(17)));
        assert_eq!(admission_of("pgtandem_2_keep", NodeId(2)), None);
        assert_eq!(admission_of("pgtandem_21_7", NodeId(2)), None);
    }
}
