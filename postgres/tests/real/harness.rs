//! Servers in temporary directories. Shared with the tests of `tests/facts`.

use postgres::backup::{self, BackupOptions};
use postgres::config::{self, ManagedConfig};
use postgres::conninfo::Source;
use postgres::datadir::DataDir;
use postgres::instance::{InitOptions, Instance};
use postgres::owner::Owner;
use postgres::postmaster::{Postmaster, Signal};
use postgres::process;
use postgres::programs::Programs;
use postgres::session::{Session, Target};
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Long enough for a loaded machine; no test waits for it when all is well.
pub const LIMIT: Duration = Duration::from_secs(30);

pub const SUPERUSER: &str = "pgtandem_keeper";

/// A temporary directory that belongs to the owner of its clusters; what runs in it ends with it.
pub struct Place {
    dir: TempDir,
    pub owner: Owner,
    programs: Programs,
}

impl Place {
    /// `parent` is short, for the limit of socket paths.
    pub fn within(parent: &str, programs: Programs) -> Self {
        let dir = tempfile::Builder::new().prefix("pgt").tempdir_in(parent).unwrap();
        let owner = Owner::for_data_dir(Path::new("/nonexistent")).unwrap();
        owner.chown(dir.path()).unwrap();
        Self { dir, owner, programs }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// An instance under this name; nothing is created but its socket directory.
    pub fn instance(&self, name: &str) -> Instance {
        let socket_dir = self.path().join(format!("{name}.s"));
        postgres::durable::create_dir(&socket_dir, 0o700, &self.owner).unwrap();
        Instance {
            programs: self.programs.clone(),
            data_dir: DataDir::new(self.path().join(name)),
            owner: self.owner.clone(),
            port: 5432,
            socket_dir,
            listen_addresses: String::new(),
            log_path: self.path().join(format!("{name}.log")),
        }
    }

    /// A new cluster, configured and not started.
    pub async fn cluster(&self, name: &str) -> Instance {
        let instance = self.instance(name);
        instance
            .initdb(&InitOptions {
                superuser: SUPERUSER.to_owned(),
                auth_local: "trust".to_owned(),
                auth_host: "scram-sha-256".to_owned(),
                wal_dir: None,
            })
            .await
            .unwrap();
        configure(&instance, &[]);
        instance
    }
}

impl Place {
    /// The processes that run here.
    fn processes(&self) -> Vec<rustix::process::Pid> {
        let canonical = std::fs::canonicalize(self.path()).unwrap();
        let entries = std::fs::read_dir(&canonical).into_iter().flatten().flatten();
        entries
            .flat_map(|entry| {
                [process::postgres_in(&entry.path()), process::tools_on(&entry.path())].concat()
            })
            .filter_map(rustix::process::Pid::from_raw)
            .collect()
    }

    fn signal_all(&self, signal: rustix::process::Signal) {
        for pid in self.processes() {
            let _ = rustix::process::kill_process(pid, signal);
        }
    }
}

/// A server that is killed leaves its shared memory behind, and a machine has room for 4096 segments
/// only: it is stopped at once instead, and killed if it does not end.
impl Drop for Place {
    fn drop(&mut self) {
        self.signal_all(rustix::process::Signal::QUIT);
        self.signal_all(rustix::process::Signal::CONT);
        for _ in 0..200 {
            if self.processes().is_empty() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.signal_all(rustix::process::Signal::KILL);
    }
}

/// Writes the managed file: what every test server needs, and `more`.
pub fn configure(instance: &Instance, more: &[(&str, &str)]) {
    let mut managed = ManagedConfig::default();
    for (name, value) in instance.listen_settings() {
        managed.set(name, value);
    }
    managed
        .set("shared_buffers", "16MB")
        .set("wal_keep_size", "256MB")
        .set("max_connections", "20");
    managed.set("wal_log_hints", "on").set("autovacuum", "off");
    managed.set("wal_retrieve_retry_interval", "100ms");
    for (name, value) in more {
        managed.set(*name, *value);
    }
    managed.write(&instance.data_dir, &instance.owner).unwrap();
    config::ensure_included(&instance.data_dir, &instance.owner).unwrap();
}

pub async fn start(instance: &Instance) -> Postmaster {
    let server = Postmaster::start(instance).await.unwrap();
    server.wait_ready(LIMIT).await.unwrap();
    server
}

pub async fn stop(server: &Postmaster, signal: Signal) {
    assert_eq!(server.stop(&[(signal, LIMIT)]).await.unwrap(), Some(signal));
}

pub async fn connect(instance: &Instance) -> Session {
    Session::connect(&Target::socket(instance, SUPERUSER, "postgres"), LIMIT).await.unwrap()
}

pub fn source(instance: &Instance) -> Source {
    Source {
        host: instance.socket_dir.display().to_string(),
        port: instance.port,
        user: SUPERUSER.to_owned(),
        passfile: None,
    }
}

/// Copies a running server and configures the copy as a standby of it.
pub async fn clone(from: &Instance, to: &Instance, application_name: &str, slot: &str) {
    let mut copy = backup::start(to, &source(from), &BackupOptions::default()).await.unwrap();
    copy.wait().await.unwrap();
    to.data_dir.set_standby(&to.owner).unwrap();
    follow(from, to, application_name, slot);
}

/// Points a standby to its upstream.
pub fn follow(from: &Instance, to: &Instance, application_name: &str, slot: &str) {
    let conninfo = source(from).conninfo(application_name, &[]);
    configure(to, &[("primary_conninfo", &conninfo), ("primary_slot_name", slot)]);
}

/// Asks again and again until the answer is `Ok`, and prints the last one when time is up.
pub async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        match ask().await {
            Ok(value) => return value,
            Err(last) if Instant::now() > deadline => panic!("{what}: {last}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}
