//! The client of the monitor's HTTP API. The operator's command `pgtandem` (this package's binary)
//! and the keepers use it.
//!
//! It carries requests and answers; it decides nothing and stores nothing. The types that travel are
//! those of `shared`.

pub mod client;
