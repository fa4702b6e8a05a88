//! The unit file that runs one of our programs as a service of systemd.
//!
//! What must hold: `PostgreSQL`, which belongs to the unit's processes, is left alone when the program is
//! stopped hard, killed or replaced (`KillMode=process`); a planned stop has the time that it may take;
//! nothing in the unit forbids what a `PostgreSQL` or one of its commands may need. So there is no
//! `PrivateTmp` and no `PrivateDevices` (sockets, shared memory and the watchdog's device are shared with
//! a `PostgreSQL` that was started before), no `MemoryDenyWriteExecute` (its JIT), and nothing that for a
//! program which is not root would mean `NoNewPrivileges` (its archive command may be allowed to sudo).
//! Secrets are refused: everybody can read a unit.

use clap::parser::ValueSource;
use clap::{ArgMatches, Command, ValueHint};
use std::ffi::{OsStr, OsString};
use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What systemd needs on top of the time that a planned stop may take, on a busy host.
const STOP_RESERVE: Duration = Duration::from_secs(20);
/// After so long without a sign of life a program hangs. Whatever its end may cost (a primary has no
/// guard until it runs again), timers of a few seconds have decided before.
const SIGN_OF_LIFE: Duration = Duration::from_mins(1);
/// What `ProtectSystem=full` makes read-only.
const PROTECTED: [&str; 3] = ["/usr", "/etc", "/boot"];

/// What a unit is made from.
#[derive(Clone, Debug)]
pub struct Unit {
    /// What it runs, for people.
    pub description: &'static str,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Who runs it; root where nobody is named.
    pub user: Option<String>,
    /// How long a planned stop may take.
    pub longest_stop: Duration,
    /// Whether it may take any time to get ready.
    pub waits: bool,
    /// Where it writes.
    pub writes: Vec<PathBuf>,
}

/// Why there is no unit.
#[derive(Debug, thiserror::Error)]
pub enum UnitError {
    /// An option that others must not see.
    #[error(
        "a unit can be read by everybody: do not give --{0} here, but in a file that --config names, \
         with mode 0600"
    )]
    Secret(String),
    /// A path that leads nowhere.
    #[error("'{path}' is no path: {why}", path = path.display())]
    Path {
        /// Which.
        path: PathBuf,
        /// Why not.
        why: std::io::Error,
    },
    /// Nobody knows where this program is.
    #[error("cannot find out where this program is: {0}")]
    Program(std::io::Error),
}

/// The options that a command was given by flag or environment, as arguments for a unit; without those
/// in `own`, which are about the unit itself.
pub fn arguments(
    command: &Command,
    given: &ArgMatches,
    own: &[&str],
) -> Result<Vec<OsString>, UnitError> {
    let mut words = Vec::new();
    for option in command.get_arguments() {
        let id = option.get_id().as_str();
        let Some(long) = option.get_long().filter(|_| !own.contains(&id)) else { continue };
        let source = given.value_source(id);
        if !matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable)) {
            continue;
        }
        if option.is_hide_env_values_set() {
            return Err(UnitError::Secret(long.to_owned()));
        }
        if !option.get_action().takes_values() {
            if given.get_flag(id) {
                words.push(format!("--{long}").into());
            }
            continue;
        }
        let is_path = option.get_value_hint() == ValueHint::AnyPath;
        for value in given.get_raw(id).into_iter().flatten() {
            let mut word = OsString::from(format!("--{long}="));
            word.push(if is_path { absolute(value)? } else { value.to_owned() });
            words.push(word);
        }
    }
    Ok(words)
}

/// The same for the arguments of this process, which are those of a program's command of this name.
pub fn of_this_command(
    mut program: Command,
    name: &str,
    own: &[&str],
) -> Result<Vec<OsString>, UnitError> {
    let given = program.get_matches_mut();
    let command = program.find_subcommand(name).zip(given.subcommand_matches(name));
    command.map_or(Ok(Vec::new()), |(command, given)| arguments(command, given, own))
}

