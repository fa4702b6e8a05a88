//! What the query of a question for a standby may say.

use super::moment::Behind;
use shared::size::{InvalidSize, Size};
use std::collections::BTreeMap;

/// The conditions on a standby.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// `lag`: the most that it may be behind.
    pub(super) lag: Option<Size>,
    /// `mode`: whether that counts what it has replayed, or what it has received.
    pub(super) behind: Behind,
    /// `replication_state` is that of a standby which streams; others are no replicas here.
    pub(super) streams: bool,
    /// `tag_...`: nodes have no tags here, so that none fits.
    pub(super) has_tags: bool,
}

impl Default for Wanted {
    fn default() -> Self {
        Self { lag: None, behind: Behind::default(), streams: true, has_tags: false }
    }
}

/// A query that says something that cannot be read. It must not pass for one that says nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    /// `lag`.
    #[error("lag: {0}")]
    Lag(#[from] InvalidSize),
    /// `mode`.
    #[error("mode: '{0}' is neither 'apply' nor 'write'")]
    Mode(String),
}

impl Wanted {
    /// Reads a query; what it has besides is ignored.
    pub(super) fn read(query: &BTreeMap<String, String>) -> Result<Self, Unreadable> {
        let lag = query.get("lag").map(|text| text.parse()).transpose()?;
        let behind = match query.get("mode").map(String::as_str) {
            None | Some("apply") => Behind::Apply,
            Some("write") => Behind::Write,
            Some(other) => return Err(Unreadable::Mode(other.to_owned())),
        };
        let streams = query.get("replication_state").is_none_or(|state| state == "streaming");
        let has_tags = query.keys().any(|key| key.starts_with("tag_"));
        Ok(Self { lag, behind, streams, has_tags })
    }
}
