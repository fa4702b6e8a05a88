//! The exit codes, which scripts rely on.

use shared::api::Outcome;

/// How the command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Done,
    BadArguments,
    Configuration,
    /// Refused by a rule.
    Refused,
    /// The monitor cannot be reached.
    Unreachable,
    /// The request stays recorded and goes on.
    TimedOut,
    /// Try again.
    Busy,
    PostgresFailed,
    Internal,
}

impl Exit {
    const FAILURES: [Self; 8] = [
        Self::BadArguments,
        Self::Configuration,
        Self::Refused,
        Self::Unreachable,
        Self::TimedOut,
        Self::Busy,
        Self::PostgresFailed,
        Self::Internal,
    ];

    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::BadArguments => 1,
            Self::Configuration => 2,
            Self::Refused => 3,
            Self::Unreachable => 4,
            Self::TimedOut => 5,
            Self::Busy => 6,
            Self::PostgresFailed => 7,
            Self::Internal => 8,
        }
    }

    /// For the code of an error that the monitor sent. An error never ends in success.
    pub fn of_error(code: u8) -> Self {
        let known = Self::FAILURES.into_iter().find(|exit| exit.code() == code);
        known.unwrap_or(Self::Internal)
    }

    /// For an operation's outcome.
    pub fn of_outcome(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Done | Outcome::Accepted => Self::Done,
            Outcome::Refused | Outcome::Failed => Self::Refused,
            Outcome::Timeout => Self::TimedOut,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_the_interface() {
        for (index, exit) in Exit::FAILURES.into_iter().enumerate() {
            assert_eq!(usize::from(exit.code()), index + 1);
            assert_eq!(Exit::of_error(exit.code()), exit);
        }
        assert_eq!(Exit::Done.code(), 0);
        assert_eq!([0, 9, 255].map(Exit::of_error), [Exit::Internal; 3]);
    }

    #[test]
    fn outcomes_map_to_codes() {
        let code = |outcome| Exit::of_outcome(outcome).code();
        assert_eq!(code(Outcome::Done), 0);
        assert_eq!(code(Outcome::Accepted), 0);
        assert_eq!(code(Outcome::Refused), 3);
        assert_eq!(code(Outcome::Failed), 3);
        assert_eq!(code(Outcome::Timeout), 5);
    }
}
