//! What may be stored in the archive and fetched from it: examples, and the properties that a restore
//! depends on.

use fsm::node::archive::{Get, Push, Scene, Stretch, WalFile, is_wanting, may_get, may_push};
use fsm::node::view::Persisted;
use proptest::prelude::*;
use shared::goal::{Assignment, Goal, Order, Orders, Upstream};
use shared::history::{History, Lineage, LineageEntry, Segment, Start};
use shared::ids::{Epoch, Gen, NodeId, Ticket, TimelineId};
use shared::lsn::Lsn;
use shared::pgsettings::NodeSettings;
use shared::report::{Archived, ArchivedUpTo, Promoted};
use shared::settings::Settings;
use shared::spec::Spec;
use shared::state::NodeState;

const SIZE: u64 = 16 << 20;
const OWN: NodeId = NodeId(2);
const OTHERS: [NodeId; 2] = [NodeId(1), NodeId(3)];

/// Where segment `number` begins, and `bytes` more.
fn at(number: u64, bytes: u64) -> Lsn {
    Lsn(number * SIZE + bytes)
}

fn stretch(timeline: u32, number: u64) -> Stretch {
    let (start, end) = (at(number, 0), at(number + 1, 0));
    Stretch { timeline: TimelineId(timeline), start, end }
}

fn segment(timeline: u32, number: u64) -> WalFile {
    WalFile::Segment(stretch(timeline, number))
}

fn history(timeline: u32) -> WalFile {
    WalFile::History(TimelineId(timeline))
}

fn entry(epoch: u64, timeline: u32, start: Option<(Option<u64>, Lsn)>) -> LineageEntry {
    let start = start.map(|(parent, lsn)| Start { parent: parent.map(Epoch), lsn });
    LineageEntry { start, ..LineageEntry::reserved(Epoch(epoch), TimelineId(timeline)) }
}

/// The group began on timeline 2 of an older cluster; epoch 2 (timeline 3) was never promoted; epoch 3
/// (timeline 5) left timeline 2 in the middle of segment 10, epoch 4 (timeline 7) left that in 20.
fn lineage() -> Lineage {
    Lineage(vec![
        entry(1, 2, Some((None, at(3, 5)))),
        entry(2, 3, None),
        entry(3, 5, Some((Some(1), at(10, 100)))),
        entry(4, 7, Some((Some(3), at(20, 100)))),
    ])
}

fn spec(required: usize) -> Spec {
    let standbys = OTHERS.into_iter().filter(|_| required > 0).collect();
    Spec { generation: Gen(7), epoch: Epoch(4), primary: OWN, required, standbys }
}

fn persisted(goal: Goal) -> Persisted {
    let promoted = Promoted {
        epoch: Epoch(4),
        timeline: TimelineId(7),
        parent: Some(Epoch(3)),
        start: at(20, 100),
        ancestors: Vec::new(),
    };
    let promoted = matches!(goal, Goal::Primary { .. }).then_some(promoted);
    let assignment = Assignment {
        order: Order { ticket: Ticket(12), generation: Gen(7) },
        epoch: Epoch(4),
        goal_state: NodeState::Primary,
        goal,
        members: Vec::new(),
        lineage: lineage(),
        system_identifier: None,
        timers: Settings::default().timers(),
        may_stop: false,
        settings: NodeSettings::default(),
        orders: Orders::default(),
        keepsake: None,
    };
    Persisted { own: Some(OWN), promoted, ..Persisted::of(assignment) }
}

fn primary() -> Persisted {
    persisted(Goal::Primary { timeline: Some(TimelineId(7)), spec: spec(1) })
}

fn standby() -> Persisted {
    persisted(Goal::Follow { upstream: Upstream::Primary { node: NodeId(1) } })
}

fn own_history() -> History {
    let passed = |timeline, end| Segment { timeline: TimelineId(timeline), end };
    let ancestors = vec![passed(1, at(3, 5)), passed(2, at(10, 100)), passed(5, at(20, 100))];
    History { ancestors, timeline: TimelineId(7) }
}