/// A unit begins in `/`.
fn absolute(path: &OsStr) -> Result<OsString, UnitError> {
    let made = std::path::absolute(path);
    made.map(PathBuf::into_os_string)
        .map_err(|why| UnitError::Path { path: PathBuf::from(path), why })
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stop = (self.longest_stop + STOP_RESERVE).as_secs();
        writeln!(f, "[Unit]\nDescription={}", self.description)?;
        writeln!(f, "Documentation=man:{}(1)", self.name())?;
        writeln!(f, "After=network-online.target\nWants=network-online.target")?;
        writeln!(f, "# It is started again however often it ends.\nStartLimitIntervalSec=0\n")?;
        writeln!(f, "[Service]\nType=notify\nNotifyAccess=main")?;
        writeln!(f, "ExecStart={}", self.line())?;
        writeln!(f, "ExecReload=/bin/kill -HUP $MAINPID")?;
        if let Some(user) = &self.user {
            writeln!(f, "User={user}")?;
        }
        writeln!(f, "Restart=always\nRestartSec=500ms")?;
        writeln!(f, "# Bad arguments and refusals do not go away by themselves.")?;
        writeln!(f, "RestartPreventExitStatus=1 3\nWatchdogSec={}", SIGN_OF_LIFE.as_secs())?;
        if self.waits {
            writeln!(f, "TimeoutStartSec=infinity")?;
        }
        writeln!(f, "TimeoutStopSec={stop}")?;
        writeln!(f, "# PostgreSQL is left alone when this program is killed or replaced.")?;
        writeln!(f, "KillMode=process\nOOMPolicy=continue\nOOMScoreAdjust=-900")?;
        writeln!(f, "# Its sessions are not as precious as its postmaster.")?;
        writeln!(
            f,
            "Environment=PG_OOM_ADJUST_FILE=/proc/self/oom_score_adj PG_OOM_ADJUST_VALUE=0"
        )?;
        writeln!(f, "# Each session is a process.\nTasksMax=infinity\nLimitNOFILE=65536")?;
        f.write_str(&self.hardening())?;
        writeln!(f, "\n[Install]\nWantedBy=multi-user.target")
    }
}

impl Unit {
    fn name(&self) -> String {
        self.program.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    fn line(&self) -> String {
        let words = std::iter::once(self.program.as_os_str());
        let words = words.chain(self.arguments.iter().map(OsString::as_os_str));
        words.map(|word| quoted(word, "%$")).collect::<Vec<_>>().join(" ")
    }

    /// Whether anything that it needs is in somebody's home: the program, a file that an option names, a
    /// directory that is written to.
    fn is_at_home(&self) -> bool {
        let values = self.arguments.iter().filter_map(|word| word.to_str()?.split_once('='));
        let named = values.map(|(_, value)| Path::new(value));
        let written = self.writes.iter().map(PathBuf::as_path);
        let mut all = named.chain(written).chain([self.program.as_path()]);
        all.any(|path| HOMES.iter().any(|home| path.starts_with(home)))
    }

    fn hardening(&self) -> String {
        let mut text = String::from("ProtectSystem=full\nProtectControlGroups=yes\n");
        for path in &self.writes {
            if PROTECTED.iter().any(|protected| path.starts_with(protected)) {
                let _ = writeln!(text, "ReadWritePaths=-{}", quoted(path.as_os_str(), "%"));
            }
        }
        if !self.is_at_home() {
            text += "ProtectHome=yes\n";
        }
        if self.user.is_none() {
            text += "# Only where it is root, since these would forbid others to sudo.\n";
            text += "ProtectKernelTunables=yes\nProtectKernelModules=yes\nProtectKernelLogs=yes\n";
            text += "ProtectHostname=yes\nRestrictRealtime=yes\nLockPersonality=yes\n";
        }
        text
    }
}

/// Where the homes are: `ProtectHome=yes` makes them empty, for reading too.
const HOMES: [&str; 3] = ["/home", "/root", "/run/user"];

/// A word as systemd reads it (`systemd.syntax(7)`); `doubled` are the characters that mean themselves when they
/// stand there twice: `%`, and in command lines (`systemd.service(5)`) also `$`.
fn quoted(word: &OsStr, doubled: &str) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,@+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.into_owned();
    }
    let mut text = String::from("\"");
    for c in word.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            _ if doubled.contains(c) => text.extend([c, c]),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
    text.push('"');
    text
}

