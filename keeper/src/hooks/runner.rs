//! The runner: a task that takes in what happens on this node, makes it durable, and tells it to the hooks until
//! each has taken it. In order for each hook; hooks do not wait for each other.
//!
//! What must hold: an event counts as seen only once it is on disk; it is forgotten only once its hook has
//! ended well; and its id is never given again. So a keeper that is killed at any point repeats at most what was
//! under way.

use super::ON_FENCE;
use super::facts::{Facts, Known};
use crate::node::disk;
use crate::state::{load_json, save_json};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use hooks::{Hook, Notice, Outcome, Queue, queue};
use postgres::owner::Owner;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use shared::ids::NodeId;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

/// The file within the state directory.
pub(super) const FILE: &str = "hooks.json";
/// A file that could not be written is tried again.
const SAVE_AGAIN: Duration = Duration::from_secs(1);

/// What the runner hears.
#[derive(Debug)]
pub enum Message {
    /// What is known of the node has changed.
    Facts(Box<Facts>),
    /// Says when nothing is left to be told.
    Flush(oneshot::Sender<()>),
}

/// What the file says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Journal {
    /// The number of the newest event.
    number: u64,
    /// What has been told.
    known: Known,
    /// What is yet to be.
    queue: Queue,
}

/// The runner.
#[derive(Debug)]
pub struct Runner {
    /// What is run.
    pub hooks: Vec<Hook>,
    /// How long each may take.
    pub limit: Duration,
    /// The first part of every id.
    pub formation: String,
    /// The second.
    pub id: NodeId,
    /// The keeper's state directory, and whose it is.
    pub place: (PathBuf, Owner),
    /// From the agent.
    pub messages: mpsc::Receiver<Message>,
    /// Counts what the guard has stopped.
    pub fences: watch::Receiver<u64>,
    /// What a person should know: which hooks do not take what they are told.
    pub warnings: watch::Sender<BTreeMap<usize, String>>,
}

/// A run that has ended: of which hook, of which notice, and how.
type Ended = (usize, String, Outcome);

/// A hook that is under way, or that waits after failures.
#[derive(Default)]
struct Attempts {
    under_way: bool,
    failures: u32,
    due: Option<Instant>,
}

impl Runner {
    /// Runs as long as the keeper does.
    pub async fn run(mut self) {
        let path = self.place.0.join(FILE);
        let mut journal: Journal = disk(|| load_json(&path)).unwrap_or_else(|error| {
            tracing::error!("what was to be told to hooks is lost: {error}");
            // Above all numbers that were ever given.
            let number = u64::try_from(chrono::Utc::now().timestamp_millis()).unwrap_or(0);
            Journal { number, ..Journal::default() }
        });
        let keys: Vec<_> = self.hooks.iter().map(Hook::key).collect();
        let forgotten = journal.queue.keep(&keys);
        if forgotten > 0 {
            tracing::warn!(
                "{forgotten} events for hooks that are no longer configured are forgotten"
            );
        }
        let mut saved = Journal { number: u64::MAX, ..Journal::default() };
        let mut present = Facts { role: journal.known.role, ..Facts::default() };
        let mut attempts: BTreeMap<usize, Attempts> = BTreeMap::new();
        let mut flights = FuturesUnordered::new();
        let mut waiting: Vec<oneshot::Sender<()>> = Vec::new();
        let mut fences_end = false;
        loop {
            let durable = self.save(&journal, &mut saved);
            if durable {
                flights.extend(self.launch(&journal, &present, &mut attempts));
            }
            if journal.queue.is_empty() {
                // Whoever does not wait any more needs no answer.
                waiting.drain(..).map(|waiting| waiting.send(())).for_each(|_| ());
            }
            let due = attempts.values().filter_map(|it| it.due).min();
            let again = (!durable).then(|| Instant::now() + SAVE_AGAIN);
            let next = due.into_iter().chain(again).min();
            tokio::select! {
                message = self.messages.recv() => match message {
                    Some(Message::Facts(facts)) => {
                        present = *facts;
                        self.take(&mut journal, &present);
                    }
                    Some(Message::Flush(sender)) => waiting.push(sender),
                    None => return,
                },
                changed = self.fences.changed(), if !fences_end => match changed {
                    Ok(()) => {
                        let role = ("old_role".to_owned(), json!(journal.known.role));
                        self.push(&mut journal, ON_FENCE, &present, Map::from_iter([role]));
                    }
                    Err(_) => fences_end = true,
                },
                Some(ended) = flights.next() => self.settle(&mut journal, &mut attempts, ended),
                () = at(next) => {
                    let now = Instant::now();
                    let over = |it: &&mut Attempts| it.due.is_some_and(|due| due <= now);
                    attempts.values_mut().filter(over).for_each(|it| it.due = None);
                }
            }
        }
    }

