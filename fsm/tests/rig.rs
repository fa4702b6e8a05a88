//! One node in kind surroundings: whatever Postgres, the monitor and the upstream have to do by
//! themselves happens. Steps are those of the simulator.

use fsm::node::plan::Next;
use fsm::node::view::{Admitted, Persisted};
use fsm::node::{Archive, Data, LocalView, Plan, Step, Sync, Upstream, plan};
use shared::goal::Goal;
use shared::history::{History, Segment};
use shared::ids::{Epoch, TimelineId};
use shared::lsn::{Lsn, Position};
use sim::node::{apply, become_ready, member_upstream, show_signs};

/// More steps than any goal takes.
const STEPS: usize = 25;

/// The node and what is around it.
#[derive(Clone, Debug)]
pub struct Rig {
    pub view: LocalView,
    pub persisted: Persisted,
    /// Where the log on disk ends.
    pub end: Lsn,
    /// The monitor answers.
    pub monitor: bool,
    /// And grants a lease.
    pub lease: bool,
    /// Replay is held up until the next start: the signs of a seal do not come.
    pub stuck: bool,
}

/// How it ended: what the last plan was, and the names of all steps.
#[derive(Debug)]
pub struct Outcome {
    pub plan: Plan,
    pub steps: Vec<Step>,
}

impl Rig {
    /// Plans and acts until nothing changes any more.
    pub fn run(&mut self) -> Result<Outcome, String> {
        let mut steps = Vec::new();
        let mut was_not = false;
        loop {
            was_not |= !self.view.is_writable();
            let plan = plan(&self.view, Some(&self.persisted));
            match &plan.next {
                Next::Do(step) => {
                    self.check(step)?;
                    self.act(step);
                    steps.push(step.clone());
                    if steps.len() > STEPS {
                        return Err(format!("no end: {:?}", steps.split_off(STEPS - 6)));
                    }
                }
                Next::Wait(_) | Next::Reached => {
                    if !self.settle() {
                        return Ok(Outcome { plan, steps });
                    }
                }
            }
            let may = matches!(self.persisted.assignment.goal, Goal::Primary { .. } | Goal::Wait);
            if was_not && self.view.is_writable() && !may {
                return Err(format!("became writable after {steps:?}"));
            }
        }
    }

    /// What must hold whenever such a step is taken.
    fn check(&self, step: &Step) -> Result<(), String> {
        let view = &self.view;
        let primary = matches!(self.persisted.assignment.goal, Goal::Primary { .. });
        let unseen = view.file.spec.is_some() && view.sync == Sync::Unknown;
        let as_primary =
            matches!(step, Step::StartPrimary | Step::Initialise | Step::Promote { .. });
        let file = match step {
            Step::Configure(file) => Some(file),
            _ if *step == Step::StartStandby => Some(&view.file),
            _ => None,
        };
        let wrong = [
            (*step == Step::StartPrimary && !view.may_write, "without the right to write"),
            (as_primary && !primary, "for another goal"),
            (
                matches!(step, Step::Promote { .. }) && view.established().is_none(),
                "before the end of the log is known",
            ),
            (file.is_some_and(|file| !self.is_admitted(file)), "connects without an admission"),
            (
                matches!(step, Step::Clone { .. } | Step::Rewind { .. }) && self.cascades(),
                "from whoever is not the primary",
            ),
            (
                matches!(step, Step::Admit { .. }) && !self.is_followable(),
                "of a log that is no prefix",
            ),
            (
                matches!(step, Step::Set(_)) && !matches!(view.sync, Sync::Blocked | Sync::Unknown),
                "past the blocking spec",
            ),
            (*step == Step::Block && unseen, "before the signs of what the file says"),
        ];
        match wrong.iter().find(|(wrong, _)| *wrong) {
            Some((_, why)) => Err(format!("{step:?}: {why}")),
            None => Ok(()),
        }
    }

    fn cascades(&self) -> bool {
        match &self.persisted.assignment.goal {
            Goal::Follow { upstream } => upstream.is_standby(),
            _ => false,
        }
    }

    /// Whether a file connects nowhere, or where the node has been admitted (rule 10).
    fn is_admitted(&self, file: &fsm::node::File) -> bool {
        let epoch = self.persisted.assignment.epoch;
        member_upstream(file).is_none_or(|(upstream, admission)| {
            self.persisted.admitted == Some(Admitted { upstream, epoch, admission })
        })
    }

