//! What a keeper's steps do to its node, on the facts that plans are made from. Shared by the worlds
//! of this crate and by the property tests of `fsm::node::plan`.

use fsm::node::consent::Asked;
use fsm::node::view::{Admitted, Due, Lack, Persisted};
use fsm::node::{Archive, Data, File, LocalView, Process, Server, Step, Sync, Upstream, primary};
use shared::history::History;
use shared::ids::{NodeId, SystemIdentifier, TimelineId};
use shared::lsn::Lsn;

/// The cluster of every world.
pub const SYSTEM: SystemIdentifier = SystemIdentifier(7_300_000_000_000_000_001);

/// A directory with nothing in it, and no process.
pub fn empty_view() -> LocalView {
    LocalView {
        data: Data::Empty,
        process: Process::Stopped,
        server: None,
        file: File { upstream: None, spec: None, current: false, restore: false },
        sync: Sync::Unknown,
        settled: false,
        sealing_for_ms: 0,
        checkpointed: false,
        heard: false,
        may_write: false,
        stopping: false,
        adopted: false,
        broken: false,
        upstream_lacks: None,
        due: None,
        hook: Asked::Clear,
        archive: Archive::None,
    }
}

/// What a finished step leaves behind; `upstream` is the history of the primary that is copied.
pub fn apply(view: &mut LocalView, persisted: &mut Persisted, step: &Step, upstream: &History) {
    match step {
        Step::Initialise => initialise(view),
        Step::Adopt => {
            view.adopted = true;
            configure(view, &blocking_file());
        }
        Step::Configure(file) => configure(view, file),
        Step::StartStandby => start(view, true),
        Step::StartPrimary => start(view, false),
        Step::StopFast => stop(view, true),
        Step::Restart => {
            stop(view, true);
            view.due = None;
        }
        Step::StopImmediate => stop(view, false),
        Step::Admit { upstream, admission } => {
            let epoch = persisted.assignment.epoch;
            persisted.admitted =
                Some(Admitted { upstream: *upstream, epoch, admission: *admission });
            persisted.restored = false;
            view.upstream_lacks = view.upstream_lacks.filter(|lack| *lack != Lack::Slot);
        }
        Step::CatchUp => {
            persisted.admitted = None;
            configure(view, &File { restore: true, ..blocking_file() });
        }
        Step::Clone { from } | Step::Rewind { from } => {
            begin_copy(view, persisted);
            finish_copy(view, persisted, *from, upstream);
            view.due = view.due.filter(|due| *due != Due::Copy);
        }
        Step::Promote { timeline } => promote(view, *timeline),
        Step::ConfirmPromotion => {
            let assignment = &persisted.assignment;
            if let Some(server) = &view.server {
                let promoted =
                    primary::promotion(&server.history, &assignment.lineage, assignment.epoch);
                persisted.promoted = Some(promoted);
                persisted.admitted = None;
            }
        }
        Step::Block => {
            configure(view, &blocking_file());
            view.sync = Sync::Blocked;
        }
        Step::Set(spec) => {
            let file = File { spec: Some(spec.clone()), ..blocking_file() };
            configure(view, &file);
            view.sync = Sync::Set(spec.generation);
        }
        Step::Barrier(spec) => {
            view.sync = Sync::InForce(spec.generation);
            view.settled = true;
        }
        Step::Checkpoint => view.checkpointed = true,
    }
}

fn blocking_file() -> File {
    File { upstream: None, spec: None, current: true, restore: false }
}

fn initialise(view: &mut LocalView) {
    view.data = Data::Present {
        system_identifier: SYSTEM,
        standby_signal: false,
        history: History { ancestors: Vec::new(), timeline: TimelineId(1) },
        clean_end: Some(Lsn(100)),
    };
    view.adopted = true;
    configure(view, &blocking_file());
}

/// Writes the managed file; a running Postgres reads it again, and the signs have to be seen anew.
pub fn configure(view: &mut LocalView, file: &File) {
    view.file = file.clone();
    view.sealing_for_ms = 0;
    if let Some(server) = &mut view.server {
        server.sealed = false;
        server.streaming = false;
    }
}

