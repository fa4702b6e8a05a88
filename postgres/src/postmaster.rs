//! The running server: starting it directly (no `pg_ctl`, which would come between), finding one that
//! runs already, signals, its end, and when it is ready.
//!
//! What must hold: the server outlives its handle and the keeper; its end is noticed at once, by pidfd,
//! whoever its parent is; a stale `postmaster.pid` is never mistaken for a server. Not here: whether it
//! should run.

use crate::archiver;
use crate::instance::Instance;
use crate::pidfile::{PidFile, PidStatus};
use crate::process::{self, Process};
use crate::programs::Program;
use crate::run::last_lines;
use rustix::process::Signal as OsSignal;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::watch;
use tokio::time::Instant;

/// How often the status line is looked at while the server starts.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// How much of the log is looked at for an error message.
const LOG_TAIL_BYTES: u64 = 8192;

/// A child that the dead postmaster has just forked passes for one until it has said what it is, which it
/// does at once.
const CHILD_GETS_NAME: Duration = Duration::from_millis(50);

/// How long children of a killed postmaster may take to notice and end by themselves.
const CHILDREN_PATIENCE: Duration = Duration::from_millis(500);

/// A signal to the postmaster (postgres(1)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Reads the configuration again (HUP).
    Reload,
    /// Stops when all clients have left (TERM).
    SmartStop,
    /// Ends all sessions, writes a checkpoint, stops (INT).
    FastStop,
    /// Stops without a checkpoint; the next start recovers (QUIT).
    ImmediateStop,
    /// Ends the postmaster alone (KILL); its children may live on, see [`process::end_postgres_in`].
    Kill,
}

impl Signal {
    fn number(self) -> OsSignal {
        match self {
            Self::Reload => OsSignal::HUP,
            Self::SmartStop => OsSignal::TERM,
            Self::FastStop => OsSignal::INT,
            Self::ImmediateStop => OsSignal::QUIT,
            Self::Kill => OsSignal::KILL,
        }
    }
}

