//! Settings of nodes and formations: parsed, checked together, stored.

use super::{Reply, Request, bad_value, refused};
use crate::group::join::rest_at;
use crate::group::record::{Node, Note, Record};
use shared::api::ApiError;
use shared::host::Host;
use shared::ids::{NodeId, NodeName};
use shared::settings::Settings;

/// The settings of a node, by the names that people use.
pub const NODE_KEYS: &[&str] =
    &["candidate-priority", "replication-quorum", "replicate-from", "zone", "name", "host", "port"];

/// The settings of a formation, by the names that people use.
pub const FORMATION_KEYS: &[&str] = &[
    "number-sync-standbys",
    "node-timeout",
    "report-interval",
    "lease",
    "restart-budget",
    "stall-timeout",
    "election-grace",
    "drain-timeout",
];

/// Milliseconds of a duration such as `500ms`, `3s` or `1min`.
pub fn parse_duration(text: &str) -> Result<u64, ApiError> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim() {
        "ms" => 1,
        "s" => 1000,
        "min" => 60_000,
        _ => 0,
    };
    let parsed: Option<u64> = number.parse().ok();
    parsed.filter(|_| factor > 0).and_then(|number| number.checked_mul(factor)).ok_or_else(|| {
        bad_value(
            "bad_value",
            format!("'{text}' is not a duration; write it like 500ms, 3s or 1min"),
        )
    })
}

fn parse<T: std::str::FromStr>(value: &str, wanted: &str) -> Result<T, ApiError> {
    value.trim().parse().map_err(|_| bad_value("bad_value", format!("'{value}' is not {wanted}")))
}

