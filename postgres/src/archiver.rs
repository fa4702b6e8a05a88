//! The archiver of a server that is being stopped: the one part that may hold up a stop for ever.
//!
//! At a fast stop PostgreSQL ends the sessions, writes the shutdown checkpoint, lets walsenders pass it on,
//! and then waits for the archiver, however long its command takes (`PM_SHUTDOWN_2` in postmaster.c;
//! docs/postgres-facts.md, section 12).
//!
//! What must hold: the archiver is ended only once the control file says "shut down" and nothing that
//! sends or writes is left, so that neither data nor a standby lack anything. A segment that it has not
//! archived keeps its `.ready` file, for the next start as a primary. It is told to end as PostgreSQL
//! itself would tell it (SIGTERM to its process group): the server then ends in order, and keeps its
//! statistics, which 18 writes last of all. Not here: what is done if that does not help
//! ([`crate::postmaster::Postmaster::stop`]).

use crate::instance::Instance;
use crate::process::{self, Process};
use std::time::Duration;
use tokio::time::Instant;

/// What an archive command is given, of which the time before the stop is a part. Nobody else archives that one: a standby that
/// has streamed it takes it for archived, and a primary that becomes a standby archives nothing.
const GRACE: Duration = Duration::from_secs(1);

/// An archive command that was told to end is gone by then, and the server with it.
const TERM_PATIENCE: Duration = Duration::from_millis(500);

/// How often the control file, and then the archive command, are looked at: neither has an event.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What a child of the postmaster is, as far as a stop is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Archiver,
    /// Has nothing to do with sessions and standbys; from 18 on they end after the archiver.
    Helper,
    /// A session, a walsender, or something unknown: the stop is not that far yet.
    Other,
}

/// Waits until a server that is stopping waits for its archiver only, and tells that to end where it does
/// not get ready. Returns only where that did not help either: the caller waits for the server's end beside it.
pub(crate) async fn end_what_holds_up(instance: &Instance, postmaster: i32) {
    let archiver = last_one(instance, postmaster).await;
    allow(archiver).await;
    tracing::warn!(
        pid = archiver,
        "the archive command goes on after the shutdown checkpoint; it is ended, and what is not archived stays in pg_wal"
    );
    for process in members(archiver) {
        if let Err(error) = process.signal(rustix::process::Signal::TERM) {
            tracing::warn!(pid = process.pid(), %error, "cannot end the archive command");
        }
    }
    tokio::time::sleep(TERM_PATIENCE).await;
}

/// A command that works is let do so; one that has been at it for long is not waited for any more. A
/// library in its place has no process of its own.
async fn allow(archiver: i32) {
    let deadline = Instant::now() + GRACE;
    let is_stuck =
        |pid: &i32| *pid != archiver && process::age(*pid).is_some_and(|age| age > GRACE);
    while Instant::now() < deadline && !process::members_of(archiver).iter().any(is_stuck) {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Waits until nothing but the archiver keeps the server; where it has none, for ever.
async fn last_one(instance: &Instance, postmaster: i32) -> i32 {
    loop {
        let children = children(postmaster).await;
        if let Some(other) = first(&children, Role::Other) {
            // Its end is an event. One that has ended meanwhile is not seen at the next look.
            if let Ok(Some(other)) = Process::open(other) {
                other.exited().await;
            }
            continue;
        }
        let Some(archiver) = first(&children, Role::Archiver) else {
            return std::future::pending().await;
        };
        // Torn while it is being written: then it is read again.
        if instance.control_data().await.is_ok_and(|control| control.state.is_clean()) {
            return archiver;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

fn first(children: &[(i32, Role)], wanted: Role) -> Option<i32> {
    children.iter().find(|(_, role)| *role == wanted).map(|(pid, _)| *pid)
}

/// A process title can only be had through the process's own memory, which a stuck one may hold: on a
/// thread that nothing else needs.
async fn children(postmaster: i32) -> Vec<(i32, Role)> {
    let look = move || {
        let children = process::children_of(postmaster).into_iter();
        children.map(|pid| (pid, role(&process::title(pid)))).collect()
    };
    tokio::task::spawn_blocking(look).await.unwrap_or_default()
}

/// The archiver and what it runs.
fn members(archiver: i32) -> Vec<Process> {
    let found = process::members_of(archiver);
    // Looked at again through the pidfd's process, since the number may have changed hands.
    let held = found.into_iter().filter_map(|pid| Process::open(pid).ok().flatten());
    held.filter(|held| process::members_of(archiver).contains(&held.pid())).collect()
}

/// `postgres: archiver last was 0000...`, or with `cluster_name` before it (`init_ps_display` in
/// `ps_status.c`).
fn role(title: &str) -> Role {
    let Some(title) = title.strip_prefix("postgres: ") else { return Role::Other };
    if title.contains("walsender") {
        return Role::Other;
    }
    let name = title.rsplit_once(": ").map_or(title, |(_, name)| name);
    let is = |word: &&str| name == *word || name.strip_prefix(*word).is_some_and(starts_new);
    if is(&"archiver") {
        Role::Archiver
    } else if ["checkpointer", "logger", "io worker"].iter().any(is) {
        Role::Helper
    } else {
        Role::Other
    }
}

fn starts_new(rest: &str) -> bool {
    rest.starts_with(' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_known_to_be_harmless_is_passed_over() {
        for (title, expected) in [
            ("postgres: archiver ", Role::Archiver),
            ("postgres: archiver", Role::Archiver),
            ("postgres: archiver archiving 000000010000000000000001", Role::Archiver),
            ("postgres: main: archiver failed on 000000010000000000000001", Role::Archiver),
            ("postgres: checkpointer ", Role::Helper),
            ("postgres: 18/main: io worker 2", Role::Helper),
            ("postgres: logger ", Role::Helper),
            ("postgres: walsender archiver [local] streaming 0/3000060", Role::Other),
            ("postgres: main: walsender u: archiver [local]", Role::Other),
            ("postgres: archivist db [local] idle", Role::Other),
            ("postgres: walwriter ", Role::Other),
            ("postgres: startup recovering 000000010000000000000001", Role::Other),
            ("/usr/lib/postgresql/15/bin/postgres -D /data", Role::Other),
            ("", Role::Other),
        ] {
            assert_eq!(role(title), expected, "{title}");
        }
    }
}