/// Why a server is not running, or not as wanted.
#[derive(Debug, thiserror::Error)]
pub enum PostmasterError {
    /// The runtime is shutting down.
    #[error("interrupted while looking after the server")]
    Interrupted,
    /// The log cannot be opened.
    #[error("cannot open the log {}", path.display())]
    Log {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The program cannot be started.
    #[error("cannot start {}", path.display())]
    Spawn {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The process cannot be watched or signalled.
    #[error("cannot {action} the postmaster {pid}")]
    Process {
        /// What was tried.
        action: &'static str,
        /// The process.
        pid: i32,
        /// Why not.
        source: io::Error,
    },
    /// `postmaster.pid`, or the lock file of the socket, cannot be read or removed.
    #[error("cannot use the lock file {}", path.display())]
    PidFile {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It ended before it was ready.
    #[error("the server ended while it was starting ({status}): {log}")]
    Ended {
        /// How.
        status: String,
        /// The last lines of its log.
        log: String,
    },
    /// It was not ready in time; it goes on starting.
    #[error("the server is not ready after {} ms: {log}", limit.as_millis())]
    NotReady {
        /// The time it was given.
        limit: Duration,
        /// The last lines of its log.
        log: String,
    },
    /// It did not stop in time, whatever it was sent.
    #[error("the postmaster {pid} has not stopped")]
    StillRunning {
        /// The process.
        pid: i32,
    },
    /// Somebody else has started one.
    #[error("another postmaster, {pid}, runs in {}", path.display())]
    Another {
        /// The process.
        pid: i32,
        /// The data directory.
        path: PathBuf,
    },
    /// Children of a postmaster that was killed do not end, not even by SIGKILL.
    #[error("server processes of {} do not end", path.display())]
    ChildrenRemain {
        /// The data directory.
        path: PathBuf,
    },
}

/// One step of stopping: a signal, and how long to wait for its effect.
pub type Stage = (Signal, Duration);

/// The postmaster of an instance.
#[derive(Clone, Debug)]
pub struct Postmaster {
    process: Arc<Process>,
    /// Of our own child: how it ended, once it has.
    exit: Option<watch::Receiver<Option<ExitStatus>>>,
    instance: Instance,
    /// What the log held before this server.
    log_start: u64,
    /// When the `postmaster.pid` was written that was left there before this server.
    before: Option<SystemTime>,
}

impl Postmaster {
    /// Starts `postgres -D PGDATA`. The server lives on when the handle is dropped. Ready only after
    /// [`Self::wait_ready`].
    pub async fn start(instance: &Instance) -> Result<Self, PostmasterError> {
        let instance = instance.clone();
        blocking(move || Self::start_blocking(&instance)).await
    }

    fn start_blocking(instance: &Instance) -> Result<Self, PostmasterError> {
        let (log, log_start) = open_log(instance)?;
        // Where processes are numbered anew at each boot, its number may well be that of the new one.
        let before = pid_file_written(instance);
        let log_error = |source| PostmasterError::Log { path: instance.log_path.clone(), source };
        let program = instance.programs.path(Program::Postgres);
        let mut command = instance.owner.command(&program);
        command.arg("-D").arg(instance.data_dir.path());
        command.stdout(log.try_clone().map_err(log_error)?).stderr(Stdio::from(log));
        let failed = |source| PostmasterError::Spawn { path: program, source };
        let mut child = command.spawn().map_err(failed)?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).unwrap_or_default();
        // Our own child that nobody has waited for yet: the number cannot belong to another.
        let process = open_process(pid)?.ok_or(PostmasterError::Process {
            action: "watch",
            pid,
            source: io::Error::from(io::ErrorKind::NotFound),
        })?;
        let (sender, exit) = watch::channel(None);
        tokio::spawn(async move {
            if let Ok(status) = child.wait().await {
                tracing::info!(pid, %status, "postmaster {pid} ended: {status}");
                sender.send_replace(Some(status));
            }
        });
        tracing::info!(pid, "postmaster {pid} started in {}", instance.data_dir.path().display());
        Ok(Self {
            process: Arc::new(process),
            exit: Some(exit),
            instance: instance.clone(),
            log_start,
            before,
        })
    }

    /// Finds a running server by `postmaster.pid`. A file of a dead process, or of a number that now
    /// belongs to another program, counts as no server.
    pub async fn adopt(instance: &Instance) -> Result<Option<Self>, PostmasterError> {
        let instance = instance.clone();
        blocking(move || Self::adopt_blocking(&instance)).await
    }

    fn adopt_blocking(instance: &Instance) -> Result<Option<Self>, PostmasterError> {
        let Some(file) = read_pid_file(instance)? else { return Ok(None) };
        let Some(process) = open_process(file.pid)? else { return Ok(None) };
        // The pidfd is open: if the check holds now, it holds for this process.
        if !process.is_alive() || !process::is_postgres_of(file.pid, &instance.data_dir.canonical())
        {
            return Ok(None);
        }
        let log_start = fs::metadata(&instance.log_path).map_or(0, |meta| meta.len());
        let process = Arc::new(process);
        // It may have been started under another port, which its socket is named after.
        let port = file.port.unwrap_or(instance.port);
        let instance = Instance { port, ..instance.clone() };
        Ok(Some(Self { process, exit: None, instance, log_start, before: None }))
    }

    /// What it was started as, as far as that is known: with the port that it has.
    pub fn instance(&self) -> &Instance {
        &self.instance
    }

    /// The number of the process.
    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// Whether it has not ended.
    pub fn is_alive(&self) -> bool {
        self.process.is_alive()
    }

    /// Waits for its end. The status is known only of a server that this process started.
    pub async fn exited(&self) -> Option<ExitStatus> {
        self.process.exited().await;
        let mut exit = self.exit.clone()?;
        let status = exit.wait_for(Option::is_some).await.ok()?;
        *status
    }

    /// Whether it has ended because it was told to: it says so by status 0 (`ExitPostmaster` in
    /// `postmaster.c`). `None` for one that this process has not started.
    pub fn was_told_to_end(&self) -> Option<bool> {
        let status = *self.exit.as_ref()?.borrow();
        status.map(|status| status.success())
    }

    /// Sends a signal; a server that has ended already is no error.
    pub fn signal(&self, signal: Signal) -> Result<(), PostmasterError> {
        self.process.signal(signal.number()).map_err(|source| PostmasterError::Process {
            action: "signal",
            pid: self.pid(),
            source,
        })
    }

    /// What `postmaster.pid` says of this very server; `None` while it says nothing.
    pub async fn status(&self) -> Result<Option<PidStatus>, PostmasterError> {
        let (instance, before) = (self.instance.clone(), self.before);
        let read = move || {
            // In this order: what was written since is found by whoever asks next.
            let old = before.is_some() && pid_file_written(&instance) == before;
            Ok(if old { None } else { read_pid_file(&instance)? })
        };
        let file = blocking(read).await?;
        Ok(file.filter(|file| file.pid == self.pid()).and_then(|file| file.status))
    }

    /// Waits until it accepts connections (or, without `hot_standby`, until it is known that it will
    /// not). It is not stopped when that takes longer than `limit`.
    pub async fn wait_ready(&self, limit: Duration) -> Result<PidStatus, PostmasterError> {
        let deadline = Instant::now() + limit;
        loop {
            match self.status().await? {
                Some(status @ (PidStatus::Ready | PidStatus::Standby)) => return Ok(status),
                Some(PidStatus::Starting | PidStatus::Stopping) | None => {}
            }
            if tokio::time::timeout(LOOK_AGAIN, self.process.exited()).await.is_ok() {
                let status = self.exited().await;
                let status = status.map_or("not our child".to_owned(), |s| s.to_string());
                return Err(PostmasterError::Ended { status, log: self.log_tail().await });
            }
            if Instant::now() >= deadline {
                return Err(PostmasterError::NotReady { limit, log: self.log_tail().await });
            }
        }
    }

    /// Stops it: the stages in order, each until its patience ends. Returns the signal that did it. After
    /// a kill the children are gone too when this returns. A fast stop does not wait for an archiver that
    /// hangs once the data are safe.
    pub async fn stop(&self, stages: &[Stage]) -> Result<Option<Signal>, PostmasterError> {
        if !self.is_alive() {
            self.clear_children().await?;
            return Ok(None);
        }
        for (signal, patience) in stages {
            self.signal(*signal)?;
            if self.ends_within(*signal, *patience).await {
                if *signal == Signal::Kill {
                    self.clear_children().await?;
                }
                return Ok(Some(*signal));
            }
            tracing::warn!(pid = self.pid(), ?signal, "postmaster {} goes on", self.pid());
        }
        Err(PostmasterError::StillRunning { pid: self.pid() })
    }

    async fn ends_within(&self, signal: Signal, patience: Duration) -> bool {
        let exited = tokio::time::timeout(patience, self.exited());
        match signal {
            Signal::FastStop => tokio::select! {
                exited = exited => exited.is_ok(),
                () = archiver::end_what_holds_up(&self.instance, self.pid()) => false,
            },
            Signal::Reload | Signal::SmartStop | Signal::ImmediateStop | Signal::Kill => {
                exited.await.is_ok()
            }
        }
    }

    /// The last lines that this server has logged.
    pub async fn log_tail(&self) -> String {
        let (path, start) = (self.instance.log_path.clone(), self.log_start);
        blocking(move || Ok(log_tail(&path, start).unwrap_or_default())).await.unwrap_or_default()
    }

    /// Why it has ended, in its own words as far as they stand in its log; else how it ended.
    pub async fn last_words(&self) -> Option<String> {
        let (path, start) = (self.instance.log_path.clone(), self.log_start);
        let tail = blocking(move || Ok(read_tail(&path, start).unwrap_or_default()));
        if let Some(words) = reasons(&tail.await.unwrap_or_default()) {
            return Some(words);
        }
        let status = (*self.exit.as_ref()?.borrow())?;
        Some(format!("it ended with {status}"))
    }

    /// Whoever has started another server meanwhile has found that nothing was left of this one.
    async fn clear_children(&self) -> Result<(), PostmasterError> {
        match end_children(&self.instance).await {
            Err(PostmasterError::Another { .. }) => Ok(()),
            other => other,
        }
    }
}

/// Ends what a dead postmaster has left running, so that the next one can start; an error where a live one
/// is found, which somebody else may have started (`pg_ctl restart`).
pub async fn end_children(instance: &Instance) -> Result<(), PostmasterError> {
    let path = instance.data_dir.canonical();
    let mut found = None;
    loop {
        if !process::end_postgres_in(&path, CHILDREN_PATIENCE).await {
            return Err(PostmasterError::ChildrenRemain { path });
        }
        match process::postmaster_in(&path) {
            None => break,
            Some(pid) if found == Some(pid) => {
                return Err(PostmasterError::Another { pid, path });
            }
            Some(pid) => found = Some(pid),
        }
        tokio::time::sleep(CHILD_GETS_NAME).await;
    }
    let instance = instance.clone();
    blocking(move || clear_lock_of_the_dead(&instance)).await
}

/// PostgreSQL takes a lock file for live as long as a process of its number exists, also one that is
/// dead and that nobody has waited for (`CreateLockFile` in miscinit.c): common where the keeper that
/// started the server is gone and process 1 of a container reaps late or never; or whose number belongs to
/// another program by now, as it does where processes are numbered anew at each boot. No server process of
/// the directory is left here, and a new one still checks the shared memory by the directory itself.
fn clear_lock_of_the_dead(instance: &Instance) -> Result<(), PostmasterError> {
    // The lock of the socket that we would use is there also where the data directory was removed.
    clear_socket_lock(&instance.socket_dir, instance.port)?;
    let Some(file) = read_pid_file(instance)? else { return Ok(()) };
    let dir = instance.data_dir.canonical();
    let taken = open_process(file.pid)?.is_some_and(|process| process.is_alive())
        && !process::is_postgres_of(file.pid, &dir);
    if !taken && !process::is_dead_postgres(file.pid) {
        return Ok(());
    }
    tracing::info!(pid = file.pid, "removing the lock files of dead postmaster {}", file.pid);
    // Ours goes last: it is how the other is found.
    if let (Some(dir), Some(port)) = (&file.socket_dir, file.port) {
        clear_socket_lock(dir, port)?;
    }
    remove_lock(instance.data_dir.join("postmaster.pid"))
}

/// It has the same layout.
fn clear_socket_lock(dir: &Path, port: u16) -> Result<(), PostmasterError> {
    let lock = dir.join(format!(".s.PGSQL.{port}.lock"));
    let text = fs::read_to_string(&lock).unwrap_or_default();
    match PidFile::parse(&text) {
        Some(file) if process::is_dead_postgres(file.pid) => remove_lock(lock),
        Some(_) | None => Ok(()),
    }
}

fn remove_lock(path: PathBuf) -> Result<(), PostmasterError> {
    fs::remove_file(&path).map_err(|source| PostmasterError::PidFile { path, source })
}

/// What may wait for the disk does so on a thread that nothing else needs.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PostmasterError> + Send + 'static,
) -> Result<T, PostmasterError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(PostmasterError::Interrupted))
}

