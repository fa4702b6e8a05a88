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
    pub(super) run_as: Option<RunAs>,
}

impl Choices {
    /// Of two listeners at the same place, which HAProxy itself does not refuse, nobody could say who gets which
    /// client.
    fn check(&self) -> Result<(), Failure> {
        let [rw, ro] = [&self.listen_rw, &self.listen_ro];
        let stats = self.stats.iter().flat_map(|stats| [(rw, stats), (ro, stats)]);
        match [(rw, ro)].into_iter().chain(stats).find(|(a, b)| a.meets(b)) {
            Some((a, b)) => {
                let message =
                    format!("{a} and {b} are the same port for some: take another for one");
                Err(Failure::new(Exit::BadArguments, "bad_value", message))
            }
            None => Ok(()),
        }
    }
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

    /// After so long a server that stands still is given up: a check that was just missed, and two that time
    /// out.
    pub(super) fn longest_ms(self) -> u64 {
        self.interval_ms + self.fast_ms + 2 * self.timeout_ms
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
        choices.check()?;
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
            let name = &node.name;
            let message = format!(
                "'{text}' of {name} is no address for HAProxy; `pgtandem set node {name} host ADDRESS` gives the node another"
            );
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

impl Listen {
    fn port(&self) -> u16 {
        match self {
            Self::Everywhere(port) => *port,
            Self::At(address) => address.port,
        }
    }

    /// The one address; `None`: all.
    fn address(&self) -> Option<&str> {
        match self {
            Self::Everywhere(_) => None,
            Self::At(address) => {
                Some(address.host.as_str()).filter(|host| !["::", "0.0.0.0"].contains(host))
            }
        }
    }

    /// Whether a client could connect to either.
    fn meets(&self, other: &Self) -> bool {
        let alike = match (self.address(), other.address()) {
            (Some(one), Some(another)) => one == another,
            (None, _) | (_, None) => true,
        };
        alike && self.port() == other.port()
    }
}

/// As whom HAProxy runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RunAs {
    pub(super) user: String,
    pub(super) group: String,
}

/// Text that names nobody.
#[derive(Debug, Clone, thiserror::Error)]
#[error("'{0}' is not a user; write it like haproxy or haproxy:www-data")]
pub(super) struct NoUser(String);

impl FromStr for RunAs {
    type Err = NoUser;
    fn from_str(text: &str) -> Result<Self, NoUser> {
        let (user, group) = text.split_once(':').unwrap_or((text, text));
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let fine = |name: &str| !name.is_empty() && name.chars().all(is_plain);
        if !fine(user) || !fine(group) {
            return Err(NoUser(text.to_owned()));
        }
        Ok(Self { user: user.to_owned(), group: group.to_owned() })
    }
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

    #[test]
    fn listeners_that_get_in_each_others_way() {
        let meet = |a: &str, b: &str| {
            let (a, b): (Listen, Listen) = (a.parse().unwrap(), b.parse().unwrap());
            assert_eq!(a.meets(&b), b.meets(&a));
            a.meets(&b)
        };
        for (a, b) in [
            ("*:5000", "*:5000"),
            ("*:5000", "127.0.0.1:5000"),
            ("[::]:5000", "10.0.0.1:5000"),
            ("0.0.0.0:5000", "*:5000"),
            ("lb:5000", "lb:5000"),
        ] {
            assert!(meet(a, b), "{a} {b}");
        }
        assert!(!meet("*:5000", "*:5001"));
        assert!(!meet("127.0.0.1:5000", "[::1]:5000"));
    }

    #[test]
    fn users() {
        let run_as = |text: &str| text.parse::<RunAs>().ok().map(|it| (it.user, it.group));
        let pair = |user: &str, group: &str| Some((user.to_owned(), group.to_owned()));
        assert_eq!(run_as("haproxy"), pair("haproxy", "haproxy"));
        assert_eq!(run_as("haproxy:www-data"), pair("haproxy", "www-data"));
        for text in ["", ":", "a:", ":b", "a b", "a\nuid 0", "a:b:c"] {
            assert_eq!(run_as(text), None, "{text}");
        }
    }
}
