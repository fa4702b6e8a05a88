//! Processes: those that the harness starts, and those that are found by looking.

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, OpenOptions};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::wait::{DEADLINE, eventually};

/// Names the file of a program's trace.
pub const TRACE: &str = "PGTANDEM_TRACE";

/// A program that runs until it is told to stop. Ended by its sandbox, not by being dropped.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    child: Child,
}

impl Daemon {
    /// Starts a command in a process group of its own, with all that it writes going to `log`.
    pub fn start(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(log);
        let file = file.with_context(|| format!("cannot open {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).process_group(0);
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name: name.to_owned(), child })
    }

    /// Its process.
    pub fn pid(&self) -> Result<i32> {
        Ok(i32::try_from(self.child.id())?)
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Kills it.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(status) = self.ended()? {
            bail!("{} was to be killed, but has ended already: {status}", self.name);
        }
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// It has ended with its host; nobody asks how.
    pub fn take_in(&mut self) -> Result<()> {
        self.child.wait()?;
        Ok(())
    }

    /// Sends a signal.
    pub fn signal(&self, what: Signal) -> Result<()> {
        signal(self.pid()?, what)
    }

    /// Waits for its end.
    pub async fn wait(&mut self) -> Result<ExitStatus> {
        let what = format!("the end of {}", self.name);
        eventually(&what, DEADLINE, async || {
            Ok(self.ended()?.ok_or_else(|| "it is running".to_owned()))
        })
        .await
    }
}

/// A command of ours that is not influenced by the environment of the test.
pub fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PG") {
            command.env_remove(&name);
        }
    }
    // A panic says where; errors, of which there are many, do not.
    command.env("RUST_BACKTRACE", "1").env("RUST_LIB_BACKTRACE", "0");
    command.env("PGTANDEM_TEST_HOOKS", "1");
    command
}

/// Sends a signal to a process that must be there.
pub fn signal(pid: i32, what: Signal) -> Result<()> {
    let process = Pid::from_raw(pid).with_context(|| format!("{pid} is no process id"))?;
    kill_process(process, what).with_context(|| format!("cannot send {what:?} to {pid}"))
}

/// The processes that work in a directory, or on one that their arguments name. Only programs of
/// PostgreSQL and ours count: an editor that looks into the directory is left alone.
pub fn working_in(dir: &Path) -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok().zip(Some(entry.path())))
        .filter(|(_, proc)| is_ours(proc) && works_in(proc, dir))
        .map(|(pid, _)| pid)
        .collect()
}

fn is_ours(proc: &Path) -> bool {
    let name = name_of(proc);
    name.starts_with("pg") || ["postgres", "initdb", "psql"].contains(&name.as_str())
}

fn name_of(proc: &Path) -> String {
    let name = fs::read_to_string(proc.join("comm")).unwrap_or_default();
    name.trim_end().to_owned()
}

fn works_in(proc: &Path, dir: &Path) -> bool {
    if fs::read_link(proc.join("cwd")).is_ok_and(|cwd| cwd.starts_with(dir)) {
        return true;
    }
    let arguments = fs::read(proc.join("cmdline")).unwrap_or_default();
    arguments.split(|byte| *byte == 0).any(|argument| {
        let argument = String::from_utf8_lossy(argument);
        argument.split('=').any(|part| Path::new(part).starts_with(dir))
    })
}

/// The server processes among those that work in a directory.
pub fn servers_in(dir: &Path) -> Vec<i32> {
    let is_postgres = |pid: &i32| name_of(&PathBuf::from(format!("/proc/{pid}"))) == "postgres";
    working_in(dir).into_iter().filter(is_postgres).collect()
}

/// Whether a process exists and has not ended (a zombie has).
pub fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(PathBuf::from(format!("/proc/{pid}/stat"))).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

/// Ends all processes that work in a directory, for good: first our own, which would start others, then
/// Postgres, which is given the time to remove its shared memory. A killed one leaves that behind until
/// the next start in the same directory, and a machine has room for 4096 such segments only.
pub fn end_all_in(dir: &Path) {
    let is_postgres = |pid: &i32| name_of(&PathBuf::from(format!("/proc/{pid}"))) == "postgres";
    for pid in working_in(dir).into_iter().filter(|pid| !is_postgres(pid)) {
        drop(signal(pid, Signal::KILL));
    }
    for pid in working_in(dir).into_iter().filter(is_postgres) {
        drop(signal(pid, Signal::QUIT));
        drop(signal(pid, Signal::CONT));
    }
    for _ in 0..200 {
        if !working_in(dir).into_iter().any(is_alive) {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    kill_all_in(dir);
}

/// Kills all processes that work in a directory, again and again until none is left: what is killed
/// first may have started others.
pub fn kill_all_in(dir: &Path) {
    for _ in 0..200 {
        let left: Vec<_> = working_in(dir).into_iter().filter(|pid| is_alive(*pid)).collect();
        if left.is_empty() {
            return;
        }
        for pid in left {
            // One that ended meanwhile is no trouble.
            drop(signal(pid, Signal::KILL));
        }
        // A killed process needs a moment to leave; this runs where nothing can be awaited.
        std::thread::sleep(Duration::from_millis(10));
    }
    eprintln!("processes in {} do not end: {:?}", dir.display(), working_in(dir));
}
