//! Sizes in bytes as people write them: `1048576`, `16kB`, `64MB`, `1GB`, the units in any case and of
//! 1024, as in PostgreSQL.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The units, greatest first, and by how many bits each is above a byte.
const UNITS: [(&str, u32); 5] = [("TB", 40), ("GB", 30), ("MB", 20), ("kB", 10), ("B", 0)];

/// So many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Size(pub u64);

/// Text that is no size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is not a size: write bytes, or a whole number with a unit, such as 64kB, 16MB or 1GB"
)]
pub struct InvalidSize(String);

impl FromStr for Size {
    type Err = InvalidSize;
    fn from_str(text: &str) -> Result<Self, InvalidSize> {
        let invalid = || InvalidSize(text.to_owned());
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let unit = unit.trim();
        let bits = match UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)) {
            Some((_, bits)) => *bits,
            None if unit.is_empty() => 0,
            None => return Err(invalid()),
        };
        let number: u64 = number.parse().map_err(|_| invalid())?;
        number.checked_mul(1 << bits).map(Self).ok_or_else(invalid)
    }
}

/// In the greatest unit of which it is a whole number.
impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |bits: &u32| self.0 != 0 && self.0.trailing_zeros() >= *bits;
        match UNITS.iter().find(|(_, bits)| *bits > 0 && whole(bits)) {
            Some((name, bits)) => write!(f, "{}{name}", self.0 >> bits),
            None => self.0.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Option<u64> {
        text.parse().ok().map(|Size(bytes)| bytes)
    }

    #[test]
    fn with_and_without_a_unit() {
        assert_eq!(bytes("0"), Some(0));
        assert_eq!(bytes("1048576"), Some(1 << 20));
        for text in ["16kB", "16KB", "16kb", "16 kB", "16384B"] {
            assert_eq!(bytes(text), Some(16 << 10), "{text}");
        }
        assert_eq!(bytes("10MB"), Some(10 << 20));
        assert_eq!(bytes("1gb"), Some(1 << 30));
        assert_eq!(bytes("2TB"), Some(2 << 40));
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for text in ["", "MB", "-1", "+1", "1.5MB", "10M", "10 parsecs", "0x10", "20000000TB"] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }

    #[test]
    fn shown_in_the_greatest_unit() {
        for text in ["0", "1000", "16kB", "1536kB", "16MB", "1GB", "3TB"] {
            assert_eq!(text.parse::<Size>().map(|size| size.to_string()), Ok(text.to_owned()));
        }
        assert_eq!(Size(1 << 20).to_string(), "1MB");
    }
}
