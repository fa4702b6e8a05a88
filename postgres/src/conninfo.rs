//! libpq connection strings, without passwords: those stay in a password file.
//!
//! Not here: connections of our own ([`crate::session`]).

use crate::durable::{self, DurableError, Written};
use crate::owner::Owner;
use std::path::{Path, PathBuf};

/// How to reach another node's Postgres with PostgreSQL's own programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// A host name or address, or the directory of a unix socket.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The role.
    pub user: String,
    /// The password file, see [`write_passfile`]; must be readable by the owner of the cluster.
    pub passfile: Option<PathBuf>,
}

impl Source {
    /// The connection string under `application_name`, with limits by which a dead peer is noticed.
    /// Nobody but a member's walreceiver may be called `pgtandem_<number>`.
    pub fn conninfo(&self, application_name: &str, more: &[(&str, &str)]) -> String {
        let port = self.port.to_string();
        let passfile = self.passfile.as_ref().map(|path| path.to_string_lossy());
        let mut pairs = vec![
            ("host", self.host.as_str()),
            ("port", port.as_str()),
            ("user", self.user.as_str()),
            ("application_name", application_name),
            ("connect_timeout", "5"),
            ("keepalives_idle", "5"),
            ("keepalives_interval", "3"),
            ("keepalives_count", "3"),
        ];
        if let Some(path) = &passfile {
            pairs.push(("passfile", path));
        }
        pairs.extend_from_slice(more);
        conninfo(&pairs)
    }
}

/// `key='value'` pairs, quoted as libpq wants it.
pub fn conninfo(pairs: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (key, value) in pairs {
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(key);
        text.push_str("='");
        for c in value.chars() {
            if matches!(c, '\'' | '\\') {
                text.push('\\');
            }
            text.push(c);
        }
        text.push('\'');
    }
    text
}

/// Writes a password file with one line per user, for every host and database, readable by the owner
/// alone (libpq ignores it otherwise).
pub fn write_passfile(
    path: &Path,
    passwords: &[(&str, &str)],
    owner: &Owner,
) -> Result<Written, DurableError> {
    let escape = |text: &str| text.replace('\\', "\\\\").replace(':', "\\:");
    let mut content = String::new();
    for (user, password) in passwords {
        content.extend(["*:*:*:", &escape(user), ":", &escape(password), "\n"]);
    }
    durable::write(path, content.as_bytes(), 0o600, owner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_quoted() {
        assert_eq!(conninfo(&[("host", "a b"), ("user", r"o'\x")]), r"host='a b' user='o\'\\x'");
    }

    #[test]
    fn password_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pass");
        write_passfile(&path, &[("u", r"a:b\c")], &Owner::current()).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "*:*:*:u:a\\:b\\\\c\n");
    }
}
