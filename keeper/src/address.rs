//! Where the node's Postgres is reached: what the monitor knows. A Postgres that runs under another port, or
//! listens on other addresses, is restarted for that, which PostgreSQL needs; the keeper reports meanwhile,
//! so that nobody takes it for a failure.

use crate::cli;
use crate::config::Config;
use crate::node::Node;
use crate::state::{Announced, State};
use postgres::instance::Instance;
use shared::goal::Member;

impl Config {
    /// What a join says of the node.
    pub(crate) fn announcement(&self) -> Announced {
        Announced {
            name: self.name.clone(),
            host: self.host.clone(),
            port: self.port,
            zone: self.zone.clone(),
        }
    }
}

/// This node, as the monitor knew it last.
pub(crate) fn known(state: &State) -> Option<&Member> {
    let persisted = state.persisted.as_ref()?;
    persisted.assignment.member(persisted.own?)
}

/// The next start is to listen there. Addresses that were given to the keeper are the operator's; those that
/// follow from the host follow it.
pub(crate) fn take(instance: &mut Instance, config: &Config, own: &Member) {
    instance.port = own.port;
    if config.listen_addresses == cli::listen(&config.host) {
        instance.listen_addresses = cli::listen(&own.host);
    }
}

impl Node {
    /// Takes over what an operator has set.
    pub(crate) fn take_address(&mut self) {
        if let Some(own) = known(&self.state) {
            take(&mut self.instance, &self.config, own);
        }
    }

    /// Whether the running Postgres has to be restarted to be where it is looked for.
    pub(crate) fn listens_elsewhere(&self) -> bool {
        self.running().is_some_and(|server| {
            let (present, wanted) = (server.instance(), &self.instance);
            (present.port, &present.listen_addresses) != (wanted.port, &wanted.listen_addresses)
        })
    }
}
