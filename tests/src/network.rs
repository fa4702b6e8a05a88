//! Hosts of their own on one machine: each with its own network, process table and mounts, and a cable
//! to one switch, where the test and its clients are. They can be cut off, frozen, and powered off at
//! one stroke.
//!
//! What must hold: nothing has a name outside, and everything ends with the test's process, however
//! that ends. A host is held by a process that reads from the test; a network by its hosts.

pub mod filter;
pub mod host;
pub mod proxy;
mod space;

pub use filter::Fault;
pub use host::Host;
pub use proxy::{Flow, Proxy};

use anyhow::{Context as _, Result};
use filter::Filters;
use space::Space;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Nobody else sees these addresses: every network has its own.
const fn address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, number)
}

/// The switch's own address: that of the test and its clients.
const SWITCH: u8 = 254;

/// A switch, and what is plugged in.
#[derive(Debug)]
pub struct Network {
    space: Arc<Space>,
    filters: Arc<Mutex<Filters>>,
    next: AtomicU8,
}

impl Network {
    /// A switch with nothing plugged in.
    pub fn new() -> Result<Self> {
        let space = Space::new().context("cannot make a network: this needs root")?;
        space.run(&["ip", "link", "set", "lo", "up"])?;
        space.run(&["ip", "link", "add", "br0", "type", "bridge"])?;
        space.run(&["ip", "addr", "add", &format!("{}/24", address(SWITCH)), "dev", "br0"])?;
        space.run(&["ip", "link", "set", "br0", "up"])?;
        let filters = Arc::new(Mutex::new(Filters::default()));
        Ok(Self { space: Arc::new(space), filters, next: AtomicU8::new(1) })
    }

    /// A host that is powered on.
    pub fn host(&self, name: &str) -> Result<Arc<Host>> {
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        let (switch, filters) = (Arc::clone(&self.space), Arc::clone(&self.filters));
        let host = Host::new(name, number, address(number), switch, filters);
        host.power_on()?;
        Ok(Arc::new(host))
    }

    /// What `from` sends does not reach `to` as it should, until it is healed.
    pub fn break_link(&self, from: &Host, to: &Host, fault: Fault) -> Result<()> {
        self.filters().set(from.address(), to.address(), Some(fault));
        to.filter()
    }

    /// Two hosts do not reach each other, and nobody is told.
    pub fn cut(&self, a: &Host, b: &Host) -> Result<()> {
        self.break_link(a, b, Fault::Drop)?;
        self.break_link(b, a, Fault::Drop)
    }

    /// Two hosts reach each other again.
    pub fn heal(&self, a: &Host, b: &Host) -> Result<()> {
        self.filters().set(a.address(), b.address(), None);
        self.filters().set(b.address(), a.address(), None);
        a.filter()?;
        b.filter()
    }

    /// Runs something where the test's clients are: everything that it connects goes through the switch.
    pub fn block_on<T>(&self, future: impl Future<Output = Result<T>>) -> Result<T> {
        let space = Arc::clone(&self.space);
        space.enter()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .on_thread_start(move || {
                if let Err(error) = space.enter() {
                    eprintln!("a thread cannot enter the network: {error:#}");
                    std::process::abort();
                }
            })
            .build()?;
        runtime.block_on(future)
    }

    fn filters(&self) -> std::sync::MutexGuard<'_, Filters> {
        self.filters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
