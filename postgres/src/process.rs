//! Processes by pidfd, and what `/proc` says about those of one data directory.
//!
//! A pidfd stands for one process for ever, so a signal can never reach another one that got the same
//! number. Not here: what the server's processes mean ([`crate::postmaster`]).

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal};
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

/// How often processes that are not held by pidfd are looked for again.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// One process, held by pidfd. Not our child necessarily.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    fd: AsyncFd<OwnedFd>,
}

impl Process {
    /// Takes hold of a process; `None` where there is none of that number. Needs a tokio runtime.
    pub fn open(pid: i32) -> io::Result<Option<Self>> {
        if pid <= 0 {
            return Ok(None);
        }
        let Some(pid) = Pid::from_raw(pid) else { return Ok(None) };
        match rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK) {
            Ok(fd) => Ok(Some(Self { pid, fd: watch(fd)? })),
            Err(rustix::io::Errno::SRCH) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Its number.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Whether it has not ended yet.
    pub fn is_alive(&self) -> bool {
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        // A pidfd becomes readable when the process ends, also while it is a zombie (pidfd_open(2)).
        !matches!(rustix::event::poll(&mut fds, Some(&at_once)), Ok(ready) if ready > 0)
    }

    /// Waits until it has ended. Safe to drop and to call again, also from several tasks.
    pub async fn exited(&self) {
        while self.is_alive() {
            match self.fd.readable().await {
                Ok(mut guard) if self.is_alive() => guard.clear_ready(),
                // It has ended, or the runtime is shutting down.
                Ok(_) | Err(_) => return,
            }
        }
    }

    /// Sends a signal; one that has ended already is no error.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        match rustix::process::pidfd_send_signal(&self.fd, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Waits for a descriptor to be readable, without blocking.
#[expect(
    deprecated,
    reason = "its successor is unsafe, which is forbidden here; an owned descriptor keeps its contract"
)]
pub fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(fd, Interest::READABLE)
}

/// Whether a process is a Postgres server process of this data directory: it is called postgres and
/// has the directory (canonical) as its working directory, as the postmaster and all its children do.
pub fn is_postgres_of(pid: i32, data_dir: &Path) -> bool {
    let proc = PathBuf::from(format!("/proc/{pid}"));
    let in_it = fs::read_link(proc.join("cwd")).is_ok_and(|cwd| cwd == data_dir);
    in_it && matches!(name(&proc).as_deref(), Some("postgres" | "postmaster"))
}

/// Whether this is a server process that has ended and that its parent has not waited for yet.
pub fn is_dead_postgres(pid: i32) -> bool {
    let proc = PathBuf::from(format!("/proc/{pid}"));
    let zombie = Stat::read(pid).is_some_and(|stat| stat.is_dead);
    zombie && matches!(name(&proc).as_deref(), Some("postgres" | "postmaster"))
}

/// The server processes of a data directory (canonical), the postmaster included.
pub fn postgres_in(data_dir: &Path) -> Vec<i32> {
    all().filter(|pid| is_postgres_of(*pid, data_dir)).collect()
}

/// The postmaster of a data directory (canonical), whoever has started it: a server process that no other
/// one is the parent of, and that does not call itself a child (`set_ps_display` in `ps_status.c`).
pub fn postmaster_in(data_dir: &Path) -> Option<i32> {
    let all = postgres_in(data_dir);
    let is_postmaster = |pid: &i32| {
        let parent = Stat::read(*pid).map(|stat| stat.parent);
        // One that is ending has no title any more.
        let title = title(*pid);
        let names_itself_so = !title.is_empty() && !title.starts_with("postgres: ");
        names_itself_so && parent.is_some_and(|parent| !all.contains(&parent))
    };
    all.iter().copied().find(is_postmaster)
}

/// The server processes of a data directory (canonical) that no postmaster looks after.
fn orphans_in(data_dir: &Path) -> Vec<i32> {
    if postmaster_in(data_dir).is_some() { Vec::new() } else { postgres_in(data_dir) }
}

/// The living children of a process.
pub(crate) fn children_of(parent: i32) -> Vec<i32> {
    living(|stat| stat.parent == parent)
}

/// The living children of a process, their children, and so on; parents come first.
pub fn descendants_of(ancestor: i32) -> Vec<i32> {
    let mut found = children_of(ancestor);
    let mut next = 0;
    while let Some(parent) = found.get(next) {
        let more = children_of(*parent);
        found.extend(more);
        next += 1;
    }
    found
}

/// The living processes of a process group.
pub(crate) fn members_of(group: i32) -> Vec<i32> {
    living(|stat| stat.group == group)
}

