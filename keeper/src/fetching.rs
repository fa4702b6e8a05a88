//! Whether the archive has the WAL that comes next for this node, as far as its gate has been asked: only
//! what PostgreSQL itself has asked for, and was told, counts.

use crate::archive::Fetched;
use crate::clock;
use crate::node::{Fetching, Node};
use fsm::node::{Archive, File, Server};

/// A server that is not consistent asks again and again. It is believed that nothing will come after so long.
const LAST_HOPE_MS: u64 = 10_000;
/// The same where the archive cannot say, since it fails.
const TROUBLE_MS: u64 = 60_000;

impl Node {
    /// What is known of the archive.
    pub(crate) fn look_at_archive(
        &mut self,
        file: &File,
        server: Option<&Server>,
        fetched: Option<Fetched>,
    ) -> Archive {
        let Some(fetched) = fetched else { return Archive::None };
        let end = server.and_then(|server| server.end);
        if !file.restore {
            self.seen.fetching = None;
            let known = end.is_some() && self.asked >= end;
            return if known { Archive::Exhausted } else { Archive::Unasked };
        }
        let now = clock::now();
        let came = (fetched.delivered, end);
        let fetching = self.seen.fetching.get_or_insert(Fetching { since: now, came });
        if fetching.came != came || fetched.busy {
            // What the signs of a seal are waited for begins again with each file.
            fetching.came = came;
            self.seen.sealing_since = Some(now);
        }
        let since = fetching.since;
        let said_no = fetched.no_at.filter(|at| *at >= since);
        let nothing_for = said_no.and(fetched.no_since).map(|at| now.since(at.max(since)));
        let patience = match (server, fetched.fails) {
            (_, true) => TROUBLE_MS,
            (Some(_), false) => 0,
            (None, false) => LAST_HOPE_MS,
        };
        if fetched.busy || nothing_for.is_none_or(|ms| ms < patience) {
            return Archive::Unasked;
        }
        self.asked = end;
        Archive::Exhausted
    }

    /// It streams: the way in which its data was made has been the right one.
    pub(crate) fn leads_somewhere(&mut self) {
        if self.state.made_by.is_some()
            && let Err(error) = self.persist(|state| state.made_by = None)
        {
            tracing::warn!("{error}");
        }
    }
}
