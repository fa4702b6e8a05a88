//! Sealed, fetching, following: a Postgres that is never writable.

use super::plan::{Next, Plan, Step, file_is, sealed_file};
use super::view::{Admitted, Archive, Data, File, Lack, LocalView, Persisted, Process, Upstream};
use shared::goal;
use shared::history::{History, Lineage};
use shared::ids::{Epoch, NodeId};
use shared::lsn::{Lsn, Position};
use shared::report::Stray;
use shared::state::NodeState;

/// For how long the signs of a seal by reload are waited for before Postgres is restarted instead
/// (rule 3): replay that is paused, delayed or blocked never shows them.
const SEAL_PATIENCE_MS: u64 = 1500;
/// The same while WAL comes from an archive, since something came last: one file may take long.
const ARCHIVE_PATIENCE_MS: u64 = 10_000;

/// What a node waits for that should stream from a standby and cannot: data comes from the primary only, and the
/// monitor attaches it there (rule `reattached`).
const ATTACHMENT: &str = "the primary as its upstream";

/// The steps to a running standby that connects to nobody, with its end of log established; `None`
/// when that holds.
pub(super) fn sealed_standby(view: &LocalView, state: NodeState) -> Option<Plan> {
    if !file_is(view, None) {
        return Some(Plan::step(state, Step::Configure(sealed_file())));
    }
    match (view.process, &view.server) {
        (Process::Stopped, _) => Some(Plan::step(state, Step::StartStandby)),
        (Process::Starting | Process::Running, None) => {
            Some(Plan::wait(state, "postgres to accept connections"))
        }
        (Process::Starting | Process::Running, Some(server)) if !server.in_recovery => {
            Some(Plan::step(state, Step::StopImmediate))
        }
        (Process::Starting | Process::Running, Some(server)) if server.sealed => None,
        (Process::Starting | Process::Running, Some(_)) => {
            Some(if view.sealing_for_ms > SEAL_PATIENCE_MS {
                Plan::step(state, Step::StopImmediate)
            } else {
                Plan::wait(state, "the signs that the walreceiver has ended")
            })
        }
    }
}

/// Stays sealed, but fetches up to `target` (rule 5).
pub(super) fn fast_forward(
    view: &LocalView,
    persisted: &Persisted,
    source: NodeId,
    target: Position,
) -> Plan {
    let state = NodeState::FastForward;
    if view.is_primary() {
        return Plan::step(state, Step::StopImmediate);
    }
    match &view.data {
        Data::Empty | Data::Rebuilding | Data::Unusable => {
            return Plan::wait(state, "data to fetch into");
        }
        Data::Present { .. } => {}
    }
    let fetching = Upstream::Fetch { node: source };
    let end =
        view.server.as_ref().filter(|server| server.in_recovery).and_then(|server| server.end);
    if file_is(view, Some(&fetching)) && view.process != Process::Stopped {
        return match end {
            Some(end) if end >= target.lsn => Plan::step(state, Step::Configure(sealed_file())),
            Some(_) | None => Plan::wait(state, "WAL from the source"),
        };
    }
    if let Some(plan) = sealed_standby(view, state) {
        return plan;
    }
    let Some((history, end)) = view.established() else {
        return Plan::wait(state, "the end of the local log");
    };
    let position = persisted.assignment.lineage.position(history, end);
    if position.is_some_and(|position| position >= target) {
        return Plan::new(state, Next::Reached);
    }
    if end >= target.lsn {
        return Plan::wait(state, "a log that the source's continues");
    }
    let file = File { upstream: Some(fetching), ..sealed_file() };
    Plan::step(state, Step::Configure(file))
}

/// Streams from `upstream` (rule 10).
pub(super) fn follow(view: &LocalView, persisted: &Persisted, upstream: &goal::Upstream) -> Plan {
    let state = NodeState::Catchingup;
    if !view.heard && view.process == Process::Stopped {
        return Plan::wait(state, "the monitor's answer");
    }
    if view.is_primary() {
        return Plan::step(NodeState::Demoted, Step::StopImmediate);
    }
    match &view.data {
        Data::Empty | Data::Rebuilding => return rebuild(upstream, |from| Step::Clone { from }),
        Data::Unusable => return Plan::wait(state, "a data directory that can be used"),
        Data::Present { .. } => {}
    }
    let Some(wanted) = wanted(persisted, upstream) else {
        return Plan::wait(state, "an assignment that names this node and its upstream");
    };
    if persisted.admitted == Some(wanted) && !has_left(view, persisted, wanted.epoch) {
        return stream(view, wanted, upstream);
    }
    admit(view, persisted, wanted, upstream)
}

/// A copy or a rewind: from the primary, where that is the upstream (C15).
fn rebuild(upstream: &goal::Upstream, step: impl FnOnce(NodeId) -> Step) -> Plan {
    let state = NodeState::Catchingup;
    match upstream {
        goal::Upstream::Primary { node } => Plan::step(state, step(*node)),
        goal::Upstream::Standby { .. } => Plan::wait(state, ATTACHMENT),
    }
}

/// Whether the log has gone on, since it was proved, on a timeline that the upstream's history does not
/// go through: somebody has promoted this standby. The proof is of another log then.
fn has_left(view: &LocalView, persisted: &Persisted, epoch: Epoch) -> bool {
    let lineage = &persisted.assignment.lineage;
    view.history().is_some_and(|history| !is_known(lineage, history, epoch))
}

/// Whether a node that is told to follow a standby can do nothing before it is told to follow the primary.
pub fn needs_primary(plan: &Plan) -> bool {
    plan.next == Next::Wait(ATTACHMENT)
}

