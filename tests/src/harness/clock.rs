//! A wall clock that a test sets: libfaketime below a program and all that it starts. What goes on while the
//! machine does (`CLOCK_MONOTONIC`, `CLOCK_BOOTTIME`) is left alone, as it is by whoever sets a real clock.

use anyhow::{Context as _, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where Debian's package puts it, below the directory of the architecture's libraries.
const LIBRARY: &str = "faketime/libfaketime.so.1";

/// The wall clock of one host.
#[derive(Clone, Debug)]
pub struct Clock {
    library: PathBuf,
    /// By how much it is off: read again at each look at the clock.
    file: PathBuf,
}

impl Clock {
    /// A clock that is right.
    pub fn new(dir: &Path) -> Result<Self> {
        let dirs = fs::read_dir("/usr/lib").context("no libraries")?.flatten();
        let mut found = dirs.map(|dir| dir.path().join(LIBRARY)).filter(|path| path.is_file());
        let library =
            found.next().context("libfaketime is not installed: `make setup` does that")?;
        let clock = Self { library, file: dir.join("clock") };
        clock.set(0)?;
        Ok(clock)
    }

    /// Sets it to so many seconds from the right time.
    pub fn set(&self, seconds: i64) -> Result<()> {
        let new = self.file.with_extension("new");
        fs::write(&new, format!("{seconds:+}\n"))?;
        // Nobody finds it half-written.
        fs::rename(new, &self.file).context("cannot set the clock")
    }

    /// A program has this clock.
    pub fn below(&self, command: &mut Command) {
        command.env("LD_PRELOAD", &self.library);
        command.env("FAKETIME_TIMESTAMP_FILE", &self.file);
        command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    }
}
