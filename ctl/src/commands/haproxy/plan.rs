//! What HAProxy shall do for a formation: which servers, asked where, and how often.
//!
//! What comes from elsewhere, names of hosts above all, is checked here: nothing that could be read as
//! another line of a configuration gets into it.

use crate::exit::Exit;
use crate::failure::Failure;
use crate::text::host_port;
use shared::api::{NodeStatus, Status};
use shared::ids::{FormationId, NodeName};
use shared::settings::Timers;
use shared::size::Size;
use shared::state::NodeState;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// This part of a lease is the time between two checks. An interval, and two checks that time out, are at most
/// three and a half of it: a server that stands still is given up, and its sessions are cut, in less than a
/// lease, which is before the group can have another primary for its silence.
const CHECKS_IN_A_LEASE: u64 = 4;
/// A keeper answers in a few milliseconds; more often would be a load for nothing.
const SHORTEST_MS: u64 = 50;

/// What the operator chose.
#[derive(Clone, Debug)]
pub(super) struct Choices {
    pub(super) listen_rw: Listen,
    pub(super) listen_ro: Listen,
    pub(super) max_lag: Size,
    pub(super) check_interval_ms: Option<u64>,
    pub(super) stats: Option<Listen>,
}

/// How keepers are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Check {
    /// Between two checks of a server that is up.
    pub(super) interval_ms: u64,
    /// Between two checks of one that may be going down, or is down and may be the next primary.
    pub(super) fast_ms: u64,
    /// How long an answer may take.
    pub(super) timeout_ms: u64,
}

impl Check {
    fn every(interval_ms: u64) -> Self {
        Self { interval_ms, fast_ms: (interval_ms / 2).max(1), timeout_ms: interval_ms }
    }
}

/// A node, as HAProxy needs to know it.
#[derive(Clone, Debug)]
pub(super) struct Server {
    pub(super) name: NodeName,
    pub(super) postgres: Address,
    pub(super) keeper: Address,
}

/// All of it.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) formation: FormationId,
    /// In the order of their ids.
    pub(super) servers: Vec<Server>,
    pub(super) check: Check,
    /// How long a connection to a server may take.
    pub(super) connect_ms: u64,
    pub(super) choices: Choices,
}

impl Plan {
    pub(super) fn new(status: &Status, timers: &Timers, choices: Choices) -> Result<Self, Failure> {
        let all = [Some(&choices.listen_rw), Some(&choices.listen_ro), choices.stats.as_ref()];
        let mut listens: Vec<_> = all.into_iter().flatten().map(ToString::to_string).collect();
        listens.sort_unstable();
        if let Some([twice, _]) = listens.array_windows().find(|[a, b]| a == b) {
            let message = format!("HAProxy cannot listen twice on {twice}");
            return Err(Failure::new(Exit::BadArguments, "bad_value", message));
        }
        let mut nodes: Vec<&NodeStatus> =
            status.nodes.iter().filter(|node| node.goal_state != NodeState::Dropped).collect();
        nodes.sort_by_key(|node| node.id);
        if nodes.is_empty() {
            let message = format!("formation {} has no nodes to connect to", status.formation);
            return Err(Failure::new(Exit::Refused, "no_nodes", message));
        }
        let servers = nodes.into_iter().map(Server::new).collect::<Result<_, _>>()?;
        let of_lease = (timers.lease_ms / CHECKS_IN_A_LEASE).max(SHORTEST_MS);
        Ok(Self {
            formation: status.formation.clone(),
            servers,
            check: Check::every(choices.check_interval_ms.unwrap_or(of_lease)),
            // Linux sends a lost first packet again after a second, and a server that takes longer than
            // the node timeout is being replaced.
            connect_ms: timers.node_timeout_ms.max(2000),
            choices,
        })
    }

    /// The nodes whose keepers only a HAProxy on the same host can ask, though their Postgres is elsewhere.
    pub(super) fn only_asked_locally(&self) -> impl Iterator<Item = &NodeName> {
        let hidden = |server: &&Server| server.keeper.is_local() && !server.postgres.is_local();
        self.servers.iter().filter(hidden).map(|server| &server.name)
    }
}

