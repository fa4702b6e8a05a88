//! What the keeper sees, plans and does, line by line in a file: for tests, which replay it. Off
//! unless the environment names a file.

use crate::clock;
use crate::node::disk;
use crate::steps::StepError;
use fsm::node::view::Persisted;
use fsm::node::{LocalView, Plan, Step};
use fsm::trace::{Happened, KeeperLine, Outcome, Pass, Planned};
use shared::ids::NodeId;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};

/// Names the file. No option, since nobody but a test has a use for it.
const VARIABLE: &str = "PGTANDEM_TRACE";

/// An open file; what repeats itself stands there once.
#[derive(Debug)]
pub struct Trace {
    file: File,
    node: NodeId,
    pass: Option<Pass>,
    act: Option<(Step, Outcome)>,
}

impl Trace {
    /// Begins a trace, if one is wanted.
    pub fn begin(node: NodeId) -> Option<Self> {
        let path = std::env::var_os(VARIABLE)?;
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file =
            file.inspect_err(|error| tracing::warn!("no trace in {path:?}: {error}")).ok()?;
        let mut trace = Self { file, node, pass: None, act: None };
        trace.write(Happened::Started);
        Some(trace)
    }

    /// A pass of the loop: what was seen and known, and what is to be done about it.
    pub fn looked(
        &mut self,
        view: &LocalView,
        persisted: Option<&Persisted>,
        plan: &Plan,
        copying: bool,
    ) {
        let pass = Pass {
            view: view.clone(),
            persisted: persisted.cloned(),
            copying,
            state: plan.state,
            next: Planned::from(&plan.next),
        };
        if self.pass.as_ref() != Some(&pass) {
            self.pass = Some(pass.clone());
            self.act = None;
            self.write(Happened::Looked(Box::new(pass)));
        }
    }

    /// The step of this pass was carried out, or was not.
    pub fn acted(&mut self, step: &Step, result: &Result<(), StepError>) {
        let outcome = match result {
            Ok(()) => Outcome::Done,
            Err(StepError::NotYet(_)) => Outcome::NotYet,
            Err(_) => Outcome::Failed,
        };
        let act = (step.clone(), outcome);
        if self.act.as_ref() != Some(&act) {
            self.act = Some(act.clone());
            self.write(Happened::Acted(act.0, act.1));
        }
    }

    fn write(&mut self, what: Happened) {
        let line = KeeperLine { at: clock::now(), node: self.node, what };
        if let Err(error) = disk(|| append(&mut self.file, &line)) {
            tracing::warn!("the trace has a gap: {error}");
        }
    }
}

/// In one write, and begun with the line break: a process that is killed in the middle of a line
/// spoils that line only.
fn append(file: &mut File, line: &KeeperLine) -> io::Result<()> {
    let mut text = b"\n".to_vec();
    serde_json::to_writer(&mut text, line)?;
    file.write_all(&text)
}
