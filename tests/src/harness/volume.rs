//! A small file system of its own, which can be full, stand still, or be read-only.
//!
//! What must hold: nothing is left of it, however the test ends. A process holds it that reads from the
//! test; when that is gone, it unmounts. The image has no name once it is mounted, and the device is let go
//! by whoever uses it last.
//!
//! It is mounted where the test is, so the test and programs beside it see it. A host takes over what is
//! mounted when it is powered on, and one that was on before mounts it again ([`Volume::show`]). These other
//! mounts, also those of hosts of other tests, do not keep it: the kernel drops all mounts on a directory that
//! is removed, so the end of a volume is the end of the directory that it was mounted on.
//!
//! What is not here: a power failure. What was written and not synced survives, since the machine does.

use super::sandbox::give_to_postgres;
use crate::network::Host;
use anyhow::{Context as _, Result, bail, ensure};
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read as _, Seek as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Makes a volume and unmounts it when the test is gone. It keeps the device open, which stays while the
/// volume is unmounted to be repaired. A signal to the test's session must not end it.
const HOLDER: &str = r#"set -e
dir=$1 image=$1.image
end() {
  exec >/dev/null 2>&1
  if mountpoint -q "$dir"; then
    fsfreeze --unfreeze "$dir"
    umount --lazy "$dir"
  fi
  rmdir "$dir"
  rm -f "$image"
}
trap '' HUP INT PIPE TERM
mkdir "$dir"
trap 'set +e; end' EXIT
truncate --size "$2M" "$image"
mkfs.ext4 -q -F -m 0 "$image"
mount -t ext4 -o loop "$image" "$dir"
device=$(findmnt --noheadings --output SOURCE --mountpoint "$dir")
exec 3<"$device"
rm "$image"
echo "$device"
cat >/dev/null
"#;

/// Freezes a volume until the test says so or is gone, or the limit is reached: whoever waits for a frozen
/// volume cannot be killed, and if that were the test itself, nothing would ever end. By its descriptor the
/// volume is found again even after it was unmounted.
const FREEZER: &str = r#"trap '' HUP INT PIPE TERM
exec 3<"$1"
mountpoint -q "$1" && fsfreeze --freeze /proc/self/fd/3 && echo frozen &&
  timeout --signal=KILL "$2" cat >/dev/null
fsfreeze --unfreeze /proc/self/fd/3
"#;

/// One is its word for "there was something to repair, and it is".
const REPAIR: &str = r#"e2fsck -f -y "$1" || [ $? = 1 ]"#;

/// Longer than all that a test waits for, shorter than the patience of who runs it.
const FROZEN_LIMIT: Duration = Duration::from_mins(2);

/// Unmounting writes what is left to be written.
const LIMIT: Duration = Duration::from_secs(20);

/// What takes the space away.
const BALLAST: &str = "ballast";

/// The first piece of ballast; the last is a block.
const LARGEST_PIECE: u64 = 16 << 20;
const BLOCK: u64 = 1024;

/// What of a node is on a volume of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Storage {
    /// Nothing: all is in the node's directory.
    #[default]
    Directory,
    /// The data directory and what is made beside it, on so many megabytes.
    Data(u32),
    /// The WAL alone, on so many megabytes.
    Wal(u32),
}

impl Storage {
    /// Mounts the volume that is asked for.
    pub(super) fn volume(self, dir: &Path) -> Result<Option<Volume>> {
        match self {
            Self::Directory => Ok(None),
            Self::Data(megabytes) | Self::Wal(megabytes) => Volume::new(dir, megabytes).map(Some),
        }
    }
}

/// A file system of its own.
#[derive(Debug)]
pub struct Volume {
    dir: PathBuf,
    device: PathBuf,
    holder: Option<Holder>,
    /// While it is frozen.
    freezer: Mutex<Option<Holder>>,
}

impl Volume {
    /// Makes one and mounts it on a directory that it makes, too, and that Postgres can write to.
    pub fn new(dir: &Path, megabytes: u32) -> Result<Self> {
        let size = megabytes.to_string();
        let (holder, device) = Holder::start(HOLDER, &[dir.as_os_str(), size.as_ref()])
            .with_context(|| format!("cannot make the volume {}", dir.display()))?;
        let (dir, device) = (dir.to_owned(), PathBuf::from(device));
        let volume = Self { dir, device, holder: Some(holder), freezer: Mutex::new(None) };
        give_to_postgres(&volume.dir)?;
        Ok(volume)
    }

    /// Where it is mounted.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The block device that it is on.
    pub fn device(&self) -> &Path {
        &self.device
    }

    /// Mounts it on a host that was powered on before it was there.
    pub fn show(&self, host: &Host) -> Result<()> {
        host.mount(&self.device, &self.dir)
    }

    /// How much can be written.
    pub fn available(&self) -> Result<u64> {
        let found = statvfs(&self.dir)?;
        Ok(found.f_bavail * found.f_frsize)
    }

    /// Takes all the space that there is now. What was written and is not on disk yet has its space already;
    /// what is removed later, can be written again.
    pub fn fill(&self) -> Result<()> {
        self.fill_but(0)
    }

