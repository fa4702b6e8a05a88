//! Does what really happened fit the model?
//!
//! Every process of a cluster writes a trace (`fsm::trace`). Here each decision and each plan is made
//! again from what it was made from; each assignment that a keeper followed is looked up among those
//! that the monitor's records give; and whatever was observed must be of a class that the simulator
//! knows, and have come about in a way that it knows (`sim::fit`).

use anyhow::{Context as _, Result, bail};
use fsm::Millis;
use fsm::group::{Record, View, goals};
use fsm::node::plan;
use fsm::node::view::Persisted;
use fsm::trace::{Cause, Happened, KeeperLine, MonitorLine, Outcome, Pass, Planned};
use serde::de::DeserializeOwned;
use shared::goal::Assignment;
use shared::ids::{FormationId, NodeId, Revision};
use sim::fit::{Class, Model};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::Path;

/// The trace of the monitor; all others are of keepers.
const MONITOR: &str = "monitor.jsonl";
/// Walks that are made before it is said that the model does not know something: many times more than
/// anything seen so far has needed.
const WALKS: u64 = 6000;
/// More than these are the same fault again and again.
const SHOWN: usize = 10;

/// Lines with their numbers in the file.
type Lines<T> = Vec<(usize, T)>;
/// From when on a node could be told something.
type Told = HashMap<(NodeId, Assignment), Millis>;

/// What was read, and what does not fit.
#[derive(Debug, Default)]
pub struct Fit {
    /// What does not fit, by line.
    pub wrong: Vec<String>,
    /// How many decisions were made again.
    pub decisions: usize,
    /// How many passes of keepers.
    pub passes: usize,
    /// How many steps.
    pub steps: usize,
    /// How many classes of observations there were.
    pub classes: usize,
    /// How many walks it took to know all of them.
    pub walks: u64,
}

/// Replays the traces in a directory.
pub fn check(dir: &Path) -> Result<Fit> {
    check_within(dir, WALKS)
}

fn check_within(dir: &Path, walks: u64) -> Result<Fit> {
    let mut fit = Fit { walks, ..Fit::default() };
    let monitor = dir.join(MONITOR);
    let decisions = if monitor.exists() { read(&monitor)? } else { Vec::new() };
    let told = check_decisions(&decisions, &mut fit);
    let mut model = Model::default();
    let mut paths: Vec<_> = fs::read_dir(dir)?.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths.into_iter().filter(|path| *path != monitor) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let lines = read(&path)?;
        check_keeper(&name, &lines, &told, &mut fit);
        check_seals(&name, &lines, &mut fit);
        check_moves(&name, &lines, &mut model, &mut fit);
    }
    fit.walks = model.walks();
    fit.wrong.truncate(SHOWN);
    Ok(fit)
}

/// A process that was killed may have left a part of a line: its last one, hence before the first one
/// of another.
fn read<T: DeserializeOwned + Begins>(path: &Path) -> Result<Lines<T>> {
    let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut lines: Lines<T> = Vec::new();
    let mut cut = None;
    for (number, line) in (1..).zip(text.split(|byte| *byte == b'\n')) {
        if line.is_empty() {
            continue;
        }
        match (serde_json::from_slice::<T>(line), &cut) {
            (Ok(line), None) => lines.push((number, line)),
            (Ok(line), Some(_)) if line.begins() => {
                cut = None;
                lines.push((number, line));
            }
            (_, Some(error)) => bail!("{}:{}: {error}", path.display(), number - 1),
            (Err(error), None) => cut = Some(error),
        }
    }
    Ok(lines)
}

/// Whether a line is the first of a process.
trait Begins {
    fn begins(&self) -> bool;
}

impl Begins for KeeperLine {
    fn begins(&self) -> bool {
        self.what == Happened::Started
    }
}

impl Begins for MonitorLine {
    fn begins(&self) -> bool {
        self.cause == Cause::Started
    }
}

