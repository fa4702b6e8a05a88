//! One server: its settings from moment to moment, its processes, and what is asked of it again and again.

use crate::harness::{
    LIMIT, SUPERUSER, clone, configure, connect, eventually, source, start, stop,
};
use crate::stage::LOOK_AGAIN;
use postgres::instance::Instance;
use postgres::postmaster::{Postmaster, Signal};
use postgres::session::primary::Walsender;
use postgres::session::standby::SealSigns;
use postgres::session::{Session, Target};
use shared::ids::NodeId;
use shared::lsn::Lsn;
use std::collections::BTreeMap;

/// A node of a group: a server under a member name.
pub struct Node {
    pub id: NodeId,
    pub instance: Instance,
    pub server: Postmaster,
    settings: BTreeMap<String, String>,
}

impl Node {
    /// Starts an instance under these settings.
    pub async fn begin(id: NodeId, instance: Instance, settings: &[(&str, &str)]) -> Self {
        let settings = owned(settings);
        write(&instance, &settings);
        let server = start(&instance).await;
        Self { id, instance, server, settings }
    }

    /// Copies `upstream` and starts the copy as its standby.
    pub async fn copy(id: NodeId, instance: Instance, upstream: &Self) -> Self {
        let name = id.application_name();
        clone(&upstream.instance, &instance, &name, "").await;
        let conninfo = source(&upstream.instance).conninfo(&name, &[]);
        Self::begin(id, instance, &[("primary_conninfo", &conninfo)]).await
    }

    /// The name that its walreceiver and the specs call it by.
    pub fn name(&self) -> String {
        self.id.application_name()
    }

    /// Where it is connected to.
    pub fn target(&self) -> Target {
        Target::socket(&self.instance, SUPERUSER, "postgres")
    }

    /// A new connection.
    pub async fn connect(&self) -> Session {
        connect(&self.instance).await
    }

    /// Changes the file, and nothing else.
    pub fn write(&mut self, settings: &[(&str, &str)]) {
        self.settings.extend(owned(settings));
        write(&self.instance, &self.settings);
    }

    /// Changes the file, reloads, and waits until a new connection shows it: every process has been
    /// told by then, and none need have listened. Times are given in the setting's own unit.
    pub async fn apply(&mut self, settings: &[(&str, &str)]) {
        self.write(settings);
        self.server.signal(Signal::Reload).unwrap();
        for (name, value) in settings {
            eventually("a new connection shows the file", async || {
                let shown = self.connect().await.setting(name).await.unwrap().unwrap().value;
                if shown == *value { Ok(()) } else { Err(format!("{name} = '{shown}'")) }
            })
            .await;
        }
    }

    /// [`Self::apply`] for the sync spec.
    pub async fn apply_spec(&mut self, spec: &str) {
        self.apply(&[("synchronous_standby_names", spec)]).await;
    }

    /// Points it to `upstream` through a slot, in its file only.
    pub fn follow(&mut self, upstream: &Self, slot: &str) {
        let conninfo = source(&upstream.instance).conninfo(&self.name(), &[]);
        self.write(&[("primary_conninfo", &conninfo), ("primary_slot_name", slot)]);
    }

    pub async fn start(&mut self) {
        self.server = start(&self.instance).await;
    }

    pub async fn stop(&self, signal: Signal) {
        stop(&self.server, signal).await;
    }

    /// Promotes it and waits for the end of recovery.
    pub async fn promote(&self) {
        let session = self.connect().await;
        assert!(session.promote().await.unwrap());
        eventually("the promotion", async || {
            let recovery = session.recovery().await.unwrap();
            if recovery.in_recovery { Err("in recovery".to_owned()) } else { Ok(()) }
        })
        .await;
    }

    /// Up to where its WAL is flushed, as a primary.
    pub async fn flushed(&self) -> Lsn {
        self.connect().await.flush_lsn().await.unwrap()
    }

    /// Up to where its walreceiver has flushed WAL.
    pub async fn received(&self) -> Option<Lsn> {
        self.connect().await.recovery().await.unwrap().receive_lsn
    }

    /// Waits until `standby` streams and has flushed all that there is now.
    pub async fn streams_to(&self, standby: &Self) {
        let end = self.flushed().await;
        self.sees(standby, "all flushed", |row| {
            row.state == "streaming" && row.flush_lsn.is_some_and(|flushed| flushed >= end)
        })
        .await;
    }

    /// The row of a standby in `pg_stat_replication`, if there is exactly one.
    pub async fn walsender_of(&self, standby: &Self) -> Option<Walsender> {
        let mut rows = self.connect().await.replication().await.unwrap();
        rows.retain(|row| row.application_name == standby.name());
        if rows.len() == 1 { rows.pop() } else { None }
    }

    /// Waits until the row of a standby is as wanted.
    pub async fn sees(
        &self,
        standby: &Self,
        what: &str,
        wanted: impl Fn(&Walsender) -> bool,
    ) -> Walsender {
        eventually(what, async || match self.walsender_of(standby).await {
            Some(row) if wanted(&row) => Ok(row),
            other => Err(format!("{other:?}")),
        })
        .await
    }

    /// Waits until it shows all signs of a seal, and returns its position.
    pub async fn sealed(&self) -> Lsn {
        eventually("the signs of the seal", async || {
            let signs = self.seal_signs().await;
            signs.sealed_position().ok_or(format!("{signs:?}"))
        })
        .await
    }

    /// The signs, on a new connection.
    pub async fn seal_signs(&self) -> SealSigns {
        self.connect().await.seal_signs().await.unwrap()
    }

    /// Waits until its startup process waits for `event`.
    pub async fn startup_waits_for(&self, event: &str) {
        eventually("what the startup process waits for", async || {
            let found = self.connect().await.recovery().await.unwrap().startup_wait_event;
            if found.as_deref() == Some(event) { Ok(()) } else { Err(format!("{found:?}")) }
        })
        .await;
    }

    /// Waits until its log has a line with this text, in English since the cluster's locale is C.
    pub async fn logs(&self, text: &str) {
        let limit = std::time::Instant::now() + LIMIT;
        while !std::fs::read_to_string(&self.instance.log_path).unwrap().contains(text) {
            assert!(std::time::Instant::now() < limit, "the log does not say '{text}'");
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}

fn owned(settings: &[(&str, &str)]) -> BTreeMap<String, String> {
    settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn write(instance: &Instance, settings: &BTreeMap<String, String>) {
    let mut pairs: Vec<(&str, &str)> =
        settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    // No fact is about a machine that loses power, and the disk is shared with other tests.
    pairs.push(("fsync", "off"));
    configure(instance, &pairs);
}
