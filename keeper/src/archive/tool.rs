//! `wal-push` and `wal-get`: what PostgreSQL calls for each file. They ask the keeper, run what it says as
//! their own child, so that it ends with them, and tell it the outcome. They decide nothing, and have no
//! runtime: PostgreSQL starts one for every 16 MB of its log.
//!
//! Exit codes: 0 means stored, or delivered. Of `wal-push` anything else makes PostgreSQL keep the file and
//! ask again; what is above 125 ends the archiver as well, which is wanted where the server is being stopped.
//! Of `wal-get` 1 means that it is not there; a failure is below 126 too, since above it the server
//! itself would stop, and a standby asks again anyway.

use super::engine;
use super::talk::{LINE_LIMIT, Outcome, PATIENCE, Question, Reply, Verb, socket};
use crate::cli::failure;
use clap::Args;
use serde::Serialize;
use serde::de::DeserializeOwned;
use shared::api::ApiError;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// PostgreSQL ends its archiver on a code above 125 (`shell_archive.c`): the server that is being stopped
/// does not wait for it.
const LEAVE: u8 = 126;
/// Refused for now.
const NOT_YET: u8 = 3;
/// There is no keeper to ask.
const NO_KEEPER: u8 = 4;
/// The engine failed.
const FAILED: u8 = 7;
/// Not in the archive.
const ABSENT: u8 = 1;

/// Store a file.
#[derive(Debug, Args)]
pub(crate) struct PushOptions {
    #[command(flatten)]
    gate: GateOptions,
    /// The file, %p of `archive_command`.
    path: PathBuf,
}

/// Fetch a file.
#[derive(Debug, Args)]
pub(crate) struct GetOptions {
    #[command(flatten)]
    gate: GateOptions,
    /// Its name, %f of `restore_command`.
    file: String,
    /// Where to, %p of `restore_command`.
    path: PathBuf,
}

/// Whom to ask.
#[derive(Debug, Args)]
struct GateOptions {
    /// The state directory of the node's keeper.
    #[arg(long, value_name = "DIR")]
    state_dir: PathBuf,
    /// What keeps the archive, for those who read the setting: the keeper knows.
    #[arg(long, value_name = "NAME")]
    engine: Option<String>,
}

/// Stores a file, where the keeper lets it.
pub(crate) fn push(options: &PushOptions) -> Result<ExitCode, ApiError> {
    let path = options.path.display();
    let unusable = |why: String| failure(1, "bad_value", format!("cannot archive {path}: {why}"));
    let file = options.path.file_name().and_then(|name| name.to_str());
    let file = file.ok_or_else(|| unusable("it has no name".to_owned()))?.to_owned();
    let found = fs::metadata(&options.path).map_err(|error| unusable(error.to_string()))?;
    let question = Question { verb: Verb::Push, file, path: path.to_string(), bytes: found.len() };
    let mut keeper = Keeper::reach(&options.gate.state_dir)?;
    match keeper.ask(&question)? {
        Reply::Run { call, bytes: _ } => {
            let outcome = engine::run(&call, engine::limit(question.bytes));
            keeper.tell(&outcome);
            match outcome.code {
                Some(0) => Ok(ExitCode::SUCCESS),
                Some(_) | None => Err(failed(&question, &outcome)),
            }
        }
        Reply::Done { .. } => Ok(ExitCode::SUCCESS),
        Reply::No { why } => {
            let text = format!("{} is not archived yet: {why}", question.file);
            Err(failure(NOT_YET, "not_yet", text))
        }
        Reply::Leave => {
            let text = format!("{} is not archived: the server is being stopped", question.file);
            Err(failure(LEAVE, "stopping", text))
        }
    }
}

/// Fetches a file, where the keeper lets it.
pub(crate) fn get(options: &GetOptions) -> Result<ExitCode, ApiError> {
    let question = Question {
        verb: Verb::Get,
        file: options.file.clone(),
        path: options.path.display().to_string(),
        bytes: 0,
    };
    let mut keeper = Keeper::reach(&options.gate.state_dir)?;
    match keeper.ask(&question)? {
        Reply::Run { call, bytes } => {
            let outcome = engine::run(&call, engine::limit(bytes.unwrap_or_default()));
            let outcome = delivered(outcome, &options.path, bytes);
            keeper.tell(&outcome);
            match outcome.code {
                Some(0) => Ok(ExitCode::SUCCESS),
                // Asked for at the end of all that there is, all the time: no reason for a line in the log.
                Some(1) => Ok(ExitCode::from(ABSENT)),
                Some(_) | None => Err(failed(&question, &outcome)),
            }
        }
        Reply::No { why } => {
            tracing::debug!("{} is not fetched: {why}", question.file);
            Ok(ExitCode::from(ABSENT))
        }
        Reply::Done { .. } | Reply::Leave => Ok(ExitCode::from(ABSENT)),
    }
}

