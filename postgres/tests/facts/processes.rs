//! Single processes of a server, held by SIGSTOP.

use crate::harness::eventually;
use crate::node::Node;
use postgres::process::{Process, postgres_in};
use rustix::process::Signal;
use std::fs;

/// A process that is held; goes on when this is dropped.
pub struct Held(Process);

impl Held {
    /// Stops a process and waits until it has stopped.
    pub async fn new(pid: i32) -> Self {
        let process = Process::open(pid).unwrap().unwrap();
        process.signal(Signal::STOP).unwrap();
        let held = Self(process);
        eventually("a process that is held", async || {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            // `pid (name) state ...` (proc_pid_stat(5)).
            if stat.contains(") T ") { Ok(()) } else { Err(stat) }
        })
        .await;
        held
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // One that has ended meanwhile is no error; another fault shows in what is awaited next.
        drop(self.0.signal(Signal::CONT));
    }
}

/// The checkpointer of a server, by its process title (`update_process_title` is on by default).
pub fn checkpointer(node: &Node) -> i32 {
    let is_it = |pid: &i32| {
        let title = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        title.starts_with("postgres: checkpointer")
    };
    let mut found = postgres_in(&node.instance.data_dir.canonical()).into_iter().filter(is_it);
    found.next().unwrap()
}

/// The walreceiver of a standby that streams.
pub async fn walreceiver(node: &Node) -> i32 {
    node.connect().await.recovery().await.unwrap().receiver.unwrap().pid
}
