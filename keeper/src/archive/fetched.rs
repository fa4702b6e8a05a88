//! What PostgreSQL has got from the archive, as its gate saw it.

use fsm::Millis;

/// What has come from the archive: segments, since histories are asked for only in case there are any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    /// How many have.
    pub delivered: u64,
    /// One is being fetched.
    pub busy: bool,
    /// Since when none has.
    pub no_since: Option<Millis>,
    /// When that was said last.
    pub no_at: Option<Millis>,
    /// And that was since it failed.
    pub fails: bool,
}

impl Fetched {
    /// One has come.
    pub(crate) fn has_come(&mut self) {
        *self = Self { delivered: self.delivered + 1, ..Self::default() };
    }

    /// None has: the archive has none, or it cannot be said.
    pub(crate) fn has_not(&mut self, fails: bool, now: Millis) {
        self.busy = false;
        if self.fails != fails {
            self.no_since = None;
        }
        self.fails = fails;
        self.no_since.get_or_insert(now);
        self.no_at = Some(now);
    }
}
