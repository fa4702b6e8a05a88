//! What `--version` says, of all three programs.

use serde::Serialize;
use std::fmt;

/// The newest migration of the monitor's schema.
pub const SCHEMA: i64 = 2;

/// A program and what it speaks.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Version {
    /// The program.
    pub name: &'static str,
    /// Of the product: `x.y.z`.
    pub product: &'static str,
    /// [`crate::PROTOCOL`].
    pub protocol: u32,
    /// [`SCHEMA`].
    pub schema: i64,
}

impl Version {
    /// The version of a program of this build.
    pub const fn of(name: &'static str) -> Self {
        let product = env!("CARGO_PKG_VERSION");
        Self { name, product, protocol: crate::PROTOCOL, schema: SCHEMA }
    }
}

/// Whether a monitor that speaks `monitor` serves a keeper that speaks `keeper`: the same protocol, or
/// the one before. So the monitor is upgraded first, and then one keeper after the other.
pub const fn serves(monitor: u32, keeper: u32) -> bool {
    keeper <= monitor && monitor - keeper <= 1
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, product, protocol, schema } = self;
        write!(f, "{name} {product} (protocol {protocol}, schema {schema})")
    }
}

#[cfg(test)]
mod tests {
    use super::serves;

    #[test]
    fn a_monitor_serves_its_own_protocol_and_the_one_before() {
        assert!(serves(0, 0) && serves(1, 0) && serves(7, 7) && serves(7, 6));
        assert!(!serves(7, 5) && !serves(7, 0) && !serves(7, 8) && !serves(0, 1));
        assert!(serves(u32::MAX, u32::MAX) && !serves(u32::MAX, 0));
    }
}
