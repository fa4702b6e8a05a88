//! Running a hook once, within a limit.
//!
//! A command gets a process group of its own, which is killed as a whole when the limit is over, or when nobody
//! waits for the outcome any more. What it says goes into the log line by line, with the event's id. Plain HTTP is
//! spoken here; HTTPS is left to curl(1), since no TLS is built in. It reads the URL from its standard input, so
//! that nobody finds it in the list of processes.

use crate::hook::{Hook, Target};
use crate::notice::variables;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Map, Value};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader,
};
use tokio::process::{Child, Command};
use url::Url;

/// How much of one run goes into the log; a hook that says more is cut short.
const MOST_BYTES: u64 = 64 << 10;
/// Whatever is longer is no reason that a person reads.
const LONGEST_REASON: usize = 500;
/// Something that a hook has left behind may hold its output open: that is not waited for any longer.
const LAST_WORDS: Duration = Duration::from_millis(500);
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
pub async fn run(hook: &Hook, object: &Map<String, Value>, limit: Duration) -> Outcome {
    let id = object.get("event_id").and_then(Value::as_str).unwrap_or_default();
    let body = Value::from(object.clone()).to_string();
    match &hook.target {
        Target::Command { program, arguments } => {
            let mut command = Command::new(program);
            command.args(arguments).envs(variables(object));
            execute(command, (hook, id), body.as_bytes(), limit).await
        }
        Target::Webhook(url) if url.scheme() == "http" => post(url, id, body, limit).await,
        Target::Webhook(url) => {
            let mut command = Command::new("curl");
            command.args(["--disable", "--silent", "--show-error", "--fail", "--config", "-"]);
            let input = curl_configuration(url, id, &body);
            execute(command, (hook, id), input.as_bytes(), limit).await
        }
    }
}

async fn post(url: &Url, id: &str, body: String, limit: Duration) -> Outcome {
    let sent = async {
        let client = reqwest::Client::builder().no_proxy().build()?;
        let request = client.post(url.clone()).header("Content-Type", "application/json");
        let answer = request.header("Idempotency-Key", id).body(body).send().await?;
        let status = answer.status();
        // Only a refusal says more than its status.
        let refuses = status == reqwest::StatusCode::CONFLICT;
        let body = if refuses { answer.text().await? } else { String::new() };
        Ok::<_, reqwest::Error>((status, body))
    };
    match tokio::time::timeout(limit, sent).await {
        Err(_) => Outcome::TimedOut,
        // The error would name the URL.
        Ok(Err(error)) => Outcome::Failed(in_full(&error.without_url())),
        Ok(Ok((status, _))) if status.is_success() => Outcome::Done,
        Ok(Ok((reqwest::StatusCode::CONFLICT, body))) => {
            let last = body.lines().map(str::trim).rfind(|line| !line.is_empty());
            Outcome::Refused(last.unwrap_or("409 Conflict").chars().take(LONGEST_REASON).collect())
        }
        Ok(Ok((status, _))) => Outcome::Failed(format!("it was answered {status}")),
    }
}

fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(deeper) = cause {
        text = format!("{text}: {deeper}");
        cause = deeper.source();
    }
    text
}

/// See "Config file" in curl(1): within quotation marks, a backslash keeps the next one from ending it.
fn curl_configuration(url: &Url, id: &str, body: &str) -> String {
    let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
    format!(
        "url = \"{}\"\nheader = \"Content-Type: application/json\"\nheader = \"Idempotency-Key: {}\"\ndata-binary = \"{}\"\noutput = \"/dev/null\"\n",
        quoted(url.as_str()),
        quoted(id),
        quoted(body)
    )
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
    (hook, id): (&Hook, &str),
    input: &[u8],
    limit: Duration,
) -> Outcome {
    let given: Vec<_> = command.as_std().get_envs().map(|(name, _)| name.to_owned()).collect();
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let ours = text.starts_with("PGTANDEM_") || OURS.contains(&text.as_ref());
        if ours && !given.contains(&name) {
            command.env_remove(&name);
        }
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.process_group(0).current_dir("/");
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return Outcome::Failed(format!("it cannot be started: {error}")),
    };
    let pid = child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
    let group = Group(pid);
    let ended = tokio::time::timeout(limit, attend(&mut child, (hook, id), input)).await;
    drop(group);
    // It has been killed: this only takes it in.
    let Ok((status, last)) = ended else {
        drop(tokio::time::timeout(LAST_WORDS, child.wait()).await);
        return Outcome::TimedOut;
    };
    match status {
        Ok(status) if status.success() => Outcome::Done,
        Ok(status) if status.code().is_none() => Outcome::Failed(status.to_string()),
        Ok(status) => Outcome::Refused(last.unwrap_or_else(|| status.to_string())),
        Err(error) => Outcome::Failed(format!("it cannot be waited for: {error}")),
    }
}

