//! The clock that leases are measured on: `CLOCK_BOOTTIME`, which goes on while the machine sleeps.

use fsm::Millis;

/// Now.
pub fn now() -> Millis {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    let nanos = u64::try_from(time.tv_nsec).unwrap_or_default();
    Millis(seconds.saturating_mul(1000).saturating_add(nanos / 1_000_000))
}
