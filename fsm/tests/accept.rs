//! What a keeper accepts, in whatever order assignments come (rules 2 and 3).

use fsm::node::view::Persisted;
use proptest::prelude::*;
use shared::goal::{Assignment, Goal, Order, Upstream};
use shared::history::Lineage;
use shared::ids::{Epoch, Gen, NodeId, Ticket, TimelineId};
use shared::lsn::{Lsn, Position};
use shared::pgsettings::NodeSettings;
use shared::settings::Settings;
use shared::spec::Spec;
use shared::state::NodeState;

fn goal() -> impl Strategy<Value = Goal> {
    let spec = Spec {
        generation: Gen(1),
        epoch: Epoch(1),
        primary: NodeId(1),
        required: 0,
        standbys: [].into(),
    };
    prop_oneof![
        Just(Goal::Wait),
        Just(Goal::Primary { timeline: Some(TimelineId(3)), spec }),
        Just(Goal::Follow { upstream: Upstream::Primary { node: NodeId(1) } }),
        any::<bool>().prop_map(|drain| Goal::Seal { drain }),
        Just(Goal::FastForward {
            source: NodeId(1),
            target: Position { epoch: Epoch(1), lsn: Lsn(1) },
        }),
        Just(Goal::Maintenance),
        Just(Goal::Dropped),
    ]
}

fn assignment() -> impl Strategy<Value = Assignment> {
    (0_u64..6, 0_u64..4, 1_u64..4, goal()).prop_map(|(ticket, generation, epoch, goal)| {
        Assignment {
            order: Order { ticket: Ticket(ticket), generation: Gen(generation) },
            epoch: Epoch(epoch),
            goal_state: NodeState::Init,
            goal,
            members: Vec::new(),
            lineage: Lineage::default(),
            system_identifier: None,
            timers: Settings::default().timers(),
            may_stop: false,
            settings: NodeSettings::default(),
            orders: shared::goal::Orders::default(),
            keepsake: None,
        }
    })
}

fn seals(goal: &Goal) -> bool {
    matches!(goal, Goal::Seal { .. } | Goal::FastForward { .. })
}

proptest! {
    #[test]
    fn order_and_seals_hold(assignments in proptest::collection::vec(assignment(), 1..12)) {
        let mut state: Option<Persisted> = None;
        for assignment in &assignments {
            let before = state.clone();
            let outcome = Persisted::accept(before.as_ref(), assignment);
            let older = before.as_ref().is_some_and(|b| assignment.order < b.assignment.order);
            prop_assert_eq!(outcome.is_err(), older, "refused if and only if it is older");
            let Ok(accepted) = outcome else { continue };
            let after = accepted.or_else(|| before.clone()).unwrap();
            prop_assert_eq!(&after.assignment, assignment);
            prop_assert_eq!(Persisted::accept(Some(&after), assignment), Ok(None), "twice is once");
            let ticket = assignment.order.ticket;
            if seals(&assignment.goal) {
                prop_assert_eq!(after.sealed, Some(ticket));
            }
            let held = before.and_then(|before| before.sealed);
            if let (Some(held), None) = (held, after.sealed) {
                let releases = matches!(assignment.goal, Goal::Follow { .. } | Goal::Primary { .. });
                prop_assert!(releases && ticket > held, "{held} released by {assignment:?}");
            }
            prop_assert!(after.sealed >= held || after.sealed.is_none(), "a seal goes back");
            state = Some(after);
        }
    }
}
