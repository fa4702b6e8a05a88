//! What the paths of load balancers ask for.

use super::moment::Moment;
use super::wanted::Wanted;
use shared::size::Size;

/// Further behind than this, a standby is not ready unless the question says how far it may be: one WAL
/// segment of the default size, so that a node that has just been copied becomes ready when it has caught up.
const READY_LAG: Size = Size(16 << 20);

/// What a path asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The writable primary.
    Primary,
    /// The leader of a cluster that follows another one: there are none here.
    StandbyLeader,
    /// A streaming standby.
    Replica,
    /// The primary or a streaming standby.
    ReadOnly,
    /// A streaming standby of the sync set in force.
    Sync,
    /// The same, or the primary.
    ReadOnlySync,
    /// A streaming standby that is not in the sync set.
    Async,
    /// The primary, or a streaming standby that has caught up.
    Ready,
    /// Postgres accepts connections.
    Healthy,
}

impl Role {
    /// Whether its path reads a query; on the others it is ignored, as in Patroni.
    pub(super) fn takes_conditions(self) -> bool {
        match self {
            Self::Replica
            | Self::ReadOnly
            | Self::Sync
            | Self::ReadOnlySync
            | Self::Async
            | Self::Ready => true,
            Self::Primary | Self::StandbyLeader | Self::Healthy => false,
        }
    }

    /// Whether this node is that.
    pub(super) fn holds(self, moment: &Moment, wanted: &Wanted) -> bool {
        let is_replica = || moment.is_replica() && suits(moment, wanted);
        match self {
            Self::Primary => moment.is_primary(),
            Self::StandbyLeader => false,
            Self::Replica => is_replica(),
            Self::ReadOnly => moment.is_primary() || is_replica(),
            Self::Sync => is_replica() && moment.is_member(),
            Self::ReadOnlySync => moment.is_primary() || (is_replica() && moment.is_member()),
            Self::Async => is_replica() && !moment.is_member(),
            Self::Ready => {
                let lag = Some(wanted.lag.unwrap_or(READY_LAG));
                let wanted = Wanted { lag, ..wanted.clone() };
                moment.is_primary() || (moment.is_replica() && suits(moment, &wanted))
            }
            Self::Healthy => moment.is_up(),
        }
    }
}

/// Whether a streaming standby is what the query says.
fn suits(moment: &Moment, wanted: &Wanted) -> bool {
    let is_near = wanted.lag.is_none_or(|Size(limit)| {
        // What is not known is not within any limit.
        moment.lag(wanted.behind).is_some_and(|lag| lag <= limit)
    });
    is_near && wanted.streams && !wanted.has_tags
}