/// Decisions are those of the rules, keep the invariants, and follow on each other. Says what nodes
/// could be told from what was stored.
fn check_decisions(lines: &Lines<MonitorLine>, fit: &mut Fit) -> Told {
    let mut told = Told::new();
    let mut last: BTreeMap<&FormationId, &MonitorLine> = BTreeMap::new();
    fit.decisions = lines.len();
    for (number, line) in lines {
        let at = format!("{MONITOR}:{number}");
        if line.decided_again().as_ref() != Some(&line.decision) {
            fit.wrong.push(format!("{at}: {:?} does not decide this", line.cause));
        }
        if line.clone().redacted() != *line {
            fit.wrong.push(format!("{at}: a secret"));
        }
        if let Err(why) = sim::monitor::check(&line.before, &line.decision) {
            fit.wrong.push(format!("{at}: {why}"));
        }
        match last.insert(&line.before.formation, line) {
            Some(last) if last.decision.record == line.before => {
                tell(&mut told, &line.before, last.now.mono);
            }
            // It could not be stored.
            Some(last) if last.before == line.before => {}
            None => tell(&mut told, &line.before, Millis(0)),
            Some(_) if line.before.revision == Revision(1) => {
                tell(&mut told, &line.before, Millis(0));
            }
            Some(last) => fit.wrong.push(format!(
                "{at}: decided on revision {}, which does not follow on revision {}",
                line.before.revision, last.decision.record.revision
            )),
        }
    }
    for line in last.values() {
        tell(&mut told, &line.decision.record, line.now.mono);
    }
    told
}

/// Whether a keeper may stop, and the limits of its settings, depend on the last reports too: these
/// parts are not compared.
fn terms(assignment: &Assignment) -> Assignment {
    let mut terms = Assignment { may_stop: false, ..assignment.clone() };
    terms.settings.limits.clear();
    terms
}

fn tell(told: &mut Told, record: &Record, at: Millis) {
    for id in record.nodes.keys() {
        if let Some(assignment) = goals::assignment(record, &View::default(), *id) {
            told.entry((*id, terms(&assignment))).or_insert(at);
        }
    }
}

/// Plans are those of `fsm`, and what is followed was told, in order.
fn check_keeper(name: &str, lines: &Lines<KeeperLine>, told: &Told, fit: &mut Fit) {
    let mut known: Option<&Persisted> = None;
    for (number, line) in lines {
        let Happened::Looked(pass) = &line.what else { continue };
        fit.passes += 1;
        let is_planned = if pass.copying {
            pass.next == Planned::Wait("the copy".to_owned())
        } else {
            pass.is(&plan(&pass.view, pass.persisted.as_ref()))
        };
        if !is_planned {
            fit.wrong.push(format!("{name}:{number}: not the plan: {:?}", pass.next));
        }
        let before = known.map(|known| &known.assignment);
        known = pass.persisted.as_ref();
        let Some(taken) = known.map(|known| &known.assignment) else { continue };
        if before == Some(taken) {
            continue;
        }
        if before.is_some_and(|before| before.order > taken.order) {
            fit.wrong.push(format!("{name}:{number}: an older assignment: {:?}", taken.order));
        }
        match told.get(&(line.node, terms(taken))) {
            Some(from) if *from <= line.at => {}
            Some(_) => fit.wrong.push(format!("{name}:{number}: followed before it was decided")),
            None => fit.wrong.push(format!(
                "{name}:{number}: {:?} {:?}, which no record gives",
                taken.order, taken.goal
            )),
        }
    }
}

/// A sealed log ends where it ends (rule 4): what is said of it is said after its signs were there.
fn check_seals(name: &str, lines: &Lines<KeeperLine>, fit: &mut Fit) {
    let mut sealed = None;
    for (number, line) in lines {
        let now = match &line.what {
            Happened::Started => None,
            Happened::Acted(..) => continue,
            Happened::Looked(pass) => {
                let server = pass.view.server.as_ref().filter(|server| server.sealed);
                server.map(|server| (server.end, server.streaming))
            }
        };
        if let (Some((before, _)), Some((end, streaming))) = (sealed, now)
            && (before != end || streaming)
        {
            fit.wrong.push(format!(
                "{name}:{number}: the sealed log ended at {before:?} and ends at {end:?}, streaming: \
                 {streaming}"
            ));
        }
        sealed = now;
    }
}

