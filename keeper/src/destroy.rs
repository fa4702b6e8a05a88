//! Destroying what a node has on its disks, once it has left its formation: the data directory, its WAL
//! elsewhere, half-made copies beside it, and the keeper's own state, in this order.
//!
//! What tells whose data it is goes last, so that it can be begun again after any interruption. Nothing is
//! touched that is not this node's: another cluster, a directory that is something else, or one that a
//! server runs on. Of a tablespace elsewhere what this version of PostgreSQL has in it goes.

use crate::agent::Ended;
use crate::node::{Node, disk};
use crate::state::State;
use postgres::datadir::{Contents, DataDir};
use shared::goal::Goal;
use shared::ids::SystemIdentifier;
use std::io;
use std::path::{Path, PathBuf};

/// What the keeper writes into its state directory; who the node is comes last.
const STATE_FILES: &[&str] = &[
    "postgres.log",
    "pgpass",
    "archive.pgpass",
    "archive.sock",
    "archive.json",
    "monitor.json",
    "hooks.json",
    "hooks.damaged",
    "keeper.lock",
    "keeper.json",
];

/// For files that appear while a directory is removed.
const TRIES: usize = 3;

/// Why nothing, or not everything, was destroyed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DestroyError {
    /// Somebody uses it.
    #[error("{} is not destroyed: process {pid} is a server of it; stop that first", path.display())]
    Running {
        /// The data directory.
        path: PathBuf,
        /// Of a server.
        pid: i32,
    },
    /// It is not ours.
    #[error("{} is not destroyed: {why}", path.display())]
    NotOurs {
        /// The data directory.
        path: PathBuf,
        /// What it is instead.
        why: String,
    },
    /// A file cannot be removed.
    #[error("{} cannot be removed: {source}", path.display())]
    Remove {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Whether the monitor has told this node to destroy its data when it leaves.
pub(crate) fn is_ordered(state: &State) -> bool {
    state.persisted.as_ref().is_some_and(|persisted| {
        persisted.assignment.goal == Goal::Dropped && persisted.assignment.orders.destroy > 0
    })
}

/// Destroys all that the node has. Blocks.
pub(crate) fn everything(
    data_dir: &DataDir,
    state_dir: &Path,
    state: &State,
) -> Result<(), DestroyError> {
    data(data_dir, state)?;
    for what in ["new", "old"] {
        let mut name = data_dir.path().file_name().unwrap_or_default().to_owned();
        name.push(format!(".pgtandem-{what}"));
        gone(&data_dir.path().with_file_name(name), |path| std::fs::remove_dir_all(path))?;
    }
    for file in STATE_FILES {
        gone(&state_dir.join(file), |path| std::fs::remove_file(path))?;
    }
    // Somebody may keep other things in it.
    drop(std::fs::remove_dir(state_dir));
    Ok(())
}

fn data(data_dir: &DataDir, state: &State) -> Result<(), DestroyError> {
    let path = data_dir.path();
    match data_dir.contents() {
        Contents::Missing => return Ok(()),
        Contents::Empty => {
            drop(std::fs::remove_dir(path));
            return Ok(());
        }
        Contents::Cluster { .. } | Contents::Unusable { .. } => {}
    }
    if let Some(pid) = postgres::process::postgres_in(&data_dir.canonical()).first() {
        return Err(DestroyError::Running { path: path.to_owned(), pid: *pid });
    }
    is_ours(data_dir, state).map_err(|why| DestroyError::NotOurs { path: path.to_owned(), why })?;
    let wal = data_dir.wal_dir();
    if let Ok(elsewhere) =
        std::fs::canonicalize(&wal).and_then(|real| std::fs::read_link(&wal).map(|_| real))
    {
        gone(&elsewhere, postgres::storage::empty_wal_dir)?;
        drop(std::fs::remove_dir(&elsewhere));
    }
    let version = std::fs::read_to_string(data_dir.join("PG_VERSION"));
    if let (Ok(major), Ok((_, catalogues))) = (version, control(data_dir)) {
        let own = format!("PG_{}_{catalogues}", major.trim());
        for space in postgres::storage::tablespaces(data_dir) {
            gone(&space.join(&own), |path| std::fs::remove_dir_all(path))?;
        }
    }
    let read = |source| DestroyError::Remove { path: path.to_owned(), source };
    for entry in std::fs::read_dir(path).map_err(read)? {
        let entry = entry.map_err(read)?;
        if entry.file_name() != "global" {
            let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
            gone(&entry.path(), |path| {
                if is_dir { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }
            })?;
        }
    }
    // It has the control file.
    gone(&data_dir.join("global"), |path| std::fs::remove_dir_all(path))?;
    // Whoever asks the disk whether it lives may have written again. The directory itself may stay: it may be a
    // mount point.
    for _ in 0..TRIES {
        if std::fs::remove_dir_all(path).is_ok() {
            break;
        }
    }
    Ok(())
}

/// What the control file begins with: the system identifier, its own version, and that of the catalogues
/// (`ControlFileData` in `pg_control.h`).
fn control(data_dir: &DataDir) -> io::Result<(SystemIdentifier, u32)> {
    use std::io::Read as _;
    let (mut system, mut versions) = ([0; 8], [[0; 4]; 2]);
    let mut file = std::fs::File::open(data_dir.join("global/pg_control"))?;
    file.read_exact(&mut system)?;
    file.read_exact(versions.as_flattened_mut())?;
    let [_, catalogues] = versions.map(u32::from_ne_bytes);
    Ok((SystemIdentifier(u64::from_ne_bytes(system)), catalogues))
}

fn is_ours(data_dir: &DataDir, state: &State) -> Result<(), String> {
    let found = control(data_dir).map(|(system, _)| system);
    let group = state.persisted.as_ref().and_then(|known| known.assignment.system_identifier);
    match (found, group) {
        (Ok(found), Some(group)) if found == group => Ok(()),
        (Ok(found), Some(group)) => {
            Err(format!("it is of the cluster {found}, and this node's was {group}"))
        }
        (Ok(_), None) => Err("this node never had data that is known of".to_owned()),
        // A copy that was not finished.
        (Err(_), _) if state.rebuilding => Ok(()),
        (Err(error), _) => Err(format!("it is no cluster: global/pg_control: {error}")),
    }
}

/// Removed, now or before.
fn gone(path: &Path, remove: impl Fn(&Path) -> io::Result<()>) -> Result<(), DestroyError> {
    match remove(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(DestroyError::Remove { path: path.to_owned(), source })
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

impl Node {
    /// The monitor knows this node no longer: remembers that, and destroys what it was told to.
    pub(crate) fn leave_for_good(&mut self) -> Ended {
        let ordered = is_ordered(&self.state);
        if let Err(error) = self.persist(|state| state.dropped = true) {
            tracing::error!("{error}");
            return Ended::Dropped;
        }
        if ordered {
            let (data_dir, state_dir) = (&self.instance.data_dir, &self.config.state_dir);
            match disk(|| everything(data_dir, state_dir, &self.state)) {
                Ok(()) => tracing::info!("the data of this node has been destroyed, as ordered"),
                Err(error) => tracing::error!("{error}; the next start of the keeper tries again"),
            }
        }
        Ended::Dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    struct Disk {
        _temp: tempfile::TempDir,
        data: DataDir,
        state_dir: PathBuf,
        wal: PathBuf,
    }

    /// A cluster of system identifier 7 with its WAL elsewhere.
    fn disk_of_a_node() -> Disk {
        let temp = tempfile::tempdir().unwrap();
        let (pgdata, wal) = (temp.path().join("data"), temp.path().join("wal"));
        let state_dir = temp.path().join("data.pgtandem");
        for dir in [&pgdata.join("base"), &pgdata.join("global"), &wal, &state_dir] {
            fs::create_dir_all(dir).unwrap();
        }
        fs::write(pgdata.join("PG_VERSION"), "15\n").unwrap();
        write_control(&pgdata);
        fs::write(wal.join("000000010000000000000001"), "wal").unwrap();
        std::os::unix::fs::symlink(&wal, pgdata.join("pg_wal")).unwrap();
        for file in STATE_FILES {
            fs::write(state_dir.join(file), "{}").unwrap();
        }
        Disk { data: DataDir::new(pgdata), state_dir, wal, _temp: temp }
    }

    /// Of system identifier 7, with catalogues of version 5.
    fn write_control(pgdata: &Path) {
        let mut control = 7_u64.to_ne_bytes().to_vec();
        control.extend([1300_u32, 5].map(u32::to_ne_bytes).as_flattened());
        fs::write(pgdata.join("global/pg_control"), control).unwrap();
    }

    fn state_of(cluster: u64, goal: &Goal) -> State {
        let assignment = serde_json::json!({
            "order": { "ticket": 1, "generation": 1 },
            "epoch": 1,
            "goal_state": "dropped",
            "goal": goal,
            "members": [],
            "lineage": [],
            "system_identifier": SystemIdentifier(cluster),
            "timers": shared::settings::Settings::default().timers(),
            "may_stop": false,
            "orders": { "destroy": 3 },
        });
        let persisted = serde_json::json!({
            "own": 2, "assignment": assignment, "sealed": null, "promoted": null, "admitted": null,
        });
        State { persisted: Some(serde_json::from_value(persisted).unwrap()), ..State::default() }
    }

    #[test]
    fn all_of_it_goes_and_again_is_no_error() {
        let disk = disk_of_a_node();
        let state = state_of(7, &Goal::Dropped);
        everything(&disk.data, &disk.state_dir, &state).unwrap();
        for path in [disk.data.path(), &disk.wal, &disk.state_dir] {
            assert!(!path.exists(), "{}", path.display());
        }
        everything(&disk.data, &disk.state_dir, &state).unwrap();
    }

    #[test]
    fn of_a_tablespace_what_is_ours_goes() {
        let disk = disk_of_a_node();
        let space = disk.wal.with_file_name("space");
        for version in ["PG_15_5", "PG_16_6"] {
            fs::create_dir_all(space.join(version).join("1")).unwrap();
        }
        fs::create_dir(disk.data.join("pg_tblspc")).unwrap();
        std::os::unix::fs::symlink(&space, disk.data.join("pg_tblspc/16385")).unwrap();
        everything(&disk.data, &disk.state_dir, &state_of(7, &Goal::Dropped)).unwrap();
        assert!(!space.join("PG_15_5").exists() && space.join("PG_16_6/1").exists());
    }

    #[test]
    fn an_interrupted_one_is_finished() {
        let disk = disk_of_a_node();
        fs::remove_file(disk.data.join("PG_VERSION")).unwrap();
        fs::remove_file(disk.data.join("pg_wal")).unwrap();
        everything(&disk.data, &disk.state_dir, &state_of(7, &Goal::Dropped)).unwrap();
        assert!(!disk.data.path().exists());
    }

    #[test]
    fn what_is_not_ours_stays() {
        let disk = disk_of_a_node();
        let refused = everything(&disk.data, &disk.state_dir, &state_of(8, &Goal::Dropped));
        assert!(matches!(refused, Err(DestroyError::NotOurs { .. })), "{refused:?}");
        fs::remove_file(disk.data.join("global/pg_control")).unwrap();
        let refused = everything(&disk.data, &disk.state_dir, &state_of(7, &Goal::Dropped));
        assert!(matches!(refused, Err(DestroyError::NotOurs { .. })), "{refused:?}");
        fs::write(disk.wal.join("notes.txt"), "mine").unwrap();
        write_control(disk.data.path());
        let refused = everything(&disk.data, &disk.state_dir, &state_of(7, &Goal::Dropped));
        assert!(refused.unwrap_err().to_string().contains("notes.txt"));
        for path in [disk.data.join("base"), disk.state_dir.join("keeper.json")] {
            assert!(path.exists(), "{}", path.display());
        }
    }

    #[test]
    fn it_is_ordered_only_with_the_goal() {
        assert!(is_ordered(&state_of(7, &Goal::Dropped)));
        assert!(!is_ordered(&state_of(7, &Goal::Wait)));
        assert!(!is_ordered(&State::default()));
    }
}
