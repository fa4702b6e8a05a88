//! What the monitor decides, and from what, line by line in a file: for tests, which replay it. Off
//! unless the environment names a file.

use fsm::Now;
use fsm::group::{Decision, Record, View};
use fsm::trace::{Cause, MonitorLine};
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};

/// Names the file. No option, since nobody but a test has a use for it.
const VARIABLE: &str = "PGTANDEM_TRACE";

/// An open file.
#[derive(Debug)]
pub struct Trace(File);

impl Trace {
    /// Begins a trace, if one is wanted.
    pub fn begin() -> Option<Self> {
        let path = std::env::var_os(VARIABLE)?;
        let file = OpenOptions::new().create(true).append(true).open(&path);
        file.inspect_err(|error| tracing::warn!("no trace in {path:?}: {error}")).ok().map(Self)
    }

    /// A decision, before it is stored.
    pub fn decided(
        &self,
        cause: Cause,
        (before, view): (&Record, &View),
        decision: &Decision,
        now: Now,
    ) {
        let line = MonitorLine {
            now,
            cause,
            view: view.clone(),
            before: before.clone(),
            decision: decision.clone(),
        };
        if let Err(error) = append(&self.0, &line.redacted()) {
            tracing::warn!("the trace has a gap: {error}");
        }
    }
}

/// In one write, and begun with the line break: a process that is killed in the middle of a line
/// spoils that line only.
fn append(mut file: &File, line: &MonitorLine) -> io::Result<()> {
    let mut text = b"\n".to_vec();
    serde_json::to_writer(&mut text, line)?;
    file.write_all(&text)
}
