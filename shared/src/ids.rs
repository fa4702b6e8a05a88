//! One type per identifier, so that a node id can never be passed for a ticket.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The number that follows.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = std::num::ParseIntError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

number!(
    /// A node's number within its formation; never used again after a drop.
    NodeId
);
number!(
    /// Orders elections and assignments (docs/safety.md, rule 2). Raised durably before a message
    /// with it leaves the monitor.
    Ticket
);
number!(
    /// Numbers the primaries of a group: each promotion has its own.
    Epoch
);
number!(
    /// Numbers the synchronous-replication specs of a group; never repeats (rule 1).
    Gen
);
number!(
    /// Counts the changes of a group's durable record.
    Revision
);

/// A group's number within its formation.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct GroupId(pub u32);

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A timeline number as PostgreSQL counts them. Equal numbers alone never mean "same history".
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct TimelineId(pub u32);

impl fmt::Display for TimelineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// `Database system identifier` of `pg_controldata`. A string in JSON, since it does not fit a
/// double.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SystemIdentifier(pub u64);

impl fmt::Display for SystemIdentifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for SystemIdentifier {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for SystemIdentifier {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(serde::de::Error::custom)
    }
}

/// A name that is no valid formation or node name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is not a valid name: use 1 to 63 of the characters a-z, A-Z, 0-9, '.', '_' and '-', starting with a letter or digit"
)]
pub struct InvalidName(pub String);

fn check_name(text: &str) -> Result<String, InvalidName> {
    let fine = (1..=63).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    if fine { Ok(text.to_owned()) } else { Err(InvalidName(text.to_owned())) }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                check_name(text).map(Self)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, InvalidName> {
                check_name(&text).map(Self)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// The name of a formation: a managed service with its groups.
    FormationId
);
name!(
    /// The name that the operator gave a node; may change, the [`NodeId`] may not.
    NodeName
);

impl NodeId {
    /// The `application_name` under which a node's walreceiver connects, hence its name in
    /// `synchronous_standby_names`.
    pub fn application_name(self) -> String {
        format!("pgtandem_{self}")
    }

    /// The node whose `application_name` this is.
    pub fn from_application_name(text: &str) -> Option<Self> {
        text.strip_prefix("pgtandem_")?.parse().ok()
    }

    /// The slot that a node streams from: it carries the ticket of its admission, and PostgreSQL
    /// itself refuses to stream while it does not exist (rule 10).
    pub fn admission_slot(self, admission: Ticket) -> String {
        format!("pgtandem_{self}_{admission}")
    }

    /// The slot by which the other nodes keep WAL for this one.
    pub fn retention_slot(self) -> String {
        format!("pgtandem_{self}_keep")
    }
}
