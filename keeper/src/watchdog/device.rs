//! The device itself, and what the kernel says of it in sysfs.
//!
//! What must hold: it is opened by nobody but [`Device::feed`], since opening arms it; it is disarmed by
//! nobody but [`Device::disarm`]; nothing here ever waits. A device whose time-out is not known is used all
//! the same, with a warning.

use super::FEED_EVERY;
use rustix::fs::{Access, OFlags, access, major, minor};
use shared::settings::Timers;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Any byte but the magic one.
const FOOD: &[u8] = b".";
/// Closing after this disarms.
const MAGIC: &[u8] = b"V";

/// `/dev/watchdog` is a misc device of this number, and the same as `/dev/watchdog0` (`watchdog_dev.c`).
const OLD_NAME: (u32, u32) = (10, 130);

/// What the kernel says of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) timeout: Option<Duration>,
    /// It cannot be disarmed.
    pub(super) nowayout: bool,
}

/// A device, armed or not.
#[derive(Debug)]
pub(super) struct Device {
    path: PathBuf,
    open: Option<File>,
    starving: bool,
    /// The last attempt to open it, or to write to it, failed.
    refused: bool,
    trouble: Option<String>,
    facts: Facts,
}

impl Device {
    pub(super) fn new(path: PathBuf) -> Self {
        let facts = Facts::default();
        Self { path, open: None, starving: false, refused: false, trouble: None, facts }
    }

    pub(super) fn name(&self) -> String {
        self.path.display().to_string()
    }

    pub(super) fn facts(&self) -> Facts {
        self.facts
    }

    /// Why it does not work.
    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.clone()
    }

    /// Armed, and not to be disarmed any more.
    pub(super) fn is_for_ever(&self) -> bool {
        self.open.is_some() && self.facts.nowayout
    }

    /// Reads what the kernel says; of one that is not open, whether it could be.
    pub(super) fn look(&mut self) {
        self.facts = Facts::read(&self.path, Path::new("/sys"));
        if self.open.is_none() && !self.refused {
            self.trouble = access(&self.path, Access::WRITE_OK).err().map(|error| cannot(&error));
        }
    }

    /// Arms it if need be, and gives it another of its time-outs.
    pub(super) fn feed(&mut self) {
        self.starving = false;
        let fed = match &mut self.open {
            Some(file) => file.write_all(FOOD),
            None => self.arm(),
        };
        self.refused = fed.is_err();
        match fed {
            Ok(()) => self.trouble = None,
            Err(error) => {
                // It stays armed; opened again it is fed.
                self.open = None;
                self.trouble = Some(cannot(&error));
            }
        }
    }

    fn arm(&mut self) -> io::Result<()> {
        // A device does not care for these; a file or a pipe that stands for one does.
        let at_once = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
        let mut options = OpenOptions::new();
        let mut file = options.append(true).custom_flags(at_once).open(&self.path)?;
        file.write_all(FOOD)?;
        self.open = Some(file);
        self.facts = Facts::read(&self.path, Path::new("/sys"));
        tracing::info!("the watchdog {} is armed", self.name());
        Ok(())
    }

    /// Nothing is written, so that it resets the host.
    pub(super) fn starve(&mut self) {
        if self.open.is_some() && !self.starving {
            tracing::error!(
                "the right to serve has ended and postgres does not end: the watchdog {} is not fed any more",
                self.name()
            );
        }
        self.starving = true;
    }

    /// The magic close.
    pub(super) fn disarm(&mut self) {
        self.refused = false;
        let Some(mut file) = self.open.take() else { return };
        match file.write_all(MAGIC) {
            Ok(()) => tracing::info!("the watchdog {} is disarmed", self.name()),
            Err(error) => {
                tracing::error!("the watchdog {} cannot be disarmed: {error}", self.name());
            }
        }
    }
}

fn cannot(error: &dyn std::fmt::Display) -> String {
    format!("it cannot be used ({error}): a host that freezes as the primary is not reset")
}

impl Facts {
    /// Of the device that a file stands for, as far as `sys` has it.
    pub(super) fn read(path: &Path, sys: &Path) -> Self {
        let number = fs::metadata(path).map(|meta| (major(meta.rdev()), minor(meta.rdev())));
        let dir = match number {
            Ok(OLD_NAME) => sys.join("class/watchdog/watchdog0"),
            Ok((0, 0)) | Err(_) => return Self::default(),
            Ok((major, minor)) => sys.join(format!("dev/char/{major}:{minor}")),
        };
        Self::read_in(&dir)
    }

    pub(super) fn read_in(dir: &Path) -> Self {
        let number = |name: &str| -> Option<u64> {
            fs::read_to_string(dir.join(name)).ok()?.trim().parse().ok()
        };
        Self {
            timeout: number("timeout").map(Duration::from_secs),
            nowayout: number("nowayout") == Some(1),
        }
    }
}

/// How long a host that froze may take until it is reset: the monitor promotes somebody else a node
/// timeout after the last report, and that may be as old as the interval between two.
fn longest(timers: &Timers) -> Duration {
    timers.node_timeout().saturating_sub(timers.report_interval().max(FEED_EVERY))
}

/// What is wrong with a device that works.
pub(super) fn problem(facts: &Facts, timers: Option<&Timers>) -> Option<String> {
    if facts.nowayout {
        return Some(
            "it cannot be disarmed (nowayout), so every end of this keeper after it was the primary resets the host; load its driver with nowayout=0"
                .to_owned(),
        );
    }
    let limit = longest(timers?).as_millis();
    match facts.timeout {
        None => Some(format!(
            "its time-out cannot be read from /sys; make sure that it is at most {limit} ms"
        )),
        Some(timeout) if timeout.as_millis() > limit => Some(format!(
            "its time-out ({} ms) is longer than node-timeout less report-interval ({limit} ms): another node may be promoted before this host is reset",
            timeout.as_millis()
        )),
        Some(_) => None,
    }
}
