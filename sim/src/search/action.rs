//! What may happen next.

use shared::ids::NodeId;

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A keeper hears what the monitor has decided, if it is to, acts until somebody else could see it,
    /// and reports, upon which the monitor decides. Where it does not hear, the answer is under way.
    Turn {
        /// Whose.
        node: NodeId,
        /// Whether it hears.
        hears: bool,
    },
    /// The monitor probes whom it suspects, and decides.
    Look,
    /// A standby's Postgres connects, takes the log up to the next commit, or gives up a connection.
    Stream(NodeId),
    /// The keeper is started, after the host where that is down.
    Start(NodeId),
    /// Two places reach each other again.
    Mend(NodeId, NodeId),
    /// A copy of an answer arrives.
    Late(NodeId),
    /// An operator takes a node out of maintenance.
    MaintenanceOver(NodeId),
    /// A process of a primary looks at the file that was written: a walsender, or the checkpointer.
    PickUp {
        /// The primary.
        node: NodeId,
        /// Whose walsender.
        walsender: Option<NodeId>,
    },
    /// A client writes.
    Write(NodeId),
    /// A pause ends.
    Resume,
    /// Every timer runs out.
    Tick,
    /// Something goes wrong.
    Harm(Fault),
    /// An operator asks for something.
    Ask(Request),
}

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Postgres crashes.
    Postgres(NodeId),
    /// A keeper crashes.
    Keeper(NodeId),
    /// A host crashes.
    Host(NodeId),
    /// The monitor is killed and started again.
    Monitor,
    /// Two places cannot reach each other.
    Cut(NodeId, NodeId),
    /// A disk is lost.
    Disk {
        /// Whose.
        node: NodeId,
        /// The keeper's state too.
        state: bool,
    },
    /// A keeper's state is lost.
    State(NodeId),
    /// An answer is copied on its way, for later.
    Copy(NodeId),
    /// Somebody promotes a standby behind the keeper's back.
    PromoteByHand(NodeId),
    /// The replay of a standby is held up.
    HoldReplay(NodeId),
}

/// Something that an operator asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// A switchover.
    Switchover(Option<NodeId>),
    /// Maintenance.
    Maintenance(NodeId),
    /// To drop a node.
    Drop(NodeId),
    /// To set `number_sync_standbys`.
    Number(u8),
    /// To set `replication_quorum`.
    Quorum(NodeId, bool),
    /// To add a node.
    Join,
    /// To restart the Postgres of a node.
    Restart(NodeId),
    /// To copy a standby anew.
    Copy(NodeId),
    /// To pause automation.
    Pause,
    /// To fail over whatever it costs, having fenced the old primary or not.
    AcceptLoss {
        /// Its host is off, and no client reaches it before it has heard of its successor.
        fenced: bool,
    },
}
