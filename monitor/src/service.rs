//! The formations of a monitor process, and what the process says of itself.
//!
//! The HTTP side is there before the database is: until [`Service::open`] has returned everything is
//! answered with 503.

use crate::clock;
use crate::group::{Context, Group};
use crate::hooks::{Audience, Teller};
use crate::http::{not_found, store_failed, unavailable};
use crate::metrics::Metrics;
use crate::secret;
use crate::store::{Store, StoreError};
use crate::trace::Trace;
use fsm::group::Record;
use postgres::embedded::Embedded;
use shared::Timestamp;
use shared::api::{
    ApiError, CreateFormation, FormationSummary, JoinRequest, Ready, RolePasswords, Storage,
};
use shared::ids::{FormationId, GroupId};
use shared::settings::Settings;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::watch;

/// How often the database is asked whether it is there.
const PING_INTERVAL: Duration = Duration::from_secs(1);
/// The formation that a new monitor has.
const FIRST_FORMATION: &str = "default";

/// See [`Service::group`].
const UNKNOWN_FORMATION: &str = "unknown_formation";

/// What a process knows of itself from the start.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The newest protocol that it speaks with keepers.
    pub protocol: u32,
    /// All ways to reach this monitor.
    pub monitors: Vec<String>,
    /// embedded or external.
    pub storage: String,
    /// Becomes true when the process ends.
    pub stopping: watch::Receiver<bool>,
    /// What the operator wants to be told of the history.
    pub hooks: Vec<Audience>,
}

/// The monitor.
#[derive(Debug)]
pub struct Service {
    identity: Identity,
    started_at: Timestamp,
    metrics: Arc<Metrics>,
    store: OnceLock<Store>,
    store_up: AtomicBool,
    schema_version: AtomicI64,
    embedded: OnceLock<Arc<Embedded>>,
    groups: RwLock<BTreeMap<FormationId, Group>>,
    /// Formations are made of what keepers bring (`run --adopt`).
    adopts: AtomicBool,
}

impl Service {
    /// A monitor that has no database yet.
    pub fn new(identity: Identity) -> Self {
        Self {
            identity,
            started_at: clock::wall(),
            metrics: Arc::new(Metrics::default()),
            store: OnceLock::new(),
            store_up: AtomicBool::new(false),
            schema_version: AtomicI64::new(0),
            embedded: OnceLock::new(),
            groups: RwLock::new(BTreeMap::new()),
            adopts: AtomicBool::new(false),
        }
    }

    /// Starts the groups that are stored, and the first formation of a new monitor; `None`: those that
    /// keepers bring.
    pub async fn open(&self, store: Store, first: Option<Settings>) -> Result<(), StoreError> {
        self.schema_version.store(store.schema_version().await?, Ordering::Relaxed);
        self.adopts.store(first.is_none(), Ordering::Relaxed);
        if let Some(first) = first {
            create_first(&store, first).await?;
        }
        let stored = store.load().await?;
        // From here on requests are served.
        let store = self.store.get_or_init(|| store);
        self.store_up.store(true, Ordering::Relaxed);
        for group in stored {
            self.start_group(store, group.record, group.passwords);
        }
        Ok(())
    }

    /// Follows whether the database is there, for `/readyz`.
    pub async fn watch_store(&self) {
        loop {
            tokio::time::sleep(PING_INTERVAL).await;
            if let Some(store) = self.store.get() {
                self.store_up.store(store.ping().await.is_ok(), Ordering::Relaxed);
            }
        }
    }

    /// Says that the database is embedded.
    pub fn set_embedded(&self, embedded: &Arc<Embedded>) {
        self.embedded.get_or_init(|| Arc::clone(embedded));
    }

