//! Running a hook once, within a limit.
//!
//! A command gets a process group of its own, which is killed as a whole when it has ended, when the limit is over, or
//! when nobody waits for the outcome any more. What it says goes into the log line by line, with the event's id.
//! Not here: how a URL is posted to ([`crate::web`]).

use crate::hook::{Hook, Target};
use crate::notice::variables;
use crate::web::Web;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use serde_json::{Map, Value};
use std::os::fd::OwnedFd;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Interest,
};
use tokio::process::{Child, Command};

/// How much of one run is read; the rest of a hook that says more is thrown away.
pub(crate) const MOST_BYTES: usize = 64 << 10;
/// Whatever is longer is no reason that a person reads.
pub(crate) const LONGEST_REASON: usize = 500;
/// Something that a hook has left behind may hold its output open: that is not waited for any longer.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// With these a shell, or `env`, says that it could not run a program, or did not find it.
const NOT_RUN: [i32; 2] = [126, 127];
/// Belongs to the program that runs the hook, not to the hook.
const OURS: [&str; 6] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
];

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Exit code 0, or a status of 2xx.
    Done,
    /// Another exit code, or 409: with the last line that it said.
    Refused(String),
    /// It had not ended in time, and was killed.
    TimedOut,
    /// It could not be run, or nobody answered as they should.
    Failed(String),
}

/// Runs a hook. `object` is what it is told ([`crate::Notice::object`]).
pub async fn run(hook: &Hook, web: &Web, object: &Map<String, Value>, limit: Duration) -> Outcome {
    let id = object.get("event_id").and_then(Value::as_str).unwrap_or_default();
    let body = Value::from(object.clone()).to_string();
    match &hook.target {
        Target::Command { program, arguments } => {
            let mut command = Command::new(program);
            command.args(arguments).envs(variables(object));
            execute(command, (hook, id), body.as_bytes(), limit).await
        }
        Target::Webhook(url) => {
            let posted = tokio::time::timeout(limit, web.post(url, id, body)).await;
            posted.unwrap_or(Outcome::TimedOut)
        }
    }
}

/// A line that others said, as it may be shown: nothing in it steers a terminal.
pub(crate) fn printable(line: &str) -> String {
    let shown = |c: char| if c.is_control() { ' ' } else { c };
    line.chars().map(shown).collect::<String>().trim().to_owned()
}

/// A process group that does not outlive whoever waits for it.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0.take() {
            // What has ended already is no trouble.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

async fn execute(
    mut command: Command,
    about: (&Hook, &str),
    input: &[u8],
    limit: Duration,
) -> Outcome {
    leave_out_what_is_ours(&mut command);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.process_group(0).current_dir("/");
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return Outcome::Failed(format!("it cannot be started: {error}")),
    };
    let pid = child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
    let group = Group(pid);
    let last = tokio::time::timeout(limit, attend(&mut child, pid, about, input)).await;
    // Before its end is taken in: until then the number of the group is nobody else's.
    drop(group);
    let ended = tokio::time::timeout(LAST_WORDS, child.wait()).await;
    match (last, ended) {
        (Ok(Ok(last)), Ok(Ok(status))) => judge(status, last),
        (Ok(Err(error)), _) | (Ok(Ok(_)), Ok(Err(error))) => {
            Outcome::Failed(format!("it cannot be waited for: {error}"))
        }
        (Err(_), _) | (Ok(Ok(_)), Err(_)) => Outcome::TimedOut,
    }
}

fn judge(status: ExitStatus, last: Option<String>) -> Outcome {
    match status.code() {
        Some(0) => Outcome::Done,
        Some(code) if NOT_RUN.contains(&code) => {
            let why = last.map(|last| format!(": {last}")).unwrap_or_default();
            Outcome::Failed(format!("what it is to run cannot be run ({status}){why}"))
        }
        Some(_) => Outcome::Refused(last.unwrap_or_else(|| status.to_string())),
        None => Outcome::Failed(status.to_string()),
    }
}

fn leave_out_what_is_ours(command: &mut Command) {
    let given: Vec<_> = command.as_std().get_envs().map(|(name, _)| name.to_owned()).collect();
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let ours = text.starts_with("PGTANDEM_") || OURS.contains(&text.as_ref());
        if ours && !given.contains(&name) {
            command.env_remove(&name);
        }
    }
}

/// Readable when the process has ended.
#[expect(deprecated, reason = "its successor is unsafe; an OwnedFd is what that asks for")]
fn watch(process: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(process, Interest::READABLE)
}

/// Feeds it, listens to it, and waits until it has ended, without taking that in; with the last line that it said.
async fn attend(
    child: &mut Child,
    pid: Option<Pid>,
    about: (&Hook, &str),
    input: &[u8],
) -> std::io::Result<Option<String>> {
    let pid = pid.ok_or_else(|| std::io::Error::other("it has no number"))?;
    let process = watch(pidfd_open(pid, PidfdFlags::NONBLOCK)?)?;
    let stdin = child.stdin.take();
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let feed = async {
        if let Some(mut pipe) = stdin {
            // One that does not read all is none the worse for it.
            drop(pipe.write_all(input).await);
        }
    };
    let (mut out, mut err) = (None, None);
    {
        let talk = async {
            tokio::join!(feed, listen(stdout, about, &mut out), listen(stderr, about, &mut err))
        };
        tokio::pin!(talk);
        let talked = tokio::select! {
            ended = process.readable() => ended.map(|_| false)?,
            _ = &mut talk => true,
        };
        if talked {
            drop(process.readable().await?);
        } else {
            drop(tokio::time::timeout(LAST_WORDS, talk).await);
        }
    }
    Ok(err.or(out))
}

