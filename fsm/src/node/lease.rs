//! Whether a primary may go on serving (rule 12): it holds a lease that the monitor granted, or a
//! proof by streaming that it cannot have been replaced. On this process's own clock throughout.

use crate::Millis;
use shared::goal::Order;
use shared::ids::NodeId;
use shared::report::Lease;
use shared::spec::Spec;
use std::collections::{BTreeMap, BTreeSet};

/// This part of a lease is enough for an answer of the monitor, or of a standby.
const MOMENT: u64 = 4;
/// This part of a lease is enough for an immediate stop of Postgres.
const STOP: u64 = 20;

/// What is known of the right to serve.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tenure {
    granted: Option<(Order, Granted)>,
    replies: BTreeMap<NodeId, Reply>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Granted {
    Until(Millis),
    Unlimited,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Reply {
    /// `reply_time` of the walsender, on the standby's clock, which somebody may set back: only whether it
    /// changes is looked at, which takes a reply.
    stamp: i64,
    /// When it was last seen to be that, on ours.
    seen: Millis,
    /// The last reply was sent no earlier than this, on ours: when the one before it was still the last.
    advanced: Option<Millis>,
}

impl Tenure {
    /// An answer granted this lease, together with an assignment of this order, to the report sent at
    /// `sent`; `None` withdraws nothing, the old one runs out by itself.
    pub fn grant(&mut self, lease: Option<Lease>, order: Order, sent: Millis) {
        let Some(lease) = lease else { return };
        let granted = match (lease, self.granted) {
            (Lease::Unlimited, _) => Granted::Unlimited,
            (Lease::For { ms }, Some((_, Granted::Until(before)))) => {
                Granted::Until(before.max(sent.plus(ms)))
            }
            (Lease::For { ms }, Some((_, Granted::Unlimited)) | None) => {
                Granted::Until(sent.plus(ms))
            }
        };
        self.granted = Some((order, granted));
    }

    /// The node has accepted an assignment of this order by which it is not the primary: nothing that
    /// was granted until then counts any more. What came with a later one, which has not been accepted
    /// yet, does.
    pub fn end(&mut self, accepted: Order) {
        self.granted = self.granted.filter(|(order, _)| *order > accepted);
        self.replies.clear();
    }

    /// A standby's walsender shows this reply time. The first look proves nothing: a row outlives
    /// its peer. A later one proves that the standby has replied since the look before it, which may be
    /// long ago where this process was stopped meanwhile.
    pub fn saw_reply(&mut self, node: NodeId, stamp: i64, now: Millis) {
        match self.replies.get_mut(&node) {
            Some(reply) if stamp != reply.stamp => {
                *reply = Reply { stamp, seen: now, advanced: Some(reply.seen) };
            }
            Some(reply) => reply.seen = now,
            None => {
                self.replies.insert(node, Reply { stamp, seen: now, advanced: None });
            }
        }
    }

    /// Until when a primary may serve; `None`: for as long as it likes. `in_force` is the spec whose
    /// barrier has been passed: while it is being changed there is no proof by streaming.
    pub fn until(&self, in_force: Option<&Spec>, lease_ms: u64) -> Option<Millis> {
        let granted = match self.granted {
            Some((_, Granted::Unlimited)) => return None,
            Some((_, Granted::Until(until))) => until,
            None => Millis(0),
        };
        Some(granted.max(self.proof_until(in_force, lease_ms)))
    }

    /// When a primary that serves has to be stopped; `None`: never. That is shortly before [`Self::until`], so
    /// that it has ended then, but for a keeper that was itself stopped when its right ended, at `woke` on this clock: it then knows nothing of what
    /// it has missed. Where nothing is acknowledged without a standby it has another moment to hear of one
    /// or of the monitor before it ends a Postgres that nobody may have replaced (rule 12).
    pub fn fence_at(
        &self,
        in_force: Option<&Spec>,
        lease_ms: u64,
        woke: Option<Millis>,
    ) -> Option<Millis> {
        let until = self.until(in_force, lease_ms)?;
        let needs_standbys = in_force.is_some_and(|spec| spec.required > 0);
        let moment = woke.filter(|_| needs_standbys).map(|woke| woke.plus(lease_ms / MOMENT));
        let in_time = until.minus(lease_ms / STOP);
        Some(in_time.max(moment.unwrap_or(in_time)))
    }

    /// Whether the standbys prove now that nobody else can have been elected.
    pub fn is_proven(&self, in_force: Option<&Spec>, lease_ms: u64, now: Millis) -> bool {
        now < self.proof_until(in_force, lease_ms)
    }

    /// Whether clients may be sent to a primary that these standbys stream from now. A lease that the monitor
    /// granted is enough. Without one, a reply of a standby that has just left is a proof for the rest of a
    /// lease still, and long enough for it to have been sealed and for another to be promoted.
    pub fn is_backed(
        &self,
        in_force: Option<&Spec>,
        streaming: &BTreeSet<NodeId>,
        now: Millis,
    ) -> bool {
        self.is_granted(now)
            || in_force
                .is_none_or(|spec| spec.standbys.intersection(streaming).count() >= spec.required)
    }

    /// Whether the monitor's word is enough, whatever the standbys do.
    pub fn is_granted(&self, now: Millis) -> bool {
        match self.granted {
            Some((_, Granted::Unlimited)) => true,
            Some((_, Granted::Until(until))) => now < until,
            None => false,
        }
    }

    /// `required` members have replied no longer ago than a lease: one of them would have to be
    /// sealed for anybody else to be elected.
    fn proof_until(&self, in_force: Option<&Spec>, lease_ms: u64) -> Millis {
        let Some(spec) = in_force.filter(|spec| spec.required > 0) else { return Millis(0) };
        let mut times: Vec<_> =
            spec.standbys.iter().filter_map(|node| self.replies.get(node)?.advanced).collect();
        times.sort_unstable_by(|a, b| b.cmp(a));
        times.get(spec.required - 1).map_or(Millis(0), |at| at.plus(lease_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::ids::{Epoch, Gen, Ticket};

    fn spec(required: usize) -> Spec {
        Spec {
            generation: Gen(1),
            epoch: Epoch(1),
            primary: NodeId(1),
            required,
            standbys: [NodeId(2), NodeId(3)].into(),
        }
    }

    fn order(ticket: u64) -> Order {
        Order { ticket: Ticket(ticket), generation: Gen(1) }
    }

    /// The answer that makes a node the primary brings the lease, which is there before the node has
    /// accepted that it is one.
    #[test]
    fn the_lease_of_a_new_primary_outlives_its_past_as_a_standby() {
        let mut tenure = Tenure::default();
        tenure.grant(Some(Lease::For { ms: 2000 }), order(5), Millis(100));
        tenure.end(order(4));
        assert_eq!(tenure.until(None, 2000), Some(Millis(2100)));
        tenure.end(order(5));
        assert_eq!(tenure.until(None, 2000), Some(Millis(0)));
    }

    #[test]
    fn counts_from_the_sending_of_the_report() {
        let mut tenure = Tenure::default();
        tenure.grant(Some(Lease::For { ms: 2000 }), order(1), Millis(100));
        assert_eq!(tenure.until(None, 2000), Some(Millis(2100)));
        tenure.grant(None, order(1), Millis(1000));
        assert_eq!(
            tenure.until(None, 2000),
            Some(Millis(2100)),
            "an answer without one is no reason"
        );
    }

    #[test]
    fn a_walsender_that_does_not_hear_its_standby_is_no_proof() {
        let mut tenure = Tenure::default();
        for now in 1..50 {
            tenure.saw_reply(NodeId(2), 7, Millis(now));
        }
        assert_eq!(tenure.until(Some(&spec(1)), 2000), Some(Millis(0)));
        tenure.saw_reply(NodeId(2), 8, Millis(60));
        assert_eq!(tenure.until(Some(&spec(1)), 2000), Some(Millis(2049)));
        // Its clock was set back.
        tenure.saw_reply(NodeId(2), 5, Millis(90));
        assert_eq!(tenure.until(Some(&spec(1)), 2000), Some(Millis(2060)));
    }

    #[test]
    fn as_many_as_required_must_reply() {
        let mut tenure = Tenure::default();
        for node in [NodeId(2), NodeId(3)] {
            tenure.saw_reply(node, 1, Millis(1));
        }
        for now in [100, 500] {
            tenure.saw_reply(NodeId(2), 1, Millis(now));
        }
        tenure.saw_reply(NodeId(2), 2, Millis(600));
        assert_eq!(tenure.until(Some(&spec(2)), 2000), Some(Millis(0)));
        tenure.saw_reply(NodeId(3), 1, Millis(100));
        tenure.saw_reply(NodeId(3), 2, Millis(200));
        assert_eq!(tenure.until(Some(&spec(2)), 2000), Some(Millis(2100)), "the older of the two");
    }

    /// The standby may have replied right after the last look, and have been sealed since.
    #[test]
    fn what_came_while_the_keeper_was_stopped_proves_nothing_of_now() {
        let mut tenure = Tenure::default();
        tenure.saw_reply(NodeId(2), 1, Millis(1000));
        tenure.saw_reply(NodeId(2), 2, Millis(60_000));
        assert_eq!(tenure.until(Some(&spec(1)), 2000), Some(Millis(3000)));
        tenure.saw_reply(NodeId(2), 3, Millis(60_100));
        assert_eq!(tenure.until(Some(&spec(1)), 2000), Some(Millis(62_000)));
    }

    #[test]
    fn a_keeper_that_was_stopped_asks_before_it_stops_postgres() {
        let mut tenure = Tenure::default();
        tenure.grant(Some(Lease::For { ms: 2000 }), order(1), Millis(1000));
        let woke = Some(Millis(60_000));
        assert_eq!(tenure.fence_at(Some(&spec(1)), 2000, None), Some(Millis(2900)));
        assert_eq!(tenure.fence_at(Some(&spec(1)), 2000, woke), Some(Millis(60_500)));
        // Where commits wait for nobody they could be lost meanwhile.
        let asynchronous = Spec { required: 0, standbys: [].into(), ..spec(1) };
        assert_eq!(tenure.fence_at(Some(&asynchronous), 2000, woke), Some(Millis(2900)));
        assert_eq!(tenure.fence_at(None, 2000, woke), Some(Millis(2900)));
        tenure.grant(Some(Lease::Unlimited), order(1), Millis(1000));
        assert_eq!(tenure.fence_at(Some(&spec(1)), 2000, woke), None);
    }

    #[test]
    fn nobody_is_sent_to_a_primary_whose_standbys_have_left() {
        let mut tenure = Tenure::default();
        let backed = |tenure: &Tenure, standbys: &[u64], now| {
            let streaming = standbys.iter().map(|id| NodeId(*id)).collect();
            tenure.is_backed(Some(&spec(1)), &streaming, Millis(now))
        };
        for stamp in 1..3 {
            tenure.saw_reply(NodeId(2), stamp, Millis(1000));
        }
        assert_eq!(tenure.until(Some(&spec(1)), 2000), Some(Millis(3000)));
        assert!(backed(&tenure, &[2], 1001) && backed(&tenure, &[3], 1001));
        assert!(!backed(&tenure, &[], 1001) && !backed(&tenure, &[4], 1001));
        tenure.grant(Some(Lease::For { ms: 500 }), order(1), Millis(1000));
        assert!(backed(&tenure, &[], 1499) && !backed(&tenure, &[], 1500));
        tenure.grant(Some(Lease::Unlimited), order(1), Millis(1000));
        assert!(backed(&tenure, &[], 9000));
    }

    #[test]
    fn an_asynchronous_primary_has_no_proof_but_the_lease() {
        let mut tenure = Tenure::default();
        tenure.saw_reply(NodeId(2), 1, Millis(1));
        tenure.saw_reply(NodeId(2), 2, Millis(2));
        let spec = Spec { required: 0, standbys: [].into(), ..spec(1) };
        assert_eq!(tenure.until(Some(&spec), 2000), Some(Millis(0)));
    }
}