/// Feeds it, listens to it, and waits for its end; with the last line that it said.
async fn attend(
    child: &mut Child,
    about: (&Hook, &str),
    input: &[u8],
) -> (std::io::Result<ExitStatus>, Option<String>) {
    let stdin = child.stdin.take();
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let feed = async {
        if let Some(mut pipe) = stdin {
            // One that does not read all is none the worse for it.
            drop(pipe.write_all(input).await);
        }
    };
    let mut said = (None, None);
    let (first, second) = (&mut said.0, &mut said.1);
    let talk = async { tokio::join!(listen(stdout, about, first), listen(stderr, about, second)) };
    let status = {
        tokio::pin!(talk);
        let end = async { tokio::join!(feed, child.wait()).1 };
        tokio::pin!(end);
        tokio::select! {
            status = &mut end => {
                drop(tokio::time::timeout(LAST_WORDS, talk).await);
                status
            }
            _ = &mut talk => end.await,
        }
    };
    let (out, err) = said;
    (status, err.or(out))
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
        match (&mut reader).take(left).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(read) => left = left.saturating_sub(u64::try_from(read).unwrap_or(left)),
        }
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        if !line.is_empty() {
            tracing::info!(event.id = id, "{hook}: {line}");
            *last = Some(line.chars().take(LONGEST_REASON).collect());
        }
    }
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

    #[tokio::test]
    async fn a_command_is_told_in_both_ways() {
        let script = r#"sh -c 'test "$PGTANDEM_EVENT_ID $PGTANDEM_ROLE" = "f-1-7 standby" && grep -q "\"event_id\":\"f-1-7\""'"#;
        assert_eq!(run(&command(script), &object(), LIMIT).await, Outcome::Done);
    }

    #[tokio::test]
    async fn the_last_line_says_why_not() {
        let hook = command("sh -c 'echo first; echo the disk is old >&2; exit 3'");
        let refused = Outcome::Refused("the disk is old".to_owned());
        assert_eq!(run(&hook, &object(), LIMIT).await, refused);
        let silent = run(&command("false"), &object(), LIMIT).await;
        assert_eq!(silent, Outcome::Refused("exit status: 1".to_owned()));
        let missing = run(&command("/no/such/program"), &object(), LIMIT).await;
        assert!(matches!(missing, Outcome::Failed(_)), "{missing:?}");
    }

    /// Nothing of it is left: what it has started is killed with it.
    #[tokio::test]
    async fn a_hook_that_hangs_is_killed_with_all_that_it_started() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        let hook = command(&format!("sh -c 'sleep 1000 & echo $! > {}; wait'", file.display()));
        let outcome = run(&hook, &object(), Duration::from_millis(500)).await;
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
        let hook = command("sh -c 'setsid sleep 1000 & echo $!; exit 0'");
        assert_eq!(run(&hook, &object(), LIMIT).await, Outcome::Done);
    }

    #[tokio::test]
    async fn more_than_a_pipe_holds_is_read_away() {
        let hook = command("sh -c 'head -c 1000000 /dev/zero | tr \"\\\\0\" x; echo; exit 0'");
        assert_eq!(run(&hook, &object(), LIMIT).await, Outcome::Done);
    }

    #[tokio::test]
    async fn webhooks_are_posted_with_the_id_as_their_key() {
        use axum::http::{HeaderMap, StatusCode};
        let answer = |headers: HeaderMap, body: String| async move {
            let key = headers.get("idempotency-key").and_then(|key| key.to_str().ok());
            let right = key == Some("f-1-7") && body.contains("\"role\":\"standby\"");
            if right { StatusCode::NO_CONTENT } else { StatusCode::BAD_REQUEST }
        };
        let router = axum::Router::new().route("/hook", axum::routing::post(answer));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move { axum::serve(listener, router).await });
        let hook = command(&format!("http://{address}/hook?token=secret"));
        assert_eq!(run(&hook, &object(), LIMIT).await, Outcome::Done);
        let wrong = run(&command(&format!("http://{address}/none")), &object(), LIMIT).await;
        assert_eq!(wrong, Outcome::Failed("it was answered 404 Not Found".to_owned()));
        server.abort();
        drop(server.await);
        let Outcome::Failed(why) = run(&hook, &object(), LIMIT).await else {
            panic!("nobody is there")
        };
        assert!(!why.contains("secret"), "{why}");
    }

    #[test]
    fn curl_is_told_what_no_list_of_processes_shows() {
        let url = "https://a:b@example/x?y=\"".parse().unwrap();
        let text = curl_configuration(&url, "f-1-7", r#"{"a":"b\"c"}"#);
        assert!(text.contains("url = \"https://a:b@example/x?y=%22\"\n"), "{text}");
        assert!(text.contains(r#"data-binary = "{\"a\":\"b\\\"c\"}""#), "{text}");
    }
}
