//! A directory for each cluster, and the promise that no process of it outlives the test.
//!
//! Short paths under `/tmp`, since the path of a unix socket has at most 107 bytes. Tests run as root
//! give what Postgres needs to user `postgres`; run by anybody else, all belongs to that user.

use super::clock::Clock;
use super::process::{end_all_in, kill_all_in};
use anyhow::{Context as _, Result};
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, Once, PoisonError};
use tokio::signal::unix::{SignalKind, signal};

/// The sandboxes of this process, for the end by a signal.
static ALL: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// The user and group that Postgres runs as, where tests are run as root.
pub fn postgres_user() -> Result<Option<(u32, u32)>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd")?;
    let line = users.lines().find(|line| line.starts_with("postgres:"));
    let line = line.context("there is no user postgres: `make setup` installs PostgreSQL")?;
    let mut fields = line.split(':').skip(2);
    let uid = fields.next().context("no uid")?.parse()?;
    let gid = fields.next().context("no gid")?.parse()?;
    Ok(Some((uid, gid)))
}

/// The directory.
#[derive(Debug)]
pub struct Sandbox {
    root: PathBuf,
    traced: bool,
    own_clocks: bool,
}

impl Sandbox {
    /// Makes a directory.
    pub fn new() -> Result<Self> {
        end_all_on_signals();
        let dir = tempfile::Builder::new().prefix("pgt-").tempdir_in("/tmp")?.keep();
        // User postgres has to pass through.
        fs::set_permissions(&dir, Permissions::from_mode(0o755))?;
        fs::create_dir(dir.join("logs"))?;
        fs::create_dir(dir.join("traces"))?;
        ALL.lock().unwrap_or_else(PoisonError::into_inner).push(dir.clone());
        Ok(Self { root: dir, traced: true, own_clocks: false })
    }

    /// Programs write no traces: where time is measured.
    #[must_use]
    pub fn untraced(self) -> Self {
        Self { traced: false, ..self }
    }

    /// Every program has a wall clock of its own.
    #[must_use]
    pub fn with_clocks(self) -> Self {
        Self { own_clocks: true, ..self }
    }

    /// The clock of what runs in this directory, where it has one.
    pub fn clock(&self, dir: &Path) -> Result<Option<Clock>> {
        self.own_clocks.then(|| Clock::new(dir)).transpose()
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The log of a program that the harness starts.
    pub fn log(&self, program: &str) -> PathBuf {
        self.root.join("logs").join(format!("{program}.log"))
    }

    /// Where all traces are.
    pub fn traces(&self) -> PathBuf {
        self.root.join("traces")
    }

    /// The trace of a program that the harness starts.
    pub fn trace(&self, program: &str) -> Option<PathBuf> {
        self.traced.then(|| self.traces().join(format!("{program}.jsonl")))
    }

    /// Makes a directory that Postgres can write to.
    pub fn dir(&self, name: &str) -> Result<PathBuf> {
        let dir = self.root.join(name);
        fs::create_dir_all(&dir)?;
        give_to_postgres(&dir)?;
        Ok(dir)
    }

    /// Ends every process that works here.
    pub fn end_processes(&self) {
        end_all_in(&self.root);
    }

    /// Removes the directory; its processes have been ended.
    pub fn remove(&self) {
        if let Err(error) = fs::remove_dir_all(&self.root) {
            eprintln!("cannot remove {}: {error}", self.root.display());
        }
    }

    /// All log files: those of programs that the harness started, and all others below that are
    /// called `*.log`.
    pub fn logs(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        collect_logs(&self.root, 5, &mut found);
        found.sort();
        found
    }
}

/// Lets Postgres write to a file or directory.
pub fn give_to_postgres(path: &Path) -> Result<()> {
    if let Some((uid, gid)) = postgres_user()? {
        chown(path, Some(uid), Some(gid))
            .with_context(|| format!("cannot give {} to postgres", path.display()))?;
    }
    Ok(())
}

fn collect_logs(dir: &Path, depth: u32, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_dir && depth > 0 && entry.file_name() != "base" && entry.file_name() != "pg_wal" {
            collect_logs(&path, depth - 1, found);
        } else if path.extension().is_some_and(|extension| extension == "log") {
            found.push(path);
        }
    }
}

/// A test that is ended by its runner, because it took too long or somebody pressed ^C, takes its
/// processes with it. They are in process groups of their own, so the runner does not reach them.
fn end_all_on_signals() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        drop(std::thread::spawn(|| {
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build()
            else {
                return;
            };
            runtime.block_on(wait_for_signal());
            for dir in ALL.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                eprintln!("ended by a signal; what was there is left in {}", dir.display());
                kill_all_in(dir);
            }
            std::process::abort();
        }));
    });
}

async fn wait_for_signal() {
    let (Ok(mut term), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
    }
}