impl Request<'_> {
    pub(super) fn set_node(
        &self,
        name: &NodeName,
        key: &str,
        value: &str,
    ) -> Result<Reply, ApiError> {
        let (id, node) = self.named(name)?;
        let changed = self.changed_node(id, node, key, value)?;
        let value = node_value(self.record, &changed, key);
        if changed == *node {
            return Ok(self.already(format!("{key} of {name} is {value} already")));
        }
        let before = node_value(self.record, node, key);
        let not_yet = self.not_yet(id, &changed).filter(|_| key == "replicate-from");
        let not_yet = not_yet.map(|why| format!("; {why}")).unwrap_or_default();
        let mut next = self.record.clone();
        next.nodes.insert(id, changed);
        let reason = format!("{key} of {name} is now {value}{not_yet}");
        let note = Note::new("setting", "operator", reason).about(id).change(before, value);
        Ok(self.done(next, note))
    }

    fn changed_node(
        &self,
        id: NodeId,
        node: &Node,
        key: &str,
        value: &str,
    ) -> Result<Node, ApiError> {
        let mut changed = node.clone();
        match key {
            "candidate-priority" => {
                let priority: u8 = parse(value, "a number from 0 to 100")?;
                if priority > 100 {
                    return Err(bad_value(
                        "bad_value",
                        format!("'{value}' is not a number from 0 to 100"),
                    ));
                }
                changed.candidate_priority = priority;
            }
            "replication-quorum" => {
                changed.replication_quorum = parse(value, "true or false")?;
                if !changed.replication_quorum
                    && self.record.settings.number_sync_standbys.is_some()
                {
                    self.keeps_enough(id, &node.name)?;
                }
            }
            "replicate-from" => {
                let wish = self.wish(id, node, value)?;
                if wish != node.cascade.wish {
                    (changed.cascade.wish, changed.cascade.detours) = (wish, 0);
                }
            }
            "zone" => changed.zone = (!value.is_empty()).then(|| value.to_owned()),
            "name" => {
                let name: NodeName = value.parse().map_err(|error: shared::ids::InvalidName| {
                    bad_value("bad_value", error.to_string())
                })?;
                if self.record.node_named(&name).is_some_and(|(other, _)| other != id) {
                    return Err(refused(
                        "duplicate_name",
                        format!("the name {name} is taken"),
                        &[&name],
                    ));
                }
                changed.name = name;
            }
            "host" => {
                let host = value.trim();
                if Host::parse(host).is_none() {
                    let message = format!("'{host}' is neither a host name nor an address");
                    return Err(bad_value("bad_value", message));
                }
                host.clone_into(&mut changed.host);
                changed.rest = rest_at(&node.rest, &node.host, &changed.host);
            }
            "port" => {
                let port: std::num::NonZeroU16 = parse(value, "a port")?;
                changed.port = port.get();
            }
            _ => {
                let message = format!(
                    "'{key}' is not a setting of a node; there are {}",
                    NODE_KEYS.join(", ")
                );
                return Err(bad_value("unknown_setting", message));
            }
        }
        let taken = |(other, node): (&NodeId, &Node)| {
            *other != id && node.host == changed.host && node.port == changed.port
        };
        if self.record.nodes.iter().any(taken) {
            let message =
                format!("{}:{} is the address of another node", changed.host, changed.port);
            return Err(refused("duplicate_address", message, &[]));
        }
        Ok(changed)
    }

    pub(super) fn set_formation(&self, key: &str, value: &str) -> Result<Reply, ApiError> {
        let mut settings = self.record.settings.clone();
        self.change_settings(&mut settings, key, value)?;
        settings.validate().map_err(|error| bad_value("bad_value", error.to_string()))?;
        if settings == self.record.settings {
            return Ok(self.already(format!("{key} is {value} already")));
        }
        let next = Record { settings, ..self.record.clone() };
        let note = Note::new("setting", "operator", format!("{key} is now {value}"))
            .change(formation_value(self.record, key), formation_value(&next, key));
        Ok(self.done(next, note))
    }

    fn change_settings(
        &self,
        settings: &mut Settings,
        key: &str,
        value: &str,
    ) -> Result<(), ApiError> {
        let default = value.trim() == "default";
        let duration = || if default { Ok(None) } else { parse_duration(value).map(Some) };
        match key {
            "number-sync-standbys" => {
                settings.number_sync_standbys =
                    if default { None } else { Some(self.number_sync_standbys(value)?) };
            }
            "node-timeout" => {
                settings.node_timeout_ms =
                    duration()?.unwrap_or(Settings::default().node_timeout_ms);
            }
            "report-interval" => settings.report_interval_ms = duration()?,
            "lease" => settings.lease_ms = duration()?,
            "restart-budget" => settings.restart_budget_ms = duration()?,
            "stall-timeout" => settings.stall_timeout_ms = duration()?,
            "election-grace" => settings.election_grace_ms = duration()?,
            "drain-timeout" => settings.drain_timeout_ms = duration()?,
            _ => {
                let message = format!(
                    "'{key}' is not a setting of a formation; there are {}",
                    FORMATION_KEYS.join(", ")
                );
                return Err(bad_value("unknown_setting", message));
            }
        }
        Ok(())
    }

    fn number_sync_standbys(&self, value: &str) -> Result<u32, ApiError> {
        let number: u32 = parse(value, "a number from 0 upwards")?;
        let standbys = self.record.lasting_standbys().count();
        if usize::try_from(number).unwrap_or(usize::MAX) > standbys {
            let message = format!(
                "number-sync-standbys {number} needs as many standbys with replication-quorum that are not in maintenance and do not replicate from another standby, and there are {standbys}"
            );
            return Err(refused("too_few_standbys", message, &[]));
        }
        Ok(number)
    }
}

/// A setting of a node as text; empty for an unknown key.
pub fn node_value(record: &Record, node: &Node, key: &str) -> String {
    match key {
        "candidate-priority" => node.candidate_priority.to_string(),
        "replication-quorum" => node.replication_quorum.to_string(),
        "replicate-from" => {
            node.cascade.wish.map_or_else(|| "none".to_owned(), |id| record.name_of(id))
        }
        "zone" => node.zone.clone().unwrap_or_default(),
        "name" => node.name.to_string(),
        "host" => node.host.clone(),
        "port" => node.port.to_string(),
        _ => String::new(),
    }
}

/// A setting of a formation as text, in force; empty for an unknown key.
pub fn formation_value(record: &Record, key: &str) -> String {
    let timers = record.settings.timers();
    let ms = |value: u64| format!("{value}ms");
    match key {
        "number-sync-standbys" => record.number_sync_standbys().to_string(),
        "node-timeout" => ms(timers.node_timeout_ms),
        "report-interval" => ms(timers.report_interval_ms),
        "lease" => ms(timers.lease_ms),
        "restart-budget" => ms(timers.restart_budget_ms),
        "stall-timeout" => ms(timers.stall_timeout_ms),
        "election-grace" => ms(timers.election_grace_ms),
        "drain-timeout" => ms(timers.drain_timeout_ms),
        _ => String::new(),
    }
}