    /// Whether what is known is on disk.
    fn save(&self, journal: &Journal, saved: &mut Journal) -> bool {
        if journal == saved {
            return true;
        }
        let path = self.place.0.join(FILE);
        match disk(|| save_json(&path, journal, &self.place.1)) {
            Ok(()) => {
                *saved = journal.clone();
                true
            }
            Err(error) => {
                tracing::warn!(
                    "no hook is run for now, since what it is to be told cannot be written down first: {error}"
                );
                false
            }
        }
    }

    fn take(&self, journal: &mut Journal, facts: &Facts) {
        for (event, fields) in journal.known.events(facts) {
            self.push(journal, event, facts, fields);
        }
    }

    /// One event, for each hook that wants it.
    fn push(&self, journal: &mut Journal, event: &str, facts: &Facts, more: Map<String, Value>) {
        journal.number += 1;
        let mut fields = facts.fields();
        fields.extend(more);
        fields.insert("formation".to_owned(), json!(self.formation));
        fields.insert("node_id".to_owned(), json!(self.id));
        fields.insert("at".to_owned(), json!(chrono::Utc::now().to_rfc3339()));
        let id = format!("{}-{}-{}", self.formation, self.id, journal.number);
        let notice = Notice { id, event: event.to_owned(), facts: fields };
        for hook in self.hooks.iter().filter(|hook| hook.event == event) {
            if let Some(given_up) = journal.queue.push(hook.key(), notice.clone()) {
                let id = given_up.id;
                tracing::error!(
                    event.id = id,
                    "{hook}: event {id} is given up, since too many wait for this hook"
                );
            }
        }
    }

