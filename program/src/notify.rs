//! The line to the service manager (`sd_notify(3)`): that the program is ready, that it is alive, that
//! it is stopping. Without a service manager nothing happens.
//!
//! What must hold: "alive" is said by the program's main loop and by nobody else, so that one that hangs
//! is killed and started again; a step that takes long is no hang, up to a limit.

use sd_notify::NotifyState;
use std::time::{Duration, Instant};

/// A sign of life that is lost or late costs nothing: so many of them are due before the time is up.
const SIGNS: u32 = 4;
/// How often the loop has to come by where no service manager waits for a sign.
const IDLE: Duration = Duration::from_mins(1);

/// The line.
#[derive(Debug)]
pub struct Line {
    /// How often a sign of life is due, if at all.
    every: Option<Duration>,
    sent: Option<Instant>,
    ready: bool,
    stopping: bool,
    status: String,
}

impl Line {
    /// What the service manager has left in the environment.
    pub fn open() -> Self {
        let every = sd_notify::watchdog_enabled().map(|limit| limit / SIGNS);
        Self { every, sent: None, ready: false, stopping: false, status: String::new() }
    }

    /// How long the main loop may wait before it says again that it is alive.
    pub fn pause(&self) -> Duration {
        self.every.unwrap_or(IDLE)
    }

    /// The program does from now on what it is there for, and `status` is how it is, in a few words.
    pub fn ready(&mut self, status: &str) {
        if !self.ready {
            self.ready = true;
            tell(&NotifyState::Ready);
        }
        if self.status != status {
            status.clone_into(&mut self.status);
            tell(&NotifyState::Status(status));
        }
    }

    /// The main loop goes round.
    pub fn alive(&mut self) {
        let Some(every) = self.every else { return };
        let now = Instant::now();
        // The loop comes by as often as it likes; a little early is better than late.
        if self.sent.is_none_or(|sent| now.duration_since(sent) >= every / 2) {
            self.sent = Some(now);
            tell(&NotifyState::Watchdog);
        }
    }

    /// The program has been told to end.
    pub fn stopping(&mut self) {
        if !self.stopping {
            self.stopping = true;
            tell(&NotifyState::Stopping);
        }
    }

    /// Waits for something that the main loop does, and says meanwhile that it is alive; only for so long
    /// as it may take.
    pub async fn alive_during<T>(&mut self, limit: Duration, work: impl Future<Output = T>) -> T {
        let began = Instant::now();
        let mut work = Box::pin(work);
        loop {
            match tokio::time::timeout(self.pause(), &mut work).await {
                Ok(done) => return done,
                Err(_) if began.elapsed() < limit => self.alive(),
                Err(_) => {}
            }
        }
    }
}

fn tell(state: &NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(std::slice::from_ref(state)) {
        tracing::debug!("the service manager cannot be told {state}: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(every: Duration) -> Line {
        let status = String::new();
        Line { every: Some(every), sent: None, ready: false, stopping: false, status }
    }

    #[test]
    fn signs_are_no_more_frequent_than_needed() {
        let mut line = line(Duration::from_hours(1));
        line.alive();
        let first = line.sent;
        assert!(first.is_some());
        line.alive();
        assert_eq!(line.sent, first);
    }

    #[tokio::test]
    async fn what_takes_long_is_no_hang_up_to_a_limit() {
        let signs = async |limit| {
            let mut line = line(Duration::from_millis(1));
            line.alive_during(limit, tokio::time::sleep(Duration::from_millis(50))).await;
            line.sent
        };
        assert!(signs(Duration::from_hours(1)).await.is_some());
        assert_eq!(signs(Duration::ZERO).await, None);
    }
}