fn pid_file_written(instance: &Instance) -> Option<SystemTime> {
    fs::metadata(instance.data_dir.join("postmaster.pid")).ok()?.modified().ok()
}

fn read_pid_file(instance: &Instance) -> Result<Option<PidFile>, PostmasterError> {
    PidFile::read(&instance.data_dir).map_err(|source| PostmasterError::PidFile {
        path: instance.data_dir.join("postmaster.pid"),
        source,
    })
}

fn open_process(pid: i32) -> Result<Option<Process>, PostmasterError> {
    Process::open(pid).map_err(|source| PostmasterError::Process { action: "watch", pid, source })
}

fn open_log(instance: &Instance) -> Result<(File, u64), PostmasterError> {
    let path = &instance.log_path;
    let failed = |source| PostmasterError::Log { path: path.clone(), source };
    let file =
        OpenOptions::new().append(true).create(true).mode(0o600).open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    // So that the owner can read and rotate it.
    instance.owner.chown(path).map_err(|error| failed(io::Error::other(error)))?;
    Ok((file, length))
}

fn log_tail(path: &Path, start: u64) -> io::Result<String> {
    Ok(last_lines(&read_tail(path, start)?, 10))
}

/// The lines of a log that say why a server has ended: not those to clients that came meanwhile.
fn reasons(log: &str) -> Option<String> {
    const TELLING: [&str; 4] =
        ["PANIC:  ", "FATAL:  ", "was terminated by signal", "syntax error in"];
    const TO_CLIENTS: [&str; 2] = ["FATAL:  the database system is", "FATAL:  terminating"];
    let tells = |line: &&str| {
        let has = |texts: &[&str]| texts.iter().any(|text| line.contains(text));
        has(&TELLING) && !has(&TO_CLIENTS)
    };
    let lines: Vec<_> = log.lines().filter(tells).collect();
    let shown = lines.get(lines.len().saturating_sub(3)..).unwrap_or_default();
    (!shown.is_empty()).then(|| shown.join("; "))
}

fn read_tail(path: &Path, start: u64) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES).max(start)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_told_from_talk() {
        let log = "\
2026-01-02 03:04:05.678 UTC [1] LOG:  starting PostgreSQL
2026-01-02 03:04:05.678 UTC [2] FATAL:  the database system is starting up
2026-01-02 03:04:05.678 UTC [3] PANIC:  could not write to file \"pg_wal/xlogtemp.3\"
2026-01-02 03:04:05.678 UTC [1] LOG:  startup process (PID 3) was terminated by signal 6: Aborted
2026-01-02 03:04:05.678 UTC [1] LOG:  database system is shut down";
        let words = reasons(log).unwrap();
        assert!(words.contains("PANIC") && words.contains("signal 6"), "{words}");
        assert!(!words.contains("starting"), "{words}");
        assert_eq!(reasons("LOG:  database system is shut down"), None);
    }
}
