//! Asks the local Postgres and its storage, again and again, whether they still do what they are for:
//! one may stand still without ending, the other swallow writes without complaint.
//!
//! A task of its own: the agent stands still with the disk. What it finds goes to the link, which tells
//! the monitor even then. It judges by `fsm::node::vitals`; the agent, too, may be stopped meanwhile, so it
//! doubts itself first.

use crate::clock;
use crate::link::Heard;
use fsm::Millis;
use fsm::node::vitals::Vitals;
use postgres::instance::Instance;
use postgres::postmaster::Postmaster;
use postgres::session::{Session, SessionError, Target};
use postgres::storage::{self, Room};
use shared::settings::{Settings, Timers};
use std::io;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What is found.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// Why Postgres cannot serve here, if so.
    pub ailment: Option<String>,
    /// Since when it, or its storage, has not answered.
    pub silent_since: Option<Millis>,
}

/// The task.
#[derive(Debug)]
pub struct Watch {
    /// Where the writes go.
    pub instance: Instance,
    /// Where the connections go.
    pub target: Target,
    /// What runs; without it only the storage is asked.
    pub postmaster: watch::Receiver<Option<Postmaster>>,
    /// The timers.
    pub heard: watch::Receiver<Heard>,
    /// What is found; a change of the ailment is signalled.
    pub health: watch::Sender<Health>,
    /// The room in each of its file systems, when there last was an answer.
    pub room: watch::Sender<Vec<Room>>,
}

/// Whether there was an answer: `Err` says what came instead.
type Answer = Result<(), String>;

/// The questions under way.
#[derive(Debug, Default)]
struct Asked {
    connection: Option<JoinHandle<Option<Answer>>>,
    write: Option<JoinHandle<io::Result<()>>>,
}

impl Watch {
    /// Asks for ever.
    pub async fn run(mut self) {
        let mut vitals = Vitals::default();
        let mut asked = Asked::default();
        let mut of: Option<Postmaster> = None;
        let mut next = clock::now();
        loop {
            let now = clock::now();
            // One that is being stopped is not shown any more, and is what it is until it has ended.
            let running = self.postmaster.borrow_and_update().clone().or(of.clone());
            let running = running.filter(Postmaster::is_alive);
            let pid = |server: &Option<Postmaster>| server.as_ref().map(Postmaster::pid);
            if pid(&running) != pid(&of) {
                // Of another server nothing is known yet; a write to its disk goes on.
                vitals.postgres.well();
                asked.connection = None;
                of = running;
            }
            if now >= next {
                self.ask(&mut vitals, &mut asked, of.as_ref(), now);
                next = now.plus(self.timers().report_interval_ms);
            }
            self.judge(&vitals, now);
            let pause = self.pause(&vitals, next, now);
            self.wait(&mut vitals, &mut asked, pause).await;
            if clock::now().since(now) > pause.saturating_add(self.timers().report_interval_ms) {
                vitals.woke(clock::now());
            }
        }
    }

    fn timers(&self) -> Timers {
        let heard = self.heard.borrow();
        let timers = heard.answer.as_ref().map(|answer| answer.assignment.timers);
        timers.unwrap_or_else(|| Settings::default().timers())
    }

    /// Milliseconds to the next thing to do by itself.
    fn pause(&self, vitals: &Vitals, next: Millis, now: Millis) -> u64 {
        let end = |since: Millis| since.plus(self.timers().node_timeout_ms);
        let patience = vitals.silent_since().map(end).filter(|end| *end > now);
        patience.map_or(next, |end| end.min(next)).since(now).max(1)
    }

    fn ask(&self, vitals: &mut Vitals, asked: &mut Asked, of: Option<&Postmaster>, now: Millis) {
        if let Some(server) = of.filter(|_| asked.connection.is_none()) {
            vitals.postgres.ask(now);
            let target = self.target.clone().of(server.instance());
            let limit = self.timers().node_timeout();
            asked.connection = Some(tokio::spawn(connect(target, limit)));
        }
        if asked.write.is_none() {
            vitals.storage.ask(now);
            let (dir, owner) = (self.instance.data_dir.clone(), self.instance.owner.clone());
            let room = self.room.clone();
            asked.write = Some(tokio::task::spawn_blocking(move || {
                // How full it is can be known where nothing can be written.
                room.send_replace(storage::room(&dir)?);
                storage::probe(&dir, &owner)
            }));
        }
    }

    /// Waits for an answer, for another server, or for `pause` milliseconds.
    async fn wait(&mut self, vitals: &mut Vitals, asked: &mut Asked, pause: u64) {
        let Asked { connection, write } = asked;
        tokio::select! {
            answer = finished(connection) => match answer.flatten() {
                Some(Ok(())) => vitals.postgres.well(),
                Some(Err(complaint)) => vitals.postgres.complained(complaint),
                None => {}
            },
            written = finished(write) => match written {
                Some(Ok(())) => vitals.storage.well(),
                Some(Err(error)) => vitals.storage.complained(error.to_string()),
                None => {}
            },
            _ = self.postmaster.changed() => {}
            () = tokio::time::sleep(Duration::from_millis(pause)) => {}
        }
    }

    fn judge(&self, vitals: &Vitals, now: Millis) {
        let ailment = vitals.ailment(now, self.timers().node_timeout_ms);
        self.health.send_if_modified(|health| {
            let was = health.ailment.is_some();
            match (&ailment, was) {
                (Some(why), false) => tracing::error!("this node cannot serve: {why}"),
                (None, true) => tracing::info!("postgres and its storage answer again"),
                (Some(_), true) | (None, false) => {}
            }
            let news = was != ailment.is_some();
            *health = Health { ailment, silent_since: vitals.silent_since() };
            news
        });
    }
}

/// Waits for the end of a task and forgets it; for ever if there is none. A task that was given up has
/// nothing to say.
async fn finished<T>(task: &mut Option<JoinHandle<T>>) -> Option<T> {
    let Some(running) = task else { return std::future::pending().await };
    let outcome = running.await;
    *task = None;
    outcome.ok()
}

/// A new connection and a question. Any word of a server will do, also that it is starting, or full: it
/// lives. `None`: silence.
async fn connect(target: Target, limit: Duration) -> Option<Answer> {
    match Session::connect(&target, limit).await {
        Err(SessionError::Timeout { .. }) => None,
        Err(error @ SessionError::Connect { .. }) if error.code().is_none() => {
            Some(Err(error.to_string()))
        }
        Ok(_) | Err(_) => Some(Ok(())),
    }
}
