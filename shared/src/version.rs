//! What `--version` says, of all three programs.

use serde::Serialize;
use std::fmt;

/// The newest migration of the monitor's schema.
pub const SCHEMA: i64 = 1;

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

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, product, protocol, schema } = self;
        write!(f, "{name} {product} (protocol {protocol}, schema {schema})")
    }
}