/// Observations are of classes that the model knows, and follow on each other as it allows.
fn check_moves(name: &str, lines: &Lines<KeeperLine>, model: &mut Model, fit: &mut Fit) {
    let mut seen = HashSet::new();
    let mut last: Option<&Pass> = None;
    let mut acts = Vec::new();
    for (number, line) in lines {
        match &line.what {
            Happened::Acted(step, outcome) => {
                fit.steps += 1;
                acts.push((step, *outcome));
                if last.map(|pass| &pass.next) != Some(&Planned::Do(step.clone())) {
                    fit.wrong.push(format!("{name}:{number}: {step:?} was not the plan"));
                }
            }
            // A step that nobody saw the end of.
            Happened::Started => {
                if let Some(Planned::Do(step)) = last.map(|pass| &pass.next) {
                    acts.push((step, Outcome::Failed));
                }
            }
            Happened::Looked(pass) => {
                let class = Class::of(&pass.view, pass.persisted.as_ref());
                seen.insert(class);
                let fits = |model: &Model| {
                    let from = last.map(|last| from(model, last, &acts));
                    model.knows(&class) && from.is_none_or(|from| model.leads(&from, &class))
                };
                while !fits(model) && model.walks() < fit.walks {
                    model.learn();
                }
                if !model.knows(&class) {
                    fit.wrong.push(format!("{name}:{number}: unknown to the model: {class:?}"));
                } else if !fits(model) {
                    let from = last.map(|last| from(model, last, &acts));
                    fit.wrong.push(format!(
                        "{name}:{number}: the model does not go to {class:?} from {from:?} after \
                         {acts:?}"
                    ));
                }
                last = Some(pass);
                acts.clear();
            }
        }
    }
    fit.classes += seen.len();
}

