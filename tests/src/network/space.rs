//! Namespaces, held by a process that lives as long as the test wants it to.

use crate::harness::process::is_alive;
use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};
use std::fs::{self, File};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

/// The first process of a space reads from the test, so it ends when that does, and with it everything
/// in the space. Meanwhile it waits, and so takes in whoever has lost his parent.
///
/// It has shared memory of its own, as a host has: what is named there by process ids (libfaketime does so)
/// would be found by the process of that id on another host.
const HOLDER: &str = "mount -t tmpfs -o mode=1777 pgtandem-shm /dev/shm || exit
exec 3<&0; cat <&3 >/dev/null & wait $!";

/// Making namespaces takes a moment.
const LIMIT: Duration = Duration::from_secs(10);

/// A network, a process table and mounts of its own.
#[derive(Debug)]
pub struct Space {
    /// `unshare`, which has made it and waits for the holder.
    maker: Option<Child>,
    /// The holder ends when this is closed.
    _line: ChildStdin,
    holder: i32,
    /// What its process table is called.
    table: PathBuf,
}

impl Space {
    /// A new one.
    pub fn new() -> Result<Self> {
        let mut maker = Command::new("unshare")
            .args(["--net", "--pid", "--mount", "--fork", "--mount-proc", "--kill-child=KILL"])
            .args(["sh", "-c", HOLDER])
            .stdin(Stdio::piped())
            // What it says at the end, it says when nobody listens any more.
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot run unshare")?;
        let line = maker.stdin.take().context("unshare has no standard input")?;
        let began = Instant::now();
        loop {
            if let Some(holder) = holder_of(maker.id()) {
                let table = fs::read_link(format!("/proc/{holder}/ns/pid"))?;
                return Ok(Self { maker: Some(maker), _line: line, holder, table });
            }
            if let Some(status) = maker.try_wait()? {
                bail!("unshare has ended: {status}");
            }
            ensure!(began.elapsed() < LIMIT, "unshare makes no namespaces");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Its first process, as everybody else counts.
    pub fn holder(&self) -> i32 {
        self.holder
    }

    /// Runs a program in its network to the end.
    pub fn run(&self, words: &[&str]) -> Result<()> {
        self.run_with(words, None)
    }

    /// The same, with a file as standard input.
    pub fn run_with(&self, words: &[&str], input: Option<File>) -> Result<()> {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.holder.to_string(), "--net", "--"]).args(words);
        command.stdin(input.map_or_else(Stdio::null, Stdio::from));
        let output = command.output().with_context(|| format!("cannot run {words:?}"))?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{words:?}: {}: {said}", output.status);
        Ok(())
    }

    /// Moves this thread into its network.
    pub fn enter(&self) -> Result<()> {
        self.door()?.enter()
    }

    /// The way into its network.
    pub fn door(&self) -> Result<Door> {
        let pid = Pid::from_raw(self.holder).context("no process id")?;
        Ok(Door(pidfd_open(pid, PidfdFlags::empty()).context("the space is gone")?))
    }

    /// Moves this thread into its network, and what it starts from now on into its process table.
    pub fn enter_with_children(&self) -> Result<()> {
        self.door()?.pass(ThreadNameSpaceType::NETWORK | ThreadNameSpaceType::PROCESS_ID)
    }

    /// All processes in it that have not ended, but the holder, as everybody else counts.
    pub fn processes(&self) -> Vec<i32> {
        let table = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        entries
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid| *pid != self.holder && table(*pid).as_ref() == Some(&self.table))
            .filter(|pid| is_alive(*pid))
            .collect()
    }

    /// Everything in it ends, at one stroke.
    pub fn end(self) -> Result<()> {
        self.kill();
        let began = Instant::now();
        while !self.processes().is_empty() {
            ensure!(began.elapsed() < LIMIT, "{:?} do not end", self.processes());
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn kill(&self) {
        if let Some(holder) = Pid::from_raw(self.holder) {
            // One that has ended already is no trouble.
            let _ = kill_process(holder, Signal::KILL);
        }
    }
}

/// A way into a space; it keeps nothing alive.
#[derive(Debug)]
pub struct Door(OwnedFd);

impl Door {
    /// Moves this thread into its network.
    pub fn enter(&self) -> Result<()> {
        self.pass(ThreadNameSpaceType::NETWORK)
    }

    fn pass(&self, what: ThreadNameSpaceType) -> Result<()> {
        move_into_thread_name_spaces(self.0.as_fd(), what).context("cannot enter the space")
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        self.kill();
        // The holder stays until its last child has been taken in, and some are the test's own.
        if let Some(mut maker) = self.maker.take() {
            drop(std::thread::spawn(move || drop(maker.wait())));
        }
    }
}

/// The first process in the new process table, once it has its own.
fn holder_of(maker: u32) -> Option<i32> {
    let children = fs::read_to_string(format!("/proc/{maker}/task/{maker}/children")).ok()?;
    let holder = children.split_whitespace().next()?.parse().ok()?;
    let name = fs::read_to_string(format!("/proc/{holder}/comm")).ok()?;
    // It mounts its own /proc before it becomes the shell.
    let mounts = fs::read_to_string(format!("/proc/{holder}/mounts")).ok()?;
    (name.trim_end() == "sh" && mounts.contains("pgtandem-shm")).then_some(holder)
}
