//! The archive of the group's WAL and of its backups: which engine keeps it, and how that is called.
//!
//! PostgreSQL never calls an engine itself: `archive_command` and `restore_command` are always our gate,
//! `pgtandem-keeper wal-push` and `wal-get`, which asks the keeper first. What may be pushed and got is
//! decided in `fsm::node::archive`. Not here: how copies are made of backups (`steps/copy.rs`).

pub mod backups;
pub mod condition;
mod desk;
mod engine;
mod fetched;
pub mod gate;
pub mod queue;
mod talk;
pub(crate) mod tool;

pub use desk::{Desk, Opened};
pub use fetched::Fetched;

use crate::cli::failure;
use serde::{Deserialize, Serialize};
use shared::api::ApiError;
use std::path::{Path, PathBuf};

/// The program of pgBackRest, looked for in PATH.
const PGBACKREST: &str = "pgbackrest";

/// Where WAL and backups go, and how they come back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archive {
    /// What does it.
    pub engine: Engine,
    /// Our own program, as PostgreSQL is told to call it.
    pub gate: PathBuf,
}

/// What keeps the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Engine {
    /// pgBackRest.
    PgBackRest {
        /// `--stanza`.
        stanza: String,
        /// `--config`; its own default where it is `None`.
        config: Option<PathBuf>,
    },
    /// Commands of the operator's, run by `sh -c` after `%p` and `%f` have been replaced.
    Commands {
        /// Stores the file `%p` durably under the name `%f`, or says so where it is there with the same
        /// contents; never overwrites another one.
        push: String,
        /// Writes the file `%f` to `%p`; ends with 1 where the archive has none of that name.
        get: String,
        /// Takes a backup, after each promotion.
        backup: Option<String>,
    },
}

/// A program to run, with what it needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// The program.
    pub program: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Variables besides those that it inherits.
    pub environment: Vec<(String, String)>,
}

/// The server that a call is about.
#[derive(Clone, Copy, Debug)]
pub struct Server<'a> {
    /// Its data directory.
    pub pgdata: &'a Path,
    /// Its port.
    pub port: u16,
    /// The directory of its socket.
    pub socket_dir: &'a Path,
    /// The role to log in with.
    pub user: &'a str,
    /// The password file of that role.
    pub passfile: &'a Path,
}

/// What the options of the archive say, before they have been looked at together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Given {
    pub(crate) stanza: Option<String>,
    pub(crate) config: Option<PathBuf>,
    pub(crate) push: Option<String>,
    pub(crate) get: Option<String>,
    pub(crate) backup: Option<String>,
}

impl Given {
    /// The archive that was asked for; `None` where none was.
    pub(crate) fn validate(self) -> Result<Option<Archive>, ApiError> {
        let bad = |text: &str| Err(failure(2, "bad_archive", text));
        let Self { stanza, config, push, get, backup } = self;
        let engine = match (stanza, push, get) {
            (Some(stanza), None, None) if backup.is_none() => {
                let strange = |c: char| c == '/' || c.is_whitespace() || c.is_control();
                if stanza.is_empty() || stanza.starts_with('-') || stanza.contains(strange) {
                    return bad(
                        "--pgbackrest-stanza needs the name of a stanza, such as main: without spaces and slashes",
                    );
                }
                Engine::PgBackRest { stanza, config }
            }
            (Some(_), _, _) => {
                return bad(
                    "--pgbackrest-stanza and --archive-push, --archive-get or --archive-backup were given: the archive is kept either by pgBackRest or by commands",
                );
            }
            (None, _, _) if config.is_some() => {
                return bad("--pgbackrest-config is of use only together with --pgbackrest-stanza");
            }
            (None, Some(push), Some(get)) => {
                // It would end with 0, and what was stored nowhere would be forgotten.
                if !names(&push, 'p') {
                    return bad(
                        "--archive-push does not say %p, the path of the file that it is to store",
                    );
                }
                if !names(&get, 'p') || !names(&get, 'f') {
                    return bad(
                        "--archive-get has to say %f, the name of the file that is wanted, and %p, where it is wanted",
                    );
                }
                Engine::Commands { push, get, backup }
            }
            (None, None, None) if backup.is_none() => return Ok(None),
            (None, _, _) => {
                return bad(
                    "--archive-push and --archive-get belong together, and --archive-backup to both: what was pushed has to be got again",
                );
            }
        };
        let gate = std::env::current_exe().map_err(|error| {
            failure(8, "internal", format!("cannot find the path of this program: {error}"))
        })?;
        Ok(Some(Archive { engine, gate }))
    }
}

