//! `--create-replica`: the ways in which a copy can be made, as the operator lists them. One trait for all
//! of them: each is a program that fills a directory and says how far it is.
//!
//! What is done before and after is the same for every way, and is in `steps/copy.rs`. Not here either: what
//! is checked of what comes back (`steps/copy/check.rs`).

use crate::archive::Archive;
use crate::cli::failure;
use postgres::backup::{self, BackupOptions};
use postgres::conninfo::Source;
use postgres::instance::Instance;
use postgres::transfer::{Progress, Reader, parse_progress};
use serde::{Deserialize, Deserializer};
use shared::api::ApiError;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;
use tokio::process::Command;

/// Without progress for so long a program hangs: longer than the checkpoint that `pg_basebackup` waits for.
const PATIENCE: Duration = Duration::from_mins(5);

/// What a copy is made of, and for whom.
#[derive(Clone, Debug)]
pub struct Errand {
    /// The instance with the directory to be filled.
    pub copy: Instance,
    /// The primary, as the replicator reaches it.
    pub source: Source,
    /// Where WAL and tablespaces go, and how fast.
    pub options: BackupOptions,
    /// Where backups are.
    pub archive: Option<Archive>,
    /// What a command is told in its environment.
    pub environment: Vec<(&'static str, String)>,
}

/// How a copy is made.
pub trait MakesCopies {
    /// Its name in messages.
    fn name(&self) -> String;

    /// Whether the copy is of the primary as it is now: a prefix of its log by its making. What comes from
    /// elsewhere is older, and has to be proved.
    fn is_of_the_primary(&self) -> bool;

    /// The program, to be run as the owner of the cluster.
    fn command(&self, errand: &Errand) -> Option<Command>;

    /// What a line of its output says of its progress.
    fn reader(&self) -> Reader;

    /// What was said of it, in bytes done and in all, where so many are expected.
    fn in_bytes(&self, told: Progress, expected: u64) -> (u64, u64);
}

/// A way that an operator can name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// `pg_basebackup` from the primary.
    Basebackup,
    /// The newest backup of pgBackRest.
    PgBackRest,
    /// A command.
    Command(String),
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Basebackup => "basebackup",
            Self::PgBackRest => "pgbackrest",
            Self::Command(command) => command,
        })
    }
}

impl MakesCopies for Way {
    fn name(&self) -> String {
        match self {
            Self::Basebackup | Self::PgBackRest => self.to_string(),
            // What comes after it may be long.
            Self::Command(command) => {
                command.split_whitespace().next().unwrap_or_default().to_owned()
            }
        }
    }

    fn is_of_the_primary(&self) -> bool {
        match self {
            Self::Basebackup => true,
            Self::PgBackRest | Self::Command(_) => false,
        }
    }

    fn command(&self, errand: &Errand) -> Option<Command> {
        let target = errand.copy.data_dir.path();
        match self {
            Self::Basebackup => {
                Some(backup::command(&errand.copy, &errand.source, &errand.options))
            }
            Self::PgBackRest => {
                let call = errand.archive.as_ref()?.restore(target)?;
                let mut command = errand.copy.owner.command(&call.program);
                command.envs(call.environment).args(&call.arguments);
                command.arg("--log-level-console=detail");
                Some(command)
            }
            Self::Command(text) => {
                let mut command = errand.copy.owner.command("/bin/sh");
                command.args(["-c", &format!("{text} \"$1\""), "sh"]).arg(target);
                for (name, value) in &errand.environment {
                    command.env(name, value);
                }
                Some(command)
            }
        }
    }

    fn reader(&self) -> Reader {
        match self {
            Self::Basebackup => parse_progress,
            Self::PgBackRest => of_pgbackrest,
            Self::Command(_) => of_command,
        }
    }

    fn in_bytes(&self, told: Progress, expected: u64) -> (u64, u64) {
        match self {
            Self::PgBackRest => (expected / PARTS * told.done, expected),
            Self::Basebackup | Self::Command(_) => (told.done, told.total),
        }
    }
}

/// `P01 DETAIL: restore file /pg/base/1/1247 (96KB, 27.41%) checksum ...`: parts of the whole, as its bytes
/// are told only once, in units.
fn of_pgbackrest(line: &str) -> Option<Progress> {
    let (_, rest) = line.split_once(" restore file ")?;
    let (_, rest) = rest.rsplit_once(" (")?;
    let (inside, _) = rest.split_once("%)")?;
    let (whole, part) = inside.rsplit_once(", ")?.1.split_once('.')?;
    let hundredths = whole.parse::<u64>().ok()?.checked_mul(100)? + part.parse::<u64>().ok()?;
    Some(Progress { done: hundredths, total: PARTS })
}

