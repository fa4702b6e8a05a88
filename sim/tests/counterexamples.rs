//! The counterexamples of `docs/safety.md` that walks hardly ever meet, step by step: with the rule
//! nothing happens, without it a promise is broken. No primary is ever fenced here, since P1 and P2
//! must not need it.

use fsm::group::Phase;
use shared::api::Action;
use shared::ids::NodeId;
use shared::settings::Settings;
use sim::ledger::Violation;
use sim::world::{MONITOR, Message};
use sim::{Mutation, Walk, World, walk};

/// More rounds than anything here takes, timers included.
const ROUNDS: usize = 800;

/// A primary `a` and its standbys, which all have everything.
struct Stage {
    world: World,
    a: NodeId,
    standbys: Vec<NodeId>,
}

impl Stage {
    fn new(nodes: u64, mutation: Mutation) -> Self {
        Self::with(nodes, 1, mutation)
    }

    fn with(nodes: u64, required: u32, mutation: Mutation) -> Self {
        let number_sync_standbys = Some(required);
        let settings = Settings { number_sync_standbys, ..Walk::new(nodes).settings };
        let mut world = Walk { settings, mutation, ..Walk::new(nodes) }.world(1);
        walk::converge(&mut world).unwrap();
        let a = walk::settled(&world).unwrap();
        let standbys = world.ids().into_iter().filter(|id| *id != a).collect();
        Self { world, a, standbys }
    }

    /// The standbys by name; the first would win an election.
    fn of_three(mutation: Mutation) -> (Self, NodeId, NodeId) {
        let mut stage = Self::new(3, mutation);
        let (b, c) = (stage.standbys[0], stage.standbys[1]);
        stage.set(b, "candidate-priority", "90");
        (stage, b, c)
    }

    fn set(&mut self, id: NodeId, key: &str, value: &str) {
        let node = self.world.monitor.record.nodes[&id].name.clone();
        self.world.ask(&Action::SetNode { node, key: key.to_owned(), value: value.to_owned() });
    }

    /// The monitor does not reach the primary any more, and is told to replace it. (Standbys that reach
    /// it would keep the monitor from doing so by itself.)
    fn replace_unheard(&mut self) {
        self.world.set_cut(self.a, MONITOR, true);
        self.world.ask(&Action::Failover { allow_data_loss: false, fenced: false });
    }

    /// These act, everybody else stands still, time passes.
    fn act(&mut self, ids: &[NodeId]) {
        for id in ids {
            drop(self.world.keeper_turn(*id));
            self.world.postgres_turn(*id);
        }
        self.deliver();
        self.world.monitor_turn();
        self.world.now += 10;
    }

    fn deliver(&mut self) {
        while !self.world.messages.is_empty() {
            self.world.deliver();
        }
    }

    /// Until this is so, or nothing comes of it.
    fn act_until(&mut self, ids: &[NodeId], so: impl Fn(&World) -> bool) {
        for _ in 0..ROUNDS {
            if so(&self.world) {
                return;
            }
            self.act(ids);
        }
    }

    /// Copies of what is under way after a keeper's turn: its report, and the answer to it.
    fn copies(&mut self, id: NodeId) -> (Message, Message) {
        // What was under way before gets through.
        self.deliver();
        self.world.now += 1000;
        drop(self.world.keeper_turn(id));
        let report = self.world.messages.last().unwrap().clone();
        assert!(matches!(report, Message::Report(..)), "{report:?}");
        self.world.deliver();
        let answer = self.world.messages.last().unwrap().clone();
        assert!(matches!(answer, Message::Answer { .. }), "{answer:?}");
        self.deliver();
        (report, answer)
    }

    /// One of these arrives.
    fn receive(&mut self, message: Message) {
        assert!(self.world.messages.is_empty());
        self.world.messages.push(message);
        self.world.deliver();
    }

    /// A client writes at `a`, and a standby takes it.
    fn write(&mut self, primary: NodeId, standby: NodeId) {
        self.world.write(primary);
        for _ in 0..4 {
            self.world.postgres_turn(standby);
        }
        self.world.postgres_turn(primary);
    }

