//! The agent's side of the hooks: it passes on what is seen of the node, and asks those that come before a
//! change of the role. An answer is waited for by nobody here: the loop looks whether it has come.

use super::facts::{Facts, Role};
use super::runner::{Message, Runner};
use super::{PRE_DEMOTE, PRE_PROMOTE};
use crate::clock;
use crate::node::{Node, disk};
use fsm::Millis;
use fsm::node::LocalView;
use fsm::node::consent::{Asked, Coming, coming, hold_ms, still_in_a_row};
use fsm::node::view::Persisted;
use futures::future::join_all;
use hooks::{Hook, Notice, Outcome, Web};
use serde_json::{Map, Value, json};
use shared::ids::{Epoch, NodeId};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

/// Facts on their way to the runner, which is slow only where its disk is.
const UNDER_WAY: usize = 64;
/// A keeper that ends in order lets the hooks be told of it for as long, and tells the rest after its next start.
const LAST_MOMENTS: Duration = Duration::from_secs(10);

/// How often it is looked whether what is to be run is there.
const LOOK_FOR_PROGRAMS: Duration = Duration::from_mins(1);

/// Hooks that were asked, and what they said.
#[derive(Debug)]
struct Question {
    about: (Coming, Epoch),
    answer: Answer,
}

#[derive(Debug)]
enum Answer {
    Awaited(JoinHandle<Vec<(String, Outcome)>>),
    Given(Asked),
}

impl Drop for Question {
    fn drop(&mut self) {
        // With it goes the process group of the command.
        if let Answer::Awaited(task) = &self.answer {
            task.abort();
        }
    }
}

/// A refusal, as long as it counts.
#[derive(Debug)]
struct Refusal {
    why: String,
    until: Millis,
}

/// The desk.
#[derive(Debug)]
pub struct Desk {
    hooks: Vec<Hook>,
    web: Web,
    limit: Duration,
    formation: String,
    id: NodeId,
    /// None without a hook.
    runner: Option<mpsc::Sender<Message>>,
    passed_on: Option<Facts>,
    question: Option<Question>,
    refusal: Option<Refusal>,
    refusals: u32,
    /// What the last answer was that did not come as it should.
    warning: Option<String>,
    /// From the runner.
    warnings: watch::Receiver<BTreeMap<usize, String>>,
}

impl Desk {
    /// For this node; begins to run what is yet to be told.
    pub fn open(node: &Node, fences: watch::Receiver<u64>) -> Self {
        let config = &node.config;
        let (sender, messages) = mpsc::channel(UNDER_WAY);
        let warnings = watch::Sender::default();
        let heard = warnings.subscribe();
        let runner = (!config.hooks.is_empty()).then(|| {
            let runner = Runner {
                hooks: config.hooks.clone(),
                web: config.hook_web.clone(),
                limit: config.hook_timeout,
                formation: config.formation.to_string(),
                id: node.id,
                place: (config.state_dir.clone(), node.instance.owner.clone()),
                messages,
                fences,
                warnings,
            };
            tokio::spawn(watch_programs(config.hooks.clone(), runner.warnings.clone()));
            tokio::spawn(runner.run());
            sender
        });
        Self {
            hooks: config.hooks.clone(),
            web: config.hook_web.clone(),
            limit: config.hook_timeout,
            formation: config.formation.to_string(),
            id: node.id,
            runner,
            passed_on: None,
            question: None,
            refusal: None,
            refusals: 0,
            warning: None,
            warnings: heard,
        }
    }

    /// Passes on what is seen of the node, where that is news.
    pub fn note(&mut self, view: &LocalView, persisted: Option<&Persisted>, takes_writes: bool) {
        let Some(persisted) = persisted else { return };
        // Nothing is said of a node that has only been seen starting: a keeper that was restarted is no news.
        let Some(role) = self.role(view, persisted) else { return };
        self.pass_on(Facts::of((self.id, role), view, persisted, takes_writes));
    }

    fn role(&self, view: &LocalView, persisted: &Persisted) -> Option<Role> {
        Role::of(view, persisted).or(self.passed_on.as_ref().map(|facts| facts.role))
    }

