//! Ports that stay ours while a test kills and restarts what listens on them.
//!
//! A port that the system gives (bind to 0) may become the local end of somebody's connection as soon
//! as its server is down. So ports are taken from below the range of such ports, each under a lock
//! file that other tests respect until the holder is gone.

use anyhow::{Context as _, Result, bail};
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File, OpenOptions};
use std::net::TcpListener;
use std::path::{Path, PathBuf};

/// Below are ports of well-known services.
const LOWEST: u16 = 10_000;

/// A port of this test.
#[derive(Debug)]
pub struct Port {
    number: u16,
    /// Locked while this lives.
    _lock: File,
}

impl Port {
    /// Takes a free port.
    pub fn take() -> Result<Self> {
        let dir = lock_dir()?;
        let end = first_ephemeral().max(LOWEST.saturating_add(1000));
        let count = end.saturating_sub(LOWEST);
        let first = rand::random::<u16>() % count;
        for offset in 0..count {
            let number = LOWEST + (first + offset) % count;
            if let Some(port) = Self::try_take(&dir.join(number.to_string()), number) {
                return Ok(port);
            }
        }
        bail!("no port between {LOWEST} and {end} is free")
    }

    /// The number.
    pub fn number(&self) -> u16 {
        self.number
    }

    fn try_take(lock_path: &Path, number: u16) -> Option<Self> {
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(lock_path);
        let lock = lock.ok()?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).ok()?;
        let free = TcpListener::bind(("127.0.0.1", number)).is_ok();
        free.then_some(Self { number, _lock: lock })
    }
}

fn lock_dir() -> Result<PathBuf> {
    let dir = std::env::temp_dir().join("pgtandem-test-ports");
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}

/// Where the ports begin that the system gives to outgoing connections.
fn first_ephemeral() -> u16 {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    text.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(32_768)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_taken_once() {
        let taken: Vec<_> = (0..50).map(|_| Port::take().unwrap()).collect();
        let mut numbers: Vec<_> = taken.iter().map(Port::number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 50);
    }
}
