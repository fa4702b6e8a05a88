//! The monitor's clocks: `CLOCK_BOOTTIME`, which goes on while the machine sleeps, for durations, and
//! UTC for people. The only place of this crate that reads them for a decision.

use chrono::{SubsecRound as _, Utc};
use fsm::{Millis, Now};
use rustix::time::{ClockId, clock_gettime};
use shared::Timestamp;

/// The time on the monotonic clock.
pub fn millis() -> Millis {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    Millis(seconds.saturating_mul(1000).saturating_add(nanos / 1_000_000))
}

/// The time for people, in microseconds: what the database keeps.
pub fn wall() -> Timestamp {
    Utc::now().trunc_subsecs(6)
}

/// Both.
pub fn now() -> Now {
    Now { mono: millis(), wall: wall() }
}
