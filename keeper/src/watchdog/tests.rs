//! With a file that stands for the device.

use super::device::{Facts, problem};
use super::{FEED_EVERY, Seen, Stop, Wanted, Watchdog};
use crate::clock;
use crate::guard::{Duty, Right};
use crate::steps::LONGEST_STOP;
use shared::goal::Order;
use shared::ids::{Gen, Ticket};
use shared::report::Lease;
use shared::settings::Settings;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::sync::watch;

const LIMIT: Duration = Duration::from_secs(10);

struct Fake {
    dir: tempfile::TempDir,
}

impl Fake {
    fn new() -> Self {
        let fake = Self { dir: tempfile::tempdir().unwrap() };
        fs::write(fake.path(), "").unwrap();
        fake
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("watchdog")
    }

    fn text(&self) -> String {
        fs::read_to_string(self.path()).unwrap()
    }

    fn becomes(&self, what: &str, holds: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + LIMIT;
        while !holds(&self.text()) {
            assert!(Instant::now() < deadline, "not {what}: {:?}", self.text());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn is_fed(&self) {
        let before = self.text().len();
        self.becomes("fed", |text| text.len() > before + 1 && text.ends_with('.'));
    }

    /// For longer than two feeds are apart.
    fn stays(&self) {
        let before = self.text();
        std::thread::sleep(FEED_EVERY * 3);
        assert_eq!(self.text(), before);
    }

    /// Over a directory that has no server, or this process's own, which the test poses as one.
    fn watchdog(&self, claim: Option<Duration>) -> Watchdog {
        Watchdog::start(self.path(), self.dir.path().to_owned(), claim).unwrap()
    }
}

fn grant(right: &Right, ms: u64) {
    let order = Order { ticket: Ticket(1), generation: Gen(1) };
    right.update(|tenure| tenure.grant(Some(Lease::For { ms }), order, clock::now()));
}

/// Waits for the end of the right, and for a feed that was under way.
fn ends(right: &Right) {
    while right.holds() {
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(FEED_EVERY);
}

fn duty(writable: bool) -> Duty {
    Duty { writable, ..Duty::default() }
}

#[test]
fn a_primary_feeds_and_a_standby_does_not() {
    let fake = Fake::new();
    let watchdog = fake.watchdog(None);
    fake.stays();
    let right = Right::default();
    let (_postmaster, running) = watch::channel(None);
    watchdog.attach(right.clone(), running);
    right.set_duty(duty(false));
    fake.stays();
    assert_eq!(fake.text(), "");
    grant(&right, 60_000);
    right.set_duty(duty(true));
    fake.is_fed();
    right.set_duty(duty(false));
    fake.becomes("disarmed", |text| text.ends_with('V'));
    fake.stays();
    right.set_duty(duty(true));
    fake.is_fed();
    drop(watchdog);
    fake.becomes("disarmed", |text| text.ends_with('V'));
}

/// The right has ended, and nothing of Postgres is left.
#[test]
fn a_fence_that_worked_disarms() {
    let fake = Fake::new();
    let watchdog = fake.watchdog(None);
    let right = Right::default();
    let (_postmaster, running) = watch::channel(None);
    watchdog.attach(right.clone(), running);
    grant(&right, 2000);
    right.set_duty(duty(true));
    fake.is_fed();
    fake.becomes("disarmed", |text| text.ends_with('V'));
}

/// A process that cannot be ended stays for ever: here one that is called like the server.
#[test]
fn a_fence_that_hangs_is_not_fed_and_stays_armed() {
    let fake = Fake::new();
    let program = fake.dir.path().join("postgres");
    fs::copy("/bin/sleep", &program).unwrap();
    let mut child = std::process::Command::new(&program)
        .arg("60")
        .current_dir(fake.dir.path())
        .spawn()
        .unwrap();
    let data_dir = fs::canonicalize(fake.dir.path()).unwrap();
    let watchdog = Watchdog::start(fake.path(), data_dir, None).unwrap();
    let right = Right::default();
    let (_postmaster, running) = watch::channel(None);
    watchdog.attach(right.clone(), running);
    grant(&right, 2000);
    right.set_duty(duty(true));
    fake.is_fed();
    ends(&right);
    fake.stays();
    // A right that is back feeds again; its end, and that of the keeper, leave it armed.
    grant(&right, 2000);
    fake.is_fed();
    ends(&right);
    fake.stays();
    drop(watchdog);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(fake.text().chars().all(|c| c == '.'), "{}", fake.text());
}

/// A keeper that comes back feeds what the last one has left armed, for as long as its first claim.
#[test]
fn a_restart_feeds_at_once() {
    let fake = Fake::new();
    let watchdog = fake.watchdog(Some(Duration::from_secs(1)));
    fake.is_fed();
    fake.becomes("disarmed", |text| text.ends_with('V'));
    drop(watchdog);
    let watchdog = fake.watchdog(Some(Duration::from_mins(1)));
    fake.is_fed();
    let (_postmaster, running) = watch::channel(None);
    let right = Right::default();
    watchdog.attach(right.clone(), running);
    fake.is_fed();
    right.set_duty(duty(false));
    fake.becomes("disarmed", |text| text.ends_with('V'));
}

#[test]
fn a_device_that_cannot_be_opened_is_a_warning() {
    let fake = Fake::new();
    let missing = fake.dir.path().join("none");
    let watchdog =
        Watchdog::start(missing.clone(), fake.dir.path().to_owned(), Some(LIMIT)).unwrap();
    let deadline = Instant::now() + LIMIT;
    let warning = loop {
        assert!(Instant::now() < deadline, "no warning");
        if let Some(warning) = watchdog.warning() {
            break warning;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    assert!(warning.contains("none: it cannot be used"), "{warning}");
    // It is there later.
    fs::write(&missing, "").unwrap();
    while watchdog.warning().is_some() {
        assert!(Instant::now() < deadline, "{:?}", watchdog.warning());
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn only_an_unexcused_primary_that_is_there_goes_hungry() {
    let wanted = |writable, excused, remains| Seen { writable, excused }.wanted(|| remains);
    for remains in [false, true] {
        assert_eq!(wanted(false, false, remains), Wanted::Off);
        assert_eq!(wanted(false, true, remains), Wanted::Off);
        assert_eq!(wanted(true, true, remains), Wanted::Fed);
    }
    assert_eq!(wanted(true, false, true), Wanted::Hungry);
    assert_eq!(wanted(true, false, false), Wanted::Off);
}

/// The checkpoint of a planned stop may take longer than the lease; a stop that is made because the
/// lease has ended, or that never ends, is no excuse.
#[test]
fn a_stop_that_began_with_the_right_is_an_excuse() {
    let now = Instant::now();
    let mut stop = Stop::default();
    assert!(!stop.look(true, true, now));
    assert!(stop.look(false, true, now));
    assert!(stop.look(false, false, now + LONGEST_STOP / 2));
    assert!(!stop.look(false, false, now + LONGEST_STOP));
    assert!(!stop.look(true, true, now));
    assert!(!stop.look(false, false, now));
    assert!(!stop.look(false, true, now));
}

fn facts(dir: &Path, files: &[(&str, &str)]) -> Facts {
    for (name, content) in files {
        fs::write(dir.join(name), content).unwrap();
    }
    Facts::read_in(dir)
}

#[test]
fn a_time_out_that_does_not_fit_is_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let timers = Settings::default().timers();
    let problem = |facts: &Facts| problem(facts, Some(&timers)).unwrap_or_default();
    let unknown = facts(dir.path(), &[]);
    assert!(problem(&unknown).contains("cannot be read from /sys"), "{}", problem(&unknown));
    assert!(problem(&unknown).contains("2500 ms"));
    let short = facts(dir.path(), &[("timeout", "2\n"), ("nowayout", "0\n")]);
    assert_eq!(short, Facts { timeout: Some(Duration::from_secs(2)), nowayout: false });
    assert_eq!(problem(&short), "");
    let long = facts(dir.path(), &[("timeout", "60\n")]);
    assert!(problem(&long).contains("(60000 ms) is longer than"), "{}", problem(&long));
    let stubborn = facts(dir.path(), &[("timeout", "2\n"), ("nowayout", "1\n")]);
    assert!(problem(&stubborn).contains("nowayout"));
    // No device at all.
    assert_eq!(Facts::read(dir.path(), Path::new("/sys")), Facts::default());
}