    /// The truth about the log, by the lineage that [`crate::plan`] uses.
    fn is_followable(&self) -> bool {
        let Data::Present { history, .. } = &self.view.data else { return false };
        let assignment = &self.persisted.assignment;
        let lineage = &assignment.lineage;
        let Some(position) = lineage.position(history, self.end) else { return false };
        let on = lineage.epoch_of(history.timeline);
        lineage.is_prefix(position, assignment.epoch)
            && on.is_some_and(|epoch| {
                lineage.is_prefix(Position { epoch, lsn: history.start() }, assignment.epoch)
            })
    }

    fn act(&mut self, step: &Step) {
        let upstream = self.upstream_history();
        apply(&mut self.view, &mut self.persisted, step, &upstream);
        if matches!(step, Step::Clone { .. } | Step::Rewind { .. }) {
            self.end = Lsn(upstream.start().0 + 300);
        }
        if *step == Step::Initialise {
            self.end = Lsn(100);
        }
        if matches!(step, Step::Promote { .. }) {
            self.end = Lsn(self.end.0 + 100);
        }
        self.stuck &= !matches!(step, Step::StartStandby | Step::StartPrimary);
    }

    /// The history of the primary of the assigned epoch.
    fn upstream_history(&self) -> History {
        let assignment = &self.persisted.assignment;
        history_of(&assignment.lineage, assignment.epoch)
    }

    /// What happens by itself; `false` if nothing does any more.
    fn settle(&mut self) -> bool {
        let (heard, may_write) = (self.view.heard, self.view.may_write);
        self.view.heard |= self.monitor;
        self.view.may_write |= self.lease && self.view.heard;
        if (heard, may_write) != (self.view.heard, self.view.may_write) {
            return true;
        }
        let Data::Present { standby_signal, .. } = self.view.data else { return false };
        let Some(server) = &mut self.view.server else {
            become_ready(&mut self.view);
            if let Some(server) = &mut self.view.server {
                server.end = Some(self.end);
            }
            return self.view.server.is_some();
        };
        if !server.in_recovery {
            return false;
        }
        if !standby_signal {
            // Crash recovery ends.
            server.in_recovery = false;
            server.sealed = false;
            return true;
        }
        match &self.view.file.upstream {
            None if server.sealed && self.view.file.restore => {
                let had = std::mem::replace(&mut self.view.archive, Archive::Exhausted);
                had == Archive::Unasked
            }
            None if server.sealed => false,
            None if self.stuck => {
                self.view.sealing_for_ms += 1000;
                self.view.sealing_for_ms < 12_000
            }
            None => {
                show_signs(&mut self.view);
                true
            }
            Some(Upstream::Member { .. }) if server.streaming => false,
            Some(Upstream::Member { .. }) => {
                server.streaming = self.persisted.admitted.is_some();
                server.streaming
            }
            Some(Upstream::Fetch { .. }) => self.fetch(),
        }
    }

    fn fetch(&mut self) -> bool {
        let assignment = &self.persisted.assignment;
        let Goal::FastForward { target, .. } = &assignment.goal else { return false };
        if self.end >= target.lsn {
            return false;
        }
        self.end = target.lsn;
        let history = history_of(&assignment.lineage, target.epoch);
        if let Data::Present { history: own, .. } = &mut self.view.data {
            own.clone_from(&history);
        }
        if let Some(server) = &mut self.view.server {
            server.history = history;
            server.end = Some(self.end);
        }
        true
    }
}

/// The history of a server on an epoch's timeline.
pub fn history_of(lineage: &shared::history::Lineage, epoch: Epoch) -> History {
    let mut ancestors = Vec::new();
    let timeline = |epoch| lineage.entry(epoch).map_or(TimelineId(1), |entry| entry.timeline);
    let mut current = epoch;
    while let Some((parent, lsn)) = lineage
        .entry(current)
        .and_then(|entry| entry.start)
        .and_then(|start| Some((start.parent?, start.lsn)))
    {
        ancestors.insert(0, Segment { timeline: timeline(parent), end: lsn });
        current = parent;
    }
    History { ancestors, timeline: timeline(epoch) }
}
