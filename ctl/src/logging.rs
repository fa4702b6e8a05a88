//! Logs, on standard error: the client's own troubles only, since results have their own door.

use std::io;
use tracing_subscriber::EnvFilter;

/// How log records are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One line of text a record.
    #[default]
    Text,
    /// One JSON object a record.
    Json,
}

/// Starts logging; `PGTANDEM_LOG` sets the levels, such as `debug`.
pub fn start(format: LogFormat) {
    let filter = EnvFilter::try_from_env("PGTANDEM_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    // A second start, as in tests, changes nothing.
    let started = match format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    drop(started);
}
