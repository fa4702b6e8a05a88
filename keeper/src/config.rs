//! What a keeper is told at its start, validated.

use crate::archive::Archive;
use crate::create::Way;
use crate::managed::Hba;
use ctl::client::MonitorUrl;
use hooks::{Hook, Web};
use shared::ids::{FormationId, NodeName};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The settings of a keeper.
#[derive(Clone, Debug)]
pub struct Config {
    /// What is spoken with the monitor: [`shared::PROTOCOL`], but in builds for tests.
    pub protocol: u32,
    /// Where the monitor is.
    pub monitors: Vec<MonitorUrl>,
    /// The formation.
    pub formation: FormationId,
    /// The node's name.
    pub name: NodeName,
    /// The address under which others reach its Postgres.
    pub host: String,
    /// The port of its Postgres.
    pub port: u16,
    /// `listen_addresses` of its Postgres.
    pub listen_addresses: String,
    /// The data directory.
    pub pgdata: PathBuf,
    /// Where WAL is to be, if elsewhere.
    pub waldir: Option<PathBuf>,
    /// The directory of the unix socket.
    pub socket_dir: PathBuf,
    /// Where the keeper keeps its own state.
    pub state_dir: PathBuf,
    /// The directory of PostgreSQL's programs.
    pub bin_dir: Option<PathBuf>,
    /// Where the REST interface listens.
    pub rest_listen: SocketAddr,
    /// 0 to 100.
    pub candidate_priority: u8,
    /// Whether the node may be in the sync set.
    pub replication_quorum: bool,
    /// Where it stands.
    pub zone: Option<String>,
    /// Lets it join.
    pub join_token: Option<String>,
    /// A database to create at birth.
    pub dbname: Option<String>,
    /// How the HBA block is made.
    pub hba: Hba,
    /// The method of initdb's own HBA lines.
    pub auth: Option<String>,
    /// Limits copies.
    pub max_rate: Option<String>,
    /// `max_slot_wal_keep_size`.
    pub max_slot_wal_keep_size: String,
    /// The superuser of a cluster that is adopted, or to be created.
    pub superuser: String,
    /// Who runs Postgres.
    pub run_as: Option<String>,
    /// The device that resets the host when it is not fed.
    pub watchdog: Option<PathBuf>,
    /// Where WAL and backups are kept, if anywhere.
    pub archive: Option<Archive>,
    /// What the operator wants to be run.
    pub hooks: Vec<Hook>,
    /// How long each may take.
    pub hook_timeout: Duration,
    /// What posts to URLs.
    pub hook_web: Web,
    /// How copies are made: the first way that works.
    pub create_replica: Vec<Way>,
    /// For how long a copy may make no progress.
    pub create_replica_patience: Duration,
}
