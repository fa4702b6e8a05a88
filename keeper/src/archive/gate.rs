//! The keeper's side of the gate: answers `wal-push` and `wal-get` from what the agent saw last and from
//! the live right to serve, and remembers what is stored.
//!
//! What must hold: nothing but `fsm::node::archive` says yes, and only while somebody waits for it; what is
//! said to be stored has been stored by the engine, or another keeper has said so.

use super::condition::{self, Condition, Failure, Known, newest};
use super::queue;
use super::talk::{HOLD, LINE_LIMIT, Outcome, Question, Reply, Verb, socket};
use super::{Archive, Server};
use crate::clock;
use crate::guard::Right;
use crate::link::Heard;
use crate::managed;
use crate::state::StateError;
use fsm::node::archive::{Get, Push, Scene, WalFile, is_after, may_get, may_push};
use fsm::node::view::Persisted;
use postgres::durable;
use postgres::instance::Instance;
use postgres::pidfile::PidStatus;
use postgres::postmaster::Postmaster;
use shared::history::History;
use shared::ids::NodeId;
use shared::lsn::Lsn;
use shared::report::{Archived, ArchivedUpTo};
use shared::spec::Spec;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

/// A question is one line, and comes at once.
const QUESTION_LIMIT: Duration = Duration::from_secs(5);
/// How often a held question is looked at where nothing has changed: that somebody else stops the server
/// has no event.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// How often the files that wait are counted.
const COUNT_AGAIN: Duration = Duration::from_secs(2);
/// `sun_path`, with its last byte (unix(7)).
const LONGEST_SOCKET: usize = 107;

/// What the agent sees, as far as it matters here.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// What the node has accepted.
    pub persisted: Persisted,
    /// The spec in force.
    pub in_force: Option<Spec>,
    /// Up to where the connected members have the log on disk.
    pub flushed: Vec<(NodeId, Lsn)>,
    /// The history of a running primary.
    pub history: Option<History>,
    /// A checkpoint since the promotion has been completed.
    pub checkpointed: bool,
    /// Bytes per WAL segment.
    pub segment_size: u64,
    /// A rewind or a copy is under way.
    pub rebuilding: bool,
    /// The server is told to fetch what it lacks.
    pub restores: bool,
}

/// The gate.
#[derive(Debug)]
pub struct Gate {
    /// What it leads to.
    pub archive: Archive,
    /// The server that it is for.
    pub instance: Instance,
    /// The keeper's own directory.
    pub state_dir: PathBuf,
    /// What the agent saw last; `None` before its first look.
    pub facts: watch::Receiver<Option<Facts>>,
    /// What was heard from the monitor.
    pub heard: watch::Receiver<Heard>,
    /// The right to serve.
    pub right: Right,
    /// What runs.
    pub postmaster: watch::Receiver<Option<Postmaster>>,
    /// How the archive does.
    pub condition: watch::Sender<Condition>,
}