/// How long ago a process was started; `None` for one that is gone.
pub(crate) fn age(pid: i32) -> Option<Duration> {
    let started = Stat::read(pid)?.started_ticks.checked_mul(1000)?;
    let started = started.checked_div(rustix::param::clock_ticks_per_second())?;
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let now = Duration::new(u64::try_from(now.tv_sec).ok()?, u32::try_from(now.tv_nsec).ok()?);
    Some(now.saturating_sub(Duration::from_millis(started)))
}

/// What a process says that it is; empty for one that is gone.
pub(crate) fn title(pid: i32) -> String {
    let arguments = arguments(&PathBuf::from(format!("/proc/{pid}")));
    arguments.first().map(|first| first.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The programs that are writing to a data directory, left by a keeper that was killed: copies,
/// rewinds, `initdb`, and a server in single-user mode (as seen from their arguments).
pub fn tools_on(data_dir: &Path) -> Vec<i32> {
    let is_tool = |pid: &i32| {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        let arguments = arguments(&proc);
        let about_it = arguments.iter().any(|a| Path::new(a) == data_dir);
        let single = arguments.iter().any(|a| a == "--single");
        match name(&proc).as_deref() {
            Some("pg_basebackup" | "pg_rewind" | "initdb") => about_it,
            Some("postgres") => about_it && single,
            _ => false,
        }
    };
    all().filter(is_tool).collect()
}

/// Waits up to `patience` for what a dead postmaster of a data directory (canonical) has left to end by
/// itself, then kills it; returns whether it is gone. Children of a killed postmaster may live on, and a
/// new one refuses to start beside them. Where there is a new one it is left alone, and its children.
pub async fn end_postgres_in(data_dir: &Path, patience: Duration) -> bool {
    end_all(|| orphans_in(data_dir), patience).await
}

/// The same for [`tools_on`].
pub async fn end_tools_on(data_dir: &Path, patience: Duration) -> bool {
    end_all(|| tools_on(data_dir), patience).await
}

async fn end_all(find: impl Fn() -> Vec<i32>, patience: Duration) -> bool {
    if wait_until_none(&find, patience).await {
        return true;
    }
    for process in find().into_iter().filter_map(|pid| Process::open(pid).ok().flatten()) {
        // Looked at again through the pidfd's process, since the number may have changed hands.
        if find().contains(&process.pid()) {
            tracing::warn!(
                pid = process.pid(),
                "killing a left-over process of the data directory"
            );
            if let Err(error) = process.signal(Signal::KILL) {
                tracing::warn!(pid = process.pid(), %error, "cannot kill the process");
            }
        }
    }
    // A killed process still has to leave the kernel; with a stuck disk that may take for ever.
    wait_until_none(&find, Duration::from_secs(5)).await
}

async fn wait_until_none(find: &impl Fn() -> Vec<i32>, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    while !find().is_empty() {
        if Instant::now() >= deadline {
            return false;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    true
}

fn all() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn living(wanted: impl Fn(&Stat) -> bool) -> Vec<i32> {
    all()
        .filter(|pid| Stat::read(*pid).is_some_and(|stat| !stat.is_dead && wanted(&stat)))
        .collect()
}

/// What the kernel says of a process (`proc_pid_stat(5)`).
struct Stat {
    /// It has ended, and nobody has waited for it yet.
    is_dead: bool,
    parent: i32,
    group: i32,
    /// After the machine's.
    started_ticks: u64,
}

impl Stat {
    fn read(pid: i32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // `pid (name) state parent group ...`, the start as field 22; the name may have any character.
        let mut fields = text.rsplit_once(')')?.1.split_whitespace();
        Some(Self {
            is_dead: fields.next()? == "Z",
            parent: fields.next()?.parse().ok()?,
            group: fields.next()?.parse().ok()?,
            started_ticks: fields.nth(16)?.parse().ok()?,
        })
    }
}

fn name(proc: &Path) -> Option<String> {
    Some(fs::read_to_string(proc.join("comm")).ok()?.trim_end().to_owned())
}

fn arguments(proc: &Path) -> Vec<OsString> {
    let line = fs::read(proc.join("cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0).map(|part| OsString::from_vec(part.to_vec())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_end_of_a_process_is_noticed() {
        let mut child = tokio::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(child.id().unwrap()).unwrap();
        let process = Process::open(pid).unwrap().unwrap();
        assert!(process.is_alive());
        assert!(age(pid).unwrap() < Duration::from_secs(10), "{:?}", age(pid));
        assert!(age(1).unwrap() > age(pid).unwrap());
        let soon = tokio::time::timeout(Duration::from_millis(50), process.exited());
        assert!(soon.await.is_err());
        process.signal(Signal::KILL).unwrap();
        tokio::time::timeout(Duration::from_secs(5), process.exited()).await.unwrap();
        assert!(!process.is_alive());
        process.exited().await;
        child.wait().await.unwrap();
        process.signal(Signal::KILL).unwrap();
        assert!(Process::open(pid).unwrap().is_none());
        assert!(Process::open(-1).unwrap().is_none());
    }
}