fn archived(timeline: u32, end: Lsn) -> Archived {
    let segment = Some(ArchivedUpTo { timeline: TimelineId(timeline), end });
    Archived { segment, history: Some(TimelineId(timeline)) }
}

/// A scene in which everything is in the primary's favour.
fn scene<'a>(
    persisted: &'a Persisted,
    spec: &'a Spec,
    flushed: &'a [(NodeId, Lsn)],
    history: &'a History,
) -> Scene<'a> {
    Scene {
        persisted,
        serves: true,
        in_force: Some(spec),
        flushed,
        history: Some(history),
        archived: Archived::default(),
        rebuilding: false,
        stopping: false,
        empty: false,
    }
}

fn is_kept(push: Push) -> bool {
    matches!(push, Push::Keep(_))
}

fn is_forgotten(push: Push) -> bool {
    matches!(push, Push::Forget(_))
}

#[test]
fn names() {
    let parse = |name: &str| WalFile::parse(name, SIZE);
    assert_eq!(parse("000000070000000000000014"), Some(segment(7, 20)));
    assert_eq!(parse("000000070000000100000000"), Some(segment(7, 256)));
    assert_eq!(parse("000000050000000000000014.partial"), Some(WalFile::Partial(stretch(5, 20))));
    let backup = "000000070000000000000014.00000028.backup";
    assert_eq!(parse(backup), Some(WalFile::Backup(stretch(7, 20))));
    assert_eq!(parse("0000000A.history"), Some(history(10)));
    for name in [
        "",
        "0000000A",
        "A.history",
        "+000000A.history",
        "00000007000000000000001",
        "000000070000000000000100",
        "000000070000000000000014.backup",
        "000000070000000000000014.28.backup",
        "00000007000000000000001G",
        "0000000700000000000000é",
        "../000000070000000000000014",
    ] {
        assert_eq!(parse(name), None, "{name}");
    }
    assert_eq!(WalFile::parse("000000070000000000000014", 0), None);
}

#[test]
fn a_primary_stores_what_its_sync_set_has() {
    let (persisted, history) = (primary(), own_history());
    let has = |lsn| [(OTHERS[0], lsn), (OTHERS[1], at(0, 0))];
    let push = |required, flushed: &[_]| {
        let spec = spec(required);
        may_push(&scene(&persisted, &spec, flushed, &history), segment(7, 30))
    };
    assert!(is_kept(push(1, &[])));
    assert!(is_kept(push(1, &has(at(30, SIZE - 1)))));
    assert_eq!(push(1, &has(at(31, 0))), Push::Store);
    assert!(is_kept(push(2, &has(at(31, 0)))));
    assert_eq!(push(2, &OTHERS.map(|id| (id, at(31, 0)))), Push::Store);
    assert!(is_kept(push(1, &[(NodeId(9), at(40, 0))])), "no member of the sync set");
    assert_eq!(push(0, &[]), Push::Store, "asynchronous: the right alone");
}

#[test]
fn only_the_confirmed_primary_stores() {
    let (spec, history, flushed) = (spec(1), own_history(), OTHERS.map(|id| (id, at(99, 0))));
    let push = |persisted: &Persisted, change: &dyn Fn(&mut Scene<'_>)| {
        let mut scene = scene(persisted, &spec, &flushed, &history);
        change(&mut scene);
        may_push(&scene, segment(7, 30))
    };
    assert_eq!(push(&primary(), &|_| ()), Push::Store);
    assert!(is_kept(push(&primary(), &|scene| scene.serves = false)));
    assert!(is_kept(push(&primary(), &|scene| scene.in_force = None)));
    assert_eq!(push(&primary(), &|scene| scene.stopping = true), Push::Leave);
    assert!(is_kept(push(&standby(), &|_| ())));
    let sealed = Persisted { sealed: Some(Ticket(12)), ..primary() };
    assert!(is_kept(push(&sealed, &|_| ())));
    let unpromoted = Persisted { promoted: None, ..primary() };
    assert!(is_kept(push(&unpromoted, &|_| ())), "its keeper has not verified the promotion");
    let mut unconfirmed = primary();
    unconfirmed.assignment.lineage.0[3].start = None;
    assert!(is_kept(push(&unconfirmed, &|_| ())), "the monitor has not heard of the promotion");
}

