//! Hosts, as operators write them and clients are told them.

use std::net::Ipv6Addr;

/// One host, and nothing that anybody takes for more: for a list, a socket, or a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host<'a> {
    /// A name, or an IPv4 address.
    Plain(&'a str),
    /// An IPv6 address, without brackets.
    Ipv6 {
        /// The address.
        address: &'a str,
        /// The interface that it counts on, behind `%` (RFC 4007, section 11).
        zone: Option<&'a str>,
    },
}

impl<'a> Host<'a> {
    /// `None`: it is none.
    pub fn parse(text: &'a str) -> Option<Self> {
        let (address, zone) = match text.split_once('%') {
            Some((address, zone)) => (address, Some(zone)),
            None => (text, None),
        };
        if address.parse::<Ipv6Addr>().is_ok() {
            return zone.is_none_or(is_plain).then_some(Self::Ipv6 { address, zone });
        }
        is_plain(text).then_some(Self::Plain(text))
    }
}

/// Names of hosts and of interfaces, and IPv4 addresses.
fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for text in ["db-1.example.org", "10.0.0.1", "db_1"] {
            assert_eq!(Host::parse(text), Some(Host::Plain(text)));
        }
        let address = "fe80::1";
        assert_eq!(Host::parse(address), Some(Host::Ipv6 { address, zone: None }));
        let zone = Some("eth0");
        assert_eq!(Host::parse("fe80::1%eth0"), Some(Host::Ipv6 { address, zone }));
        for text in
            ["", " ", "a,b", "a b", "/run/x", "@x", "[::1]", "a:1", "a%b", "::1%a,b", "::1%"]
        {
            assert_eq!(Host::parse(text), None, "{text}");
        }
    }
}