    /// What comes of it when only these are left.
    fn left(mut self, ids: &[NodeId]) -> Option<Violation> {
        self.leave(ids);
        self.world.violation()
    }

    fn leave(&mut self, ids: &[NodeId]) {
        for id in self.world.ids().into_iter().filter(|id| !ids.contains(id)) {
            self.world.crash_host(id);
        }
        for _ in 0..ROUNDS {
            self.act(ids);
        }
    }
}

/// Whether a node serves, and in which epoch.
fn serves(world: &World, id: NodeId, epoch: u64) -> bool {
    world.monitor.record.epoch.0 == epoch && world.machines.get(id).unwrap().is_writable()
}

fn epoch(world: &World) -> u64 {
    world.monitor.record.epoch.0
}

/// Nothing with all rules, a commit lost or acknowledged by an old primary without this one.
fn shows(script: impl Fn(Mutation) -> Option<Violation>, mutation: Mutation) {
    assert_eq!(script(Mutation::None), None);
    let found = script(mutation);
    let unsafe_ = matches!(found, Some(Violation::Lost { .. } | Violation::TwoWriters { .. }));
    assert!(unsafe_, "{mutation}: {found:?}");
}

/// C3: "follow A" is delayed, and C hears it when B has been elected.
#[test]
fn assignments_are_ordered() {
    let script = |mutation| {
        let (mut stage, b, c) = Stage::of_three(mutation);
        let a = stage.a;
        let (_, late) = stage.copies(c);
        stage.replace_unheard();
        stage.act_until(&[b, c], |world| epoch(world) == 2);
        stage.act_until(&[b], |world| serves(world, b, 2));
        assert!(serves(&stage.world, b, 2));
        stage.receive(late);
        for _ in 0..8 {
            drop(stage.world.keeper_turn(c));
            stage.world.postgres_turn(c);
        }
        stage.world.messages.clear();
        stage.write(a, c);
        stage.world.violation()
    };
    shows(script, Mutation::Unordered);
}

/// C4: {B} became {B, C} and is to become {B} again; a late copy of the first "{B} is in force" passes
/// for the confirmation of the third.
#[test]
fn generations_are_compared() {
    let script = |mutation| {
        let (mut stage, b, c) = Stage::of_three(mutation);
        let (a, all) = (stage.a, [stage.a, b, c]);
        let quorum = |stage: &mut Stage, on: &str| stage.set(c, "replication-quorum", on);
        quorum(&mut stage, "false");
        stage.act_until(&all, |world| walk::settled(world).is_some());
        let (late, _) = stage.copies(a);
        quorum(&mut stage, "true");
        stage.act_until(&all, |world| walk::settled(world).is_some());
        quorum(&mut stage, "false");
        // Whoever had seen the newer reports would know that this one is late.
        stage.world.crash_monitor(true);
        stage.receive(late);
        stage.world.messages.clear();
        stage.write(a, c);
        stage.left(&[b])
    };
    shows(script, Mutation::NoGenerations);
}

/// C5: A comes back with a tail that nobody else has, and its position, which is past that of B, counts.
#[test]
fn a_prefix_is_proved_before_connecting() {
    let script = |mutation| {
        let mut stage = Stage::new(2, mutation);
        let (a, b) = (stage.a, stage.standbys[0]);
        for _ in 0..20 {
            stage.world.write(a);
        }
        stage.world.crash_host(a);
        stage.act_until(&[b], |world| serves(world, b, 2));
        stage.world.restart(a);
        for _ in 0..40 {
            stage.act(&[a, b]);
        }
        stage.world.write(b);
        stage.world.postgres_turn(b);
        stage.left(&[a])
    };
    shows(script, Mutation::NoPrefixCheck);
}

