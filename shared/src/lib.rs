//! The words that the monitor, the keepers and the operator's command have in common: identifiers,
//! log positions, synchronous-replication specs, goals, reports, settings and the wire types of the
//! monitor's HTTP API.
//!
//! Nothing here decides anything (that is the `fsm` crate) and nothing here reads a clock, a file or
//! a socket. The terms are those of `docs/safety.md`.

pub mod api;
pub mod event;
pub mod goal;
pub mod history;
pub mod host;
pub mod ids;
pub mod lsn;
pub mod pgsettings;
pub mod report;
pub mod settings;
pub mod size;
pub mod spec;
pub mod state;
pub mod version;

/// Wall-clock time, as shown to people and stored in events. Never used to measure a duration.
pub type Timestamp = chrono::DateTime<chrono::Utc>;

/// A length of wall-clock time, for arithmetic on [`Timestamp`].
pub type Span = chrono::Duration;

/// The version of the report and assignment messages. Which of them go together: [`version::serves`].
pub const PROTOCOL: u32 = 1;
