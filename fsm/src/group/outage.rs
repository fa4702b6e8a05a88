//! For how long writes would wait at a change of the primary: the timers say when it is decided, the
//! last real changes what nodes need for their part.

use super::course::Stages;
use shared::api::{Outage, Prediction};

/// What nodes need to be sealed and promoted, and the new primary to get its sync set, where no change
/// of the primary has been seen yet; as measured on a small machine (docs/performance.md).
const TYPICAL_MS: u64 = 300;

/// What to expect of the death that this prediction is about; `None` where writes would not go on.
pub fn estimate(prediction: &Prediction, past: &[Stages]) -> Option<Outage> {
    let decided_ms = prediction.writable_after_ms?;
    let mut work: Vec<_> = past.iter().map(work).collect();
    work.sort_unstable();
    let processes_ms = work.get(work.len() / 2).copied().unwrap_or(TYPICAL_MS);
    Some(Outage {
        host_ms: decided_ms.saturating_add(processes_ms),
        processes_ms,
        changes: past.len(),
    })
}

/// All but the time until it was noticed that anything was wrong.
fn work(stages: &Stages) -> u64 {
    stages.total().saturating_sub(stages.detect)
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::api::{PredictedOutcome, SyncStatus};

    fn prediction(writable_after_ms: Option<u64>) -> Prediction {
        Prediction {
            steps: Vec::new(),
            outcome: PredictedOutcome::TakesWrites,
            reason: String::new(),
            primary: None,
            alternatives: Vec::new(),
            sync: SyncStatus {
                in_force: None,
                members: Vec::new(),
                required: 0,
                pending: None,
                generation: None,
            },
            writable: writable_after_ms.is_some(),
            writable_after_ms,
            blocked_by: Vec::new(),
            bytes_at_risk: Some(0),
        }
    }

    fn stages(detect: u64, seal: u64) -> Stages {
        Stages { detect, seal, elect: 10, promote: 20, first_commit: 30 }
    }

    #[test]
    fn the_median_of_what_nodes_needed() {
        let past = [stages(3000, 940), stages(0, 140), stages(15, 240)];
        let outage = estimate(&prediction(Some(3000)), &past).unwrap();
        assert_eq!(outage, Outage { host_ms: 3300, processes_ms: 300, changes: 3 });
        let first = estimate(&prediction(Some(3000)), &[]).unwrap();
        assert_eq!((first.host_ms, first.changes), (3000 + TYPICAL_MS, 0));
        assert_eq!(estimate(&prediction(None), &past), None);
    }
}