    /// Begins with the next of each hook that may.
    fn launch(
        &self,
        journal: &Journal,
        present: &Facts,
        attempts: &mut BTreeMap<usize, Attempts>,
    ) -> Vec<impl Future<Output = Ended> + Send + 'static> {
        let mut begun = Vec::new();
        for (index, hook) in self.hooks.iter().enumerate() {
            let attempt = attempts.entry(index).or_default();
            let Some(delivery) = journal.queue.next(hook.key()) else { continue };
            if attempt.under_way || attempt.due.is_some() {
                continue;
            }
            attempt.under_way = true;
            let now = [
                ("role_now", json!(present.role)),
                ("attempt", json!(attempt.failures + 1)),
                ("missed", json!(delivery.missed)),
            ];
            let now = now.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            let (hook, object) = (hook.clone(), delivery.notice.object(&now));
            let (id, limit) = (delivery.notice.id.clone(), self.limit);
            begun.push(async move { (index, id, hooks::run(&hook, &object, limit).await) });
        }
        begun
    }

    fn settle(
        &self,
        journal: &mut Journal,
        attempts: &mut BTreeMap<usize, Attempts>,
        (index, id, outcome): Ended,
    ) {
        let Some(hook) = self.hooks.get(index) else { return };
        let attempt = attempts.entry(index).or_default();
        attempt.under_way = false;
        let why = match outcome {
            Outcome::Done => {
                tracing::info!(event.id = id, "{hook}: event {id} is delivered");
                journal.queue.delivered(hook.key(), &id);
                attempt.failures = 0;
                self.warnings.send_modify(|warnings| drop(warnings.remove(&index)));
                return;
            }
            Outcome::Refused(why) | Outcome::Failed(why) => why,
            Outcome::TimedOut => {
                format!("it has not ended within {} s and was killed", self.limit.as_secs())
            }
        };
        attempt.failures = attempt.failures.saturating_add(1);
        let pause = queue::pause(attempt.failures);
        attempt.due = Some(Instant::now() + pause);
        let warning = format!("the hook {hook} does not take event {id}: {why}");
        self.warnings.send_modify(|warnings| drop(warnings.insert(index, warning)));
        tracing::warn!(
            event.id = id,
            "{hook}: event {id} is not delivered, next attempt in {} s: {why}",
            pause.as_secs()
        );
    }
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::super::ON_ROLE_CHANGE;
    use super::super::facts::Role;
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path;

    fn facts(role: Role) -> Message {
        Message::Facts(Box::new(Facts { role, ..Facts::default() }))
    }

    fn runner(dir: &Path, hooks: &[String]) -> (Runner, mpsc::Sender<Message>, watch::Sender<u64>) {
        let hooks = hooks.iter().map(|text| Hook::parse(text, &super::super::EVENTS).unwrap());
        let (sender, messages) = mpsc::channel(8);
        let fences = watch::Sender::new(0);
        let runner = Runner {
            hooks: hooks.collect(),
            limit: Duration::from_secs(20),
            formation: "f".to_owned(),
            id: NodeId(3),
            place: (dir.to_owned(), Owner::current()),
            messages,
            fences: fences.subscribe(),
            warnings: watch::Sender::default(),
        };
        (runner, sender, fences)
    }

    async fn flush(sender: &mpsc::Sender<Message>) {
        let (done, told) = oneshot::channel();
        sender.send(Message::Flush(done)).await.unwrap();
        tokio::time::timeout(Duration::from_mins(1), told).await.unwrap().unwrap();
    }

    fn lines(path: &Path) -> Vec<String> {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn writes(event: &str, path: &Path) -> String {
        let line = r#"echo "$PGTANDEM_EVENT_ID $PGTANDEM_OLD_ROLE-$PGTANDEM_ROLE""#;
        format!("{event}=sh -c '{line} >> {}'", path.display())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_was_seen_is_told_in_order_and_survives_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("told");
        let hooks = [writes(ON_ROLE_CHANGE, &path), writes(ON_FENCE, &path)];
        let (first, sender, fences) = runner(dir.path(), &hooks);
        let task = tokio::spawn(first.run());
        for role in [Role::Standby, Role::Primary] {
            sender.send(facts(role)).await.unwrap();
        }
        flush(&sender).await;
        fences.send_replace(1);
        sender.send(facts(Role::None)).await.unwrap();
        flush(&sender).await;
        drop(sender);
        task.await.unwrap();
        let told = lines(&path);
        assert_eq!(told[..2], ["f-3-1 none-standby", "f-3-2 standby-primary"]);
        // Hooks for two events do not wait for each other.
        let ids: BTreeSet<_> = told.iter().filter_map(|line| line.split(' ').next()).collect();
        assert_eq!(ids.into_iter().collect::<Vec<_>>(), ["f-3-1", "f-3-2", "f-3-3", "f-3-4"]);
        // Another process goes on where this one was.
        let (second, sender, _fences) = runner(dir.path(), &hooks);
        let task = tokio::spawn(second.run());
        sender.send(facts(Role::None)).await.unwrap();
        sender.send(facts(Role::Standby)).await.unwrap();
        flush(&sender).await;
        task.abort();
        assert_eq!(lines(&path).last().unwrap(), "f-3-5 none-standby");
        assert_eq!(lines(&path).len(), 5);
    }

    /// Killed between the event and its delivery: the next process tells it, under the same id.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_was_under_way_is_repeated_and_others_do_not_wait_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let (hangs, works) = (dir.path().join("hangs"), dir.path().join("works"));
        let gate = dir.path().join("gate");
        let script = format!(
            "echo $PGTANDEM_EVENT_ID >> {}; test -e {} || sleep 1000",
            hangs.display(),
            gate.display()
        );
        let hooks = [format!("{ON_ROLE_CHANGE}=sh -c '{script}'"), writes(ON_ROLE_CHANGE, &works)];
        let (first, sender, _fences) = runner(dir.path(), &hooks);
        let task = tokio::spawn(first.run());
        sender.send(facts(Role::Standby)).await.unwrap();
        sender.send(facts(Role::Primary)).await.unwrap();
        while lines(&works).len() < 2 || lines(&hangs).is_empty() {
            tokio::task::yield_now().await;
        }
        task.abort();
        drop(task.await);
        std::fs::write(&gate, "").unwrap();
        let (second, sender, _fences) = runner(dir.path(), &hooks);
        let task = tokio::spawn(second.run());
        flush(&sender).await;
        task.abort();
        assert_eq!(lines(&hangs), ["f-3-1", "f-3-1", "f-3-2"]);
        // At least once: the process may have ended before it knew that the last one was told.
        let mut told = lines(&works);
        told.dedup();
        assert_eq!(told, ["f-3-1 none-standby", "f-3-2 standby-primary"]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_hook_that_fails_is_run_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("told");
        let script = format!(
            "echo $PGTANDEM_EVENT_ID.$PGTANDEM_ATTEMPT $PGTANDEM_ROLE_NOW >> {}; test $PGTANDEM_ATTEMPT = 2",
            path.display()
        );
        let hooks = [format!("{ON_ROLE_CHANGE}=sh -c '{script}'")];
        let (runner, sender, _fences) = runner(dir.path(), &hooks);
        let task = tokio::spawn(runner.run());
        sender.send(facts(Role::Standby)).await.unwrap();
        flush(&sender).await;
        task.abort();
        assert_eq!(lines(&path), ["f-3-1.1 standby", "f-3-1.2 standby"]);
    }
}