/// Why there is no gate.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// The state directory has too long a path.
    #[error(
        "{} is longer than the {LONGEST_SOCKET} bytes that a unix socket can have; choose a shorter --state-dir",
        .0.display()
    )]
    Path(PathBuf),
    /// The socket cannot be made.
    #[error("cannot listen on {}: {source}", path.display())]
    Listen {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What was known cannot be read.
    #[error(transparent)]
    State(#[from] StateError),
}

/// Listens on the socket of a state directory, which only its owner can reach.
pub fn listen(state_dir: &Path, instance: &Instance) -> Result<UnixListener, GateError> {
    let path = socket(state_dir);
    if path.as_os_str().len() > LONGEST_SOCKET {
        return Err(GateError::Path(path));
    }
    let failed = |source| GateError::Listen { path: path.clone(), source };
    // Of a keeper that was killed; this one has locked the directory.
    if let Err(error) = durable::remove(&path) {
        tracing::debug!("{error}");
    }
    let listener = UnixListener::bind(&path).map_err(failed)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    instance.owner.chown(&path).map_err(|error| failed(io::Error::other(error)))?;
    Ok(listener)
}

impl Gate {
    /// Answers for ever.
    pub async fn run(self: Arc<Self>, listener: UnixListener) {
        tokio::spawn(Arc::clone(&self).count());
        tokio::spawn(Arc::clone(&self).follow());
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let gate = Arc::clone(&self);
                    tokio::spawn(async move {
                        if let Err(error) = gate.serve(stream).await {
                            tracing::debug!("a question about the archive was given up: {error}");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!("the archive cannot be asked about: {error}");
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
            }
        }
    }

    async fn serve(&self, stream: UnixStream) -> io::Result<()> {
        let own = rustix::process::geteuid().as_raw();
        let peer = stream.peer_cred()?.uid();
        if ![own, self.instance.owner.uid, 0].contains(&peer) {
            return Err(io::Error::other(format!("user {peer} has nothing to ask here")));
        }
        let mut stream = BufReader::new(stream);
        let line = timeout(QUESTION_LIMIT, read_line(&mut stream)).await??;
        let question: Question = serde_json::from_str(&line)?;
        let reply = tokio::select! {
            reply = self.answer(&question) => reply,
            // Nothing is said before the answer: it has gone.
            gone = stream.read_u8() => {
                drop(gone);
                return Ok(());
            }
        };
        self.note_reply(&question, &reply);
        let mut text = serde_json::to_vec(&reply)?;
        text.push(b'\n');
        stream.get_mut().write_all(&text).await?;
        if matches!(reply, Reply::Run { .. }) {
            // As long as the engine takes; it ends with the archiver.
            let heard =
                read_line(&mut stream).await.and_then(|line| Ok(serde_json::from_str(&line)?));
            if heard.is_err() {
                self.note_fetched(&question, None);
            }
            self.take(&question, &heard?).await;
        }
        Ok(())
    }

    /// Yes at once, or as soon as it may be; no after a while.
    async fn answer(&self, question: &Question) -> Reply {
        let deadline = Instant::now() + HOLD;
        let (mut facts, mut heard) = (self.facts.clone(), self.heard.clone());
        let mut postmaster = self.postmaster.clone();
        loop {
            facts.mark_unchanged();
            heard.mark_unchanged();
            postmaster.mark_unchanged();
            let (reply, is_final) = self.reply(question).await;
            if is_final || Instant::now() >= deadline {
                return reply;
            }
            tokio::select! {
                _ = facts.changed() => {}
                _ = heard.changed() => {}
                _ = postmaster.changed() => {}
                () = sleep_until(deadline.min(Instant::now() + LOOK_AGAIN)) => {}
            }
        }
    }

    /// What there is to say now, and whether that will not change by itself.
    async fn reply(&self, question: &Question) -> (Reply, bool) {
        let no = |why: &str| Reply::No { why: why.to_owned() };
        let Some(facts) = self.facts.borrow().clone() else {
            return (no("the keeper has only just been started"), false);
        };
        let Some(file) = WalFile::parse(&question.file, facts.segment_size) else {
            return (no("no file of pg_wal has such a name"), true);
        };
        let stopping = self.is_stopping().await;
        let scene = self.scene(&facts, stopping, question.bytes == 0);
        match question.verb {
            Verb::Push => match may_push(&scene, file) {
                Push::Store => (self.to_run(question, &facts), true),
                Push::Forget(why) => (Reply::Done { why: why.to_owned() }, true),
                Push::Keep(why) => (no(why), false),
                Push::Leave => (Reply::Leave, true),
            },
            Verb::Get => match may_get(&scene, file) {
                Get::Fetch => (self.to_run(question, &facts), true),
                Get::Absent(why) => (no(why), true),
            },
        }
    }

    fn scene<'a>(&self, facts: &'a Facts, stopping: bool, empty: bool) -> Scene<'a> {
        Scene {
            persisted: &facts.persisted,
            serves: self.right.serves(),
            in_force: facts.in_force.as_ref(),
            flushed: &facts.flushed,
            history: facts.history.as_ref(),
            archived: self.archived(),
            rebuilding: facts.rebuilding,
            stopping,
            empty,
        }
    }

    /// What is stored, as far as anybody has said.
    fn archived(&self) -> Archived {
        let heard = self.heard.borrow().answer.as_ref().map(|answer| answer.archived);
        let own = self.condition.borrow().known.archived;
        newest(own, heard.unwrap_or_default())
    }

    /// Nobody is to be held up who stops the server: neither the keeper, which does not show one that it
    /// stops, nor anybody else.
    async fn is_stopping(&self) -> bool {
        let running = self.postmaster.borrow().clone();
        match running {
            Some(running) => matches!(running.status().await, Ok(Some(PidStatus::Stopping))),
            None => true,
        }
    }

    fn to_run(&self, question: &Question, facts: &Facts) -> Reply {
        let bytes = is_segment(&question.file).then_some(facts.segment_size);
        let passfile = passfile(&self.state_dir);
        let server = server(&self.instance, &passfile);
        let call = match question.verb {
            Verb::Push => self.archive.push(&server, &question.path, &question.file),
            Verb::Get => self.archive.get(&server, &question.file, &question.path),
        };
        Reply::Run { call, bytes }
    }

    /// A no is the answer; a yes is one only when the engine has ended.
    fn note_reply(&self, question: &Question, reply: &Reply) {
        match reply {
            Reply::Run { .. } if is_fetch(question) => {
                self.condition.send_modify(|condition| condition.fetched.busy = true);
            }
            Reply::No { .. } => self.note_fetched(question, Some(1)),
            Reply::Run { .. } | Reply::Done { .. } | Reply::Leave => {}
        }
        let tries = matches!(reply, Reply::Run { .. });
        if question.verb == Verb::Push && !tries && self.condition.borrow().push.is_some() {
            // Of a primary that was one: it is somebody else's now.
            self.condition.send_modify(|condition| condition.push = None);
        }
    }

    fn note_fetched(&self, question: &Question, code: Option<i32>) {
        if !is_fetch(question) {
            return;
        }
        self.condition.send_modify(|condition| match code {
            Some(0) => condition.fetched.has_come(),
            Some(1) => condition.fetched.has_not(false, clock::now()),
            Some(_) | None => condition.fetched.has_not(true, clock::now()),
        });
    }

    async fn take(&self, question: &Question, outcome: &Outcome) {
        self.note_fetched(question, outcome.code);
        let absent = question.verb == Verb::Get && outcome.code == Some(1);
        let trouble = (outcome.code != Some(0) && !absent).then(|| outcome.trouble(question));
        let is_well = trouble.is_none();
        self.condition.send_modify(|condition| {
            let place = match question.verb {
                Verb::Push => &mut condition.push,
                Verb::Get => &mut condition.get,
            };
            match (&trouble, place.is_some()) {
                (Some(trouble), false) => tracing::warn!("{trouble}"),
                (None, true) => tracing::info!("{} works again", question.verb.word()),
                (Some(_), true) | (None, false) => {}
            }
            *place = trouble.map(|error| Failure::again(place.as_ref(), error));
        });
        if is_well && question.verb == Verb::Push {
            self.note_stored(question).await;
        }
    }

    async fn note_stored(&self, question: &Question) {
        let Some(facts) = self.facts.borrow().clone() else { return };
        match WalFile::parse(&question.file, facts.segment_size) {
            Some(WalFile::Segment(it)) => {
                let assignment = &facts.persisted.assignment;
                let before = self.condition.borrow().known;
                // Later ones come in order, also where the outcome of one was not heard.
                let is_first = before.stored_in < assignment.epoch;
                if is_first && !is_after(&assignment.lineage, self.archived(), it) {
                    self.note_gap(&question.file);
                }
                let segment = Some(ArchivedUpTo { timeline: it.timeline, end: it.end });
                let stored = Archived { segment, history: None };
                self.remember(|known| {
                    known.archived = newest(known.archived, stored);
                    known.stored_in = known.stored_in.max(assignment.epoch);
                })
                .await;
            }
            Some(WalFile::History(timeline)) => {
                let stored = Archived { segment: None, history: Some(timeline) };
                self.remember(|known| known.archived = newest(known.archived, stored)).await;
            }
            Some(WalFile::Partial(_) | WalFile::Backup(_)) | None => {}
        }
    }

    /// A node that was copied while nothing could be archived does not have what was before its copy; if
    /// the primary that had it is gone, it is in the archive no more.
    fn note_gap(&self, file: &str) {
        let text = format!(
            "the archive lacks what is between the last segment known to be stored and {file}: a restore can begin only with a backup that is newer"
        );
        tracing::warn!("{text}");
        self.condition.send_modify(|condition| condition.gap = Some(text));
    }

    /// Changes what is known, durably.
    pub async fn remember(&self, change: impl FnOnce(&mut Known)) {
        self.condition.send_modify(|condition| change(&mut condition.known));
        let known = self.condition.borrow().known;
        let (dir, owner) = (self.state_dir.clone(), self.instance.owner.clone());
        let save = move || condition::save(&dir, &known, &owner);
        match tokio::task::spawn_blocking(save).await {
            Ok(Ok(())) => {}
            // It is known again with the next file.
            Ok(Err(error)) => tracing::warn!("{error}"),
            Err(error) => tracing::warn!("what is archived cannot be remembered: {error}"),
        }
    }

    /// Takes up what the primary has stored, as it is heard: once this node is the primary itself, what the
    /// monitor knows of that is what this keeper says.
    async fn follow(self: Arc<Self>) {
        let mut heard = self.heard.clone();
        while heard.changed().await.is_ok() {
            let archived = self.archived();
            if archived != self.condition.borrow().known.archived {
                self.remember(|known| known.archived = newest(known.archived, archived)).await;
            }
        }
    }

    /// Counts what waits, for ever.
    async fn count(self: Arc<Self>) {
        loop {
            let dir = self.instance.data_dir.clone();
            let found = tokio::task::spawn_blocking(move || queue::look(&dir)).await;
            // There is no directory before there is a cluster.
            let queue = found.ok().and_then(Result::ok).unwrap_or_default();
            let restores = self.facts.borrow().as_ref().is_some_and(|facts| facts.restores);
            self.condition.send_if_modified(|condition| {
                // What was not to be had is not asked for any more.
                let is_over = condition.get.is_some() && !restores;
                if is_over {
                    condition.get = None;
                }
                let changed = condition.queue != queue;
                condition.queue = queue;
                changed || is_over
            });
            tokio::time::sleep(COUNT_AGAIN).await;
        }
    }
}

/// The password file of the keeper's own role, for engines that take backups.
pub fn passfile(state_dir: &Path) -> PathBuf {
    state_dir.join("archive.pgpass")
}

/// The server as engines are told of it.
pub fn server<'a>(instance: &'a Instance, passfile: &'a Path) -> Server<'a> {
    Server {
        pgdata: instance.data_dir.path(),
        port: instance.port,
        socket_dir: &instance.socket_dir,
        user: managed::KEEPER,
        passfile,
    }
}

/// Whether this is about a segment that PostgreSQL needs next.
fn is_fetch(question: &Question) -> bool {
    question.verb == Verb::Get && is_segment(&question.file)
}

/// Of the names that are asked about.
fn is_segment(file: &str) -> bool {
    !file.contains('.')
}

async fn read_line(stream: &mut BufReader<UnixStream>) -> io::Result<String> {
    let mut line = String::new();
    stream.take(LINE_LIMIT).read_line(&mut line).await?;
    Ok(line)
}
