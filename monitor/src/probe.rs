//! What the monitor itself, and the peers of a node, can reach of it: asked only when its keeper is
//! suspect (`fsm::group::detector::wants_probe`). Finds facts, judges nothing.

use crate::clock;
use crate::group::Command;
use fsm::Millis;
use fsm::group::detector::{Verdict, verdict};
use fsm::group::view::Probe;
use fsm::group::{Record, View};
use postgres::insist::insist;
use postgres::session::{Session, SessionError, Target};
use serde::Deserialize;
use shared::ids::NodeId;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Duration;
use tokio::sync::mpsc;

/// The role that looks at a Postgres over the network.
const ROLE: &str = "pgtandem_monitor";
/// The database that every cluster has.
const DATABASE: &str = "postgres";
/// Between the rounds of the first moments.
const FIRST_ROUNDS_MS: u64 = 40;
/// The shortest time a probe may take: a busy host needs this.
const SHORTEST_PROBE: Duration = Duration::from_millis(100);

/// Something that a probe found.
#[derive(Clone, Copy, Debug)]
pub enum Finding {
    /// What a connection to the node's keeper gave.
    Keeper {
        /// The node.
        node: NodeId,
        /// The result.
        probe: Probe,
    },
    /// What a connection to its Postgres gave.
    Postgres {
        /// The node.
        node: NodeId,
        /// The result.
        probe: Probe,
    },
    /// What a peer says of the node.
    Peer {
        /// The node.
        node: NodeId,
        /// The peer.
        peer: NodeId,
        /// The result.
        probe: Probe,
    },
    /// The round is over.
    Finished {
        /// The node.
        node: NodeId,
    },
}

/// What a connection gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Reached {
    Answered,
    Refused,
    Silent,
}

impl Reached {
    /// Dated by the start of the probe: a report that came since is newer.
    fn at(self, began: Millis) -> Probe {
        match self {
            Self::Answered => Probe::Answered(began),
            Self::Refused => Probe::Refused(began),
            Self::Silent => Probe::Silent(began),
        }
    }
}

/// What a peer answers at `/peers/{id}`.
#[derive(Debug, Deserialize)]
struct PeerView {
    keeper: Reached,
    postgres: Reached,
}

/// The probes of a group: one round at a time per node.
pub struct Prober {
    commands: mpsc::Sender<Command>,
    /// Of [`ROLE`].
    password: String,
    /// `None`: reqwest could not be set up, so that every keeper stays unknown, which kills nobody.
    client: Option<reqwest::Client>,
    rounds: BTreeMap<NodeId, Round>,
}

struct Round {
    began: Millis,
    under_way: bool,
}

/// Where to look for a node, and whom to ask about it.
struct Suspect {
    node: NodeId,
    rest: String,
    postgres: Target,
    peers: Vec<(NodeId, String)>,
    limit: Duration,
}

impl std::fmt::Debug for Prober {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Prober")
    }
}

impl Prober {
    /// Findings go to these commands; the password is that of the monitor's role in the nodes.
    pub fn new(commands: mpsc::Sender<Command>, password: String) -> Self {
        // Each probe is a connection of its own: an old one says nothing about the present.
        let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build();
        if let Err(error) = &client {
            tracing::error!("keepers cannot be probed: {error}");
        }
        Self { commands, password, client: client.ok(), rounds: BTreeMap::new() }
    }