    /// Takes all the space but so many bytes.
    pub fn fill_but(&self, bytes: u64) -> Result<()> {
        let path = self.dir.join(BALLAST);
        let ballast = OpenOptions::new().create(true).append(true).open(&path)?;
        let (mut length, mut piece) = (ballast.metadata()?.len(), LARGEST_PIECE);
        loop {
            let wanted = self.available()?.saturating_sub(bytes).min(piece);
            if wanted == 0 {
                return Ok(());
            }
            match fallocate(&ballast, FallocateFlags::empty(), length, wanted) {
                Ok(()) => length += wanted,
                Err(Errno::NOSPC) if piece > BLOCK => piece /= 2,
                // What is left is what the file system needs for itself.
                Err(Errno::NOSPC) => return Ok(()),
                Err(error) => bail!("cannot fill {}: {error}", self.dir.display()),
            }
        }
    }

    /// Gives the space back.
    pub fn free(&self) -> Result<()> {
        fs::remove_file(self.dir.join(BALLAST)).context("the volume is not full")
    }

    /// Storage that does not answer: from now on who writes or syncs waits, and cannot be killed until it
    /// is thawed. So thaw it before something is killed or powered off that may be waiting. It thaws by
    /// itself after two minutes.
    pub fn freeze(&self) -> Result<()> {
        let mut freezer = self.freezer();
        ensure!(freezer.is_none(), "{} is frozen already", self.dir.display());
        let limit = FROZEN_LIMIT.as_secs().to_string();
        let (new, _) = Holder::start(FREEZER, &[self.dir.as_os_str(), limit.as_ref()])
            .with_context(|| format!("cannot freeze {}", self.dir.display()))?;
        *freezer = Some(new);
        Ok(())
    }

    /// Everybody goes on as if nothing had been.
    pub fn thaw(&self) -> Result<()> {
        let freezer = self.freezer().take();
        let mut freezer =
            freezer.with_context(|| format!("{} is not frozen", self.dir.display()))?;
        let thawed = freezer.has_ended()?;
        freezer.end()?;
        ensure!(!thawed, "{} has thawed before it was told to", self.dir.display());
        Ok(())
    }

    /// Whether it was frozen and not thawed.
    pub fn is_frozen(&self) -> bool {
        self.freezer().is_some()
    }

    /// What ext4 does when it meets an error on the disk: from now on nothing can be written, also to files
    /// that are open, and what was not synced before is lost. (A remount to read-only is refused while a file
    /// is open for writing.)
    pub fn read_only(&self) -> Result<()> {
        ensure!(!self.is_frozen(), "{} is frozen", self.dir.display());
        run(Command::new("mount").args(["-o", "remount,abort"]).arg(&self.dir))
    }

    /// What an operator does then: unmounts, repairs, mounts again. Nothing may work on it, no keeper may
    /// look for it, and a host that is on sees it only after it is shown to it again.
    pub fn read_write(&self) -> Result<()> {
        ensure!(!self.is_frozen(), "{} is frozen", self.dir.display());
        run(Command::new("umount").arg(&self.dir))?;
        // Other mounts of it go with the directory; see the head of this file.
        fs::remove_dir(&self.dir)?;
        fs::create_dir(&self.dir)?;
        run(Command::new("sh").args(["-c", REPAIR, "sh"]).arg(&self.device))?;
        run(Command::new("mount").args(["-t", "ext4"]).arg(&self.device).arg(&self.dir))
    }

    fn freezer(&self) -> MutexGuard<'_, Option<Holder>> {
        self.freezer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let freezer = self.freezer().take();
        for holder in freezer.into_iter().chain(self.holder.take()) {
            if let Err(error) = holder.end() {
                eprintln!("{} is not cleaned up: {error:#}", self.dir.display());
            }
        }
    }
}

/// A script that does something, says a word, waits until its standard input is closed, and undoes it.
#[derive(Debug)]
struct Holder {
    child: Child,
    line: ChildStdin,
}

impl Holder {
    /// Starts it and waits for its word.
    fn start(script: &str, arguments: &[&OsStr]) -> Result<(Self, String)> {
        let mut said = tempfile::tempfile()?;
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]).args(arguments).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(said.try_clone()?);
        let mut child = command.spawn().context("cannot run sh")?;
        let line = child.stdin.take().context("no standard input")?;
        let mut word = String::new();
        BufReader::new(child.stdout.take().context("no standard output")?).read_line(&mut word)?;
        let mut holder = Self { child, line };
        if word.is_empty() {
            let status = holder.child.wait()?;
            bail!("{status}: {}", text_of(&mut said)?);
        }
        Ok((holder, word.trim_end().to_owned()))
    }

    fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Tells it to undo what it has done, and waits for that.
    fn end(self) -> Result<()> {
        let Self { mut child, line } = self;
        drop(line);
        let began = Instant::now();
        while child.try_wait()?.is_none() {
            ensure!(began.elapsed() < LIMIT, "process {} does not end", child.id());
            // This runs where nothing can be awaited.
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

/// Runs a program to the end.
fn run(command: &mut Command) -> Result<()> {
    let mut said = tempfile::tempfile()?;
    command.stdin(Stdio::null()).stdout(said.try_clone()?).stderr(said.try_clone()?);
    let status = command.status().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(status.success(), "{command:?}: {status}: {}", text_of(&mut said)?);
    Ok(())
}

fn text_of(file: &mut File) -> Result<String> {
    let mut text = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).trim_end().to_owned())
}
