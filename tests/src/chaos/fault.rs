//! One fault: what goes wrong, with which node, and how it is healed.

use crate::harness::Node;
use crate::harness::site::{Site, host_of};
use crate::network::Fault as Packets;
use anyhow::{Context as _, Result};
use rand::RngExt as _;
use rand::rngs::StdRng;
use rustix::process::Signal;

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The plug of a node's host is pulled.
    PowerOff,
    /// A node's host is cut off from all others, and nobody is told.
    CutOff,
    /// The same, and everybody is told that nobody is there.
    Refused,
    /// What a node sends reaches nobody.
    Muted,
    /// A node does not reach the monitor.
    CutFromMonitor,
    /// A node does not reach the other nodes, and the monitor it does.
    CutFromPeers,
    /// A fifth of a node's packets is lost.
    Loss,
    /// SIGKILL of the postmaster.
    KillPostmaster,
    /// SIGKILL of a server process.
    KillBackend,
    /// SIGKILL of the keeper.
    KillKeeper,
    /// SIGKILL of both.
    KillBoth,
    /// SIGTERM of the keeper: a planned stop.
    StopKeeper,
    /// SIGSTOP of the postmaster.
    FreezePostmaster,
    /// SIGSTOP of all of Postgres.
    FreezePostgres,
    /// SIGSTOP of the keeper.
    FreezeKeeper,
    /// Everything on the host stands still.
    FreezeHost,
    /// The disk swallows writes.
    FreezeDisk,
    /// The disk is full.
    FillDisk,
    /// SIGKILL of the monitor.
    KillMonitor,
    /// SIGSTOP of the monitor.
    FreezeMonitor,
    /// The plug of the monitor's host is pulled.
    PowerOffMonitor,
    /// The monitor reaches nobody.
    CutOffMonitor,
    /// No fault: an operator asks for a switchover.
    Switchover,
}

/// All of them.
pub const KINDS: &[Kind] = &[
    Kind::PowerOff,
    Kind::CutOff,
    Kind::Refused,
    Kind::Muted,
    Kind::CutFromMonitor,
    Kind::CutFromPeers,
    Kind::Loss,
    Kind::KillPostmaster,
    Kind::KillBackend,
    Kind::KillKeeper,
    Kind::KillBoth,
    Kind::StopKeeper,
    Kind::FreezePostmaster,
    Kind::FreezePostgres,
    Kind::FreezeKeeper,
    Kind::FreezeHost,
    Kind::FreezeDisk,
    Kind::FillDisk,
    Kind::KillMonitor,
    Kind::FreezeMonitor,
    Kind::PowerOffMonitor,
    Kind::CutOffMonitor,
    Kind::Switchover,
];

/// Whom it befalls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    /// Whoever is the primary then.
    Primary,
    /// The n-th node, from 0.
    Node(usize),
    /// The monitor, or nobody in particular.
    None,
}

/// A fault that has been drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What.
    pub kind: Kind,
    /// Whom.
    pub victim: Victim,
}

impl Kind {
    /// Whether it befalls a node.
    fn is_of_a_node(self) -> bool {
        match self {
            Self::KillMonitor
            | Self::FreezeMonitor
            | Self::PowerOffMonitor
            | Self::CutOffMonitor
            | Self::Switchover => false,
            Self::PowerOff
            | Self::CutOff
            | Self::Refused
            | Self::Muted
            | Self::CutFromMonitor
            | Self::CutFromPeers
            | Self::Loss
            | Self::KillPostmaster
            | Self::KillBackend
            | Self::KillKeeper
            | Self::KillBoth
            | Self::StopKeeper
            | Self::FreezePostmaster
            | Self::FreezePostgres
            | Self::FreezeKeeper
            | Self::FreezeHost
            | Self::FreezeDisk
            | Self::FillDisk => true,
        }
    }
}

impl Fault {
    /// Draws one: half of those of nodes are of the primary.
    pub fn draw(random: &mut StdRng, nodes: usize) -> Self {
        let number = random.random_range(0..KINDS.len());
        let kind = KINDS.get(number).copied().unwrap_or(Kind::KillPostmaster);
        let primary = random.random();
        let node = random.random_range(0..nodes);
        let victim = match (kind.is_of_a_node(), primary) {
            (false, _) => Victim::None,
            (true, true) => Victim::Primary,
            (true, false) => Victim::Node(node),
        };
        Self { kind, victim }
    }

    /// Whether both can be made and healed at the same time without getting into each other's way.
    pub fn goes_with(&self, other: &Self) -> bool {
        self.victim != other.victim
    }
}

