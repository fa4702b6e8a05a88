//! Where a monitor can be reached, as people write it: `http://host:7432`, `host:7432` or `host`.

use std::fmt;
use std::str::FromStr;
use url::Url;

/// The port of a monitor where none is given.
pub const DEFAULT_PORT: u16 = 7432;

/// The base URL of a monitor's API.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MonitorUrl(Url);

/// Text that is no monitor's URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a monitor's URL looks like http://host:{DEFAULT_PORT} or host:{DEFAULT_PORT}: {0}")]
pub struct InvalidMonitorUrl(String);

/// Several URLs, separated by commas; at least one.
pub fn parse_monitor_urls(text: &str) -> Result<Vec<MonitorUrl>, InvalidMonitorUrl> {
    text.split(',').map(|part| part.trim().parse()).collect()
}

impl MonitorUrl {
    /// The URL of a request to this monitor.
    pub(super) fn request(&self, path: &[&str], query: &[(&'static str, String)]) -> Url {
        let mut url = self.0.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.clear().extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }
}

impl FromStr for MonitorUrl {
    type Err = InvalidMonitorUrl;

    fn from_str(text: &str) -> Result<Self, InvalidMonitorUrl> {
        let invalid = |why: &str| InvalidMonitorUrl(why.to_owned());
        let authority = authority(text)?;
        let after_host = authority.rsplit(']').next().unwrap_or_default();
        if after_host.matches(':').count() > 1 {
            return Err(invalid("an IPv6 address stands in brackets, as in [::1]:7432"));
        }
        let text = match after_host.split_once(':') {
            None => format!("http://{authority}:{DEFAULT_PORT}"),
            Some((_, port)) if port.parse::<u16>().is_ok_and(|port| port > 0) => {
                format!("http://{authority}")
            }
            Some((_, port)) => {
                return Err(InvalidMonitorUrl(format!("'{port}' is not a port number")));
            }
        };
        Url::parse(&text).map(Self).map_err(|error| InvalidMonitorUrl(error.to_string()))
    }
}

/// The `host:port` part of the text, once everything else about it is found to be right.
fn authority(text: &str) -> Result<&str, InvalidMonitorUrl> {
    let invalid = |why: &str| Err(InvalidMonitorUrl(why.to_owned()));
    let authority = match text.split_once("://") {
        Some(("http", rest)) => rest,
        Some((scheme, _)) => return invalid(&format!("'{scheme}' is not supported, only http")),
        None => text,
    };
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    if authority.is_empty() {
        return invalid("the host is missing");
    }
    if authority.contains('@') {
        return invalid("it takes no user or password");
    }
    if authority.contains(['/', '?', '#']) {
        return invalid("it has no path");
    }
    if authority.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return invalid("it has no spaces");
    }
    Ok(authority)
}

impl fmt::Display for MonitorUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_what_people_write() {
        for (text, expected) in [
            ("http://m1:7432", "http://m1:7432"),
            ("http://m1:7000/", "http://m1:7000"),
            ("m1:7000", "http://m1:7000"),
            ("m1", "http://m1:7432"),
            ("10.0.0.1", "http://10.0.0.1:7432"),
            ("[::1]:7000", "http://[::1]:7000"),
            ("http://[::1]", "http://[::1]:7432"),
        ] {
            assert_eq!(text.parse::<MonitorUrl>().unwrap().to_string(), expected, "{text}");
        }
        assert_eq!(parse_monitor_urls("a:1, b:2").unwrap().len(), 2);
    }

    #[test]
    fn refuses_in_one_line() {
        for text in [
            "",
            "http://",
            "https://m1",
            "postgres://m1",
            "m1:x",
            "m1:0",
            "m1:99999",
            "::1:7432",
            "m1/path",
            "u:secret@m1",
            "m 1",
            "m1:",
        ] {
            let error = text.parse::<MonitorUrl>().unwrap_err().to_string();
            assert!(!error.contains('\n') && !error.contains("secret"), "{text}: {error}");
        }
        assert!(parse_monitor_urls("a:1,").is_err());
    }

    #[test]
    fn segments_are_escaped() {
        let url: MonitorUrl = "m1".parse().unwrap();
        let url = url.request(&["v1", "a/b"], &[("node", "x y&z".to_owned())]);
        assert_eq!(url.as_str(), "http://m1:7432/v1/a%2Fb?node=x+y%26z");
    }
}
