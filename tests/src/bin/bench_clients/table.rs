//! What was measured, as a table in Markdown.

use std::fmt;
use std::time::Duration;
use tests::clients::account::Recovery;
use tests::clients::{ALL, Client};
use tests::harness::distribution::Distribution;

/// What happens to the primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// SIGKILL to keeper and PostgreSQL; the host lives.
    Killed,
    /// By the operator's command.
    Switchover,
    /// With its host.
    PoweredOff,
}

const FAULTS: [Fault; 3] = [Fault::Killed, Fault::Switchover, Fault::PoweredOff];

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Self::Killed => "killed",
            Self::Switchover => "switchover",
            Self::PoweredOff => "host off",
        }
    }
}

/// All recoveries.
#[derive(Debug, Default)]
pub(crate) struct Table(Vec<(Fault, Client, Recovery)>);

impl Table {
    /// One more.
    pub(crate) fn add(&mut self, fault: Fault, client: Client, recovery: Recovery) {
        self.0.push((fault, client, recovery));
    }

    /// Errors, and times, of one client at one fault.
    fn cells(&self, fault: Fault, client: Client) -> String {
        let all = self.0.iter().filter(|(f, c, _)| *f == fault && *c == client);
        let all: Vec<_> = all.map(|(_, _, recovery)| *recovery).collect();
        let mean = |count: fn(&Recovery) -> usize| {
            let sum = u32::try_from(all.iter().map(count).sum::<usize>()).unwrap_or(u32::MAX);
            let rounds = u32::try_from(all.len().max(1)).unwrap_or(u32::MAX);
            f64::from(sum) / f64::from(rounds)
        };
        let times = Distribution(all.iter().map(|recovery| recovery.took).collect());
        let seconds = |percent| times.percentile(percent).unwrap_or(Duration::ZERO).as_secs_f64();
        format!(
            " {:.1} + {:.1} | {:.2} / {:.2} |",
            mean(|recovery| recovery.failed),
            mean(|recovery| recovery.unreachable),
            seconds(50),
            seconds(100)
        )
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heads = FAULTS.map(|fault| format!(" {}: errors | p50 / max |", fault.name()));
        writeln!(f, "| client |{}", heads.concat())?;
        writeln!(f, "|---|{}", "---|---|".repeat(FAULTS.len()))?;
        for client in ALL {
            let cells = FAULTS.map(|fault| self.cells(fault, client));
            writeln!(f, "| {} |{}", client.name(), cells.concat())?;
        }
        Ok(())
    }
}