/// A fault with the node that it has befallen.
#[derive(Debug)]
pub struct Befallen<'a> {
    kind: Kind,
    node: Option<&'a Node>,
}

impl<'a> Befallen<'a> {
    /// Finds the node. The primary counts only where one is known.
    pub async fn find(fault: &Fault, site: &'a Site<'_>) -> Result<Self> {
        let cluster = site.cluster();
        let node = match fault.victim {
            Victim::None => None,
            Victim::Primary => cluster.primary().await.ok().or(cluster.nodes().first()),
            Victim::Node(number) => cluster.nodes().get(number),
        };
        Ok(Self { kind: fault.kind, node })
    }

    /// It is to befall this node.
    pub fn of(kind: Kind, node: &'a Node) -> Self {
        Self { kind, node: Some(node) }
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether both befall one node.
    pub fn is_of(&self, other: &Self) -> bool {
        self.node.map(Node::name) == other.node.map(Node::name)
    }

    fn node(&self) -> Result<&'a Node> {
        self.node.with_context(|| format!("{:?} is of no node", self.kind))
    }

    /// It happens.
    pub async fn happen(&self, site: &Site<'_>) -> Result<()> {
        let monitor = site.cluster().monitor();
        match self.kind {
            Kind::PowerOff => self.node()?.power_off(),
            Kind::CutOff => site.isolate(host_of(self.node()?)?),
            Kind::Refused => site.disturb(host_of(self.node()?)?, Packets::Reject),
            Kind::Muted => site.mute(host_of(self.node()?)?),
            Kind::CutFromMonitor => site.cut_from_monitor(self.node()?),
            Kind::CutFromPeers => site.cut_between(self.node()?, &self.peers(site)?),
            Kind::Loss => site.disturb(host_of(self.node()?)?, Packets::Lose(20)),
            Kind::KillPostmaster => self.node()?.kill_postmaster(),
            Kind::KillBackend => self.node()?.kill_backend(),
            Kind::KillKeeper => self.node()?.kill_keeper(),
            Kind::KillBoth => self.node()?.kill_both(),
            Kind::StopKeeper => self.node()?.stop_keeper().await.map(drop),
            Kind::FreezePostmaster => self.node()?.freeze_postmaster(),
            Kind::FreezePostgres => self.node()?.freeze_postgres(),
            Kind::FreezeKeeper => self.node()?.freeze_keeper(),
            Kind::FreezeHost => host_of(self.node()?)?.freeze(),
            Kind::FreezeDisk => self.node()?.volume()?.freeze(),
            Kind::FillDisk => self.node()?.volume()?.fill(),
            Kind::KillMonitor => monitor.kill(),
            Kind::FreezeMonitor => monitor.signal(Signal::STOP),
            Kind::PowerOffMonitor => monitor.power_off(),
            Kind::CutOffMonitor => site.isolate(site.monitor_host()),
            // It may be refused, by whatever else goes wrong.
            Kind::Switchover => site.cluster().pgtandem(&["switchover"]).await.map(drop),
        }
    }

    fn peers(&self, site: &'a Site<'_>) -> Result<Vec<&'a Node>> {
        let own = self.node()?.name();
        Ok(site.cluster().nodes().iter().filter(|node| node.name() != own).collect())
    }

    /// It is over.
    pub fn heal(&self, site: &Site<'_>) -> Result<()> {
        let monitor = site.cluster().monitor();
        match self.kind {
            Kind::PowerOff => {
                let node = self.node()?;
                node.power_on()?;
                node.start_keeper()
            }
            Kind::CutOff
            | Kind::Refused
            | Kind::Muted
            | Kind::CutFromMonitor
            | Kind::CutFromPeers
            | Kind::Loss => site.join(host_of(self.node()?)?),
            Kind::KillKeeper | Kind::KillBoth | Kind::StopKeeper => self.node()?.start_keeper(),
            Kind::KillPostmaster | Kind::KillBackend | Kind::Switchover => Ok(()),
            Kind::FreezePostmaster | Kind::FreezePostgres => {
                self.node()?.thaw_postgres();
                Ok(())
            }
            Kind::FreezeKeeper => self.node()?.thaw_keeper(),
            Kind::FreezeHost => host_of(self.node()?)?.thaw(),
            Kind::FreezeDisk => self.node()?.volume()?.thaw(),
            Kind::FillDisk => self.node()?.volume()?.free(),
            Kind::KillMonitor => monitor.start(),
            Kind::FreezeMonitor => monitor.signal(Signal::CONT),
            Kind::PowerOffMonitor => {
                monitor.power_on()?;
                monitor.start()
            }
            Kind::CutOffMonitor => site.join(site.monitor_host()),
        }
    }
}
