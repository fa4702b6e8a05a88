//! A backup after each promotion, in the background: the plan of the node waits for nothing here.
//!
//! It is taken by the confirmed primary, once a checkpoint since the promotion has been completed: before
//! that the control file names the old timeline, and pgBackRest refuses (docs/archiving.md). One that fails
//! is taken again, after longer and longer waits; one that the node may no longer take is given up.

use super::condition::Failure;
use super::gate::{Facts, Gate, passfile, server};
use super::{Call, engine, queue};
use fsm::node::archive::is_confirmed_primary;
use postgres::transfer::{Transfer, TransferError};
use shared::history::{History, Lineage};
use shared::ids::{Epoch, TimelineId};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Between two attempts, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_mins(10));

/// Takes backups for ever; `password` is that of the keeper's role.
pub async fn take(gate: Arc<Gate>, password: Option<String>) {
    let mut facts = gate.facts.clone();
    loop {
        let due = {
            let facts = facts.borrow_and_update();
            facts.as_ref().and_then(|facts| due(&gate, facts))
        };
        if let Some(epoch) = due {
            tokio::select! {
                () = insist(&gate, epoch, password.as_deref()) => {}
                () = over(&gate, epoch) => {
                    tracing::warn!("the backup of epoch {epoch} is given up: this is not the primary any more");
                    gate.condition.send_modify(|condition| condition.backup = None);
                }
            }
        }
        if facts.changed().await.is_err() {
            return;
        }
    }
}

/// The epoch that a backup is due of.
fn due(gate: &Gate, facts: &Facts) -> Option<Epoch> {
    let epoch = facts.persisted.assignment.epoch;
    let can = can_be_backed_up(gate, facts) && facts.in_force.is_some();
    (can && gate.condition.borrow().known.backed_up < epoch).then_some(epoch)
}

fn can_be_backed_up(gate: &Gate, facts: &Facts) -> bool {
    is_confirmed_primary(&facts.persisted) && facts.checkpointed && gate.right.serves()
}

/// Waits until this is not the primary of the epoch any more.
async fn over(gate: &Gate, epoch: Epoch) {
    let mut facts = gate.facts.clone();
    let goes_on = |facts: &Option<Facts>| {
        facts.as_ref().is_some_and(|facts| {
            facts.persisted.assignment.epoch == epoch && is_confirmed_primary(&facts.persisted)
        })
    };
    drop(facts.wait_for(|facts| !goes_on(facts)).await);
}

