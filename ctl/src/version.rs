//! `--version`.

use crate::failure::Failure;
use crate::output;
use serde::Serialize;

/// The newest migration that this version's monitor applies.
const SCHEMA: i64 = 1;

#[derive(Serialize)]
struct Version {
    name: &'static str,
    product: &'static str,
    protocol: u32,
    schema: i64,
}

/// Prints the versions.
pub fn print(as_json: bool) -> Result<(), Failure> {
    let version = Version {
        name: "pgtandem",
        product: env!("CARGO_PKG_VERSION"),
        protocol: shared::PROTOCOL,
        schema: SCHEMA,
    };
    if as_json {
        return output::json(&version);
    }
    let Version { name, product, protocol, schema } = version;
    output::text(&format!("{name} {product} (protocol {protocol}, schema {schema})"))
}
