//! Secrets: how they are made and compared.

use rand::RngExt as _;
use std::fmt::Write as _;

/// 256 random bits, as text that needs no quoting anywhere.
pub fn generate() -> String {
    let bytes: [u8; 32] = rand::rng().random();
    hex(&bytes)
}

/// A short random name, for things that people have to type.
pub fn short_id() -> String {
    let bytes: [u8; 6] = rand::rng().random();
    hex(&bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Compares without telling by its duration where the difference lies.
pub fn equal(given: &str, kept: &str) -> bool {
    given.len() == kept.len()
        && given.bytes().zip(kept.bytes()).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_differ_and_compare() {
        let (one, other) = (generate(), generate());
        assert_eq!(one.len(), 64);
        assert!(equal(&one, &one) && !equal(&one, &other) && !equal(&one, &one[1..]));
    }
}