/// Starts Postgres: it accepts connections later, see [`become_ready`].
pub fn start(view: &mut LocalView, standby: bool) {
    if view.process != Process::Stopped {
        return;
    }
    if let Data::Present { standby_signal, clean_end, .. } = &mut view.data {
        *standby_signal = standby;
        *clean_end = None;
        forget_server(view);
        view.process = Process::Starting;
    }
}

/// Stops Postgres; a primary that is stopped fast leaves a log whose end is known.
pub fn stop(view: &mut LocalView, fast: bool) {
    let end = view.server.as_ref().filter(|server| !server.in_recovery).and_then(|s| s.end);
    if view.process != Process::Stopped
        && let Data::Present { clean_end, .. } = &mut view.data
    {
        *clean_end = end.filter(|_| fast);
    }
    view.process = Process::Stopped;
    forget_server(view);
}

fn forget_server(view: &mut LocalView) {
    view.server = None;
    view.sync = Sync::Unknown;
    view.settled = false;
    view.sealing_for_ms = 0;
    view.checkpointed = false;
}

/// A copy or rewind begins: nothing that was proved of the old log counts any more.
pub fn begin_copy(view: &mut LocalView, persisted: &mut Persisted) {
    stop(view, false);
    view.data = Data::Rebuilding;
    persisted.promoted = None;
    persisted.admitted = None;
    persisted.restored = false;
}

/// A copy or rewind is complete, and the upstream has let this node in. The managed file is the one
/// of the source, which is nobody's here.
pub fn finish_copy(
    view: &mut LocalView,
    persisted: &mut Persisted,
    from: NodeId,
    history: &History,
) {
    bring_copy(view, history);
    let assignment = &persisted.assignment;
    let own = persisted.own.and_then(|own| assignment.member(own));
    persisted.admitted = own.map(|member| Admitted {
        upstream: from,
        epoch: assignment.epoch,
        admission: member.admission,
    });
}

/// A copy from a backup is complete: what its log is has to be proved.
pub fn finish_restore(view: &mut LocalView, persisted: &mut Persisted, history: &History) {
    bring_copy(view, history);
    persisted.restored = true;
}

fn bring_copy(view: &mut LocalView, history: &History) {
    view.data = Data::Present {
        system_identifier: SYSTEM,
        standby_signal: true,
        history: history.clone(),
        clean_end: None,
    };
    view.file = File { spec: view.file.spec.take(), current: false, ..blocking_file() };
    view.adopted = true;
    view.upstream_lacks = None;
}

/// A standby leaves recovery on this timeline.
pub fn promote(view: &mut LocalView, timeline: TimelineId) {
    let Some(server) = &mut view.server else { return };
    let end = server.end.unwrap_or_default();
    let before = shared::history::Segment { timeline: server.history.timeline, end };
    server.history.ancestors.push(before);
    server.history.timeline = timeline;
    server.end = Some(Lsn(end.0 + 100));
    server.in_recovery = false;
    server.sealed = false;
    server.streaming = false;
    view.sync = Sync::Unknown;
    view.checkpointed = false;
    let new = server.history.clone();
    if let Data::Present { standby_signal, history, .. } = &mut view.data {
        *standby_signal = false;
        *history = new;
    }
}

/// A Postgres that was starting accepts connections.
pub fn become_ready(view: &mut LocalView) {
    let Data::Present { standby_signal, history, .. } = &view.data else { return };
    if view.process != Process::Stopped && view.server.is_none() {
        view.process = Process::Running;
        view.server = Some(Server {
            in_recovery: *standby_signal,
            history: history.clone(),
            end: Some(Lsn(history.start().0 + 100)),
            sealed: false,
            streaming: false,
        });
    }
}

/// The three signs of rule 3 come.
pub fn show_signs(view: &mut LocalView) {
    if let Some(server) = view.server.as_mut().filter(|server| server.in_recovery) {
        server.sealed = view.file.upstream.is_none();
    }
}

/// Whether the file connects a standby under its member name.
pub fn member_upstream(file: &File) -> Option<(NodeId, shared::ids::Ticket)> {
    match &file.upstream {
        Some(Upstream::Member { node, admission }) => Some((*node, *admission)),
        Some(Upstream::Fetch { .. }) | None => None,
    }
}
