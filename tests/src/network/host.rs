//! One host.

use super::filter::Filters;
use super::space::Space;
use crate::harness::process::{Daemon, signal};
use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use std::fs;
use std::io::{Seek as _, Write as _};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A host; its disks are the test's directories and survive its being off.
#[derive(Debug)]
pub struct Host {
    name: String,
    address: Ipv4Addr,
    /// The name of its end at the switch.
    port: String,
    switch: Arc<Space>,
    filters: Arc<Mutex<Filters>>,
    /// While it is on.
    space: Mutex<Option<Space>>,
}

impl Host {
    /// A host that is off.
    pub(super) fn new(
        name: &str,
        number: u8,
        address: Ipv4Addr,
        switch: Arc<Space>,
        filters: Arc<Mutex<Filters>>,
    ) -> Self {
        let port = format!("port{number}");
        Self { name: name.to_owned(), address, port, switch, filters, space: Mutex::new(None) }
    }

    /// Its address.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// The Ethernet address of its network card, locally administered.
    fn card(&self) -> String {
        let [a, b, c, d] = self.address.octets();
        format!("02:00:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
    }

    /// Powers it on; nothing runs on it yet.
    pub fn power_on(&self) -> Result<()> {
        let mut space = self.space();
        ensure!(space.is_none(), "{} is on already", self.name);
        let new = Space::new()?;
        let (holder, port) = (new.holder().to_string(), self.port.as_str());
        // A machine keeps the address of its network card: others remember it for a minute.
        let card = self.card();
        let cable = ["type", "veth", "peer", "name", "eth0", "address", &card, "netns", &holder];
        self.switch.run(&[&["ip", "link", "add", port][..], &cable].concat())?;
        self.switch.run(&["ip", "link", "set", port, "master", "br0", "up"])?;
        new.run(&["ip", "link", "set", "lo", "up"])?;
        new.run(&["ip", "addr", "add", &format!("{}/24", self.address), "dev", "eth0"])?;
        new.run(&["ip", "link", "set", "eth0", "up"])?;
        *space = Some(new);
        drop(space);
        self.filter()
    }

    /// The plug is pulled: the cable is dead before any process can say goodbye.
    pub fn power_off(&self) -> Result<()> {
        let space = self.space().take();
        let space = space.with_context(|| format!("{} is off already", self.name))?;
        self.switch.run(&["ip", "link", "del", &self.port])?;
        space.end()
    }

    /// Whether it is on.
    pub fn is_on(&self) -> bool {
        self.space().is_some()
    }

    /// Everything on it stands still.
    pub fn freeze(&self) -> Result<()> {
        self.signal_all(Signal::STOP)
    }

    /// Everything on it goes on.
    pub fn thaw(&self) -> Result<()> {
        self.signal_all(Signal::CONT)
    }

    /// Runs something where its programs are: what it connects comes from this host. It is let go at the
    /// latest when the host is powered off.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> Result<()> {
        let guard = self.space();
        let door = guard.as_ref().with_context(|| format!("{} is off", self.name))?.door()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        drop(std::thread::spawn(move || match door.enter() {
            Ok(()) => runtime.block_on(work),
            Err(error) => eprintln!("a thread cannot enter a host: {error:#}"),
        }));
        Ok(())
    }

    /// Starts a program on it.
    pub fn start(&self, name: &str, command: &Command, log: &Path) -> Result<Daemon> {
        let guard = self.space();
        let space = guard.as_ref().with_context(|| format!("{} is off", self.name))?;
        let mut entered = Command::new("nsenter");
        entered.args(["--target", &space.holder().to_string(), "--mount", "--wd=/", "--"]);
        entered.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => entered.env(name, value),
                None => entered.env_remove(name),
            };
        }
        // A thread of its own, which stays where it has gone and ends.
        std::thread::scope(|scope| {
            let started = scope.spawn(|| {
                space.enter_with_children()?;
                Daemon::start(name, entered, log)
            });
            started.join().unwrap_or_else(|_| anyhow::bail!("cannot start {name}"))
        })
    }

    /// Mounts a file system that came after it was powered on; one that was there before, it has.
    pub fn mount(&self, device: &Path, dir: &Path) -> Result<()> {
        let guard = self.space();
        let space = guard.as_ref().with_context(|| format!("{} is off", self.name))?;
        let (holder, device, dir) = (space.holder().to_string(), device.display(), dir.display());
        let enter = ["nsenter", "--target", &holder, "--mount", "--pid", "--"];
        let mount = ["mount", "-t", "ext4", &device.to_string(), &dir.to_string()];
        space.run(&[&enter[..], &mount].concat())
    }

    /// A process of it as everybody else counts, from the number that it has there.
    pub fn outside(&self, pid: i32) -> Result<i32> {
        let guard = self.space();
        let space = guard.as_ref().with_context(|| format!("{} is off", self.name))?;
        let found = space.processes().into_iter().find(|outer| inside(*outer) == Some(pid));
        found.with_context(|| format!("{} has no process {pid}", self.name))
    }

    /// Its packet filter does what the network's faults ask for.
    pub(super) fn filter(&self) -> Result<()> {
        let guard = self.space();
        let Some(space) = guard.as_ref() else { return Ok(()) };
        let rules = self.filters.lock().unwrap_or_else(PoisonError::into_inner).rules(self.address);
        let mut file = tempfile::tempfile()?;
        file.write_all(rules.as_bytes())?;
        file.rewind()?;
        space.run_with(&["nft", "-f", "-"], Some(file))
    }

    fn signal_all(&self, what: Signal) -> Result<()> {
        let guard = self.space();
        let space = guard.as_ref().with_context(|| format!("{} is off", self.name))?;
        for pid in space.processes() {
            // One that has ended meanwhile is no trouble.
            drop(signal(pid, what));
        }
        Ok(())
    }

    fn space(&self) -> MutexGuard<'_, Option<Space>> {
        self.space.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The number of a process in the innermost process table that it is in.
fn inside(pid: i32) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("NSpid:"))?;
    line.split_whitespace().last()?.parse().ok()
}