    /// Postgres has been stopped, and nobody looks again.
    pub fn note_end(&mut self) {
        let before = self.passed_on.clone().unwrap_or_default();
        self.pass_on(Facts { role: Role::None, takes_writes: false, ..before });
    }

    fn pass_on(&mut self, facts: Facts) {
        let news = self.passed_on.as_ref() != Some(&facts);
        let Some(runner) = self.runner.as_ref().filter(|_| news) else { return };
        // Where there is no room they are passed on with the next look.
        if runner.try_send(Message::Facts(Box::new(facts.clone()))).is_ok() {
            self.passed_on = Some(facts);
        }
    }

    /// Ends when all has been told, or is to be told by the next keeper.
    pub fn last_moments(&self) -> impl Future<Output = ()> + use<> {
        let (runner, limit) = (self.runner.clone(), self.limit.min(LAST_MOMENTS));
        async move {
            let Some(runner) = runner else { return };
            let (sender, told) = oneshot::channel();
            let flush =
                async { runner.send(Message::Flush(sender)).await.is_ok() && told.await.is_ok() };
            if tokio::time::timeout(limit, flush).await.is_err() {
                tracing::warn!(
                    "not all hooks have been told of the end: the next start will tell them"
                );
            }
        }
    }

    /// What the hooks say that come before the change of the role that the assignment asks for.
    pub fn asked(&mut self, view: &LocalView, persisted: Option<&Persisted>) -> Asked {
        let coming = persisted.and_then(|it| Some((it, coming(view, it)?)));
        let Some((persisted, coming)) = coming else {
            self.question = None;
            return Asked::Clear;
        };
        let about = (coming, persisted.assignment.epoch);
        let known = self.question.as_ref().is_some_and(|question| question.about == about);
        let over = self.refusal.as_ref().is_none_or(|refusal| clock::now() >= refusal.until);
        let refused = self.question.as_ref().is_some_and(Question::is_refused);
        if !known && let Some(refusal) = &self.refusal {
            self.refusals = still_in_a_row(self.refusals, clock::now().since(refusal.until));
        }
        if !known || refused && over {
            let limit = match coming {
                Coming::Promotion => self.limit,
                // What is left is for the stop itself.
                Coming::Demotion => {
                    let drain = persisted.assignment.timers.drain_timeout_ms;
                    self.limit.min(Duration::from_millis(drain / 2))
                }
            };
            let role = self.role(view, persisted).unwrap_or_default();
            let facts = Facts::of((self.id, role), view, persisted, false);
            self.question = self.ask(about, limit, &facts);
        }
        self.question.as_ref().map_or(Asked::Clear, Question::state)
    }

    /// Begins to ask; `None` where there is no hook for it.
    fn ask(&self, about: (Coming, Epoch), limit: Duration, known: &Facts) -> Option<Question> {
        let (coming, epoch) = about;
        let event = match coming {
            Coming::Promotion => PRE_PROMOTE,
            Coming::Demotion => PRE_DEMOTE,
        };
        let wanted: Vec<_> =
            self.hooks.iter().filter(|hook| hook.event == event).cloned().collect();
        if wanted.is_empty() {
            return None;
        }
        let mut facts = known.fields();
        facts.insert("formation".to_owned(), json!(self.formation));
        facts.insert("node_id".to_owned(), json!(self.id));
        facts.insert("old_role".to_owned(), json!(known.role));
        facts.insert("at".to_owned(), json!(chrono::Utc::now().to_rfc3339()));
        // The same for the same question, also after a restart; another one when it is asked anew.
        let (formation, id, turn) = (&self.formation, self.id, self.refusals + 1);
        let id = format!("{formation}-{id}-{event}-{epoch}-{turn}");
        let notice = Notice { id, event: event.to_owned(), facts };
        let now = [("role_now", json!(known.role)), ("attempt", json!(1)), ("missed", json!(0))];
        let now: Map<String, Value> =
            now.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        tracing::info!(event.id = notice.id, "the {event} hook is asked");
        let web = self.web.clone();
        let task = tokio::spawn(async move {
            let object = notice.object(&now);
            let runs = wanted.iter().map(|hook| async {
                (hook.to_string(), hooks::run(hook, &web, &object, limit).await)
            });
            join_all(runs).await
        });
        Some(Question { about, answer: Answer::Awaited(task) })
    }