#[test]
fn what_is_not_of_the_history_is_not_stored() {
    let (persisted, history_here) = (primary(), own_history());
    let (spec, flushed) = (spec(1), OTHERS.map(|id| (id, at(99, 0))));
    let scene = scene(&persisted, &spec, &flushed, &history_here);
    let push = |file| may_push(&scene, file);
    for file in [
        segment(1, 1),
        segment(2, 9),
        segment(5, 19),
        WalFile::Partial(stretch(2, 10)),
        WalFile::Partial(stretch(5, 20)),
        WalFile::Backup(stretch(7, 30)),
        history(2),
        history(5),
        history(7),
    ] {
        assert_eq!(push(file), Push::Store, "{file:?}");
    }
    for file in [
        segment(1, 3),
        segment(2, 10),
        segment(5, 20),
        segment(3, 10),
        segment(6, 12),
        WalFile::Partial(stretch(2, 9)),
        WalFile::Partial(stretch(7, 30)),
        WalFile::Backup(stretch(3, 10)),
        history(3),
        history(9),
    ] {
        assert!(is_forgotten(push(file)), "{file:?}");
    }
    // A server that is too busy to answer must not cost what is only there.
    let unheard = Scene { history: None, ..scene.clone() };
    for file in [segment(1, 1), history(1)] {
        assert!(is_kept(may_push(&unheard, file)), "{file:?}");
    }
    let placeholder = Scene { empty: true, ..scene };
    assert!(is_forgotten(may_push(&placeholder, history(7))));
}

#[test]
fn a_standby_keeps_what_is_not_known_to_be_stored() {
    let (persisted, history_here, spec) = (standby(), own_history(), spec(1));
    let push = |archived, file| {
        let scene = Scene { archived, ..scene(&persisted, &spec, &[], &history_here) };
        may_push(&scene, file)
    };
    let nothing = Archived::default();
    assert!(is_kept(push(nothing, segment(5, 19))));
    assert!(is_kept(push(nothing, history(7))));
    assert!(is_forgotten(push(nothing, segment(5, 20))), "left from another life");
    assert!(is_forgotten(push(nothing, WalFile::Partial(stretch(5, 20)))));
    let known = archived(5, at(16, 0));
    assert!(is_forgotten(push(known, segment(5, 15))));
    assert!(is_kept(push(known, segment(5, 16))));
    assert!(is_forgotten(push(known, segment(2, 9))), "of the timeline before");
    assert!(is_kept(push(known, segment(7, 20))), "of the one after");
    assert!(is_forgotten(push(known, history(5))));
    assert!(is_kept(push(known, history(7))));
}

#[test]
fn a_standby_gets_the_history_of_its_group() {
    let (history_here, spec) = (own_history(), spec(1));
    let get =
        |persisted: &Persisted, file| may_get(&scene(persisted, &spec, &[], &history_here), file);
    let follower = standby();
    for file in
        [segment(1, 1), segment(2, 9), segment(5, 19), segment(7, 40), history(5), history(7)]
    {
        assert_eq!(get(&follower, file), Get::Fetch, "{file:?}");
    }
    for file in [segment(2, 10), segment(3, 10), segment(9, 1), history(3), history(8)] {
        assert!(matches!(get(&follower, file), Get::Absent(_)), "{file:?}");
    }
    let released = Persisted { sealed: Some(Ticket(12)), ..standby() };
    assert_eq!(get(&released, segment(5, 19)), Get::Fetch, "until there is another ticket");
    let sealed = persisted(Goal::Seal { drain: false });
    assert!(matches!(get(&sealed, segment(5, 19)), Get::Absent(_)));
    let rewinding = Scene { rebuilding: true, ..scene(&sealed, &spec, &[], &history_here) };
    assert_eq!(may_get(&rewinding, segment(5, 19)), Get::Fetch);
    // A promotion that the monitor has not heard of adds nothing yet.
    let mut unconfirmed = standby();
    unconfirmed.assignment.lineage.0[3].start = None;
    assert!(matches!(get(&unconfirmed, history(7)), Get::Absent(_)));
    assert_eq!(get(&unconfirmed, segment(5, 20)), Get::Fetch);
}