impl Server {
    fn new(node: &NodeStatus) -> Result<Self, Failure> {
        let strange = |text: &str| {
            let message = format!("'{text}' of {} is no address for HAProxy", node.name);
            Failure::new(Exit::Refused, "bad_address", message)
        };
        if node.rest.is_empty() {
            let message = "the monitor does not say where the keepers can be asked: it is of an older release; upgrade it first";
            return Err(Failure::new(Exit::Refused, "no_rest", message));
        }
        let postgres = host_port(&node.host, node.port);
        Ok(Self {
            name: node.name.clone(),
            postgres: postgres.parse().map_err(|NoAddress| strange(&postgres))?,
            keeper: node.rest.parse().map_err(|NoAddress| strange(&node.rest))?,
        })
    }
}

/// A host and a port, neither of which says more than that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
}

/// Text that is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoAddress;

impl FromStr for Address {
    type Err = NoAddress;
    fn from_str(text: &str) -> Result<Self, NoAddress> {
        let (host, port) = text.rsplit_once(':').ok_or(NoAddress)?;
        let port = port.parse().ok().filter(|port| *port > 0).ok_or(NoAddress)?;
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let fine = match bracketed {
            Some(host) => host.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6()),
            None => !host.is_empty() && host.chars().all(is_plain),
        };
        if !fine {
            return Err(NoAddress);
        }
        Ok(Self { host: bracketed.unwrap_or(host).to_owned(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&host_port(&self.host, self.port))
    }
}

impl Address {
    /// The host alone, IPv6 addresses in brackets.
    pub(super) fn host(&self) -> String {
        if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() }
    }

    /// Whether its host is a name, to be looked up.
    pub(super) fn is_name(&self) -> bool {
        self.host.parse::<IpAddr>().is_err()
    }

    fn is_local(&self) -> bool {
        self.host == "localhost"
            || self.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

/// Where HAProxy listens: `*` is every IPv4 address, `[::]` every address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Listen {
    /// On every IPv4 address.
    Everywhere(u16),
    /// On one.
    At(Address),
}

/// Text that says nowhere.
#[derive(Debug, Clone, thiserror::Error)]
#[error("'{0}' is not an address to listen on; write it like *:5000, 10.0.0.1:5000 or [::]:5000")]
pub(super) struct NoListen(String);

impl FromStr for Listen {
    type Err = NoListen;
    fn from_str(text: &str) -> Result<Self, NoListen> {
        let refused = || NoListen(text.to_owned());
        match text.strip_prefix("*:") {
            Some(port) => {
                let port = port.parse().ok().filter(|port| *port > 0);
                port.map(Self::Everywhere).ok_or_else(refused)
            }
            None => text.parse().map(Self::At).map_err(|NoAddress| refused()),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everywhere(port) => write!(f, "*:{port}"),
            Self::At(address) => address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_haproxy_can_be_told() {
        for text in ["10.0.0.1:5432", "db-1.example.org:5432", "[fd00::3]:8008"] {
            assert_eq!(text.parse::<Address>().map(|a| a.to_string()), Ok(text.to_owned()));
        }
        for text in [
            "10.0.0.1",
            ":5432",
            "10.0.0.1:0",
            "10.0.0.1:99999",
            "fd00::3:8008",
            "[10.0.0.1]:1",
            "a b:1",
            "a\nserver evil 1.2.3.4:1",
            "[fe80::1%eth0]:1",
            "#:1",
        ] {
            assert_eq!(text.parse::<Address>(), Err(NoAddress), "{text}");
        }
    }

    #[test]
    fn where_to_listen() {
        for text in ["*:5000", "127.0.0.1:5000", "[::]:5000", "lb:5000"] {
            assert_eq!(text.parse::<Listen>().map(|l| l.to_string()).ok(), Some(text.to_owned()));
        }
        for text in ["5000", "*", "*:", "*:0", "*:x", "", "a b:1"] {
            assert!(text.parse::<Listen>().is_err(), "{text}");
        }
    }
}