/// Where this program is, for a unit.
pub fn this_program() -> Result<PathBuf, UnitError> {
    std::env::current_exe().map_err(UnitError::Program)
}

/// The directory that a directory is in: where a program makes or renames it, that is written to as well.
pub fn around(dir: &Path) -> PathBuf {
    dir.parent().unwrap_or(dir).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Arg, ArgAction, value_parser};

    fn command() -> Command {
        let path =
            |name: &'static str| Arg::new(name).long(name).value_parser(value_parser!(PathBuf));
        Command::new("run")
            .arg(Arg::new("name").long("name"))
            .arg(Arg::new("port").long("port").default_value("5432"))
            .arg(path("pgdata"))
            .arg(Arg::new("json").long("json").action(ArgAction::SetTrue))
            .arg(Arg::new("token").long("token").env("PROGRAM_TEST_TOKEN").hide_env_values(true))
            .arg(Arg::new("user").long("user"))
    }

    fn given(line: &str) -> Result<Vec<OsString>, UnitError> {
        let given = command().try_get_matches_from(line.split(' ')).unwrap();
        arguments(&command(), &given, &["user"])
    }

    #[test]
    fn what_was_given_comes_back() {
        let words = given("run --json --name node1 --user postgres --pgdata /a").unwrap();
        assert_eq!(words, ["--name=node1", "--pgdata=/a", "--json"]);
        let here = std::env::current_dir().unwrap().join("a");
        let here = OsString::from(format!("--pgdata={}", here.display()));
        assert_eq!(given("run --pgdata a").unwrap(), [here]);
        assert!(matches!(given("run --token x"), Err(UnitError::Secret(_))));
    }

    fn unit() -> Unit {
        Unit {
            description: "A program",
            program: PathBuf::from("/usr/local/bin/pgx"),
            arguments: vec!["run".into(), "--name=a b%$\"".into()],
            user: None,
            longest_stop: Duration::from_secs(70),
            waits: false,
            writes: vec![PathBuf::from("/usr/local/pg$%"), PathBuf::from("/srv/pg")],
        }
    }

    #[test]
    fn units_have_what_the_program_needs() {
        let text = unit().to_string();
        for line in [
            r#"ExecStart=/usr/local/bin/pgx run "--name=a b%%$$\"""#,
            "KillMode=process",
            "TimeoutStopSec=90",
            r#"ReadWritePaths=-"/usr/local/pg$%%""#,
            "ProtectHome=yes",
            "ProtectKernelLogs=yes",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("User=") && !text.contains("/srv/pg"), "{text}");
    }

    /// `ProtectHome` would hide them from the service.
    #[test]
    fn homes_are_open_where_something_in_them_is_needed() {
        let config = "--config=/home/me/keeper.toml".into();
        for unit in [
            Unit { program: PathBuf::from("/home/me/pgx"), ..unit() },
            Unit { arguments: vec!["run".into(), config], ..unit() },
            Unit { writes: vec![PathBuf::from("/root/data")], ..unit() },
        ] {
            assert!(!unit.to_string().contains("ProtectHome"), "{unit}");
        }
    }

    #[test]
    fn nothing_forbids_what_others_may_need() {
        let writes = vec![PathBuf::from("/home/me/data")];
        let text = Unit { user: Some("me".to_owned()), writes, ..unit() }.to_string();
        assert!(text.contains("\nUser=me\n"), "{text}");
        for line in ["ProtectHome", "ProtectKernel", "NoNewPrivileges", "PrivateTmp"] {
            assert!(!text.contains(line), "{line} is in\n{text}");
        }
    }
}