/// What an engine says that it has delivered is looked at. An empty file is a placeholder of rule 8, or one that
/// was not written to its end; of a segment that is too long PostgreSQL makes an end of the server, and one that
/// is too short it asks for again and again.
fn delivered(outcome: Outcome, path: &Path, expected: Option<u64>) -> Outcome {
    if outcome.code != Some(0) {
        return outcome;
    }
    let found = fs::metadata(path).map(|found| found.len()).unwrap_or_default();
    if found > 0 && expected.is_none_or(|expected| found == expected) {
        return outcome;
    }
    // It may not be there at all.
    drop(fs::remove_file(path));
    let whole = expected.map(|bytes| format!(" instead of {bytes}")).unwrap_or_default();
    let said = format!("the archive has delivered {found} bytes{whole}, and says that this is all");
    Outcome { code: None, said }
}

fn failed(question: &Question, outcome: &Outcome) -> ApiError {
    failure(FAILED, "archive_failed", outcome.trouble(question))
}

/// The keeper of this node, being asked.
struct Keeper {
    stream: BufReader<UnixStream>,
    state_dir: PathBuf,
}

impl Keeper {
    /// Only a socket that belongs to us, or to root, is taken for the keeper's: what it says is run.
    fn reach(state_dir: &Path) -> Result<Self, ApiError> {
        let path = socket(state_dir);
        let unreachable = |why: String| Self::unreachable(state_dir, &why);
        let found = fs::symlink_metadata(&path).map_err(|error| unreachable(error.to_string()))?;
        let own = rustix::process::geteuid().as_raw();
        let trusted = found.file_type().is_socket() && [own, 0].contains(&found.uid());
        if !trusted || found.mode() & 0o077 != 0 {
            let why = format!("{} is not the keeper's own socket", path.display());
            return Err(unreachable(why));
        }
        let connected = UnixStream::connect(&path).and_then(|stream| {
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            Ok(stream)
        });
        let stream = connected.map_err(|error| unreachable(error.to_string()))?;
        Ok(Self { stream: BufReader::new(stream), state_dir: state_dir.to_owned() })
    }

    fn unreachable(state_dir: &Path, why: &str) -> ApiError {
        let text = format!(
            "the keeper of {} does not answer ({why}): start it, and PostgreSQL asks again",
            state_dir.display()
        );
        failure(NO_KEEPER, "keeper_unreachable", text)
    }

    fn ask(&mut self, question: &Question) -> Result<Reply, ApiError> {
        let answered = self.say(question).and_then(|()| self.hear());
        answered.map_err(|error| Self::unreachable(&self.state_dir, &error.to_string()))
    }

    fn say(&mut self, what: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(what)?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line)
    }

    fn hear<T: DeserializeOwned>(&mut self) -> io::Result<T> {
        let mut line = String::new();
        self.stream.by_ref().take(LINE_LIMIT).read_line(&mut line)?;
        Ok(serde_json::from_str(&line)?)
    }

    /// Says how it went. A keeper that has gone meanwhile learns of it from the next file.
    fn tell(&mut self, outcome: &Outcome) {
        drop(self.say(outcome));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_delivered_has_to_be_whole() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("RECOVERYXLOG");
        let ended = |code| Outcome { code: Some(code), said: String::new() };
        let of = |content: &str, expected| {
            fs::write(&path, content).unwrap();
            (delivered(ended(0), &path, expected).code, path.exists())
        };
        assert_eq!(of("1234", Some(4)), (Some(0), true));
        assert_eq!(of("1234", None), (Some(0), true));
        for (content, expected) in [("", None), ("", Some(4)), ("123", Some(4)), ("12345", Some(4))]
        {
            assert_eq!(of(content, expected), (None, false), "{content}");
        }
        assert_eq!(delivered(ended(0), &path, None).code, None, "nothing is there");
        assert_eq!(delivered(ended(1), &path, None).code, Some(1));
    }
}
