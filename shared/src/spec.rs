//! The synchronous-replication spec and the arithmetic of the promise (docs/safety.md).

use crate::ids::{Epoch, Gen, NodeId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

/// `ANY required (standbys)` on `primary`; no standbys and 0 required means asynchronous.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Spec {
    /// Its number, which never repeats.
    pub generation: Gen,
    /// The epoch whose primary it is for.
    pub epoch: Epoch,
    /// The node that acknowledges under it.
    pub primary: NodeId,
    /// How many standbys a commit waits for.
    pub required: usize,
    /// The standbys that count.
    pub standbys: BTreeSet<NodeId>,
}

/// A name for `synchronous_standby_names` that no standby can have: `application_name` is cut at 63
/// bytes, this setting is not, so every commit waits (docs/postgres-facts.md, section 6).
pub const BLOCKING_NAME: &str =
    "pgtandem_blocks_every_commit_until_the_monitor_has_confirmed_the_new_spec";

impl Spec {
    /// Whether commits wait for nobody.
    pub fn is_asynchronous(&self) -> bool {
        self.standbys.is_empty()
    }

    /// Whether a set of nodes that hold their logs still must contain one that has every commit
    /// acknowledged under this spec: the primary, or enough standbys to meet every possible quorum.
    pub fn is_covered_by(&self, witnesses: &BTreeSet<NodeId>) -> bool {
        witnesses.contains(&self.primary)
            || (!self.is_asynchronous()
                && self.standbys.intersection(witnesses).count() + self.required
                    > self.standbys.len())
    }

    /// The value of `synchronous_standby_names`.
    pub fn setting(&self) -> String {
        if self.is_asynchronous() {
            return String::new();
        }
        let names: Vec<_> = self.standbys.iter().map(|id| id.application_name()).collect();
        format!("ANY {} ({})", self.required, names.join(", "))
    }

    /// The value of `synchronous_standby_names` under which nothing is acknowledged (rule 9).
    pub fn blocking_setting() -> String {
        format!("ANY 1 (\"{BLOCKING_NAME}\")")
    }

    /// Whether commits wait for the same standbys under both, whatever the generation.
    pub fn same_terms(&self, other: &Self) -> bool {
        self.epoch == other.epoch
            && self.primary == other.primary
            && self.required == other.required
            && self.standbys == other.standbys
    }

    /// What must hold for every spec (rule 1).
    pub fn validate(&self) -> Result<(), InvalidSpec> {
        let sane = if self.standbys.is_empty() {
            self.required == 0
        } else {
            (1..=self.standbys.len()).contains(&self.required)
        };
        if !sane {
            return Err(InvalidSpec::Required {
                required: self.required,
                standbys: self.standbys.len(),
            });
        }
        if self.standbys.contains(&self.primary) {
            return Err(InvalidSpec::PrimaryAmongStandbys(self.primary));
        }
        Ok(())
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_asynchronous() {
            f.write_str("asynchronous")
        } else {
            f.write_str(&self.setting())
        }
    }
}

/// A spec that breaks rule 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSpec {
    /// The number required does not fit the number of standbys.
    #[error("{required} of {standbys} standbys cannot be required")]
    Required {
        /// How many a commit would wait for.
        required: usize,
        /// How many there are.
        standbys: usize,
    },
    /// The primary cannot be its own standby.
    #[error("primary {0} stands among its own standbys")]
    PrimaryAmongStandbys(NodeId),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subsets(n: u64) -> impl Iterator<Item = BTreeSet<NodeId>> {
        (0u32..1 << n)
            .map(move |bits| (1..=n).filter(|i| bits & (1 << (i - 1)) != 0).map(NodeId).collect())
    }

    /// `is_covered_by` against its definition: whichever quorum of standbys acknowledged a commit,
    /// together with the primary, one of them is a witness. All M <= 5.
    #[test]
    fn covers_agrees_with_its_definition() {
        for m in 0..=5u64 {
            let standbys: BTreeSet<_> = (2..2 + m).map(NodeId).collect();
            let required = if m == 0 { 0..=0 } else { 1..=usize::try_from(m).unwrap() };
            for required in required {
                let spec = Spec {
                    generation: Gen(1),
                    epoch: Epoch(1),
                    primary: NodeId(1),
                    required,
                    standbys: standbys.clone(),
                };
                spec.validate().unwrap();
                for witnesses in subsets(m + 2) {
                    let always_met = subsets(m + 2)
                        .filter(|q| q.is_subset(&standbys) && q.len() == required)
                        .all(|mut holders| {
                            holders.insert(NodeId(1));
                            !holders.is_disjoint(&witnesses)
                        });
                    assert_eq!(spec.is_covered_by(&witnesses), always_met, "{spec} {witnesses:?}");
                }
            }
        }
    }

    #[test]
    fn the_blocking_name_is_longer_than_any_application_name() {
        assert!(BLOCKING_NAME.len() >= 64);
    }
}