async fn insist(gate: &Gate, epoch: Epoch, password: Option<&str>) {
    let (mut pause, most) = PAUSE;
    loop {
        let began = Instant::now();
        match back_up(gate, password).await {
            Ok(taken) => {
                let ms = began.elapsed().as_millis();
                if taken {
                    tracing::info!(
                        duration_ms = ms,
                        "the backup after the promotion to epoch {epoch} is complete after {ms} ms"
                    );
                }
                gate.condition.send_modify(|condition| {
                    // A restore that begins with it does not come to a gap before it.
                    let gap = condition.gap.take().filter(|_| !taken);
                    (condition.backup, condition.gap) = (None, gap);
                });
                gate.remember(|known| known.backed_up = epoch).await;
                return;
            }
            Err(why) => {
                let text = format!(
                    "there is no backup since the promotion to epoch {epoch}, it is tried again: {why}"
                );
                let before = gate.condition.borrow().backup.clone();
                if before.as_ref().is_none_or(|before| before.error != text) {
                    tracing::warn!("{text}");
                }
                let failure = Failure::again(before.as_ref(), text);
                gate.condition.send_modify(|condition| condition.backup = Some(failure));
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(most);
    }
}

/// Whether there was anything to do, which was done.
async fn back_up(gate: &Gate, password: Option<&str>) -> Result<bool, String> {
    let path = passfile(&gate.state_dir);
    if let Some(password) = password {
        let (path, owner) = (path.clone(), gate.instance.owner.clone());
        let users = [(crate::managed::KEEPER.to_owned(), password.to_owned())];
        let write = move || {
            let users = users.each_ref().map(|(user, password)| (user.as_str(), password.as_str()));
            postgres::conninfo::write_passfile(&path, &users, &owner)
        };
        let written = tokio::task::spawn_blocking(write).await;
        written.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
    }
    let server = server(&gate.instance, &path);
    let prepared = gate.archive.prepare_backup(&server);
    if let Some(prepare) = &prepared {
        run(gate, prepare, "stanza-create").await?;
    }
    leave_signposts(gate).await?;
    let Some(backup) = gate.archive.backup(&server) else { return Ok(false) };
    run(gate, &backup, "the backup").await?;
    Ok(true)
}

/// Stores a history file for each timeline number that was left out (rule 8). PostgreSQL looks for the newest
/// timeline by counting up until one has no history file (`findNewestTimeLine` in timeline.c): without these a
/// restore would end at the first change of the primary. Such a file says of its timeline that it began where
/// the next one of ours did; nothing was ever written on it, so nothing more is restored by it either.
async fn leave_signposts(gate: &Gate) -> Result<(), String> {
    let Some(facts) = gate.facts.borrow().clone() else { return Ok(()) };
    let Some(history) = &facts.history else { return Ok(()) };
    let left_out = left_out(history, &facts.persisted.assignment.lineage);
    // Whoever follows the archive must not take one of these for the newest: ours is there before, and the one
    // that leads on from what they have comes last.
    let own = queue::is_done(&gate.instance.data_dir, &history_file(history.timeline));
    if !left_out.is_empty() && !own {
        return Err("the history of its timeline is not archived yet".to_owned());
    }
    for timeline in left_out.into_iter().rev() {
        leave_signpost(gate, history.timeline, timeline).await?;
    }
    Ok(())
}

/// Where there is a file of that number already, it is left as it is: it leads on as well. Somebody else has put
/// it there whose history went another way, before data were given up.
async fn leave_signpost(gate: &Gate, own: TimelineId, timeline: TimelineId) -> Result<(), String> {
    let own = gate.instance.data_dir.wal_dir().join(history_file(own));
    let name = history_file(timeline);
    let path = gate.state_dir.join(&name);
    let outcome = store_signpost(gate, &own, timeline, &path).await;
    // It is made anew for the next attempt.
    drop(tokio::fs::remove_file(&path).await);
    outcome
}

async fn store_signpost(
    gate: &Gate,
    own: &Path,
    timeline: TimelineId,
    path: &Path,
) -> Result<(), String> {
    let name = history_file(timeline);
    let passfile = passfile(&gate.state_dir);
    let server = server(&gate.instance, &passfile);
    let shown = path.display().to_string();
    if is_there(gate, &gate.archive.get(&server, &name, &shown), &name).await? {
        return Ok(());
    }
    let (own, to, owner) = (own.to_owned(), path.to_owned(), gate.instance.owner.clone());
    let write = move || -> io::Result<()> {
        let text = signpost(&std::fs::read_to_string(own)?, timeline);
        postgres::durable::write(&to, text.as_bytes(), 0o600, &owner).map_err(io::Error::other)?;
        Ok(())
    };
    let written = tokio::task::spawn_blocking(write).await;
    written.map_err(|e| e.to_string())?.map_err(|e| format!("cannot write {name}: {e}"))?;
    let push = gate.archive.push(&server, &shown, &name);
    soon(run(gate, &push, &format!("the push of {name}"))).await
}

/// Whether the archive has it, as `get` of the contract says.
async fn is_there(gate: &Gate, get: &Call, name: &str) -> Result<bool, String> {
    let what = format!("the get of {name}");
    soon(async {
        match begin(gate, get, &what)?.wait().await {
            Ok(_) => Ok(true),
            Err(TransferError::Failed { status, .. }) if status.code() == Some(1) => Ok(false),
            Err(error) => Err(error.to_string()),
        }
    })
    .await
}

/// A small file takes no longer than [`engine::limit`] says.
async fn soon<T>(work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let limit = engine::limit(0);
    let ended = tokio::time::timeout(limit, work).await;
    ended.unwrap_or_else(|_| Err(format!("the archive has not answered for {} s", limit.as_secs())))
}

/// The numbers between the group's first timeline and the present one that its history does not go through.
fn left_out(history: &History, lineage: &Lineage) -> Vec<TimelineId> {
    let first = lineage.0.first().map_or(history.timeline, |entry| entry.timeline);
    let passed = |number: &u32| history.ancestors.iter().any(|it| it.timeline.0 == *number);
    let numbers = first.0.saturating_add(1)..history.timeline.0;
    numbers.filter(|number| !passed(number)).map(TimelineId).collect()
}

/// What our own history says of the time before this number: whoever of our primaries writes it, it is the
/// same.
fn signpost(own: &str, timeline: TimelineId) -> String {
    let is_before = |line: &&str| {
        let number = line.split_whitespace().next().and_then(|word| word.parse().ok());
        number.is_some_and(|number: u32| number < timeline.0)
    };
    own.lines().filter(is_before).flat_map(|line| [line, "\n"]).collect()
}

fn history_file(timeline: TimelineId) -> String {
    format!("{:08X}.history", timeline.0)
}

/// Runs it to its end, however long that takes; it ends with this future. A command is not shown: it may have a
/// password in it.
async fn run(gate: &Gate, call: &Call, what: &str) -> Result<(), String> {
    let ended = begin(gate, call, what)?.wait().await;
    ended.map(drop).map_err(|error| error.to_string())
}

fn begin(gate: &Gate, call: &Call, what: &str) -> Result<Transfer, String> {
    let mut command = gate.instance.owner.command(&call.program);
    command.args(&call.arguments).envs(call.environment.iter().cloned());
    command.current_dir(gate.instance.data_dir.path());
    let begun = Transfer::start(command, what, |_| None);
    begun.map_err(|error| format!("{error}: there is no {}, or it cannot be run", call.program))
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::history::LineageEntry;

    #[test]
    fn numbers_that_were_left_out_say_where_the_next_one_began() {
        let own = "1\t0/3000060\tx\n3\t0/5000060\ty\n";
        let history = History::parse(TimelineId(6), own).unwrap();
        let lineage = Lineage(vec![LineageEntry::reserved(Epoch(1), TimelineId(1))]);
        assert_eq!(left_out(&history, &lineage), [2, 4, 5].map(TimelineId));
        assert_eq!(signpost(own, TimelineId(2)), "1\t0/3000060\tx\n");
        assert_eq!(signpost(own, TimelineId(5)), own);
        // The timelines of an older cluster, of which nothing was left out by us.
        let lineage = Lineage(vec![LineageEntry::reserved(Epoch(1), TimelineId(3))]);
        assert_eq!(left_out(&history, &lineage), [4, 5].map(TimelineId));
    }
}