    /// The body of `/readyz`.
    pub fn readiness(&self) -> Ready {
        let pid = self.embedded.get().map(|embedded| embedded.pid());
        Ready {
            ready: self.store_up.load(Ordering::Relaxed) && !*self.identity.stopping.borrow(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            schema_version: self.schema_version.load(Ordering::Relaxed),
            started_at: self.started_at,
            storage: Storage { kind: self.identity.storage.clone(), pid },
        }
    }

    /// What is counted.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// All ways to reach this monitor.
    pub fn monitors(&self) -> &[String] {
        &self.identity.monitors
    }

    /// The newest protocol that it speaks with keepers.
    pub fn protocol(&self) -> u32 {
        self.identity.protocol
    }

    /// Becomes true when the process ends.
    pub fn stopping(&self) -> watch::Receiver<bool> {
        self.identity.stopping.clone()
    }

    /// The database, once it is there.
    pub fn store(&self) -> Result<&Store, ApiError> {
        self.store.get().ok_or_else(|| unavailable("the monitor is starting"))
    }

    /// The group of a formation.
    pub fn group(&self, formation: &FormationId) -> Result<Group, ApiError> {
        self.store()?;
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        groups.get(formation).cloned().ok_or_else(|| {
            let known: Vec<_> = groups.keys().map(ToString::to_string).collect();
            not_found(
                UNKNOWN_FORMATION,
                format!("there is no formation {formation}; there is: {}", known.join(", ")),
            )
        })
    }

    /// The group that a keeper says it belongs to. A monitor that adopts makes one in quarantine where
    /// there is none: nothing is decided in it before the keepers have been heard.
    pub async fn group_or_lost(&self, request: &JoinRequest) -> Result<Group, ApiError> {
        let formation = &request.formation;
        let Err(unknown) = self.group(formation) else { return self.group(formation) };
        if unknown.reason != UNKNOWN_FORMATION {
            return Err(unknown);
        }
        if !self.adopts.load(Ordering::Relaxed) {
            return Err(ApiError {
                code: 3,
                reason: UNKNOWN_FORMATION.to_owned(),
                message: format!(
                    "this monitor has no formation {formation}, and {} says that it is part of it; if the monitor's directory was lost, start the monitor on an empty one with `pgtandem-monitor run --adopt`",
                    request.name
                ),
                nodes: vec![request.name.clone()],
            });
        }
        let store = self.store()?;
        let mut record = Record::lost(formation.clone(), GroupId(0), Settings::default());
        let passwords = request.passwords.clone().unwrap_or_else(new_passwords);
        let created = store.create_formation(&mut record, &passwords).await;
        if created.map_err(|error| store_failed(&error))? {
            tracing::warn!(
                formation.id = %formation,
                "formation {formation} is unknown here, and {} is part of it: it is in quarantine until its keepers have been heard",
                request.name
            );
            self.start_group(store, record, passwords);
        }
        self.group(formation)
    }

    /// All of them.
    pub fn groups(&self) -> Result<Vec<(FormationId, Group)>, ApiError> {
        self.store()?;
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        Ok(groups.iter().map(|(name, group)| (name.clone(), group.clone())).collect())
    }

    /// Whether a group's task has ended although it should not have.
    pub fn is_broken(&self) -> bool {
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        groups.values().any(|group| !group.is_running())
    }

    /// Adds a formation.
    pub async fn create_formation(
        &self,
        wanted: CreateFormation,
    ) -> Result<FormationSummary, ApiError> {
        let store = self.store()?;
        wanted.settings.validate().map_err(|error| ApiError {
            code: 1,
            reason: "bad_value".to_owned(),
            message: error.to_string(),
            nodes: Vec::new(),
        })?;
        let mut record = Record::new(wanted.name.clone(), GroupId(0), wanted.settings.clone());
        let passwords = new_passwords();
        let created = store.create_formation(&mut record, &passwords).await;
        if created.map_err(|error| store_failed(&error))? {
            tracing::info!(formation.id = %wanted.name, "formation {} was created", wanted.name);
            self.start_group(store, record, passwords);
        }
        let group = self.group(&wanted.name)?;
        let summary = group.inspect(|record, _, _| (summary(record), record.settings.clone()));
        let (summary, settings) = summary.await?;
        if settings == wanted.settings {
            Ok(summary)
        } else {
            Err(ApiError {
                code: 3,
                reason: "exists".to_owned(),
                message: format!("formation {} is there already, with other settings", wanted.name),
                nodes: Vec::new(),
            })
        }
    }

    /// Removes a formation that has no nodes.
    pub async fn drop_formation(&self, formation: &FormationId) -> Result<(), ApiError> {
        let group = self.group(formation)?;
        let dropped = self.store()?.drop_formation(formation).await;
        if !dropped.map_err(|error| store_failed(&error))? {
            let nodes = group
                .inspect(|record, _, _| record.nodes.values().map(|n| n.name.clone()).collect())
                .await?;
            return Err(ApiError {
                code: 3,
                reason: "has_nodes".to_owned(),
                message: format!("formation {formation} still has nodes: drop them first"),
                nodes,
            });
        }
        self.groups.write().unwrap_or_else(PoisonError::into_inner).remove(formation);
        group.end().await;
        tracing::info!(formation.id = %formation, "formation {formation} was dropped");
        Ok(())
    }

    fn start_group(&self, store: &Store, record: Record, passwords: RolePasswords) {
        let context = Context {
            store: store.clone(),
            metrics: Arc::clone(&self.metrics),
            passwords,
            stopping: self.identity.stopping.clone(),
            trace: Trace::begin(),
        };
        let formation = record.formation.clone();
        let group = Group::start(record, context);
        for audience in &self.identity.hooks {
            let teller = Teller {
                audience: audience.clone(),
                formation: formation.clone(),
                store: store.clone(),
                watched: group.watch(),
                troubles: group.troubles().clone(),
                stopping: self.identity.stopping.clone(),
            };
            drop(tokio::spawn(teller.run()));
        }
        self.groups.write().unwrap_or_else(PoisonError::into_inner).insert(formation, group);
    }
}

/// A formation in a line.
pub fn summary(record: &Record) -> FormationSummary {
    FormationSummary {
        name: record.formation.clone(),
        nodes: record.nodes.len(),
        primary: record.primary_name(),
        phase: record.phase.name().to_owned(),
    }
}

/// Creates the first formation where there is none; whether it did.
pub async fn create_first(store: &Store, settings: Settings) -> Result<bool, StoreError> {
    if store.load().await?.is_empty()
        && let Ok(name) = FIRST_FORMATION.parse()
    {
        let mut record = Record::new(name, GroupId(0), settings);
        if store.create_formation(&mut record, &new_passwords()).await? {
            tracing::info!(
                formation.id = %FIRST_FORMATION,
                "formation {FIRST_FORMATION} was created, since there was none"
            );
            return Ok(true);
        }
    }
    Ok(false)
}

fn new_passwords() -> RolePasswords {
    RolePasswords {
        replicator: secret::generate(),
        monitor: secret::generate(),
        keeper: secret::generate(),
    }
}