impl Archive {
    /// The engine in one word. In `archive_command` as well, where pgBackRest wants to see its name.
    pub fn name(&self) -> &'static str {
        match &self.engine {
            Engine::PgBackRest { .. } => PGBACKREST,
            Engine::Commands { .. } => "commands",
        }
    }

    /// `archive_command`.
    pub fn archive_command(&self, state_dir: &Path) -> String {
        self.gate_command("wal-push", state_dir, "%p")
    }

    /// `restore_command`.
    pub fn restore_command(&self, state_dir: &Path) -> String {
        self.gate_command("wal-get", state_dir, "%f %p")
    }

    fn gate_command(&self, name: &str, state_dir: &Path, rest: &str) -> String {
        let (gate, state_dir) = (quoted(&self.gate), quoted(state_dir));
        format!("{gate} {name} --state-dir {state_dir} --engine {} {rest}", self.name())
    }

    /// Stores a file of `pg_wal`.
    pub fn push(&self, server: &Server<'_>, path: &str, file: &str) -> Call {
        match &self.engine {
            Engine::PgBackRest { .. } => {
                let mut call = self.pgbackrest(server.pgdata);
                // In the background it would push whatever is ready, not what was asked for; and with a limit
                // to the queue it says that it has stored what it has dropped.
                call.with(["--no-archive-async", "--reset-archive-push-queue-max"]);
                call.with(["--no-archive-mode-check", "archive-push", path]);
                call
            }
            Engine::Commands { push, .. } => shell(push, server, Some((path, file))),
        }
    }

    /// Fetches a file of the archive.
    pub fn get(&self, server: &Server<'_>, file: &str, path: &str) -> Call {
        match &self.engine {
            Engine::PgBackRest { .. } => {
                let mut call = self.pgbackrest(server.pgdata);
                call.with(["--no-archive-async", "archive-get", file, path]);
                call
            }
            Engine::Commands { get, .. } => shell(get, server, Some((path, file))),
        }
    }

    /// What makes a backup possible, before each one; idempotent.
    pub fn prepare_backup(&self, server: &Server<'_>) -> Option<Call> {
        match &self.engine {
            Engine::PgBackRest { .. } => {
                let mut call = self.of_running(server);
                call.with(["stanza-create"]);
                Some(call)
            }
            Engine::Commands { .. } => None,
        }
    }

    /// Takes a backup of the running primary; `None` where there is no command for it.
    pub fn backup(&self, server: &Server<'_>) -> Option<Call> {
        match &self.engine {
            Engine::PgBackRest { .. } => {
                let mut call = self.of_running(server);
                // A standby archives too, through the gate: it pushes nothing.
                call.with(["--no-archive-mode-check", "--start-fast", "backup"]);
                Some(call)
            }
            Engine::Commands { backup, .. } => {
                backup.as_ref().map(|command| shell(command, server, None))
            }
        }
    }

    /// Restores the newest backup into an empty directory; `None` where a command has to be named for it
    /// (`--create-replica`). pgBackRest writes no recovery settings of its own: they would go round the gate.
    pub fn restore(&self, target: &Path) -> Option<Call> {
        match &self.engine {
            Engine::PgBackRest { .. } => {
                let mut call = self.pgbackrest(target);
                call.with(["--type=preserve", "restore"]);
                Some(call)
            }
            Engine::Commands { .. } => None,
        }
    }

    fn pgbackrest(&self, pgdata: &Path) -> Call {
        let mut call = Call::of(PGBACKREST);
        if let Engine::PgBackRest { stanza, config } = &self.engine {
            call.with([format!("--stanza={stanza}")]);
            call.with(config.iter().map(|path| format!("--config={}", path.display())));
        }
        call.with([format!("--pg1-path={}", pgdata.display())]);
        call
    }

    fn of_running(&self, server: &Server<'_>) -> Call {
        let mut call = self.pgbackrest(server.pgdata);
        call.with([
            format!("--pg1-port={}", server.port),
            format!("--pg1-socket-path={}", server.socket_dir.display()),
            format!("--pg1-user={}", server.user),
        ]);
        call.environment.push(("PGPASSFILE".to_owned(), server.passfile.display().to_string()));
        call
    }
}

impl Call {
    fn of(program: &str) -> Self {
        Self { program: program.to_owned(), arguments: Vec::new(), environment: Vec::new() }
    }

    fn with(&mut self, arguments: impl IntoIterator<Item = impl Into<String>>) {
        self.arguments.extend(arguments.into_iter().map(Into::into));
    }
}

