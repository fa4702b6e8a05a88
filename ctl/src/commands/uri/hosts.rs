//! The nodes in a connection string: which, in which order, and how each is written.
//!
//! What must hold: no host is read as anything else, another host, a socket or a parameter, whatever the
//! operator has called it.

use super::Server;
use super::client::Client;
use crate::exit::Exit;
use crate::failure::Failure;
use shared::api::{NodeStatus, Status};
use shared::host::Host;
use shared::state::NodeState;

/// All hosts with their ports, the one to be tried first in front.
pub(super) fn hosts(
    status: &Status,
    server: Server,
    client: Client,
) -> Result<Vec<String>, Failure> {
    nodes(status, server)?.into_iter().map(|node| host(node, client)).collect()
}

/// A node that is dead would cost each client its limit for connecting, so it comes last.
fn nodes(status: &Status, server: Server) -> Result<Vec<&NodeStatus>, Failure> {
    let mut nodes: Vec<&NodeStatus> =
        status.nodes.iter().filter(|node| node.goal_state != NodeState::Dropped).collect();
    if nodes.is_empty() {
        let message = format!("formation {} has no nodes to connect to", status.formation);
        return Err(Failure::new(Exit::Refused, "no_nodes", message));
    }
    let is_dead = |node: &NodeStatus| node.health == "bad";
    let is_primary = |node: &NodeStatus| status.primary.as_ref() == Some(&node.name);
    nodes.sort_by_key(|node| match server {
        Server::Primary | Server::Any => (is_dead(node), !is_primary(node), node.id),
        Server::Standby => (is_dead(node), is_primary(node), node.id),
    });
    Ok(nodes)
}

fn host(node: &NodeStatus, client: Client) -> Result<String, Failure> {
    let NodeStatus { name, host, port, .. } = node;
    let refused = |message: String| Err(Failure::new(Exit::Refused, "bad_address", message));
    match Host::parse(host) {
        Some(Host::Plain(host)) => Ok(format!("{host}:{port}")),
        Some(Host::Ipv6 { address, zone: None }) => Ok(format!("[{address}]:{port}")),
        Some(Host::Ipv6 { address, zone: Some(zone) }) if client.takes_zones() => {
            Ok(format!("[{address}%25{zone}]:{port}"))
        }
        Some(Host::Ipv6 { .. }) => refused(format!(
            "{} takes no IPv6 address with a zone, as '{host}' of {name} is; `pgtandem set node {name} host ADDRESS` gives the node another",
            client.name()
        )),
        None => refused(format!(
            "'{host}' of {name} is neither a host name nor an address; `pgtandem set node {name} host ADDRESS` gives the node another"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::status::fixture;

    fn ids(status: &Status, server: Server) -> Vec<u64> {
        nodes(status, server).unwrap().iter().map(|node| node.id.0).collect()
    }

    /// The third is dead, the second is the primary.
    #[test]
    fn who_is_wanted_comes_first_and_who_is_dead_last() {
        let mut status = fixture::status();
        assert_eq!(ids(&status, Server::Primary), [2, 1, 3]);
        assert_eq!(ids(&status, Server::Any), [2, 1, 3]);
        assert_eq!(ids(&status, Server::Standby), [1, 2, 3]);
        status.nodes[2].health = "ok".to_owned();
        assert_eq!(ids(&status, Server::Standby), [1, 3, 2]);
        status.nodes[1].health = "bad".to_owned();
        assert_eq!(ids(&status, Server::Primary), [1, 3, 2]);
        status.primary = None;
        status.nodes[1].health = "unknown".to_owned();
        assert_eq!(ids(&status, Server::Primary), [1, 2, 3]);
    }

    #[test]
    fn dropped_nodes_are_left_out() {
        let mut status = fixture::status();
        status.nodes[1].goal_state = NodeState::Dropped;
        assert_eq!(ids(&status, Server::Primary), [1, 3]);
        status.nodes.clear();
        let error = nodes(&status, Server::Any).unwrap_err().to_api_error();
        assert_eq!((error.code, error.reason.as_str()), (3, "no_nodes"));
    }

    /// What is printed for the first node where it is called this.
    fn written(called: &str, client: Client) -> Result<String, Failure> {
        let mut status = fixture::status();
        status.nodes.truncate(1);
        status.nodes[0].host = called.to_owned();
        Ok(hosts(&status, Server::Any, client)?.concat())
    }

    /// Why nothing is printed.
    fn refusal(called: &str, client: Client) -> String {
        let error = written(called, client).unwrap_err().to_api_error();
        assert_eq!((error.code, error.reason.as_str()), (3, "bad_address"));
        assert!(error.message.contains("set node node1 host"), "{}", error.message);
        error.message
    }

    #[test]
    fn hosts_as_clients_read_them() {
        for client in [Client::Libpq, Client::TokioPostgres, Client::Sqlx, Client::NodePostgres] {
            for (called, expected) in [
                ("db-1.example.org", "db-1.example.org:5432"),
                ("10.0.0.1", "10.0.0.1:5432"),
                ("fd00::1", "[fd00::1]:5432"),
            ] {
                assert_eq!(written(called, client).unwrap(), expected);
            }
            if client.takes_zones() {
                assert_eq!(written("fe80::1%eth0", client).unwrap(), "[fe80::1%25eth0]:5432");
            } else {
                assert!(refusal("fe80::1%eth0", client).contains("zone"));
            }
            for called in
                ["", "/run/postgresql", "@abstract", "a,b", "a b", "[fd00::1]", "a:1", "a%b"]
            {
                assert!(refusal(called, client).contains("neither"), "{called}");
            }
            refusal("fe80::1%e,b", client);
        }
    }
}