/// Where a node was when things began to happen by themselves.
fn from(model: &Model, last: &Pass, acts: &[(&fsm::node::Step, Outcome)]) -> Vec<Class> {
    let known = last.persisted.as_ref();
    if acts.is_empty() {
        return vec![Class::of(&last.view, known)];
    }
    acts.iter().flat_map(|act| model.after(&last.view, known, *act)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use fsm::group::rules;
    use fsm::node::{Data, LocalView, Sync};
    use serde::Serialize;
    use shared::ids::Ticket;
    use shared::state::NodeState;
    use sim::Walk;
    use sim::node::empty_view;
    use sim::walk::round;
    use std::fmt::Write as _;

    /// A made-up one knows as much after a few walks.
    const FEW: u64 = 40;
    const NODE: NodeId = NodeId(1);

    /// What a cluster would have written.
    struct Story {
        monitor: Vec<MonitorLine>,
        keeper: Vec<KeeperLine>,
    }

    fn pass(view: LocalView, persisted: Option<Persisted>) -> Pass {
        let plan = plan(&view, persisted.as_ref());
        let next = Planned::from(&plan.next);
        Pass { view, persisted, copying: false, state: plan.state, next }
    }

    fn line(what: Happened) -> KeeperLine {
        KeeperLine { at: Millis(1_000_000), node: NODE, what }
    }

    /// A settled primary that restarts its keeper, and a monitor that notes a state and restarts.
    fn story() -> Story {
        let mut world = Walk::new(1).world(1);
        for _ in 0..60 {
            round(&mut world);
        }
        let now = sim::at(world.now);
        let before = Record::clone(&world.monitor.record);
        let mut view = View::clone(&world.monitor.view);
        let report = view.nodes.get_mut(&NODE).and_then(|evidence| evidence.report.as_mut());
        report.unwrap().state = NodeState::Draining;
        let decision = rules::step(&before, &view, now, 7).unwrap();
        let cause = Cause::Rule(7);
        let first = MonitorLine { now, cause, view, before, decision };
        let before = first.decision.record.clone();
        let decision = before.monitor_started(now);
        let (cause, view) = (Cause::Started, View::default());
        let second = MonitorLine { now, cause, view, before, decision };
        let machine = world.machines.get(NODE).unwrap();
        let seen = pass(machine.view.clone(), machine.persisted.clone());
        let keeper = vec![Happened::Started, Happened::Looked(Box::new(seen))];
        Story {
            monitor: vec![first.redacted(), second.redacted()],
            keeper: keeper.into_iter().map(line).collect(),
        }
    }

    fn text<T: Serialize>(lines: &[T]) -> String {
        lines.iter().fold(String::new(), |mut text, line| {
            write!(text, "\n{}", serde_json::to_string(line).unwrap()).unwrap();
            text
        })
    }

    impl Story {
        fn seen(&mut self) -> &mut Pass {
            match &mut self.keeper.last_mut().unwrap().what {
                Happened::Looked(pass) => pass,
                other @ (Happened::Started | Happened::Acted(..)) => panic!("{other:?}"),
            }
        }

        fn then(&mut self, what: Happened) {
            self.keeper.push(line(what));
        }

        fn verdict(&self) -> Vec<String> {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join(MONITOR), text(&self.monitor)).unwrap();
            fs::write(dir.path().join("node1.jsonl"), text(&self.keeper)).unwrap();
            check_within(dir.path(), FEW).unwrap().wrong
        }

        fn is_refused(&self, why: &str) {
            let wrong = self.verdict();
            assert!(wrong.iter().any(|line| line.contains(why)), "{why}: {wrong:?}");
        }
    }

    #[test]
    fn what_is_true_fits() {
        assert_eq!(story().verdict(), Vec::<String>::new());
    }

    #[test]
    fn a_decision_that_was_changed() {
        let mut story = story();
        story.monitor[0].decision.record.ticket = Ticket(99);
        story.monitor[1].before.ticket = Ticket(99);
        story.is_refused("monitor.jsonl:2: Rule(7) does not decide this");
    }

    #[test]
    fn a_decision_that_was_left_out() {
        let mut story = story();
        story.monitor[1].before.revision = Revision(1000);
        story.is_refused("does not follow on revision");
    }

    #[test]
    fn a_secret() {
        let mut story = story();
        for line in &mut story.monitor {
            for node in line.before.nodes.values_mut() {
                "known to all".clone_into(&mut node.secret);
            }
        }
        story.is_refused("a secret");
    }

    #[test]
    fn a_plan_that_was_changed() {
        let mut story = story();
        story.seen().next = Planned::Wait("nothing".to_owned());
        story.is_refused("node1.jsonl:3: not the plan");
    }

    #[test]
    fn a_step_that_was_not_planned() {
        let mut story = story();
        story.then(Happened::Acted(fsm::node::Step::Checkpoint, Outcome::Done));
        story.is_refused("Checkpoint was not the plan");
    }

    #[test]
    fn an_assignment_that_nobody_gave() {
        let mut story = story();
        story.seen().persisted.as_mut().unwrap().assignment.order.ticket = Ticket(99);
        story.is_refused("which no record gives");
    }

    #[test]
    fn an_assignment_before_its_decision() {
        let mut story = story();
        let next = story.monitor[1].decision.record.clone();
        let told = goals::assignment(&next, &View::default(), NODE).unwrap();
        story.seen().persisted.as_mut().unwrap().assignment = told;
        assert_eq!(story.verdict(), Vec::<String>::new());
        story.keeper[1].at = Millis(0);
        story.is_refused("followed before it was decided");
    }

    #[test]
    fn an_impossible_observation() {
        let mut story = story();
        let persisted = story.seen().persisted.clone();
        let view = LocalView { data: Data::Empty, sync: Sync::Blocked, ..empty_view() };
        *story.seen() = pass(view, persisted);
        story.is_refused("unknown to the model: Class { data: Empty");
    }

    #[test]
    fn an_impossible_move() {
        let mut story = story();
        let (view, persisted) = (story.seen().view.clone(), story.seen().persisted.clone());
        let fresh = LocalView { sync: Sync::Unknown, settled: false, ..view.clone() };
        *story.seen() = pass(fresh, persisted.clone());
        assert!(matches!(story.seen().next, Planned::Do(_)));
        story.then(Happened::Looked(Box::new(pass(view, persisted))));
        story.is_refused("node1.jsonl:4: the model does not go to");
    }

    #[test]
    fn a_line_cut_by_a_kill() {
        let story = story();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node1.jsonl");
        let whole = text(&story.keeper);
        let cut = &whole[..whole.len() - 9];
        for (written, lines) in [(format!("{cut}{whole}"), 3), (cut.to_owned(), 1)] {
            fs::write(&path, written).unwrap();
            assert_eq!(read::<KeeperLine>(&path).unwrap().len(), lines);
        }
        fs::write(&path, format!("{cut}{}", text(&story.keeper[1..]))).unwrap();
        assert!(read::<KeeperLine>(&path).is_err(), "the middle of a process");
    }
}
