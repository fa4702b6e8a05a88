//! The guard: stops a primary whose right to serve has ended (docs/safety.md, rule 12).
//!
//! A task of its own that never waits for the disk, for Postgres or for the monitor: whatever the
//! agent is busy with, the lease is kept. It stops at once, never letting sessions finish, and kills
//! what does not end.

use crate::clock;
use fsm::Millis;
use fsm::node::lease::Tenure;
use postgres::postmaster::{Postmaster, Signal};
use shared::ids::{Epoch, NodeId};
use shared::settings::Timers;
use shared::spec::Spec;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// Looks within a lease.
const TICKS: u64 = 8;

/// How long an immediate stop may take before the processes are killed.
const PATIENCE: Duration = Duration::from_millis(500);

/// What the agent knows of the running Postgres, for the guard.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Duty {
    /// It may be taking writes.
    pub writable: bool,
    /// The epoch whose primary it is, while its server is ready for sessions; under a lease, what the server
    /// does not answer changes nothing of that.
    pub reign: Option<Epoch>,
    /// The spec whose barrier has been passed.
    pub in_force: Option<Spec>,
    /// The formation's lease.
    pub lease_ms: u64,
    /// No lease is needed: commits wait for nobody, and an operator has said that the monitor is lost.
    pub suspended: bool,
    /// All of the formation's timers, once they are known.
    pub timers: Option<Timers>,
}

/// The right to serve, shared by the link (leases), the agent (proofs) and the guard.
#[derive(Clone, Debug)]
pub struct Right {
    tenure: Arc<Mutex<Tenure>>,
    changed: Arc<Notify>,
    /// None before the agent's first look.
    duty: watch::Sender<Option<Duty>>,
    /// Counts the primaries that were stopped.
    fences: watch::Sender<u64>,
    /// The process id of the last one that was, or is being, stopped.
    fenced: watch::Sender<Option<i32>>,
}

impl Default for Right {
    fn default() -> Self {
        Self {
            tenure: Arc::default(),
            changed: Arc::default(),
            duty: watch::Sender::new(None),
            fences: watch::Sender::new(0),
            fenced: watch::Sender::new(None),
        }
    }
}

