//! Which values of the operator's settings a node writes into its managed file now.
//!
//! Most are written as they come. Of the five of which a standby must have at least what its primary
//! has, a primary gets more only once its standbys have it, and a standby gets less only once its
//! primary has less, and its own log demands no more: so every node can be started at every moment,
//! whoever is the primary then.

use shared::pgsettings::{NodeSettings, REQUIRED, Values};
use std::collections::BTreeMap;

/// What a node knows of one of the five on its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Local {
    /// What its server runs with.
    pub running: Option<u64>,
    /// What its control file says: on a standby what the log demands, on a primary what it ran with
    /// last.
    pub control: Option<u64>,
    /// What its server would run with if the managed file did not say anything.
    pub beneath: Option<u64>,
    /// What the managed file says.
    pub file: Option<u64>,
}

/// Whether a node is, or becomes, the one that writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Its goal is to be the primary.
    Primary,
    /// Anything else.
    Standby,
}

/// What the managed file shall say of the operator's settings.
pub fn values(told: &NodeSettings, side: Side, local: &BTreeMap<&str, Local>) -> Values {
    let mut values = told.values.clone();
    for name in REQUIRED {
        let local = local.get(name).copied().unwrap_or_default();
        let wanted = values.remove(name).and_then(|value| value.parse().ok());
        let limit = told.limits.get(name);
        if limit.is_none() && local.file.is_none() {
            // Nobody has ever given it.
            continue;
        }
        if let Some(value) = required(side, wanted, limit.copied().flatten(), local) {
            values.insert(name.to_owned(), value.to_string());
        }
    }
    values
}

/// What the managed file shall say of one of the five; `None`: nothing, what is beneath is right.
fn required(side: Side, wanted: Option<u64>, limit: Option<u64>, local: Local) -> Option<u64> {
    let Local { running, control, beneath, file } = local;
    // Taken back: the way to what is beneath goes like the way to any other value.
    let target = wanted.or(beneath).or(file);
    let value = match side {
        Side::Primary => {
            let present = running.or(control).or(file);
            match (target, present) {
                (Some(target), Some(present)) if target > present => {
                    target.min(present.max(limit.unwrap_or(0)))
                }
                (Some(target), Some(_)) => target,
                (Some(target), None) => target.min(limit.unwrap_or(target)),
                (None, present) => present?,
            }
        }
        Side::Standby => {
            let primary = limit.or(running.max(file));
            [target, primary, control].into_iter().flatten().max()?
        }
    };
    let released = wanted.is_none() && Some(value) == beneath;
    (!released).then_some(value)
}

/// A standby runs with less than the log of its primary demands, hence does not replay, and would
/// after a restart: such as after the election of a node that had been restarted with more before it.
/// The setting and both values.
pub fn cannot_replay(
    told: &NodeSettings,
    local: &BTreeMap<&str, Local>,
) -> Option<(&'static str, u64, u64)> {
    REQUIRED.into_iter().find_map(|name| {
        let Local { running, control, file, beneath } = local.get(name).copied()?;
        let (running, control, next) = (running?, control?, file.or(beneath)?);
        let in_hand = told.limits.contains_key(name);
        (in_hand && running < control && next >= control).then_some((name, running, control))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(running: u64, control: u64, file: Option<u64>) -> Local {
        Local { running: Some(running), control: Some(control), beneath: Some(100), file }
    }

    #[test]
    fn nothing_is_written_that_nobody_asked_for() {
        for side in [Side::Primary, Side::Standby] {
            let local = [("max_connections", local(100, 300, None))].into();
            assert!(values(&NodeSettings::default(), side, &local).is_empty());
        }
        // Asked for once, and taken back before this node had heard of it.
        let given = |control| required(Side::Standby, None, None, local(100, control, None));
        assert_eq!((given(100), given(300)), (None, Some(300)));
    }

    #[test]
    fn a_primary_is_raised_as_far_as_its_standbys_are() {
        let primary = local(100, 100, Some(100));
        let given = |limit| required(Side::Primary, Some(300), limit, primary);
        assert_eq!([given(None), given(Some(50))], [Some(100); 2]);
        assert_eq!([given(Some(200)), given(Some(400))], [Some(200), Some(300)]);
        assert_eq!(required(Side::Primary, Some(80), None, primary), Some(80));
    }

    #[test]
    fn a_standby_is_lowered_after_its_primary_and_its_log() {
        let given = |limit, control| {
            required(Side::Standby, Some(100), limit, local(300, control, Some(300)))
        };
        assert_eq!(given(None, 100), Some(300));
        assert_eq!(given(Some(300), 100), Some(300));
        assert_eq!(given(Some(100), 300), Some(300));
        assert_eq!(given(Some(100), 100), Some(100));
        let raised = required(Side::Standby, Some(300), None, local(100, 100, None));
        assert_eq!(raised, Some(300));
    }

    #[test]
    fn what_is_taken_back_goes_the_same_way() {
        let standby = |limit| required(Side::Standby, None, limit, local(300, 100, Some(300)));
        assert_eq!([standby(None), standby(Some(300))], [Some(300); 2]);
        assert_eq!(standby(Some(100)), None);
        let primary = |running| {
            required(Side::Primary, None, Some(50), local(running, running, Some(running)))
        };
        assert_eq!((primary(300), primary(50)), (None, Some(50)));
        let unknown = Local { beneath: None, ..local(300, 300, Some(300)) };
        assert_eq!(required(Side::Primary, None, Some(50), unknown), Some(300));
    }

    #[test]
    fn a_standby_that_is_stuck_is_noticed_once_a_restart_would_help() {
        let limits = [("max_connections".to_owned(), Some(300))].into();
        let told = NodeSettings { limits, ..NodeSettings::default() };
        let of = |local| cannot_replay(&told, &[("max_connections", local)].into());
        assert_eq!(of(local(100, 300, Some(300))), Some(("max_connections", 100, 300)));
        assert_eq!(of(local(100, 300, Some(100))), None);
        assert_eq!(of(local(300, 300, Some(300))), None);
        assert_eq!(cannot_replay(&NodeSettings::default(), &[].into()), None);
    }
}
