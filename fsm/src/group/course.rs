//! How a change of the primary went: when each of its stages was seen, for the event that tells people
//! how long writes had to wait, and for what.
//!
//! Lost with the monitor's process, like all that is in the view: nothing is decided by it.

use super::election::{covers, witnesses};
use super::record::{Phase, Record};
use super::view::View;
use crate::Millis;
use serde::{Deserialize, Serialize};

/// The stages that the present or the next change of the primary has passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Course {
    /// The last report of the old primary in which it was running.
    well: Option<Millis>,
    /// The election was begun.
    begun: Option<Millis>,
    /// Enough nodes were sealed to prove what was acknowledged.
    sealed: Option<Millis>,
    /// The new primary was decided.
    elected: Option<Millis>,
    /// It had left recovery, on its new timeline.
    promoted: Option<Millis>,
}

/// How long each stage took, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stages {
    /// From the last good word of the old primary to the start of the election; 0 where it was asked for.
    pub detect: u64,
    /// Until enough nodes were sealed; at a switchover the stop of the old primary is part of it.
    pub seal: u64,
    /// Until the decision: waiting for more answers, and fetching what the candidate lacked.
    pub elect: u64,
    /// Until the new primary had left recovery.
    pub promote: u64,
    /// Until commits could be acknowledged.
    pub first_commit: u64,
}

impl Stages {
    /// All of them together.
    pub fn total(&self) -> u64 {
        self.detect + self.seal + self.elect + self.promote + self.first_commit
    }
}

impl std::fmt::Display for Stages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { detect, seal, elect, promote, first_commit } = self;
        write!(
            f,
            "the change of the primary took {} ms: {detect} to detect, {seal} to seal, {elect} to elect, {promote} to promote, {first_commit} to the first commit",
            self.total()
        )
    }
}

impl View {
    /// Follows the course of a change of the primary; to be called whenever something new was seen or
    /// decided.
    pub fn follow_course(&mut self, record: &Record, now: Millis) {
        let mut course = self.course;
        match &record.phase {
            Phase::Forming => course = Course::default(),
            Phase::Electing(election) | Phase::Forwarding { election, .. } => {
                if course.begun.is_none() && election.planned {
                    course.well = Some(now);
                }
                course.begun.get_or_insert(now);
                (course.elected, course.promoted) = (None, None);
                let proven = covers(&record.specs, &witnesses(record, self));
                course.sealed = proven.then(|| course.sealed.unwrap_or(now));
            }
            Phase::Promoting => {
                course.elected.get_or_insert(now);
            }
            Phase::Serving if course.begun.is_some() && !record.is_sync_settled() => {
                course.promoted.get_or_insert(now);
            }
            Phase::Serving => {
                let well = self.primary_well_at(record).or(course.well);
                course = Course { well, ..Course::default() };
            }
        }
        self.course = course;
    }

    fn primary_well_at(&self, record: &Record) -> Option<Millis> {
        let evidence = self.nodes.get(&record.primary?)?;
        let report = evidence.report.as_ref()?;
        let before = |ms: u64| Millis(evidence.reported_at.0.saturating_sub(ms));
        report.postgres.running.then(|| before(report.silent_ms))
    }

    /// How long the stages took of the change that ends now, if one does and all of it was seen.
    pub fn stages(&self, now: Millis) -> Option<Stages> {
        let Course { well, begun, sealed, elected, promoted } = self.course;
        // With accepted loss nothing is ever proven.
        let sealed = sealed.or(elected)?;
        Some(Stages {
            detect: begun?.since(well?),
            seal: sealed.since(begun?),
            elect: elected?.since(sealed),
            promote: promoted?.since(elected?),
            first_commit: now.since(promoted?),
        })
    }
}