#[test]
fn a_copy_brings_what_is_not_stored_and_lies_before_it() {
    let wants = |file| is_wanting(file, &own_history(), at(15, 1000));
    for file in [segment(1, 2), segment(2, 9), segment(5, 14), history(2), history(5), history(7)] {
        assert!(wants(file), "{file:?}");
    }
    for file in [
        segment(5, 15),
        segment(5, 16),
        segment(2, 10),
        segment(3, 9),
        WalFile::Partial(stretch(2, 10)),
        WalFile::Backup(stretch(5, 12)),
        history(3),
        history(8),
    ] {
        assert!(!wants(file), "{file:?}");
    }
}

fn file() -> impl Strategy<Value = WalFile> {
    let stretches = (1u32..9, 0u64..40).prop_map(|(timeline, number)| stretch(timeline, number));
    let stretches = stretches.prop_filter("a timeline is written from where it began on", |it| {
        let history = own_history();
        let began = |own: &TimelineId| match own.0 {
            2 => Some(history.ancestors[0].end),
            5 => Some(history.ancestors[1].end),
            7 => Some(history.ancestors[2].end),
            _ => None,
        };
        began(&it.timeline).is_none_or(|began| it.end > began)
    });
    prop_oneof![
        stretches.clone().prop_map(WalFile::Segment),
        stretches.clone().prop_map(WalFile::Partial),
        stretches.prop_map(WalFile::Backup),
        (1u32..9).prop_map(|timeline| WalFile::History(TimelineId(timeline))),
    ]
}

proptest! {
    /// Nothing is stored by anybody else than the confirmed primary under a live right, nothing that its
    /// sync set lacks, and nothing that a restore of any later epoch could stumble over.
    #[test]
    fn nothing_is_stored_that_a_later_primary_might_lack(
        file in file(),
        ends in prop::array::uniform2(0u64..41),
        required in 0usize..3,
        flags in any::<[bool; 6]>(),
    ) {
        let [is_primary, serves, known, in_force, sealed, stopping] = flags;
        let mut persisted = if is_primary { primary() } else { standby() };
        persisted.sealed = sealed.then_some(Ticket(12));
        let (spec, history_here) = (spec(required), own_history());
        let flushed = [(OTHERS[0], at(ends[0], 0)), (OTHERS[1], at(ends[1], 0))];
        let archived = if known { archived(7, at(ends[0], 0)) } else { Archived::default() };
        let scene = Scene {
            serves,
            in_force: in_force.then_some(&spec),
            archived,
            stopping,
            ..scene(&persisted, &spec, &flushed, &history_here)
        };
        let verdict = may_push(&scene, file);
        if verdict == Push::Store {
            prop_assert!(is_primary && serves && !sealed && !stopping);
            if let WalFile::Segment(it) = file {
                prop_assert!(in_force);
                let holders = ends.iter().filter(|end| at(**end, 0) >= it.end).count();
                prop_assert!(required == 0 || holders >= required);
                let timeline = own_history().timeline_at(it.end);
                prop_assert_eq!(timeline, it.timeline, "where the log of the primary goes through");
            }
        }
        // A standby gives up a part of the history only if it is stored.
        if let (WalFile::Segment(it), false, Push::Forget(_)) = (file, is_primary, verdict) {
            let ours = own_history().timeline_at(it.end) == it.timeline;
            prop_assert!(!ours || known && it.end <= at(ends[0], 0) || known && it.timeline.0 < 7);
        }
    }
}
