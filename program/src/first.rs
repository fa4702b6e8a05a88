//! The first process of a process table, as in a container: whoever loses his parent becomes its child,
//! and nobody else waits for such a child when it ends.
//!
//! What must hold: the program itself waits for its own children only, whose exit status it needs. So the
//! first process is not the program: it starts the program as its child, passes on what it is sent, takes
//! in everybody who ends, and ends as the program does.

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, wait};
use std::io;
use std::process::{Command, ExitCode};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{Receiver, channel};

/// What is passed on: all that the programs know.
const PASSED: [(SignalKind, Signal); 5] = [
    (SignalKind::terminate(), Signal::TERM),
    (SignalKind::interrupt(), Signal::INT),
    (SignalKind::quit(), Signal::QUIT),
    (SignalKind::hangup(), Signal::HUP),
    (SignalKind::user_defined2(), Signal::USR2),
];
/// Signals of one kind that come at once are one.
const WAITING: usize = 16;
/// What shells give for a program that a signal has ended: this, and its number.
const BY_SIGNAL: i32 = 128;

/// Where this is the first process: runs the program, with the same arguments, as its child to the end,
/// and returns its exit code. Elsewhere `None`: this is the program.
pub fn serve() -> io::Result<Option<ExitCode>> {
    if std::process::id() != 1 {
        return Ok(None);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(attend()).map(Some)
}

async fn attend() -> io::Result<ExitCode> {
    // Before the child is there, so that nothing is missed.
    let mut ended = signal(SignalKind::child())?;
    let mut signals = passed()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(std::env::args_os().skip(1));
    let program = i32::try_from(command.spawn()?.id()).ok().and_then(Pid::from_raw);
    let program = program.ok_or_else(|| io::Error::other("the program has no process id"))?;
    loop {
        tokio::select! {
            _ = ended.recv() => {
                if let Some(status) = take_in(program)? {
                    return Ok(code(status));
                }
            }
            Some(what) = signals.recv() => {
                if let Err(error) = kill_process(program, what) {
                    tracing::warn!("cannot pass on {what:?}: {error}");
                }
            }
        }
    }
}

fn passed() -> io::Result<Receiver<Signal>> {
    let (sender, receiver) = channel(WAITING);
    for (kind, number) in PASSED {
        let (mut arrives, sender) = (signal(kind)?, sender.clone());
        tokio::spawn(async move {
            while arrives.recv().await.is_some() && sender.send(number).await.is_ok() {}
        });
    }
    Ok(receiver)
}

/// Waits for everybody who has ended; says how, where one was the program.
fn take_in(program: Pid) -> io::Result<Option<WaitStatus>> {
    loop {
        // `waitpid(None)` would wait for those of our own process group only.
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == program => return Ok(Some(status)),
            Ok(Some(_)) => {}
            Ok(None) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}

fn code(status: WaitStatus) -> ExitCode {
    let code = status.exit_status().or_else(|| Some(BY_SIGNAL + status.terminating_signal()?));
    ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX))
}
