//! Log positions: a WAL location, and a location together with the epoch of the record before it.

use crate::ids::Epoch;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A WAL location in bytes, written as PostgreSQL writes it (`16/B374D848`), also in JSON.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    /// The bytes from `other` up to this location; 0 where `other` is ahead.
    pub fn bytes_since(self, other: Self) -> u64 {
        self.0.saturating_sub(other.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Text that is no WAL location.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a WAL location such as 0/3000060")]
pub struct InvalidLsn(String);

impl FromStr for Lsn {
    type Err = InvalidLsn;
    fn from_str(text: &str) -> Result<Self, InvalidLsn> {
        let invalid = || InvalidLsn(text.to_owned());
        let (high, low) = text.split_once('/').ok_or_else(invalid)?;
        let part = |digits| u32::from_str_radix(digits, 16).map_err(|_| invalid());
        Ok(Self(u64::from(part(high)?) << 32 | u64::from(part(low)?)))
    }
}

impl Serialize for Lsn {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Lsn {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Where a log ends: the epoch of its last record, then the location up to which WAL is on disk,
/// compared in that order (rule 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// The epoch whose segment of the node's own history contains `lsn`.
    pub epoch: Epoch,
    /// The end of WAL on disk.
    pub lsn: Lsn,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "epoch {} at {}", self.epoch, self.lsn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn text_round_trips(value: u64) {
            prop_assert_eq!(Lsn(value).to_string().parse(), Ok(Lsn(value)));
        }
    }

    #[test]
    fn refuses_what_postgres_refuses() {
        for text in ["", "0", "/", "0/", "/0", "G/0", "0/100000000", "0/0/0"] {
            assert!(text.parse::<Lsn>().is_err(), "{text}");
        }
    }
}