    /// Waits for an answer that is still to come, and takes it in. May be given up and asked again.
    pub async fn answered(&mut self) {
        let Some(Question { about, answer: Answer::Awaited(task) }) = &mut self.question else {
            return std::future::pending().await;
        };
        let (coming, _) = *about;
        let said = task.await.unwrap_or_default();
        let given = self.weigh(coming, said);
        if let Some(question) = &mut self.question {
            question.answer = Answer::Given(given);
        }
    }

    /// Only a promotion can be refused, and only by one who says so.
    fn weigh(&mut self, coming: Coming, said: Vec<(String, Outcome)>) -> Asked {
        let mut refused = None;
        self.warning = None;
        for (hook, outcome) in said {
            let why = match outcome {
                Outcome::Done => continue,
                Outcome::Refused(why) if coming == Coming::Promotion => {
                    refused = refused.or(Some(why));
                    continue;
                }
                Outcome::Refused(why) | Outcome::Failed(why) => why,
                Outcome::TimedOut => "it has not answered in time and was killed".to_owned(),
            };
            let text =
                format!("the hook {hook} did not do its part, and was not waited for: {why}");
            tracing::warn!("{text}");
            self.warning = Some(text);
        }
        let Some(why) = refused else {
            if coming == Coming::Promotion {
                (self.refusal, self.refusals) = (None, 0);
            }
            return Asked::Clear;
        };
        self.refusals = self.refusals.saturating_add(1);
        let hold = hold_ms(self.refusals);
        tracing::warn!("the pre_promote hook refuses the promotion, for {hold} ms: {why}");
        self.refusal = Some(Refusal { why, until: clock::now().plus(hold) });
        Asked::Refused
    }

    /// Why this node is not to be promoted now, as its hook said.
    pub fn vetoes(&self) -> Option<String> {
        let refusal = self.refusal.as_ref().filter(|refusal| clock::now() < refusal.until)?;
        Some(refusal.why.clone())
    }

    /// What a person should know.
    pub fn warnings(&self) -> Vec<String> {
        self.warnings.borrow().values().chain(&self.warning).cloned().collect()
    }
}

/// Warns of hooks whose programs are not there, before they are wanted.
async fn watch_programs(hooks: Vec<Hook>, warnings: watch::Sender<BTreeMap<usize, String>>) {
    loop {
        let found: Vec<_> = disk(|| hooks.iter().map(hooks::presence::missing).collect());
        // Behind those of the runner.
        for (index, missing) in (hooks.len() + 1..).zip(found) {
            let known = warnings.borrow().contains_key(&index);
            match missing {
                Some(text) if !known => {
                    tracing::warn!("{text}");
                    warnings.send_modify(|warnings| drop(warnings.insert(index, text)));
                }
                None if known => warnings.send_modify(|warnings| drop(warnings.remove(&index))),
                Some(_) | None => {}
            }
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_FOR_PROGRAMS) => {}
            () = warnings.closed() => return,
        }
    }
}

impl Question {
    fn state(&self) -> Asked {
        match self.answer {
            Answer::Awaited(_) => Asked::Running,
            Answer::Given(given) => given,
        }
    }

    fn is_refused(&self) -> bool {
        self.state() == Asked::Refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_program_that_is_not_there_is_found_out_before_it_is_wanted() {
        let lines = ["on_fence=sh -c x", "pre_promote=/no/such/veto"].map(str::to_owned);
        let hooks = Hook::parse_all(&lines, &super::super::EVENTS).unwrap();
        let (warnings, mut heard) = watch::channel(BTreeMap::new());
        let task = tokio::spawn(watch_programs(hooks, warnings));
        let found = heard.wait_for(|warnings| !warnings.is_empty()).await.unwrap().clone();
        assert!(found.values().all(|text| text.contains("pre_promote (veto)")), "{found:?}");
        drop(heard);
        tokio::time::timeout(Duration::from_mins(1), task).await.unwrap().unwrap();
    }
}
