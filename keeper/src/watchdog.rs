//! The watchdog: a Linux device that resets the whole host unless it is written to in time
//! (Documentation/watchdog/watchdog-api.rst of the kernel). It is for what the guard cannot help: a host
//! or a keeper that is frozen, a Postgres that cannot be killed.
//!
//! What must hold: the device is armed, by being opened, only while this Postgres may take writes; a
//! thread of its own feeds it, which waits for no disk, no Postgres and no monitor; it is fed as long as
//! the right to serve holds, and not once that has ended with Postgres still there; it is disarmed by
//! the magic close when there is nothing to guard, and when the keeper ends as it should. A keeper that
//! is killed leaves it armed, and the next one feeds it at once. A device that does not work is a
//! warning, never a reason not to serve. Not here: the right itself ([`crate::guard`]); setting the
//! device's time, which takes an ioctl, hence `unsafe`.

mod device;

use crate::guard::Right;
use crate::steps::LONGEST_STOP;
use device::{Device, problem};
use postgres::postmaster::Postmaster;
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// The shortest time that a device can be set to is a second (they count in seconds): four times in that.
pub(crate) const FEED_EVERY: Duration = Duration::from_millis(250);
/// How often a device that is not open is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// There are two messages in all.
const MESSAGES: usize = 4;

enum Message {
    Attach(Right, watch::Receiver<Option<Postmaster>>),
    End,
}

/// The watchdog of this host. Dropped, it disarms the device, unless Postgres runs on without the right
/// to, or the keeper ends by a panic.
#[derive(Debug)]
pub struct Watchdog {
    messages: SyncSender<Message>,
    thread: Option<JoinHandle<()>>,
    warning: watch::Receiver<Option<String>>,
}

impl Watchdog {
    /// Begins to watch over the server of a data directory (canonical). `claim`: it may be running as a
    /// primary, which has so long to prove itself (docs/safety.md, rule 13); the device is armed at once,
    /// since the last keeper may have left it so.
    pub fn start(device: PathBuf, data_dir: PathBuf, claim: Option<Duration>) -> io::Result<Self> {
        let (messages, inbox) = sync_channel(MESSAGES);
        let (sender, warning) = watch::channel(None);
        let keeping = Keeping {
            device: Device::new(device),
            data_dir,
            claimed: claim.map(|claim| Instant::now() + claim),
            attached: None,
            stop: Stop::default(),
            warning: sender,
            looked: None,
        };
        let thread = std::thread::Builder::new().name("watchdog".to_owned());
        let thread = thread.spawn(move || keeping.run(&inbox))?;
        Ok(Self { messages, thread: Some(thread), warning })
    }

    /// From now on the right to serve counts, as the agent and the guard have it.
    pub fn attach(&self, right: Right, postmaster: watch::Receiver<Option<Postmaster>>) {
        self.send(Message::Attach(right, postmaster));
    }

    /// What a person should know.
    pub fn warning(&self) -> Option<String> {
        self.warning.borrow().clone()
    }

    fn send(&self, message: Message) {
        // Nobody is there to take it only where the thread has ended.
        drop(self.messages.try_send(message));
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        self.send(Message::End);
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            tracing::error!("the thread of the watchdog has panicked");
        }
    }
}

/// What is to be done with the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    /// Armed and fed.
    Fed,
    /// Neither fed nor disarmed: the host is to be reset if this goes on.
    Hungry,
    /// Disarmed.
    Off,
}

/// What is known when it is time to feed.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// Postgres may be taking writes.
    writable: bool,
    /// With the right to, or while a stop that began with it, or the first claim, is under way.
    excused: bool,
}

impl Seen {
    /// `remains`: whether any server process is left. Looked at only where it matters.
    fn wanted(self, remains: impl FnOnce() -> bool) -> Wanted {
        if !self.writable {
            Wanted::Off
        } else if self.excused {
            Wanted::Fed
        } else if remains() {
            Wanted::Hungry
        } else {
            Wanted::Off
        }
    }
}

/// A stop of Postgres that the keeper makes, as seen from outside: the postmaster is taken away from the
/// guard first. A planned one goes on after the lease has ended, for its checkpoint takes time.
#[derive(Debug, Default)]
struct Stop {
    was_running: bool,
    until: Option<Instant>,
}

impl Stop {
    fn look(&mut self, running: bool, holds: bool, now: Instant) -> bool {
        if running {
            self.until = None;
        } else if self.was_running && holds {
            self.until = Some(now + LONGEST_STOP);
        }
        self.was_running = running;
        self.until.is_some_and(|until| now < until)
    }
}

/// The thread.
struct Keeping {
    device: Device,
    data_dir: PathBuf,
    claimed: Option<Instant>,
    attached: Option<(Right, watch::Receiver<Option<Postmaster>>)>,
    stop: Stop,
    warning: watch::Sender<Option<String>>,
    looked: Option<Instant>,
}

impl Keeping {
    fn run(mut self, inbox: &Receiver<Message>) {
        loop {
            let wanted = self.wanted();
            self.obey(wanted);
            self.warn();
            match inbox.recv_timeout(FEED_EVERY) {
                Ok(Message::Attach(right, postmaster)) => self.attached = Some((right, postmaster)),
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Message::End) | Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        match self.wanted() {
            Wanted::Fed | Wanted::Off => self.device.disarm(),
            Wanted::Hungry => tracing::error!(
                "postgres runs on without the right to serve: the watchdog stays armed"
            ),
        }
    }

    fn wanted(&mut self) -> Wanted {
        let seen = self.see();
        let data_dir = &self.data_dir;
        seen.wanted(|| !postgres::process::postgres_in(data_dir).is_empty())
    }

    fn see(&mut self) -> Seen {
        let now = Instant::now();
        let claimed = self.claimed.is_some_and(|until| now < until);
        let Some((right, postmaster)) = &self.attached else {
            return Seen { writable: self.claimed.is_some(), excused: claimed };
        };
        let holds = right.holds();
        let stopping = self.stop.look(postmaster.borrow().is_some(), holds, now);
        match right.duty() {
            None => Seen { writable: self.claimed.is_some(), excused: holds || claimed },
            Some(duty) => Seen { writable: duty.writable, excused: holds || stopping },
        }
    }

    fn obey(&mut self, wanted: Wanted) {
        match wanted {
            Wanted::Fed => self.device.feed(),
            // Once opened it could only be left to reset a host that is well.
            Wanted::Off if self.device.is_for_ever() => self.device.feed(),
            Wanted::Off => self.device.disarm(),
            Wanted::Hungry => self.device.starve(),
        }
    }

    fn warn(&mut self) {
        let now = Instant::now();
        if self.looked.is_none_or(|at| now.duration_since(at) >= LOOK_EVERY) {
            self.device.look();
            self.looked = Some(now);
        }
        let timers = self.attached.as_ref().and_then(|(right, _)| right.duty()?.timers);
        let text = self.device.trouble().or_else(|| problem(&self.device.facts(), timers.as_ref()));
        let text = text.map(|text| format!("the watchdog {}: {text}", self.device.name()));
        let Some(shown) = &text else {
            self.warning.send_replace(None);
            return;
        };
        if self.warning.borrow().as_ref() != Some(shown) {
            tracing::warn!("{shown}");
            self.warning.send_replace(text);
        }
    }
}

#[cfg(test)]
mod tests;
