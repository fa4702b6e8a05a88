//! Where programs run.

use super::process::Daemon;
use crate::network::Host;
use anyhow::Result;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

/// On loopback, beside everybody else, or on a host of a network.
#[derive(Clone, Debug, Default)]
pub enum Place {
    /// Told apart from others by its ports only.
    #[default]
    Loopback,
    /// With an address of its own.
    Host(Arc<Host>),
}

impl Place {
    /// Where it is reached.
    pub fn address(&self, port: u16) -> SocketAddr {
        let ip = match self {
            Self::Loopback => Ipv4Addr::LOCALHOST,
            Self::Host(host) => host.address(),
        };
        SocketAddr::new(IpAddr::V4(ip), port)
    }

    /// Starts a program there.
    pub fn start(&self, name: &str, command: Command, log: &Path) -> Result<Daemon> {
        match self {
            Self::Loopback => Daemon::start(name, command, log),
            Self::Host(host) => host.start(name, &command, log),
        }
    }

    /// Runs something there, on a thread of its own.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> Result<()> {
        match self {
            Self::Loopback => {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                drop(std::thread::spawn(move || runtime.block_on(work)));
                Ok(())
            }
            Self::Host(host) => host.spawn(work),
        }
    }

    /// A process of there as everybody else counts.
    pub fn outside(&self, pid: i32) -> Result<i32> {
        match self {
            Self::Loopback => Ok(pid),
            Self::Host(host) => host.outside(pid),
        }
    }

    /// The host, where it is one.
    pub fn host(&self) -> Option<&Arc<Host>> {
        match self {
            Self::Loopback => None,
            Self::Host(host) => Some(host),
        }
    }
}