/// Hundredths of a percent.
const PARTS: u64 = 10_000;

/// `progress DONE TOTAL`, in bytes.
fn of_command(line: &str) -> Option<Progress> {
    let mut words = line.split_whitespace();
    if words.next() != Some("progress") {
        return None;
    }
    let progress =
        Progress { done: words.next()?.parse().ok()?, total: words.next()?.parse().ok()? };
    words.next().is_none().then_some(progress)
}

/// The ways that were named, in their order. Only these: who names only a backup may have so much data
/// that a copy over the network is no way at all.
pub(crate) fn ways(named: &[String], archive: Option<&Archive>) -> Result<Vec<Way>, ApiError> {
    let mut ways = Vec::new();
    for text in named.iter().map(|text| text.trim()).filter(|text| !text.is_empty()) {
        let way = match text {
            "basebackup" => Way::Basebackup,
            "pgbackrest" => {
                if archive.and_then(|archive| archive.restore(&PathBuf::new())).is_none() {
                    let why = "--create-replica pgbackrest needs --pgbackrest-stanza";
                    return Err(failure(2, "bad_create_replica", why));
                }
                Way::PgBackRest
            }
            command if command.starts_with('/') => Way::Command(command.to_owned()),
            other => {
                let why = format!(
                    "--create-replica: '{other}' is neither basebackup nor pgbackrest, nor a command, which begins with '/'"
                );
                return Err(failure(1, "bad_value", why));
            }
        };
        ways.push(way);
    }
    if ways.is_empty() {
        ways.push(Way::Basebackup);
    }
    Ok(ways)
}

/// In the file: a list, or one of it.
pub(crate) fn one_or_several<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a text is wanted, or a list of texts")]
    enum Given {
        One(String),
        Several(Vec<String>),
    }
    Ok(match Given::deserialize(from)? {
        Given::One(way) => vec![way],
        Given::Several(ways) => ways,
    })
}

pub(crate) fn patience(seconds: Option<u64>) -> Result<Duration, ApiError> {
    match seconds {
        Some(0) => {
            Err(failure(1, "bad_value", "--create-replica-timeout must be at least one second"))
        }
        Some(seconds) => Ok(Duration::from_secs(seconds)),
        None => Ok(PATIENCE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::Engine;

    #[test]
    fn ways_keep_their_order() {
        let named = |text: &str| text.split(';').map(str::to_owned).collect::<Vec<_>>();
        let engine = Engine::PgBackRest { stanza: "main".to_owned(), config: None };
        let archive = Archive { engine, gate: "/keeper".into() };
        let all = ways(&named("pgbackrest; /bin/copy --fast ;basebackup"), Some(&archive)).unwrap();
        let command = Way::Command("/bin/copy --fast".to_owned());
        assert_eq!(all, [Way::PgBackRest, command.clone(), Way::Basebackup]);
        assert_eq!(command.name(), "/bin/copy");
        assert_eq!(ways(&[], None).unwrap(), [Way::Basebackup]);
        assert_eq!(ways(&named("pgbackrest"), None).unwrap_err().code, 2);
        assert_eq!(ways(&named("pgbackrst"), Some(&archive)).unwrap_err().code, 1);
    }

    #[test]
    fn progress_is_read() {
        let line = "2026-11-26 15:00:00.000 P01 DETAIL: restore file /pg/base/1/1247 (96KB, 27.41%) checksum 0a";
        assert_eq!(of_pgbackrest(line), Some(Progress { done: 2741, total: 10_000 }));
        assert_eq!(of_pgbackrest("P00   INFO: restore size = 29.6MB, file total = 1264"), None);
        assert_eq!(of_command("progress 5 20"), Some(Progress { done: 5, total: 20 }));
        for text in ["progress", "progress 5", "progress 5 20 s", "in progress 5 20"] {
            assert_eq!(of_command(text), None, "{text}");
        }
    }

    #[test]
    fn a_copy_that_never_moves_is_given_up_some_time() {
        assert_eq!(patience(None).unwrap(), PATIENCE);
        assert_eq!(patience(Some(7)).unwrap(), Duration::from_secs(7));
        assert_eq!(patience(Some(0)).unwrap_err().code, 1);
    }
}
