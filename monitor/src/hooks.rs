//! Hooks on the history of formations: a task for each hook and formation, with a durable cursor.
//!
//! Events are durable, numbered and without gaps already, so that a cursor is all that has to be remembered: each event
//! is told at least once and in order, and the cursor moves on only when it has been taken. Nothing waits for a hook:
//! it follows the history like anybody else who reads it.

use crate::group::Watched;
use crate::store::{Store, StoreError};
use hooks::{Hook, Notice, Outcome, Web, queue};
use serde_json::{Map, Value};
use shared::event::Event;
use shared::ids::FormationId;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};

/// What a hook may be for: a kind of event, or any.
pub const KINDS: [&str; 10] = [
    ANY,
    "monitor",
    "node",
    "node_state",
    "operation",
    "paused",
    "phase",
    "postgres_setting",
    "setting",
    "sync",
];
/// All kinds.
const ANY: &str = "any";
/// How long a hook may take: nothing waits for it, but one that hangs hears nothing further.
pub const LIMIT: Duration = Duration::from_secs(10);
/// For how many formations one hook may run at the same time: whatever happens to all of them at once, the host is not
/// filled with its processes.
const AT_ONCE: usize = 8;
/// How many events are read at once.
const BATCH: u32 = 100;
/// How long to wait after the database has failed.
const PAUSE: Duration = Duration::from_secs(1);

/// A hook, and what its tellers share.
#[derive(Clone, Debug)]
pub struct Audience {
    hook: Hook,
    web: Web,
    turns: Arc<Semaphore>,
}

impl Audience {
    /// What a person should know of it: its program is not there.
    pub fn warning(&self) -> Option<String> {
        hooks::presence::missing(&self.hook)
    }

    /// Of this hook.
    pub fn new(hook: Hook, web: Web) -> Self {
        Self { hook, web, turns: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// Once, when it is its turn.
    async fn hear(&self, object: &Map<String, Value>) -> Outcome {
        // Nobody closes it.
        let _turn = self.turns.acquire().await;
        hooks::run(&self.hook, &self.web, object, LIMIT).await
    }
}

/// What a person should know of the hooks of one formation, by [`Hook::key`].
#[derive(Clone, Debug, Default)]
pub struct Troubles(Arc<Mutex<BTreeMap<String, String>>>);

impl Troubles {
    /// All of them, as sentences.
    pub fn all(&self) -> Vec<String> {
        self.lock().values().cloned().collect()
    }

    /// `None`: all is well.
    fn note(&self, hook: &Hook, trouble: Option<String>) {
        match trouble {
            Some(trouble) => self.lock().insert(hook.key().to_owned(), trouble),
            None => self.lock().remove(hook.key()),
        };
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells one hook the history of one formation.
#[derive(Debug)]
pub struct Teller {
    /// The hook.
    pub audience: Audience,
    /// The formation.
    pub formation: FormationId,
    /// The database.
    pub store: Store,
    /// Says when there is more to tell; ends with the formation.
    pub watched: watch::Receiver<Watched>,
    /// Where it says that its hook fails.
    pub troubles: Troubles,
    /// Becomes true when the process ends.
    pub stopping: watch::Receiver<bool>,
}

impl Teller {
    /// Tells until the formation or the process ends.
    pub async fn run(mut self) {
        let mut stopping = self.stopping.clone();
        tokio::select! {
            _ = stopping.wait_for(|stopping| *stopping) => {}
            () = self.tell() => {}
        }
    }

    async fn tell(&mut self) {
        let newest = self.watched.borrow().newest_event;
        let mut told = loop {
            match self.store.hook_cursor(&self.formation, self.hook().key(), newest).await {
                Ok(told) => break told,
                Err(error) => self.wait_for_store(&error).await,
            }
        };
        loop {
            if self.watched.wait_for(|watched| watched.newest_event > told).await.is_err() {
                return;
            }
            match self.store.events_after(&self.formation, told, BATCH).await {
                Ok(events) if events.is_empty() => tokio::time::sleep(PAUSE).await,
                Ok(events) => {
                    for event in events {
                        told = event.id;
                        if self.wants(&event) {
                            self.deliver(&event).await;
                            self.remember(told).await;
                        }
                    }
                    // Of those that nobody wanted, too.
                    self.remember(told).await;
                }
                Err(error) => self.wait_for_store(&error).await,
            }
        }
    }

    fn hook(&self) -> &Hook {
        &self.audience.hook
    }

    fn wants(&self, event: &Event) -> bool {
        let wanted = &self.hook().event;
        wanted == ANY || *wanted == event.kind
    }

    /// Again and again, until it is taken.
    async fn deliver(&self, event: &Event) {
        let notice = notice(event);
        let (hook, id) = (self.hook(), &notice.id);
        let mut failures = 0;
        loop {
            let attempt = Map::from_iter([("attempt".to_owned(), Value::from(failures + 1))]);
            let why = match self.audience.hear(&notice.object(&attempt)).await {
                Outcome::Done => {
                    self.troubles.note(hook, None);
                    return;
                }
                Outcome::Refused(why) | Outcome::Failed(why) => why,
                Outcome::TimedOut => "it has not ended in time and was killed".to_owned(),
            };
            failures += 1;
            let pause = queue::pause(failures);
            tracing::warn!(
                formation.id = %self.formation,
                event.id = %id,
                "{hook}: event {id} is not delivered, next attempt in {} s: {why}",
                pause.as_secs()
            );
            let trouble = format!(
                "the monitor's hook {hook} does not take event {id}, and later ones wait: {why}"
            );
            self.troubles.note(hook, Some(trouble));
            tokio::time::sleep(pause).await;
        }
    }

    async fn remember(&self, told: u64) {
        while let Err(error) =
            self.store.move_hook_cursor(&self.formation, self.hook().key(), told).await
        {
            self.wait_for_store(&error).await;
        }
    }

    async fn wait_for_store(&self, error: &StoreError) {
        tracing::warn!(
            formation.id = %self.formation,
            "the hook {} is told nothing for now, since the monitor's database does not answer: {error}",
            self.hook()
        );
        tokio::time::sleep(PAUSE).await;
    }
}

/// An event as a hook is told it: as `pgtandem events --json` shows it.
fn notice(event: &Event) -> Notice {
    let facts = match serde_json::to_value(event) {
        Ok(Value::Object(facts)) => facts,
        Ok(_) | Err(_) => Map::new(),
    };
    let id = format!("{}-{}", event.formation, event.id);
    Notice { id, event: event.kind.clone(), facts }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::future::join_all;

    /// An outage of all formations at once does not fill the host with processes.
    #[tokio::test]
    async fn one_hook_runs_for_a_few_formations_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let (present, seen) = (dir.path().join("present"), dir.path().join("seen"));
        std::fs::create_dir(&present).unwrap();
        let (there, counts) = (present.display(), seen.display());
        let script =
            format!("touch {there}/$$; sleep 0.1; ls {there} | wc -l >> {counts}; rm {there}/$$");
        let hook = Hook::parse(&format!("any=sh -c '{script}'"), &KINDS).unwrap();
        let audience = Audience::new(hook, Web::new(&[], None).unwrap());
        let object = Map::new();
        let outcomes = join_all((0..4 * AT_ONCE).map(|_| audience.hear(&object))).await;
        assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Done), "{outcomes:?}");
        let counts = std::fs::read_to_string(&seen).unwrap();
        let most = counts.lines().filter_map(|line| line.trim().parse::<usize>().ok()).max();
        assert!(most.is_some_and(|most| most <= AT_ONCE), "{counts}");
    }
}
