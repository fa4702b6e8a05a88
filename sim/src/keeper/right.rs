//! The right to serve (rules 12 and 13): what a keeper claims, what makes that good, and when its guard stops a
//! primary.

use crate::machine::{Keeper, Machine};
use fsm::Millis;
use shared::report::Lease;
use shared::spec::Spec;

impl Keeper {
    pub(super) fn holds(&self, in_force: Option<&Spec>, lease_ms: u64, now: u64) -> bool {
        self.tenure.until(in_force, lease_ms).is_none_or(|until| Millis(now) < until)
    }
}

impl Machine {
    /// A primary that was running, or that may start by itself, has one lease to prove itself; one only.
    pub fn claim_lease(&mut self, now: u64) {
        if let (Some(persisted), Some(keeper)) = (&self.persisted, &mut self.keeper)
            && persisted.sealed.is_none()
            && !self.claimed
            && persisted.assignment.goal.spec().is_some()
            && persisted.promoted.as_ref().map(|p| p.epoch) == Some(persisted.assignment.epoch)
        {
            let ms = persisted.assignment.timers.lease_ms;
            keeper.tenure.grant(Some(Lease::For { ms }), persisted.assignment.order, Millis(now));
            keeper.claimed_at = Some(now);
            self.claimed = true;
        }
    }

    /// What it claimed is made good by an answer to a report that was sent later: one to an older report says
    /// nothing about what has become of the group since.
    pub(super) fn make_good(&mut self) {
        let granted = |keeper: &Keeper| keeper.granted_at > keeper.claimed_at;
        if self.keeper.as_ref().is_some_and(granted) {
            self.end_claim();
        }
    }

    /// The standbys prove that it still is the primary: what it claimed has been made good.
    pub(super) fn unclaim(&mut self, now: u64) {
        let (in_force, lease_ms) = (self.spec_in_force(), self.lease_ms());
        let proven =
            |keeper: &Keeper| keeper.tenure.is_proven(in_force.as_ref(), lease_ms, Millis(now));
        if self.keeper.as_ref().is_some_and(proven) {
            self.end_claim();
        }
    }

    fn end_claim(&mut self) {
        self.claimed = false;
        if let Some(keeper) = &mut self.keeper {
            keeper.claimed_at = None;
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

    pub(super) fn lease_ms(&self) -> u64 {
        self.persisted.as_ref().map_or(0, |persisted| persisted.assignment.timers.lease_ms)
    }

    pub(super) fn spec_in_force(&self) -> Option<Spec> {
        self.persisted.as_ref()?.in_force(&self.view.file, self.view.sync)
    }
}
