//! The operating-system user that a cluster belongs to, and commands that run as that user.
//!
//! Postgres refuses to run as root, so a keeper that is root runs everything as the owner of the data
//! directory. What must hold: a child has no connection to the keeper's terminal, process group or
//! secrets. Supplementary groups of the owner are not taken over (the standard library clears them
//! when it changes the user, and cannot set them), so a TLS key must be readable by the owner itself.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::{env, fs, io};
use tokio::process::Command;

/// The user that runs the server when the keeper is root and nothing exists yet.
pub const DEFAULT_USER: &str = "postgres";

/// Why a user cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OwnerError {
    /// No such user.
    #[error("there is no operating-system user '{0}'")]
    Unknown(String),
    /// The path could not be looked at.
    #[error("cannot find the owner of {}", path.display())]
    Stat {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The ownership could not be given away.
    #[error("cannot give {} to user {user}", path.display())]
    Chown {
        /// Which.
        path: PathBuf,
        /// To whom.
        user: String,
        /// Why.
        source: io::Error,
    },
}

/// An operating-system user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The user's number.
    pub uid: u32,
    /// The number of the primary group.
    pub gid: u32,
    /// The name; the number where it has none.
    pub name: String,
    /// The home directory.
    pub home: PathBuf,
}

impl Owner {
    /// The owner of an existing file or directory.
    pub fn of(path: &Path) -> Result<Self, OwnerError> {
        let meta = fs::metadata(path)
            .map_err(|source| OwnerError::Stat { path: path.to_owned(), source })?;
        Ok(Self::by_uid(meta.uid(), meta.gid()))
    }

    /// Looks a name up in `/etc/passwd`, then with `getent` (for directories such as LDAP).
    pub fn by_name(name: &str) -> Result<Self, OwnerError> {
        lookup(name, |owner| owner.name == name).ok_or_else(|| OwnerError::Unknown(name.to_owned()))
    }

    /// The user that this process runs as.
    pub fn current() -> Self {
        Self::by_uid(rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
    }

    /// The user that a cluster at `data_dir` belongs to or would belong to: this process's own, or
    /// if that is root, the owner of what exists, or else `postgres`.
    pub fn for_data_dir(data_dir: &Path) -> Result<Self, OwnerError> {
        let current = Self::current();
        if current.uid != 0 {
            return Ok(current);
        }
        match Self::of(data_dir) {
            Ok(owner) if owner.uid != 0 => Ok(owner),
            Ok(_) | Err(_) => Self::by_name(DEFAULT_USER),
        }
    }

    /// A command that runs as this user, where this process is root and not that user already. Its
    /// standard input is empty, it has a process group of its own, starts in `/`, and sees no
    /// variable that could carry a secret or change what a PostgreSQL program does.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.stdin(Stdio::null()).process_group(0).current_dir("/");
        for (name, _) in env::vars_os() {
            if is_foreign(&name) {
                command.env_remove(&name);
            }
        }
        if self.must_switch() {
            command.uid(self.uid).gid(self.gid).env("USER", &self.name).env("LOGNAME", &self.name);
        }
        command.env("HOME", &self.home);
        command
    }

    /// Gives a file or directory to this user, where this process may and it is needed.
    pub fn chown(&self, path: &Path) -> Result<(), OwnerError> {
        if !self.must_switch() {
            return Ok(());
        }
        std::os::unix::fs::lchown(path, Some(self.uid), Some(self.gid)).map_err(|source| {
            OwnerError::Chown { path: path.to_owned(), user: self.name.clone(), source }
        })
    }

    fn must_switch(&self) -> bool {
        let me = rustix::process::geteuid();
        me.is_root() && me.as_raw() != self.uid
    }

    fn by_uid(uid: u32, gid: u32) -> Self {
        lookup(&uid.to_string(), |owner| owner.uid == uid).unwrap_or_else(|| Self {
            uid,
            gid,
            name: uid.to_string(),
            home: PathBuf::from("/"),
        })
    }
}

/// `PG*` changes what the programs do, except how TLS is done and `PG_OOM_ADJUST_*`; `PGTANDEM_*`
/// may carry a token; `NOTIFY_SOCKET` and what goes with it is the keeper's own line to systemd.
fn is_foreign(name: &OsString) -> bool {
    let Some(name) = name.to_str() else { return false };
    let postgres = name.starts_with("PG") && !name.starts_with("PGSSL") && !name.starts_with("PG_");
    let ours = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];
    postgres
        || ours.contains(&name)
        || matches!(name, "LISTEN_FDS" | "LISTEN_PID" | "LISTEN_FDNAMES")
}

fn lookup(key: &str, wanted: impl Fn(&Owner) -> bool) -> Option<Owner> {
    let local = fs::read_to_string("/etc/passwd").unwrap_or_default();
    if let Some(owner) = local.lines().filter_map(parse_passwd).find(&wanted) {
        return Some(owner);
    }
    let output = std::process::Command::new("getent").args(["passwd", key]).output().ok()?;
    String::from_utf8_lossy(&output.stdout).lines().filter_map(parse_passwd).find(wanted)
}

/// `name:password:uid:gid:comment:home:shell`, see passwd(5).
fn parse_passwd(line: &str) -> Option<Owner> {
    let mut fields = line.split(':');
    let name = fields.next()?.to_owned();
    let uid = fields.nth(1)?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    let home = PathBuf::from(fields.nth(1)?);
    Some(Owner { uid, gid, name, home })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_read() {
        let owner =
            parse_passwd("postgres:x:101:104:PostgreSQL,,,:/var/lib/postgresql:/bin/bash").unwrap();
        assert_eq!((owner.uid, owner.gid), (101, 104));
        assert_eq!(owner.home, Path::new("/var/lib/postgresql"));
        assert_eq!(parse_passwd("broken:x"), None);
        assert!(Owner::by_name("no-such-user").is_err());
        assert_eq!(Owner::by_name("root").unwrap().uid, 0);
    }

    #[test]
    fn foreign_variables() {
        for name in ["PGPASSWORD", "PGHOST", "PGTANDEM_JOIN_TOKEN", "NOTIFY_SOCKET"] {
            assert!(is_foreign(&name.into()), "{name}");
        }
        for name in ["PATH", "PGSSLROOTCERT", "PG_OOM_ADJUST_FILE", "LANG"] {
            assert!(!is_foreign(&name.into()), "{name}");
        }
    }

    #[tokio::test]
    async fn commands_run_as_the_owner() {
        let owner = Owner::for_data_dir(Path::new("/nonexistent")).unwrap();
        let output = owner.command("id").arg("-u").output().await.unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), owner.uid.to_string());
    }
}