impl Right {
    /// Changes what is known of it.
    pub fn update(&self, change: impl FnOnce(&mut Tenure)) {
        change(&mut self.lock());
        self.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Tenure> {
        self.tenure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the agent sees.
    pub fn set_duty(&self, duty: Duty) {
        self.duty.send_if_modified(|before| {
            let duty = Some(duty);
            let changed = *before != duty;
            *before = duty;
            changed
        });
        self.changed.notify_one();
    }

    /// What the agent saw last; `None` before its first look.
    pub fn duty(&self) -> Option<Duty> {
        self.duty.borrow().clone()
    }

    /// Counts the primaries that the guard has stopped.
    pub fn fences(&self) -> watch::Receiver<u64> {
        self.fences.subscribe()
    }

    /// The postmaster that the guard stops, or has stopped last.
    pub fn fenced(&self) -> Option<i32> {
        *self.fenced.borrow()
    }

    fn writable(&self) -> bool {
        self.duty.borrow().as_ref().is_some_and(|duty| duty.writable)
    }

    /// Until when a primary may serve; `None`: without limit.
    pub fn until(&self) -> Option<Millis> {
        let duty = self.duty().unwrap_or_default();
        if duty.suspended {
            return None;
        }
        self.lock().until(duty.in_force.as_ref(), duty.lease_ms)
    }

    /// When a primary that serves has to be stopped; `woke` as for [`Tenure::fence_at`].
    fn fence_at(&self, woke: Option<Millis>) -> Option<Millis> {
        let duty = self.duty().unwrap_or_default();
        if duty.suspended {
            return None;
        }
        self.lock().fence_at(duty.in_force.as_ref(), duty.lease_ms, woke)
    }

    /// Whether a primary may serve now.
    pub fn holds(&self) -> bool {
        self.until().is_none_or(|until| clock::now() < until)
    }

    /// Whether the standbys prove it now.
    pub fn is_proven(&self) -> bool {
        let duty = self.duty().unwrap_or_default();
        self.lock().is_proven(duty.in_force.as_ref(), duty.lease_ms, clock::now())
    }

    /// Whether clients may be sent to a primary that these standbys stream from.
    pub fn is_backed(&self, in_force: Option<&Spec>, streaming: &BTreeSet<NodeId>) -> bool {
        self.lock().is_backed(in_force, streaming, clock::now())
    }

    /// Whether the monitor has granted a lease that still runs.
    pub fn is_granted(&self) -> bool {
        self.lock().is_granted(clock::now())
    }

    /// Whether an operator's word stands in for a lease.
    pub fn is_suspended(&self) -> bool {
        self.duty.borrow().as_ref().is_some_and(|duty| duty.suspended)
    }

    /// Whether a primary that serves will soon have no right to, unless somebody is heard: less than half a
    /// lease is left.
    pub fn runs_out(&self) -> bool {
        let half = self.duty().unwrap_or_default().lease_ms / 2;
        let soon = self.until().is_some_and(|until| until.since(clock::now()) < half);
        self.writable() && soon
    }

    /// Whether this node serves as the primary with the right to.
    pub fn serves(&self) -> bool {
        self.writable() && self.holds()
    }

    /// The epoch whose primary it is, with the right to serve and ready for sessions.
    pub fn reign(&self) -> Option<Epoch> {
        let reign = self.duty.borrow().as_ref().and_then(|duty| duty.reign);
        reign.filter(|_| self.serves())
    }
}

/// Watches for ever.
pub async fn run(right: Right, postmaster: watch::Receiver<Option<Postmaster>>) {
    let mut sleep = Sleep::default();
    loop {
        let changed = right.changed.notified();
        let now = clock::now();
        sleep.look(&right, now);
        match right.fence_at(sleep.woke) {
            Some(at) if right.writable() && now >= at => {
                let running = postmaster.borrow().clone();
                if let Some(running) = running.filter(Postmaster::is_alive) {
                    right.fenced.send_replace(Some(running.pid()));
                    fence(&running).await;
                    right.fences.send_modify(|count| *count += 1);
                }
                changed.await;
            }
            Some(at) if right.writable() => {
                // CLOCK_BOOTTIME went on if the machine slept: the loop looks again at every wake-up.
                let left = at.since(now).clamp(1, sleep.tick_ms);
                drop(tokio::time::timeout(Duration::from_millis(left), changed).await);
            }
            Some(_) | None => changed.await,
        }
    }
}

/// Whether this process, or the machine, was stopped when the right to serve ended.
#[derive(Debug)]
struct Sleep {
    looked: Millis,
    /// Between two looks at most, as long as it is awake and serves.
    tick_ms: u64,
    /// When it woke and the right had ended meanwhile; until there is one again.
    woke: Option<Millis>,
}

impl Default for Sleep {
    fn default() -> Self {
        Self { looked: clock::now(), tick_ms: 1, woke: None }
    }
}

impl Sleep {
    fn look(&mut self, right: &Right, now: Millis) {
        let overslept = now.since(self.looked) > self.tick_ms.saturating_mul(2);
        let ended = right.writable() && !right.holds();
        if !ended {
            self.woke = None;
        } else if overslept && self.woke.is_none() {
            self.woke = Some(now);
            tracing::warn!(
                duration_ms = now.since(self.looked),
                "the keeper was stopped for {} ms, for longer than its lease: it asks whether this still is the primary",
                now.since(self.looked)
            );
        }
        self.looked = now;
        self.tick_ms = (right.duty().unwrap_or_default().lease_ms / TICKS).max(1);
    }
}

async fn fence(postmaster: &Postmaster) {
    tracing::error!(
        pid = postmaster.pid(),
        "the lease has run out and no standby proves that this still is the primary: postgres is stopped at once"
    );
    let stages = [(Signal::ImmediateStop, PATIENCE), (Signal::Kill, Duration::from_secs(5))];
    if let Err(error) = postmaster.stop(&stages).await {
        tracing::error!("postgres could not be stopped: {error}");
    }
}