/// What is told of a log that goes on on a timeline that no epoch owns: an operator may accept it.
pub fn stray(view: &LocalView, persisted: &Persisted) -> Option<Stray> {
    let history = view.history()?;
    persisted.assignment.lineage.strays(history)?;
    let end = view.established().map(|(_, end)| end);
    Some(Stray { history: history.clone(), end })
}

/// The admission that the assignment asks for.
fn wanted(persisted: &Persisted, upstream: &goal::Upstream) -> Option<Admitted> {
    let upstream = upstream.node();
    let assignment = &persisted.assignment;
    let own = persisted.own?;
    let admission = assignment.member(own)?.admission;
    assignment.member(upstream)?;
    Some(Admitted { upstream, epoch: assignment.epoch, admission })
}

/// The log is a prefix of the upstream's history: connect.
fn stream(view: &LocalView, admitted: Admitted, upstream: &goal::Upstream) -> Plan {
    let state = NodeState::Catchingup;
    let member = Upstream::Member { node: admitted.upstream, admission: admitted.admission };
    if !file_is(view, Some(&member)) {
        let file = File { upstream: Some(member), ..sealed_file() };
        return Plan::step(state, Step::Configure(file));
    }
    match (view.process, &view.server) {
        (Process::Stopped, _) => Plan::step(state, Step::StartStandby),
        (Process::Starting | Process::Running, Some(server)) if server.streaming => {
            Plan::new(NodeState::Secondary, Next::Reached)
        }
        (Process::Starting | Process::Running, _) => match view.upstream_lacks {
            Some(Lack::Wal) if !upstream.is_standby() && view.archive == Archive::Unasked => {
                Plan::step(state, Step::CatchUp)
            }
            Some(Lack::Wal) => rebuild(upstream, |from| Step::Clone { from }),
            // The proof stands: all that has come since came from there.
            Some(Lack::Slot) => {
                let Admitted { upstream, admission, .. } = admitted;
                Plan::step(state, Step::Admit { upstream, admission })
            }
            None => Plan::wait(state, "the stream from its upstream"),
        },
    }
}

/// Whether the history of `epoch` goes through the timeline that a server is on. After a promotion that
/// was interrupted before its first record the log may be a prefix all the same, but PostgreSQL asks
/// for its own timeline, which the other one has never heard of.
pub(super) fn is_known(lineage: &Lineage, history: &History, epoch: Epoch) -> bool {
    if lineage.has_strayed(history, Lsn(u64::MAX)) {
        return false;
    }
    lineage
        .epoch_of(history.timeline)
        .is_some_and(|own| lineage.is_prefix(Position { epoch: own, lsn: history.start() }, epoch))
}

/// Takes all that the archive has for this node. It connects to nobody meanwhile, and reads from the
/// archive no longer when its end is established: what comes from there was proved by nobody.
fn from_archive(view: &LocalView, upstream: &goal::Upstream) -> Plan {
    let state = NodeState::Catchingup;
    let file = File { restore: true, ..sealed_file() };
    if view.archive == Archive::None {
        // It was taken away from a keeper that had one.
        return Plan::step(state, Step::Configure(sealed_file()));
    }
    if view.file != file {
        return Plan::step(state, Step::Configure(file));
    }
    match (view.process, &view.server) {
        (Process::Stopped, _) => Plan::step(state, Step::StartStandby),
        // It is not consistent without what the archive lacks, and nobody lets it in as it is.
        (Process::Starting | Process::Running, None) if view.archive == Archive::Exhausted => {
            rebuild(upstream, |from| Step::Clone { from })
        }
        (Process::Starting | Process::Running, Some(server))
            if server.sealed && view.archive == Archive::Exhausted =>
        {
            Plan::step(state, Step::Configure(sealed_file()))
        }
        (Process::Starting | Process::Running, Some(_))
            if view.sealing_for_ms > ARCHIVE_PATIENCE_MS =>
        {
            Plan::step(state, Step::StopImmediate)
        }
        (Process::Starting | Process::Running, _) => Plan::wait(state, "WAL from the archive"),
    }
}

/// The proof of rule 10 from an established end of log: admit, or rewind, or copy anew.
fn admit(
    view: &LocalView,
    persisted: &Persisted,
    wanted: Admitted,
    upstream: &goal::Upstream,
) -> Plan {
    let state = NodeState::Catchingup;
    // Data that cannot be run says nothing, and cannot be taken back: a copy replaces it.
    if view.broken && view.process == Process::Stopped {
        return rebuild(upstream, |from| Step::Clone { from });
    }
    if view.file.restore || persisted.restored && view.archive == Archive::Unasked {
        return from_archive(view, upstream);
    }
    let Some((history, end)) = view.established() else {
        return sealed_standby(view, state)
            .unwrap_or_else(|| Plan::wait(state, "the end of the local log"));
    };
    let lineage = &persisted.assignment.lineage;
    if lineage.has_strayed(history, end) || lineage.is_doubtful(history, end) {
        // Its timeline may have a number of ours: pg_rewind would see no divergence (C6).
        return rebuild(upstream, |from| Step::Clone { from });
    }
    let position = lineage.position(history, end);
    let prefix = position.is_some_and(|position| lineage.is_prefix(position, wanted.epoch));
    if prefix && is_known(lineage, history, wanted.epoch) {
        return Plan::step(
            state,
            Step::Admit { upstream: wanted.upstream, admission: wanted.admission },
        );
    }
    // Both only from the primary of an epoch that is not older than the own last record.
    if position.is_some_and(|position| position.epoch > wanted.epoch) {
        return Plan::wait(state, "a primary of an epoch that is not older than the own log");
    }
    rebuild(upstream, |from| Step::Rewind { from })
}
