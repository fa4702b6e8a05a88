//! What may be found on a node: logs, data and processes, and what the managed file says.

use super::UPSTREAM;
use super::assignments::spec;
use fsm::node::{Data, File, LocalView, Process, Server, Upstream};
use shared::history::{History, Segment};
use shared::ids::{Ticket, TimelineId};
use shared::lsn::Lsn;
use sim::node::{SYSTEM, empty_view};

/// Data and process, whatever they can be together.
pub fn bodies() -> Vec<(LocalView, Lsn)> {
    let mut bodies = Vec::new();
    for data in [Data::Empty, Data::Rebuilding, Data::Unusable] {
        bodies.push((LocalView { data, ..empty_view() }, Lsn(0)));
    }
    // The files of a server that runs were removed, or cannot be read.
    for data in [Data::Empty, Data::Unusable] {
        let process = Process::Starting;
        bodies.push((LocalView { data, process, ..empty_view() }, Lsn(0)));
    }
    for (history, end) in logs() {
        for standby_signal in [false, true] {
            let data = |clean: bool| Data::Present {
                system_identifier: SYSTEM,
                standby_signal,
                history: history.clone(),
                clean_end: clean.then_some(end),
            };
            bodies.push((LocalView { data: data(false), ..empty_view() }, end));
            if !standby_signal {
                bodies.push((LocalView { data: data(true), ..empty_view() }, end));
            }
            let process = Process::Starting;
            bodies.push((LocalView { data: data(false), process, ..empty_view() }, end));
            let process = Process::Running;
            bodies.push((LocalView { data: data(false), process, ..empty_view() }, end));
            for (sealed, streaming) in [(false, false), (true, false), (false, true)] {
                let in_recovery = standby_signal || sealed;
                if in_recovery && !standby_signal {
                    // Only a standby shows the signs of a seal.
                    continue;
                }
                let server = Server {
                    in_recovery: standby_signal,
                    history: history.clone(),
                    end: Some(end),
                    sealed: sealed && standby_signal,
                    streaming: streaming && standby_signal,
                };
                let server = Some(server);
                bodies
                    .push((LocalView { data: data(false), process, server, ..empty_view() }, end));
            }
        }
    }
    bodies
}

/// Logs, with their ends: see [`lineage`](super::assignments::lineage).
fn logs() -> Vec<(History, Lsn)> {
    let history = |ancestors: &[(u32, u64)], timeline| History {
        ancestors: ancestors
            .iter()
            .map(|(timeline, end)| Segment { timeline: TimelineId(*timeline), end: Lsn(*end) })
            .collect(),
        timeline: TimelineId(timeline),
    };
    vec![
        // A prefix of epoch 2, and of 3 where that continues 2.
        (history(&[], 1), Lsn(400)),
        // Epoch 2 itself.
        (history(&[(1, 500)], 3), Lsn(700)),
        // The unshared tail of an old primary.
        (history(&[], 1), Lsn(600)),
        // Epoch 3, promoted or not: newer than a primary of epoch 2.
        (history(&[(1, 500), (3, 700)], 5), Lsn(800)),
        // A promotion that was interrupted before its first record.
        (history(&[(1, 400)], 5), Lsn(400)),
        // Promoted by hand.
        (history(&[(1, 400)], 2), Lsn(500)),
    ]
}

pub fn files(epoch: u64) -> Vec<File> {
    let upstreams = [
        None,
        Some(Upstream::Member { node: UPSTREAM, admission: Ticket(9) }),
        Some(Upstream::Member { node: UPSTREAM, admission: Ticket(3) }),
        Some(Upstream::Fetch { node: UPSTREAM }),
    ];
    let specs = [None, Some(spec(7, epoch)), Some(spec(4, epoch)), Some(spec(2, epoch - 1))];
    let mut files = Vec::new();
    for upstream in &upstreams {
        for spec in &specs {
            for current in [true, false] {
                let (upstream, spec) = (upstream.clone(), spec.clone());
                files.push(File { upstream, spec, current, restore: false });
            }
        }
    }
    files
}