/// C9: A is dead for good, and so is B, which replaced it, before its spec was confirmed. C has all that
/// either has acknowledged, but of the two that covered A's spec it is only one.
#[test]
fn a_later_epoch_stands_for_the_specs_before_it() {
    let is_saved = |mutation| {
        let (mut stage, b, c) = Stage::of_three(mutation);
        stage.world.crash_host(stage.a);
        stage.act_until(&[b, c], |world| {
            serves(world, b, 2) && world.monitor.record.phase == Phase::Serving
        });
        // What B reports is lost from here on.
        stage.world.set_cut(b, MONITOR, true);
        stage.act_until(&[b, c], |world| {
            let log = |id| &world.machines.get(id).unwrap().log;
            log(c).timeline() == log(b).timeline()
        });
        assert_eq!(stage.world.monitor.record.specs.len(), 2);
        stage.leave(&[c]);
        assert_eq!(stage.world.violation(), None);
        serves(&stage.world, c, 3)
    };
    assert!(is_saved(Mutation::None));
    assert!(!is_saved(Mutation::OwnWitnesses));
}

/// C15: B has the commit, loses its disk, and is copied from C, which has not.
#[test]
fn copies_are_made_from_the_primary_only() {
    let script = |mutation| {
        let (mut stage, b, c) = Stage::of_three(mutation);
        let a = stage.a;
        stage.write(a, b);
        stage.world.wipe(b, false);
        stage.world.restart(b);
        stage.act_until(&[b], |world| world.machines.get(b).unwrap().has_data());
        assert!(stage.world.machines.get(b).unwrap().has_data());
        stage.left(&[b, c])
    };
    shows(script, Mutation::CloneFromAny);
}

/// C17: B has lost its disk and its keeper's state, and an answer arrives that was meant for the process
/// before: it is to follow A, which was the primary of the epoch before and still runs.
#[test]
fn a_keeper_without_state_acts_on_answers_to_itself_only() {
    let script = |mutation| {
        let mut stage = Stage::new(3, mutation);
        let (a, b, c) = (stage.a, stage.standbys[0], stage.standbys[1]);
        stage.set(c, "candidate-priority", "90");
        let (_, late) = stage.copies(b);
        stage.replace_unheard();
        stage.world.set_cut(a, c, true);
        stage.act_until(&[b, c], |world| serves(world, c, 2) && is_in_force(world, c));
        stage.write(c, b);
        stage.world.wipe(b, true);
        stage.world.restart(b);
        // The monitor does not get through to B before it has made its copy.
        stage.receive(late);
        for _ in 0..12 {
            drop(stage.world.keeper_turn(b));
            stage.world.postgres_turn(b);
            stage.world.messages.clear();
        }
        stage.world.cut.clear();
        stage.left(&[a, b])
    };
    shows(script, Mutation::NoNonce);
}

/// The spec of this primary is in force.
fn is_in_force(world: &World, primary: NodeId) -> bool {
    world.monitor.record.is_sync_settled() && world.monitor.record.primary == Some(primary)
}

/// C19: the replay of C is held up, so its walreceiver goes on acknowledging when it has been told to
/// connect to nobody.
#[test]
fn a_seal_is_reported_when_its_signs_are_there() {
    let script = |mutation| {
        let (mut stage, b, c) = Stage::of_three(mutation);
        let a = stage.a;
        stage.world.machines.get_mut(c).unwrap().replay_stuck = true;
        stage.replace_unheard();
        stage.act_until(&[b, c], |world| serves(world, b, 2));
        assert!(serves(&stage.world, b, 2));
        stage.write(a, c);
        stage.world.violation()
    };
    shows(script, Mutation::EarlySeal);
}

/// C is connected, and far behind. The sync set becomes {C}.
#[test]
fn a_standby_counts_when_it_has_passed_the_barrier() {
    let script = |mutation| {
        let (mut stage, b, c) = Stage::of_three(mutation);
        let a = stage.a;
        stage.set(c, "replication-quorum", "false");
        stage.act_until(&[a, b, c], |world| walk::settled(world).is_some());
        stage.write(a, b);
        stage.set(c, "replication-quorum", "true");
        stage.set(b, "replication-quorum", "false");
        for _ in 0..20 {
            stage.act(&[a, b]);
        }
        stage.left(&[c])
    };
    shows(script, Mutation::CountConnected);
}

