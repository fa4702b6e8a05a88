//! What becomes of packets between two hosts.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::Ipv4Addr;

/// What becomes of what one host sends to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is lost, and nobody is told.
    Drop,
    /// The sender is told that nobody is there.
    Reject,
    /// So many of a hundred packets are lost.
    Lose(u8),
}

/// The faults of a network, by sender and receiver. They outlast a host's being off.
#[derive(Debug, Default)]
pub struct Filters(BTreeMap<(Ipv4Addr, Ipv4Addr), Fault>);

impl Filters {
    /// Sets a fault, or takes it away.
    pub fn set(&mut self, from: Ipv4Addr, to: Ipv4Addr, fault: Option<Fault>) {
        match fault {
            Some(fault) => drop(self.0.insert((from, to), fault)),
            None => drop(self.0.remove(&(from, to))),
        }
    }

    /// What the receiver's packet filter is told: the whole of it, in one transaction.
    pub fn rules(&self, to: Ipv4Addr) -> String {
        let mut rules = "flush ruleset\ntable inet tests {\n chain faults {\n".to_owned();
        rules += "  type filter hook input priority 0;\n";
        for ((from, _), fault) in self.0.iter().filter(|((_, receiver), _)| *receiver == to) {
            let verdict = match fault {
                Fault::Drop => "drop".to_owned(),
                Fault::Reject => "meta l4proto tcp reject with tcp reset".to_owned(),
                Fault::Lose(percent) => format!("numgen random mod 100 < {percent} drop"),
            };
            // Writing to a string does not fail.
            let _ = writeln!(rules, "  ip saddr {from} {verdict}");
        }
        rules + " }\n}\n"
    }
}
