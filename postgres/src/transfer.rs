//! A child process that moves much data and tells its progress in lines of output, as `pg_basebackup`,
//! `pg_rewind`, pgBackRest and commands of the operator's do.
//!
//! What must hold: it never outlives a cancellation or the handle (its whole process group is ended,
//! `pg_basebackup` has a child of its own), and its messages are kept for the error. Not here: what a
//! message means.

use crate::run::last_lines;
use rustix::process::{Pid, Signal, kill_process_group};
use std::collections::VecDeque;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How far a transfer is. The total is an estimate, and may be exceeded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes done.
    pub done: u64,
    /// Bytes expected; 0 while unknown.
    pub total: u64,
}

/// A transfer that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// It could not be started, or not be waited for.
    #[error("cannot run {program}")]
    Spawn {
        /// Which.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// It ended with an error.
    #[error("{program} failed ({status}): {output}")]
    Failed {
        /// Which.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// The last lines of what it said.
        output: String,
    },
}

/// Enough for the messages of a failure; progress lines are not kept.
const KEPT_LINES: usize = 40;
/// After the end of a program a grandchild may hold its pipes open: what was said until then is enough.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Reads the progress from a line of output; `None` for a message.
pub type Reader = fn(&str) -> Option<Progress>;

/// A running transfer; dropping it kills it.
#[derive(Debug)]
pub struct Transfer {
    program: String,
    child: Child,
    group: Option<Pid>,
    progress: watch::Receiver<Progress>,
    said: Arc<Mutex<Said>>,
    readers: Vec<JoinHandle<()>>,
}

/// What it has said.
#[derive(Debug, Default)]
struct Said {
    messages: VecDeque<String>,
    lines: u64,
}

impl Transfer {
    /// Starts a command, called `program` in messages; its output is read line by line.
    pub fn start(
        mut command: Command,
        program: impl Into<String>,
        reader: Reader,
    ) -> Result<Self, TransferError> {
        let program = program.into();
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(|source| {
            let program = program.clone();
            TransferError::Spawn { program, source }
        })?;
        let (sender, progress) = watch::channel(Progress::default());
        let said = Arc::new(Mutex::new(Said::default()));
        let mut readers = Vec::new();
        if let Some(pipe) = child.stdout.take() {
            let (sender, said) = (sender.clone(), Arc::clone(&said));
            readers.push(tokio::spawn(read_lines(pipe, reader, sender, said)));
        }
        if let Some(pipe) = child.stderr.take() {
            readers.push(tokio::spawn(read_lines(pipe, reader, sender, Arc::clone(&said))));
        }
        let group = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        Ok(Self { program, child, group, progress, said, readers })
    }

    /// How many lines it has said, progress included: one that says something does something.
    pub fn lines(&self) -> u64 {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).lines
    }

    /// How far it is, at any time.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    /// Waits for its end; returns what it said besides progress. Safe to drop and call again.
    pub async fn wait(&mut self) -> Result<String, TransferError> {
        let status = self.child.wait().await.map_err(|source| {
            let program = self.program.clone();
            TransferError::Spawn { program, source }
        })?;
        let all = async {
            for reader in &mut self.readers {
                drop(reader.await);
            }
        };
        if tokio::time::timeout(LAST_WORDS, all).await.is_ok() {
            self.readers.clear();
        }
        let lines =
            std::mem::take(&mut self.said.lock().unwrap_or_else(PoisonError::into_inner).messages);
        let output = Vec::from(lines).join("\n");
        if status.success() {
            self.group = None;
            return Ok(output);
        }
        // What it has begun itself is not to go on.
        self.signal(Signal::KILL);
        self.group = None;
        let program = self.program.clone();
        Err(TransferError::Failed { program, status, output: last_lines(&output, 10) })
    }

    /// Ends it: SIGTERM, and SIGKILL when it is still there after `patience`.
    pub async fn cancel(&mut self, patience: Duration) {
        self.signal(Signal::TERM);
        if tokio::time::timeout(patience, self.child.wait()).await.is_err() {
            self.signal(Signal::KILL);
            drop(self.child.wait().await);
        }
        // The group's other members get the rest.
        self.signal(Signal::KILL);
        self.group = None;
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            // The group exists as long as one member does; that there is none left is fine.
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

async fn read_lines(
    mut pipe: impl AsyncRead + Unpin,
    reader: Reader,
    progress: watch::Sender<Progress>,
    said: Arc<Mutex<Said>>,
) {
    let mut pending: Vec<u8> = Vec::new();
    let mut buffer = [0; 4096];
    let take = |line: &[u8]| {
        let line = String::from_utf8_lossy(line);
        let line = line.trim();
        if line.is_empty() {
            return;
        }
        let now = reader(line);
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        said.lines += 1;
        if let Some(now) = now {
            progress.send_replace(now);
            return;
        }
        tracing::debug!("{line}");
        if said.messages.len() == KEPT_LINES {
            said.messages.pop_front();
        }
        said.messages.push_back(line.to_owned());
    };
    while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
        for byte in buffer.iter().take(count) {
            if matches!(byte, b'\r' | b'\n') {
                take(&pending);
                pending.clear();
            } else {
                pending.push(*byte);
            }
        }
    }
    take(&pending);
}

/// `123/456 kB (27%), 0/1 tablespace` (`progress_report` in `pg_basebackup.c` and `pg_rewind.c`).
pub fn parse_progress(line: &str) -> Option<Progress> {
    let (numbers, _) = line.split_once(" kB (")?;
    let (done, total) = numbers.split_once('/')?;
    let bytes = |text: &str| text.trim().parse::<u64>().ok()?.checked_mul(1024);
    Some(Progress { done: bytes(done)?, total: bytes(total)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_read() {
        let read = |text| parse_progress(text).map(|p| (p.done / 1024, p.total / 1024));
        assert_eq!(read("  123/456 kB (27%), 0/1 tablespace"), Some((123, 456)));
        assert_eq!(read("38912/38912 kB (100%) copied"), Some((38912, 38912)));
        assert_eq!(read("pg_basebackup: checkpoint completed"), None);
    }

    #[tokio::test]
    async fn messages_and_progress_are_told_apart() {
        let mut command = Command::new("sh");
        command.arg("-c").arg("printf '1/4 kB (25%%)\\r3/4 kB (75%%)\\rhello\\n' >&2; exit 3");
        let mut transfer = Transfer::start(command, "sh", parse_progress).unwrap();
        let progress = transfer.progress();
        let error = transfer.wait().await.unwrap_err().to_string();
        assert!(error.ends_with("hello"), "{error}");
        assert_eq!(*progress.borrow(), Progress { done: 3072, total: 4096 });
    }

    #[tokio::test]
    async fn a_deaf_child_is_killed_with_its_own_children() {
        let mut command = Command::new("sh");
        command.arg("-c").arg("trap '' TERM; sleep 600 & while :; do sleep 1; done");
        command.process_group(0);
        let mut transfer = Transfer::start(command, "sh", parse_progress).unwrap();
        let group = transfer.group.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        transfer.cancel(Duration::from_millis(50)).await;
        let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
        while rustix::process::test_kill_process_group(group).is_ok() {
            assert!(tokio::time::Instant::now() < deadline, "a member of the group lives on");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