/// Rule 14: the monitor's database is set back to before B replaced A, and the monitor is started so often
/// that its tickets are new again. B is gone, A is back.
#[test]
fn an_old_record_decides_nothing() {
    let script = |mutation| {
        let (mut stage, b, c) = Stage::of_three(mutation);
        let a = stage.a;
        let backup = record_of(&stage.world);
        stage.world.crash_host(a);
        stage.act_until(&[b, c], |world| serves(world, b, 2) && is_in_force(world, b));
        stage.write(b, c);
        *stage.world.monitor.record_mut() = backup;
        for _ in 0..20 {
            stage.world.crash_monitor(true);
        }
        stage.world.restart(a);
        stage.leave(&[a, c]);
        stage.write(a, c);
        stage.world.violation()
    };
    shows(script, Mutation::OldRecord);
}

fn record_of(world: &World) -> fsm::group::Record {
    fsm::group::Record::clone(&world.monitor.record)
}

/// C14 and rule 13: A, alone and asynchronous, was replaced with accepted loss. It is started again, and
/// hears nothing of that.
#[test]
fn a_primary_starts_with_a_lease_only() {
    let script = |mutation| {
        let mut stage = Stage::with(2, 0, mutation);
        let (a, b) = (stage.a, stage.standbys[0]);
        stage.world.crash_host(b);
        stage.act_until(&[a], |world| {
            world.monitor.record.newest_spec().is_some_and(shared::spec::Spec::is_asynchronous)
                && world.monitor.record.is_sync_settled()
        });
        stage.world.crash_host(a);
        stage.world.set_cut(a, MONITOR, true);
        stage.world.restart(b);
        stage.act(&[b]);
        stage.world.ask(&Action::Failover { allow_data_loss: true, fenced: false });
        stage.act_until(&[b], |world| serves(world, b, 2));
        assert!(serves(&stage.world, b, 2));
        stage.world.restart(a);
        for _ in 0..8 {
            drop(stage.world.keeper_turn(a));
            stage.world.postgres_turn(a);
        }
        stage.world.write(a);
        stage.world.violation()
    };
    shows(script, Mutation::StartsAlone);
}

/// C20: D streams from the standby W, ahead of it by a tail that nobody else has, when W is elected. D hears
/// nothing of that; its position is past what W writes, under the name that W's spec has to wait for.
#[test]
fn a_promotion_lets_out_whom_the_standby_had_let_in() {
    let script = |mutation| {
        let mut stage = Stage::with(4, 2, mutation);
        let (a, [w, d, e]) = (stage.a, [stage.standbys[0], stage.standbys[1], stage.standbys[2]]);
        stage.set(a, "replication-quorum", "false");
        stage.set(w, "candidate-priority", "90");
        let name = stage.world.monitor.record.nodes[&w].name.to_string();
        stage.set(d, "replicate-from", &name);
        let told = |world: &World| world.monitor.record.nodes[&d].cascade.upstream == Some(w);
        stage.act_until(&[a, w, d, e], told);
        // Only D still streams from A.
        stage.world.set_cut(a, w, true);
        stage.world.set_cut(a, e, true);
        for _ in 0..20 {
            stage.world.write(a);
        }
        (0..8).for_each(|_| stage.world.postgres_turn(d));
        let from = |world: &World| world.machines.get(d).unwrap().server.receiver.clone();
        stage.act_until(&[d], |world| from(world).is_some_and(|receiver| receiver.from == w));
        assert!(from(&stage.world).is_some_and(|receiver| receiver.from == w));
        stage.world.set_cut(d, MONITOR, true);
        stage.world.crash_host(a);
        stage.act_until(&[w, e], |world| serves(world, w, 2));
        assert!(serves(&stage.world, w, 2));
        for _ in 0..60 {
            stage.act(&[w, e, d]);
        }
        assert!(stage.world.monitor.record.is_sync_member(d));
        stage.write(w, e);
        stage.world.set_cut(d, MONITOR, false);
        stage.left(&[d])
    };
    shows(script, Mutation::KeepsOldSlots);
}
