//! The runner: a task that takes in what happens on this node, makes it durable, and tells it to the hooks until
//! each has taken it. In order for each hook; hooks do not wait for each other.
//!
//! What must hold: an event counts as seen only once it is on disk; it is forgotten only once its hook has
//! ended well; and its id is never given again. So a keeper that is killed at any point repeats at most what was
//! under way.

use super::ON_FENCE;
use super::facts::{Facts, Known};
use crate::node::disk;
use crate::state::{StateError, load_json, save_json};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use hooks::{Hook, Notice, Outcome, Queue, Web, queue};
use postgres::owner::Owner;
use program::causes::in_full;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use shared::ids::NodeId;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

/// The file within the state directory.
pub(super) const FILE: &str = "hooks.json";
/// A file that could not be read or written is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(1);

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

impl Journal {
    /// The first of a node, or one in place of a file that was lost. No id is given again, not even one of another
    /// node that had this number with an earlier monitor: so it goes on from the time, in milliseconds.
    fn begin() -> Self {
        let number = u64::try_from(chrono::Utc::now().timestamp_millis()).unwrap_or(0);
        Self { number, ..Self::default() }
    }
}

/// The runner.
#[derive(Debug)]
pub struct Runner {
    /// What is run.
    pub hooks: Vec<Hook>,
    /// What posts to URLs.
    pub web: Web,
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
        let mut journal = self.load().await;
        self.warn(self.hooks.len(), None);
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
        let mut trouble = None;
        loop {
            self.save(&journal, &mut saved, &mut trouble);
            let durable = trouble.is_none();
            if durable {
                flights.extend(self.launch(&journal, &present, &mut attempts));
            }
            if journal.queue.is_empty() {
                // Whoever does not wait any more needs no answer.
                waiting.drain(..).map(|waiting| waiting.send(())).for_each(|_| ());
            }
            let due = attempts.values().filter_map(|it| it.due).min();
            let again = (!durable).then(|| Instant::now() + TRY_AGAIN);
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

    /// What was left to be told. A file that cannot be read may be readable later, and one that is damaged is kept.
    async fn load(&self) -> Journal {
        let path = self.place.0.join(FILE);
        loop {
            let error = match disk(|| load_json::<Journal>(&path)) {
                Ok(journal) if journal.number > 0 => break journal,
                Ok(_) => break Journal::begin(),
                Err(StateError::Damaged { source, .. }) => {
                    keep_damaged(&path, &source);
                    break Journal::begin();
                }
                Err(
                    error @ (StateError::Read { .. }
                    | StateError::Write(_)
                    | StateError::Json(_)
                    | StateError::Locked(_)),
                ) => in_full(&error),
            };
            let text = format!(
                "no hook is run for now, since what it is to be told cannot be read: {error}"
            );
            self.warn(self.hooks.len(), Some(text));
            sleep_until(Instant::now() + TRY_AGAIN).await;
        }
    }

    /// Puts what is known on disk; `trouble` says why it is not there.
    fn save(&self, journal: &Journal, saved: &mut Journal, trouble: &mut Option<String>) {
        if journal == saved {
            return;
        }
        let path = self.place.0.join(FILE);
        let before = trouble.take();
        match disk(|| save_json(&path, journal, &self.place.1)) {
            Ok(()) => *saved = journal.clone(),
            Err(error) => *trouble = Some(in_full(&error)),
        }
        if *trouble == before {
            return;
        }
        let warning = trouble.as_ref().map(|why| {
            format!("no hook is run for now, since what it is to be told cannot be written down first: {why}")
        });
        self.warn(self.hooks.len(), warning);
    }

    /// What a person should know of a hook; the number behind the last one stands for all of them.
    fn warn(&self, index: usize, warning: Option<String>) {
        if let Some(text) = &warning {
            tracing::warn!("{text}");
        }
        self.warnings.send_modify(|warnings| {
            drop(match warning {
                Some(text) => warnings.insert(index, text),
                None => warnings.remove(&index),
            });
        });
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
            let (id, limit, web) = (delivery.notice.id.clone(), self.limit, self.web.clone());
            begun.push(async move { (index, id, hooks::run(&hook, &web, &object, limit).await) });
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
                self.warn(index, None);
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

fn keep_damaged(path: &Path, why: &serde_json::Error) {
    let kept = path.with_extension("damaged");
    let kept = match disk(|| std::fs::rename(path, &kept)) {
        Ok(()) => format!("is kept as {}", kept.display()),
        Err(error) => format!("cannot be kept: {error}"),
    };
    tracing::error!(
        "what was to be told to hooks is lost: {} is damaged ({why}) and {kept}",
        path.display()
    );
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

    fn facts(role: Role) -> Message {
        Message::Facts(Box::new(Facts { role, ..Facts::default() }))
    }

    /// After a hundred events.
    fn runner(dir: &Path, hooks: &[String]) -> (Runner, mpsc::Sender<Message>, watch::Sender<u64>) {
        let hooks = hooks.iter().map(|text| Hook::parse(text, &super::super::EVENTS).unwrap());
        let path = dir.join(FILE);
        if !path.exists() {
            std::fs::write(path, r#"{"number":100}"#).unwrap();
        }
        let (sender, messages) = mpsc::channel(8);
        let fences = watch::Sender::new(0);
        let runner = Runner {
            hooks: hooks.collect(),
            web: Web::new(&[], None).unwrap(),
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
        assert_eq!(told[..2], ["f-3-101 none-standby", "f-3-102 standby-primary"]);
        // Hooks for two events do not wait for each other.
        let ids: BTreeSet<_> = told.iter().filter_map(|line| line.split(' ').next()).collect();
        assert_eq!(
            ids.into_iter().collect::<Vec<_>>(),
            ["f-3-101", "f-3-102", "f-3-103", "f-3-104"]
        );
        // Another process goes on where this one was.
        let (second, sender, _fences) = runner(dir.path(), &hooks);
        let task = tokio::spawn(second.run());
        sender.send(facts(Role::None)).await.unwrap();
        sender.send(facts(Role::Standby)).await.unwrap();
        flush(&sender).await;
        task.abort();
        assert_eq!(lines(&path).last().unwrap(), "f-3-105 none-standby");
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
        assert_eq!(lines(&hangs), ["f-3-101", "f-3-101", "f-3-102"]);
        // At least once: the process may have ended before it knew that the last one was told.
        let mut told = lines(&works);
        told.dedup();
        assert_eq!(told, ["f-3-101 none-standby", "f-3-102 standby-primary"]);
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
        assert_eq!(lines(&path), ["f-3-101.1 standby", "f-3-101.2 standby"]);
    }

    /// Where nothing is known any more, no id is given again.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_damaged_file_is_kept_and_its_ids_too() {
        let dir = tempfile::tempdir().unwrap();
        let (path, told) = (dir.path().join(FILE), dir.path().join("told"));
        let hooks = [writes(ON_ROLE_CHANGE, &told)];
        let mut last = 0;
        for text in [Some("{\"number\": 7"), None] {
            match text {
                Some(text) => std::fs::write(&path, text).unwrap(),
                None => std::fs::remove_file(&path).unwrap(),
            }
            let (mut runner, sender, _fences) = runner(dir.path(), &hooks);
            // The helper gives every one a file.
            if text.is_none() {
                std::fs::remove_file(&path).unwrap();
            }
            runner.limit = Duration::from_secs(10);
            let task = tokio::spawn(runner.run());
            sender.send(facts(Role::Standby)).await.unwrap();
            flush(&sender).await;
            task.abort();
            drop(task.await);
            let line = lines(&told).last().unwrap().clone();
            let number = line.strip_prefix("f-3-").unwrap().split(' ').next().unwrap();
            let number: u64 = number.parse().unwrap();
            assert!(number > last && number > 1_700_000_000_000, "{line}");
            last = number;
        }
        let kept = std::fs::read_to_string(path.with_extension("damaged")).unwrap();
        assert_eq!(kept, "{\"number\": 7");
    }

    /// What cannot be read at one moment is told at a later one.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_file_that_cannot_be_read_is_not_lost() {
        let dir = tempfile::tempdir().unwrap();
        let (path, told) = (dir.path().join(FILE), dir.path().join("told"));
        let hooks = [writes(ON_ROLE_CHANGE, &told)];
        let mut journal = Journal { number: 100, ..Journal::default() };
        let (runner, sender, _fences) = runner(dir.path(), &hooks);
        runner.push(&mut journal, ON_ROLE_CHANGE, &Facts::default(), Map::new());
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        let mut warnings = runner.warnings.subscribe();
        let task = tokio::spawn(runner.run());
        warnings.wait_for(|warnings| !warnings.is_empty()).await.unwrap();
        std::fs::remove_dir(&path).unwrap();
        save_json(&path, &journal, &Owner::current()).unwrap();
        flush(&sender).await;
        task.abort();
        assert_eq!(lines(&told), ["f-3-101 -none"]);
        assert_eq!(*warnings.borrow(), BTreeMap::new());
    }

    /// Nothing is run that is not on disk first, and a person is told why.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_disk_that_takes_nothing_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let (state, told) = (dir.path().join("state"), dir.path().join("told"));
        std::fs::create_dir(&state).unwrap();
        let (runner, sender, _fences) = runner(&state, &[writes(ON_ROLE_CHANGE, &told)]);
        std::fs::remove_dir_all(&state).unwrap();
        let mut warnings = runner.warnings.subscribe();
        let task = tokio::spawn(runner.run());
        sender.send(facts(Role::Standby)).await.unwrap();
        let warned = |warnings: &BTreeMap<usize, String>| {
            warnings.values().any(|text| text.contains("cannot be written down"))
        };
        warnings.wait_for(warned).await.unwrap();
        assert_eq!(lines(&told), [""; 0]);
        std::fs::create_dir(&state).unwrap();
        flush(&sender).await;
        task.abort();
        assert_eq!((lines(&told).len(), warnings.borrow().len()), (1, 0));
    }
}