/// Logs what is said, and remembers the last line.
async fn listen(
    pipe: Option<impl AsyncRead + Unpin>,
    (hook, id): (&Hook, &str),
    last: &mut Option<String>,
) {
    let Some(pipe) = pipe else { return };
    let mut reader = BufReader::new(pipe);
    let mut left = MOST_BYTES;
    while left > 0 {
        let mut line = Vec::new();
        let bound = u64::try_from(left).unwrap_or(u64::MAX);
        match (&mut reader).take(bound).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(read) => left = left.saturating_sub(read),
        }
        let line = printable(&String::from_utf8_lossy(&line));
        if !line.is_empty() {
            tracing::info!(event.id = id, "{hook}: {line}");
            *last = Some(line.chars().take(LONGEST_REASON).collect());
        }
    }
    tracing::info!(event.id = id, "{hook}: what else it says is not logged");
    // Whoever goes on to write is not to wait for us.
    drop(tokio::io::copy(&mut reader, &mut tokio::io::sink()).await);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    const LIMIT: Duration = Duration::from_secs(20);

    fn command(line: &str) -> Hook {
        Hook::parse(&format!("on_fence={line}"), &["on_fence"]).unwrap()
    }

    fn object() -> Map<String, Value> {
        serde_json::json!({ "event_id": "f-1-7", "role": "standby" }).as_object().unwrap().clone()
    }

    async fn told(hook: &Hook, object: &Map<String, Value>, limit: Duration) -> Outcome {
        run(hook, &Web::new(&[], None).unwrap(), object, limit).await
    }

    #[tokio::test]
    async fn a_command_is_told_in_both_ways() {
        let script = r#"sh -c 'test "$PGTANDEM_EVENT_ID $PGTANDEM_ROLE" = "f-1-7 standby" && grep -q "\"event_id\":\"f-1-7\""'"#;
        assert_eq!(told(&command(script), &object(), LIMIT).await, Outcome::Done);
    }

    #[tokio::test]
    async fn the_last_line_says_why_not() {
        let hook = command("sh -c 'echo first; echo the disk is old >&2; exit 3'");
        let refused = Outcome::Refused("the disk is old".to_owned());
        assert_eq!(told(&hook, &object(), LIMIT).await, refused);
        let silent = told(&command("false"), &object(), LIMIT).await;
        assert_eq!(silent, Outcome::Refused("exit status: 1".to_owned()));
        let binary = command(r#"sh -c 'printf "the \377\033[2Jdisk\r\n" >&2; exit 3'"#);
        let shown = Outcome::Refused("the \u{fffd} [2Jdisk".to_owned());
        assert_eq!(told(&binary, &object(), LIMIT).await, shown, "nothing steers a terminal");
    }

    /// A script that is gone says nothing against a promotion.
    #[tokio::test]
    async fn what_cannot_be_run_refuses_nothing() {
        for line in [
            "/no/such/program",
            "env A=1 /no/such/program",
            "sh -c 'no-such-program'",
            "sh -c /etc/passwd",
        ] {
            let outcome = told(&command(line), &object(), LIMIT).await;
            assert!(matches!(outcome, Outcome::Failed(_)), "{line}: {outcome:?}");
        }
    }

    /// A value that no variable can hold is told all the same; and a daemon that holds the input open is not
    /// waited for.
    #[tokio::test]
    async fn much_can_be_told() {
        let reason = "\u{1f418}".repeat(100_000);
        let object = serde_json::json!({ "reason": reason }).as_object().unwrap().clone();
        let whole = r#"sh -c 'test ${#PGTANDEM_REASON} -ge 30000 && test "$(wc -c)" -gt 400000'"#;
        assert_eq!(told(&command(whole), &object, LIMIT).await, Outcome::Done);
        let hook = command("sh -c 'exec 3<&0; setsid sleep 20 <&3 & exit 0'");
        assert_eq!(told(&hook, &object, Duration::from_secs(10)).await, Outcome::Done);
    }

    /// What goes on in its group ends with it.
    #[tokio::test]
    async fn endless_output_ends_with_the_hook() {
        let outcome = told(&command("sh -c 'yes & exit 3'"), &object(), LIMIT).await;
        assert!(matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
    }

    /// Nothing of it is left: what it has started is killed with it.
    #[tokio::test]
    async fn a_hook_that_hangs_is_killed_with_all_that_it_started() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        let hook = command(&format!("sh -c 'sleep 1000 & echo $! > {}; wait'", file.display()));
        let outcome = told(&hook, &object(), Duration::from_millis(500)).await;
        assert_eq!(outcome, Outcome::TimedOut);
        let pid = std::fs::read_to_string(&file).unwrap();
        let stat = std::path::PathBuf::from(format!("/proc/{}/stat", pid.trim()));
        let begin = Instant::now();
        let lives = || {
            let stat = std::fs::read_to_string(&stat).unwrap_or_default();
            !stat.is_empty() && !stat.contains(") Z ")
        };
        while lives() {
            assert!(begin.elapsed() < LIMIT, "the grandchild lives on");
            tokio::task::yield_now().await;
        }
    }

    /// A daemon that holds the output open is not waited for.
    #[tokio::test]
    async fn what_is_left_behind_holds_up_nothing() {
        let hook = command("sh -c 'setsid sleep 30 & echo $!; exit 0'");
        assert_eq!(told(&hook, &object(), LIMIT).await, Outcome::Done);
    }

    #[tokio::test]
    async fn more_than_a_pipe_holds_is_read_away() {
        let hook = command("sh -c 'head -c 1000000 /dev/zero | tr \"\\\\0\" x; echo; exit 0'");
        assert_eq!(told(&hook, &object(), LIMIT).await, Outcome::Done);
    }
}