/// An operator's command, which sees where the server is in libpq's variables.
fn shell(command: &str, server: &Server<'_>, file: Option<(&str, &str)>) -> Call {
    let text = match file {
        Some((path, name)) => filled_in(command, path, name),
        None => command.to_owned(),
    };
    let mut call = Call::of("/bin/sh");
    call.with(["-c".to_owned(), text]);
    call.environment = [
        ("PGDATA", server.pgdata.display().to_string()),
        ("PGHOST", server.socket_dir.display().to_string()),
        ("PGPORT", server.port.to_string()),
        ("PGUSER", server.user.to_owned()),
        ("PGPASSFILE", server.passfile.display().to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    call
}

/// Whether a command has a placeholder.
fn names(command: &str, wanted: char) -> bool {
    let mut rest = command.chars();
    while let Some(c) = rest.next() {
        if c == '%' && rest.next() == Some(wanted) {
            return true;
        }
    }
    false
}

/// Placeholders as PostgreSQL has them; another `%` stays as it is.
fn filled_in(command: &str, path: &str, file: &str) -> String {
    let mut text = String::new();
    let mut rest = command.chars();
    while let Some(c) = rest.next() {
        if c != '%' {
            text.push(c);
            continue;
        }
        match rest.next() {
            Some('p') => text.push_str(path),
            Some('f') => text.push_str(file),
            Some('%') | None => text.push('%'),
            Some(other) => text.extend(['%', other]),
        }
    }
    text
}

/// A word for the shell, in which PostgreSQL sees no placeholder.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string().replace('\'', r"'\''").replace('%', "%%");
    format!("'{text}'")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(words: &[&str]) -> Given {
        let has = |word: &str| words.contains(&word).then(|| word.to_owned());
        Given {
            stanza: has("stanza"),
            config: has("config").map(PathBuf::from),
            push: has("push").map(|word| word + " %p"),
            get: has("get").map(|word| word + " %f %p"),
            backup: has("backup"),
        }
    }

    #[test]
    fn one_engine_and_all_of_it() {
        let name = |words: &[&str]| {
            given(words).validate().map(|archive| archive.map(|archive| archive.name()))
        };
        assert_eq!(name(&[]).unwrap(), None);
        assert_eq!(name(&["stanza", "config"]).unwrap(), Some("pgbackrest"));
        assert_eq!(name(&["push", "get"]).unwrap(), Some("commands"));
        assert_eq!(name(&["push", "get", "backup"]).unwrap(), Some("commands"));
        for words in [
            &["stanza", "push", "get"][..],
            &["stanza", "backup"],
            &["config"],
            &["config", "push", "get"],
            &["push"],
            &["get"],
            &["backup"],
        ] {
            assert_eq!(name(words).unwrap_err().code, 2, "{words:?}");
        }
    }

    #[test]
    fn what_cannot_work_is_refused() {
        let commands = |push: &str, get: &str| Given {
            push: Some(push.to_owned()),
            get: Some(get.to_owned()),
            ..Given::default()
        };
        assert!(commands("/p %p", "/g %p %f").validate().is_ok());
        for (push, get) in [
            ("cp a b", "/g %p %f"),
            ("/p %f %%p", "/g %p %f"),
            ("/p %p", "/g %f"),
            ("/p %p", "/g %p"),
        ] {
            assert_eq!(commands(push, get).validate().unwrap_err().code, 2, "{push} {get}");
        }
        for stanza in ["", "-x", "a b", "a/b", "a\n"] {
            let given = Given { stanza: Some(stanza.to_owned()), ..Given::default() };
            assert_eq!(given.validate().unwrap_err().code, 2, "{stanza:?}");
        }
    }

    #[test]
    fn placeholders() {
        assert_eq!(
            filled_in("cp %p /a/%f 100%% %x %", "pg_wal/1", "1"),
            "cp pg_wal/1 /a/1 100% %x %"
        );
    }

    #[test]
    fn what_postgres_calls() {
        let engine = Engine::PgBackRest { stanza: "main".to_owned(), config: None };
        let archive = Archive { engine, gate: "/opt/it's/100%/keeper".into() };
        assert_eq!(
            archive.archive_command(Path::new("/state")),
            r"'/opt/it'\''s/100%%/keeper' wal-push --state-dir '/state' --engine pgbackrest %p"
        );
        assert_eq!(
            archive.restore_command(Path::new("/state")),
            r"'/opt/it'\''s/100%%/keeper' wal-get --state-dir '/state' --engine pgbackrest %f %p"
        );
    }

    #[test]
    fn pgbackrest_is_told_all_that_its_file_need_not_say() {
        let config = Some("/etc/pgb.conf".into());
        let engine = Engine::PgBackRest { stanza: "main".to_owned(), config };
        let archive = Archive { engine, gate: "/keeper".into() };
        let server = Server {
            pgdata: Path::new("/data"),
            port: 5433,
            socket_dir: Path::new("/run"),
            user: "pgtandem_keeper",
            passfile: Path::new("/state/pass"),
        };
        let line = |call: Call| call.arguments.join(" ");
        assert_eq!(
            line(archive.push(&server, "pg_wal/1", "1")),
            "--stanza=main --config=/etc/pgb.conf --pg1-path=/data --no-archive-async --reset-archive-push-queue-max --no-archive-mode-check archive-push pg_wal/1"
        );
        assert_eq!(
            line(archive.backup(&server).unwrap()),
            "--stanza=main --config=/etc/pgb.conf --pg1-path=/data --pg1-port=5433 --pg1-socket-path=/run --pg1-user=pgtandem_keeper --no-archive-mode-check --start-fast backup"
        );
    }
}
