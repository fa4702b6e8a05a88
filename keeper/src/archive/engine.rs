//! Runs an engine for one file, to its end or to its limit. Without a runtime, as its callers are.
//!
//! What must hold: it ends with whoever called the gate, so it stays in the process group of that; and what
//! hangs is ended with all that it has begun, since PostgreSQL waits for it and does nothing else meanwhile.

use super::Call;
use super::talk::Outcome;
use postgres::process::descendants_of;
use postgres::run::last_lines;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

/// For anything at all: a connection, an answer.
const LIMIT: Duration = Duration::from_mins(1);
/// What comes on top is a second for each of so many bytes. Whatever is slower does not keep up with a server that
/// fills a segment of 16 MB every three minutes.
const SLOWEST: u64 = 100_000;
/// After SIGTERM.
const END_PATIENCE: Duration = Duration::from_secs(5);
/// How much of what an engine says is kept.
const KEPT: (usize, usize) = (5, 2000);

/// How long the engine may take for a file of so many bytes.
pub(crate) fn limit(bytes: u64) -> Duration {
    LIMIT.saturating_add(Duration::from_secs(bytes / SLOWEST))
}

/// Runs it.
pub(crate) fn run(call: &Call, limit: Duration) -> Outcome {
    let mut command = Command::new(&call.program);
    command.args(&call.arguments).envs(call.environment.iter().cloned());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let failed = |why| Outcome { code: None, said: format!("cannot run {}: {why}", call.program) };
    let child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return failed(error),
    };
    let pid = child.id();
    let (tell, ended) = channel();
    // Nobody listens any more where it did not end in time.
    thread::spawn(move || drop(tell.send(child.wait_with_output())));
    if let Ok(ended) = ended.recv_timeout(limit) {
        return ended.map_or_else(failed, |output| outcome(&output));
    }
    for (signal, patience) in [(Signal::TERM, END_PATIENCE), (Signal::KILL, END_PATIENCE)] {
        end(pid, signal);
        if ended.recv_timeout(patience).is_ok() {
            break;
        }
    }
    let seconds = limit.as_secs();
    Outcome { code: None, said: format!("it had not ended after {seconds} s, and was killed") }
}

fn outcome(output: &Output) -> Outcome {
    let said = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
    let (lines, bytes) = KEPT;
    let said = last_lines(&String::from_utf8_lossy(said), lines);
    // One line of it may be of any length.
    let mut from = said.len().saturating_sub(bytes);
    while !said.is_char_boundary(from) {
        from += 1;
    }
    let said = said.get(from..).unwrap_or_default();
    match output.status.code() {
        Some(code) => Outcome { code: Some(code), said: said.to_owned() },
        None => Outcome { code: None, said: format!("it was ended ({}) {said}", output.status) },
    }
}

/// What it has begun goes first: once it has ended itself nothing says whose that was.
fn end(pid: u32, signal: Signal) {
    let Ok(pid) = i32::try_from(pid) else { return };
    for pid in descendants_of(pid).into_iter().rev().chain([pid]) {
        let held = Pid::from_raw(pid).map(|pid| pidfd_open(pid, PidfdFlags::empty()));
        if let Some(Ok(held)) = held {
            // One that has ended meanwhile is fine.
            let _ = pidfd_send_signal(&held, signal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn shell(text: &str) -> Call {
        let arguments = vec!["-c".to_owned(), text.to_owned()];
        Call { program: "/bin/sh".to_owned(), arguments, environment: Vec::new() }
    }

    #[test]
    fn how_it_ended() {
        let long = limit(0);
        let run = |text: &str| run(&shell(text), long);
        assert_eq!(run("exit 0").code, Some(0));
        let failed = run("echo all is lost >&2; exit 3");
        assert_eq!((failed.code, failed.said.as_str()), (Some(3), "all is lost"));
        let killed = run("kill -9 $$");
        assert!(killed.code.is_none() && killed.said.contains("signal"), "{killed:?}");
        let chatty = run("head -c 100000 /dev/zero | tr '\\0' x; exit 1");
        assert_eq!(chatty.said.len(), KEPT.1);
        let missing = Call { program: "/nonexistent".to_owned(), ..shell("") };
        assert!(super::run(&missing, long).said.contains("/nonexistent"));
    }

    #[test]
    fn one_that_hangs_is_ended_with_what_it_has_begun() {
        let began = Instant::now();
        let outcome = run(&shell("sleep 600; echo never"), Duration::from_millis(100));
        assert!(outcome.code.is_none() && outcome.said.contains("not ended"), "{outcome:?}");
        // The pipe of its child would be read to its end.
        assert!(began.elapsed() < END_PATIENCE, "{:?}", began.elapsed());
    }

    #[test]
    fn large_files_may_take_longer() {
        assert_eq!(limit(0), LIMIT);
        assert!(limit(16 << 20) > Duration::from_mins(3));
    }
}
