//! Whether the local Postgres and its storage still do what they are asked: a process that stands still
//! and a disk that swallows writes neither end nor complain.
//!
//! Silence counts from the first question that got no answer, so that one that was short says nothing.

use crate::Millis;

/// Questions to one thing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pulse {
    /// When the oldest question without a good answer was asked.
    asked: Option<Millis>,
    /// What was said instead of a good answer.
    complaint: Option<String>,
}

impl Pulse {
    /// A question goes out.
    pub fn ask(&mut self, now: Millis) {
        self.asked.get_or_insert(now);
    }

    /// A good answer has come, or nobody is there to be asked.
    pub fn well(&mut self) {
        *self = Self::default();
    }

    /// An answer has come that is none.
    pub fn complained(&mut self, complaint: String) {
        self.complaint = Some(complaint);
    }

    fn silence(&self, now: Millis, patience_ms: u64) -> Option<u64> {
        let silence = now.since(self.asked?);
        (silence >= patience_ms).then_some(silence)
    }
}

/// What is asked of a node that runs Postgres.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vitals {
    /// New connections to Postgres.
    pub postgres: Pulse,
    /// Writes to its directories, down to the disk.
    pub storage: Pulse,
}

impl Vitals {
    /// Who asks was stopped meanwhile: what was not heard then says nothing.
    pub fn woke(&mut self, now: Millis) {
        for pulse in [&mut self.postgres, &mut self.storage] {
            pulse.asked = pulse.asked.map(|_| now);
        }
    }

    /// When the oldest question was asked that has not been answered well.
    pub fn silent_since(&self) -> Option<Millis> {
        [self.postgres.asked, self.storage.asked].into_iter().flatten().min()
    }

    /// Why Postgres cannot serve here, in a sentence, if that is so.
    pub fn ailment(&self, now: Millis, patience_ms: u64) -> Option<String> {
        let because = |pulse: &Pulse| {
            let complaint = pulse.complaint.as_ref();
            complaint.map(|complaint| format!(": {complaint}")).unwrap_or_default()
        };
        // Postgres stands still as well where its disk does, so that comes first.
        if let Some(ms) = self.storage.silence(now, patience_ms) {
            let why = because(&self.storage);
            return Some(format!("its storage has not finished a write for {ms} ms{why}"));
        }
        let ms = self.postgres.silence(now, patience_ms)?;
        let why = because(&self.postgres);
        Some(format!("its postgres has not answered a new connection for {ms} ms{why}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_counts_from_the_first_question_without_an_answer() {
        let mut vitals = Vitals::default();
        vitals.postgres.ask(Millis(1000));
        vitals.postgres.ask(Millis(3500));
        assert_eq!(vitals.ailment(Millis(3999), 3000), None);
        let ailment = vitals.ailment(Millis(4000), 3000).unwrap();
        assert_eq!(ailment, "its postgres has not answered a new connection for 3000 ms");
        vitals.postgres.well();
        assert_eq!(vitals.ailment(Millis(9000), 3000), None);
        vitals.postgres.ask(Millis(9000));
        assert_eq!(vitals.ailment(Millis(9500), 3000), None);
    }

    #[test]
    fn the_disk_explains_more_than_the_server_on_it() {
        let mut vitals = Vitals::default();
        vitals.postgres.ask(Millis(0));
        vitals.storage.ask(Millis(500));
        vitals.storage.complained("Read-only file system".to_owned());
        let ailment = vitals.ailment(Millis(5000), 3000).unwrap();
        assert_eq!(
            ailment,
            "its storage has not finished a write for 4500 ms: Read-only file system"
        );
        assert_eq!(vitals.silent_since(), Some(Millis(0)));
    }

    #[test]
    fn a_keeper_that_was_stopped_blames_nobody_for_it() {
        let mut vitals = Vitals::default();
        vitals.postgres.ask(Millis(1000));
        vitals.woke(Millis(60_000));
        assert_eq!(vitals.ailment(Millis(60_000), 3000), None);
        assert!(vitals.ailment(Millis(63_000), 3000).is_some());
    }
}