    /// Begins a round for a node unless one is under way or was just made; the peers that are asked.
    pub fn start(
        &mut self,
        record: &Record,
        view: &View,
        id: NodeId,
        now: Millis,
    ) -> Option<BTreeSet<NodeId>> {
        let timers = record.settings.timers();
        let reported_at = view.nodes.get(&id).map_or(Millis(0), |evidence| evidence.reported_at);
        let too_soon = self.rounds.get(&id).is_some_and(|round| {
            // A host process that is being killed goes in pieces: at first it is looked at often.
            let first = now.since(reported_at) < timers.node_timeout_ms / 3;
            let pause = if first { FIRST_ROUNDS_MS } else { timers.report_interval_ms / 2 };
            // The first round after a report is not put off.
            let recent = now.since(round.began) < pause;
            round.under_way || (recent && round.began >= reported_at)
        });
        if too_soon {
            return None;
        }
        let client = self.client.clone()?;
        let node = record.nodes.get(&id)?;
        let peers: Vec<_> = record
            .nodes
            .iter()
            .filter(|(peer, _)| {
                **peer != id && verdict(view, **peer, &timers, now) == Verdict::Good
            })
            .map(|(peer, node)| (*peer, node.rest.clone()))
            .collect();
        let asked = peers.iter().map(|(peer, _)| *peer).collect();
        let suspect = Suspect {
            node: id,
            rest: node.rest.clone(),
            postgres: Target::tcp(&node.host, node.port, ROLE, DATABASE).password(&self.password),
            peers,
            limit: (timers.node_timeout() / 3).max(SHORTEST_PROBE),
        };
        self.rounds.insert(id, Round { began: now, under_way: true });
        drop(tokio::spawn(round(client, suspect, self.commands.clone())));
        Some(asked)
    }

    /// A round is over.
    pub fn finished(&mut self, node: NodeId) {
        if let Some(round) = self.rounds.get_mut(&node) {
            round.under_way = false;
        }
    }
}

/// One round: everything at the same time, each result sent as soon as it is there.
async fn round(client: reqwest::Client, target: Suspect, commands: mpsc::Sender<Command>) {
    let node = target.node;
    let began = clock::millis();
    let send = |finding| {
        let commands = commands.clone();
        // The task is gone when the process ends; then nobody wants to know.
        async move { drop(commands.send(Command::Found(finding)).await) }
    };
    let keeper = async {
        let reached = probe_keeper(&client, &target.rest, target.limit).await;
        send(Finding::Keeper { node, probe: reached.at(began) }).await;
    };
    let postgres = async {
        let reached = probe_postgres(&target.postgres, target.limit).await;
        send(Finding::Postgres { node, probe: reached.at(began) }).await;
    };
    let peers = target.peers.iter().map(|(peer, rest)| {
        let (client, send) = (&client, &send);
        async move {
            let reached = ask_peer(client, rest, node, target.limit).await;
            send(Finding::Peer { node, peer: *peer, probe: reached.at(began) }).await;
        }
    });
    tokio::join!(keeper, postgres, futures::future::join_all(peers));
    send(Finding::Finished { node }).await;
}

/// Any HTTP answer will do: it is the process that is looked for.
async fn probe_keeper(client: &reqwest::Client, rest: &str, limit: Duration) -> Reached {
    let reached = insist(limit, || async {
        match client.get(format!("http://{rest}/liveness")).timeout(limit).send().await {
            Ok(_) => Some(Reached::Answered),
            Err(error) if is_refused(&error) => Some(Reached::Refused),
            Err(_) => None,
        }
    });
    reached.await.unwrap_or(Reached::Silent)
}

/// What another keeper of the group can reach. It needs a limit's time itself to find out.
async fn ask_peer(client: &reqwest::Client, rest: &str, node: NodeId, limit: Duration) -> Reached {
    let url = format!("http://{rest}/peers/{node}");
    let answer = insist(limit * 2, || async {
        let answer = client.get(&url).timeout(limit * 2).send().await.ok()?;
        answer.error_for_status().ok()?.json::<PeerView>().await.ok()
    });
    match answer.await {
        Some(
            PeerView { keeper: Reached::Answered, .. }
            | PeerView { postgres: Reached::Answered, .. },
        ) => Reached::Answered,
        Some(PeerView { keeper: Reached::Refused, postgres: Reached::Refused }) => Reached::Refused,
        Some(_) | None => Reached::Silent,
    }
}

/// A login and a question. Where the monitor may not log in, or the server cannot take it in now, that it
/// says so is the answer.
async fn probe_postgres(target: &Target, limit: Duration) -> Reached {
    let reached = insist(limit, || async {
        match Session::connect(target, limit).await {
            Ok(_) => Some(Reached::Answered),
            Err(SessionError::Refused { .. }) => Some(Reached::Refused),
            Err(error) if error.code().is_some() => Some(Reached::Answered),
            Err(_) => None,
        }
    });
    reached.await.unwrap_or(Reached::Silent)
}

fn is_refused(error: &reqwest::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if error
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
        {
            return true;
        }
        cause = error.source();
    }
    false
}
