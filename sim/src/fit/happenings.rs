//! What happens to real nodes and not in the other walks, where nothing that is checked depends on it.

use crate::log::Log;
use crate::machine::{Frozen, Machine, ServerMemory};
use crate::node::SYSTEM;
use crate::random::Random;
use crate::walk::turns;
use crate::world::World;
use fsm::group::record::Phase;
use fsm::node::view::Lack;
use fsm::node::{Data, File, Process};
use shared::ids::NodeId;

/// Turns in which somebody else is elected, if anybody can be: those of five seconds.
const LONGEST_ELECTION: usize = 500;
/// Turns in which a report is answered, and the answer is followed.
const MOMENT: usize = 3;

/// The first node has a cluster that was there before, running or not.
pub(super) fn bring_cluster(world: &mut World, random: &mut Random) {
    let Some(id) = world.ids().first().copied() else { return };
    let Some(machine) = world.machines.get_mut(id) else { return };
    let running = random.one_in(2);
    machine.log = Log::new(id);
    machine.view.data = Data::Present {
        system_identifier: SYSTEM,
        standby_signal: false,
        history: machine.log.history(),
        clean_end: Some(machine.log.end()).filter(|_| !running),
    };
    machine.view.process = if running { Process::Running } else { Process::Stopped };
    machine.view.adopted = false;
}

/// Something happens to some node; to its files, too, where that is wanted.
pub(super) fn happen(world: &mut World, random: &mut Random, files: bool) {
    let ids = world.ids();
    let Some(id) = random.pick(&ids) else { return };
    if random.one_in(8) {
        return sleep_through_an_election(world, id);
    }
    let source = world.machines.get(id).and_then(|machine| machine.job.as_ref()).map(|j| j.from);
    let copied = source.and_then(|id| world.machines.get(id)).map(|m| m.view.file.clone());
    let kind = random.below(if files { 14 } else { 10 });
    match kind {
        8 | 9 => return stop_and_go(world, id),
        10 => return remove_files(world, id, random),
        _ => {}
    }
    let Some(machine) = world.machines.get_mut(id) else { return };
    match kind {
        // It is frozen, or has no connection left; or it is being stopped.
        0 => {
            machine.view.server = None;
            if random.one_in(2) && machine.view.process == Process::Running {
                machine.view.process = Process::Starting;
            }
        }
        // A node has joined or moved; or a new keeper has not looked at the HBA rules yet.
        1 | 2 => machine.view.file.current = false,
        // Nobody asked for the checkpoint, or it was interrupted.
        3 => machine.view.checkpointed ^= machine.is_writable(),
        // By hand.
        4 => machine.stop_postgres(true),
        5 => {
            let lack = if random.one_in(2) { Lack::Wal } else { Lack::Slot };
            machine.view.upstream_lacks = may_lack(machine).then_some(lack);
        }
        6 => machine.view.broken ^= machine.view.process != Process::Running,
        11 | 12 => hide_or_show(machine, random),
        // It is about to end by itself, and says so in its lock file.
        13 if machine.view.process == Process::Running => {
            (machine.view.process, machine.view.server) = (Process::Starting, None);
        }
        13 => {}
        _ => take_file(machine, copied),
    }
}

/// Postgres gives no answer, and then does: long enough for others to be elected, not for the lease to end.
fn stop_and_go(world: &mut World, id: NodeId) {
    match world.machines.get(id).map(|machine| machine.frozen) {
        Some(Frozen::No) => world.freeze(id, Frozen::Postgres),
        Some(Frozen::Postgres) => world.thaw(id),
        Some(Frozen::Keeper | Frozen::Host) | None => {}
    }
}

/// A primary stands still until another one serves, and has a moment to hear of it when it goes on.
fn sleep_through_an_election(world: &mut World, id: NodeId) {
    let may_be_replaced = |machine: &Machine| {
        let waits = machine.view.file.spec.as_ref().is_some_and(|spec| !spec.is_asynchronous());
        machine.is_writable() && waits && machine.frozen == Frozen::No
    };
    if !world.machines.get(id).is_some_and(may_be_replaced) {
        return;
    }
    let epoch = world.monitor.record.epoch;
    world.freeze(id, Frozen::Host);
    for _ in 0..LONGEST_ELECTION {
        turns(world);
        if world.monitor.record.epoch > epoch && world.monitor.record.phase == Phase::Serving {
            break;
        }
    }
    world.thaw(id);
    for _ in 0..MOMENT {
        turns(world);
    }
}

/// The data directory cannot be read, or can again: its mode, the disk, files that are missing. What runs goes
/// on.
fn hide_or_show(machine: &mut Machine, random: &mut Random) {
    if let Some(data) = machine.hidden.take() {
        machine.view.data = data;
    } else if machine.has_data() {
        machine.hidden = Some(std::mem::replace(&mut machine.view.data, Data::Unusable));
        if random.one_in(2) {
            machine.view.file = File { upstream: None, spec: None, current: false, restore: false };
            machine.view.adopted = false;
        }
    }
}

/// All files are removed, also under a server that runs: it goes on, and cannot be asked. Whoever asked it
/// just before that may find nothing after it.
fn remove_files(world: &mut World, id: NodeId, random: &mut Random) {
    let is_asked = |m: &Machine| m.view.data == Data::Empty && m.view.server.is_some();
    if !world.machines.get(id).is_some_and(is_asked) {
        // Once per walk: mostly where the most is going on.
        let writable = world.machines.get(id).is_some_and(Machine::is_writable);
        if !world.can_lose_disk(id) || !(writable || random.one_in(8)) {
            return;
        }
        world.disk_lost = true;
    }
    let Some(machine) = world.machines.get_mut(id) else { return };
    let asked = is_asked(machine);
    machine.hidden = None;
    machine.view.data = Data::Empty;
    machine.view.file = File { upstream: None, spec: None, current: false, restore: false };
    machine.view.adopted = false;
    if machine.view.server.is_some() && !asked && random.one_in(2) {
        return;
    }
    if machine.view.process == Process::Running {
        machine.view.process = Process::Starting;
    }
    machine.log = Log::new(id);
    machine.slots.clear();
    machine.view.server = None;
    machine.view.checkpointed = false;
    machine.server = ServerMemory::default();
}

fn may_lack(machine: &Machine) -> bool {
    let waits = machine.view.server.as_ref().is_some_and(|s| s.in_recovery && !s.streaming);
    waits && machine.view.file.upstream.is_some()
}

/// A copy brings the source's file before it is complete.
fn take_file(machine: &mut Machine, copied: Option<File>) {
    if let Some(file) = copied.filter(|_| machine.view.data == Data::Rebuilding) {
        machine.view.file = File { upstream: None, current: false, restore: false, ..file };
        machine.view.adopted = true;
    }
}
