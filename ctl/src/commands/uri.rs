//! `pgtandem uri`: the nodes of a formation, as a connection string.
//!
//! What a client takes in its string, and what it refuses, is in [`client`]; what it has to do besides
//! is in docs/clients.md. No password is ever printed: clients have their own ways to it.

mod client;
mod hosts;
mod tls;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;
use clap::builder::NonEmptyStringValueParser;
use client::{Client, Limits, Parameter};
use hosts::hosts;
use serde_json::json;
use tls::Tls;

/// Prints the connection string with which clients find their server
///
/// A client that takes one host only gets one line for each node, the best one first: the program tries them
/// in turn, and asks each server what it is. docs/clients.md says what each client needs besides.
#[derive(Debug, clap::Args)]
pub struct Uri {
    /// Which server
    #[arg(long, value_enum, default_value_t = Role::Primary)]
    role: Role,
    /// For which client: each knows parameters of its own, and some refuse those of others
    #[arg(long, value_enum, default_value_t = Client::Libpq)]
    client: Client,
    #[command(flatten)]
    login: Login,
    #[command(flatten)]
    options: Options,
}

/// What a client logs in to.
#[derive(Debug, clap::Args)]
struct Login {
    /// The database
    #[arg(long, default_value = "postgres", value_parser = NonEmptyStringValueParser::new())]
    dbname: String,
    /// The user [default: none, the client's own]
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    user: Option<String>,
}

/// How it gets there.
#[derive(Debug, Default, clap::Args)]
struct Options {
    #[command(flatten)]
    limits: Limits,
    /// Try the hosts in random order, which libpq can from release 16 on
    #[arg(long)]
    load_balance_hosts: bool,
    #[command(flatten)]
    tls: Tls,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Role {
    /// The one that takes writes; `read-write` is the same
    #[value(alias = "read-write")]
    Primary,
    /// The first that answers
    Any,
    /// A standby, or the primary where there is none; `prefer-standby` is the same
    #[value(alias = "prefer-standby")]
    Standby,
    /// The monitor's own URLs
    Monitor,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Any => "any",
            Self::Standby => "standby",
            Self::Monitor => "monitor",
        }
    }

    /// The server that is wanted; the monitor is none.
    fn server(self) -> Option<Server> {
        match self {
            Self::Primary => Some(Server::Primary),
            Self::Any => Some(Server::Any),
            Self::Standby => Some(Server::Standby),
            Self::Monitor => None,
        }
    }
}

/// Which PostgreSQL server a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Server {
    Primary,
    Any,
    Standby,
}

impl Uri {
    pub async fn run(self, context: &Context) -> Result<Exit, Failure> {
        let monitors = context.client()?;
        let uris = match self.role.server() {
            None => {
                let urls: Vec<_> = monitors.monitors().iter().map(ToString::to_string).collect();
                vec![urls.join(",")]
            }
            Some(server) => {
                self.client.check(&self.login, &self.options)?;
                let status = monitors.status(&context.formation, None, 0).await?;
                let timers = monitors.settings(&context.formation).await?.timers;
                let parameters = self.client.parameters(server, &self.options, &timers);
                let hosts = hosts(&status, server, self.client)?;
                render(hosts, self.client, &self.login, &parameters)
            }
        };
        if context.json {
            output::json(&json!({
                "role": self.role.name(),
                "client": self.role.server().map(|_| self.client.name()),
                "uri": uris.first(),
                "uris": uris,
            }))?;
        } else {
            output::text(&uris.join("\n"))?;
        }
        Ok(Exit::Done)
    }
}

/// One URI with all hosts, or one for each.
fn render(
    hosts: Vec<String>,
    client: Client,
    login: &Login,
    parameters: &[Parameter],
) -> Vec<String> {
    let user = login.user.as_ref().map(|user| format!("{}@", escape(user))).unwrap_or_default();
    let database = client.path(&login.dbname);
    let parameters: Vec<_> =
        parameters.iter().map(|(key, value)| format!("{key}={}", escape(value))).collect();
    let question = if parameters.is_empty() { "" } else { "?" };
    let tail = format!("/{database}{question}{}", parameters.join("&"));
    let hosts = if client.takes_several_hosts() { vec![hosts.join(",")] } else { hosts };
    hosts.iter().map(|host| format!("postgres://{user}{host}{tail}")).collect()
}

/// Percent-encodes all that a URI does not take as it is.
fn escape(text: &str) -> String {
    escape_but(text, b"")
}

/// The same, without some characters.
fn escape_but(text: &str, plain: &[u8]) -> String {
    let is_plain =
        |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || plain.contains(&byte);
    let escape = |byte| {
        if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }
    };
    text.bytes().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::status::fixture;
    use clap::{Parser as _, ValueEnum as _};
    use shared::settings::Settings;

    #[derive(Debug, clap::Parser)]
    struct Command {
        #[command(flatten)]
        uri: Uri,
    }

    /// What is printed for a command line.
    fn uris(line: &str) -> Result<Vec<String>, Failure> {
        let words = ["uri"].into_iter().chain(line.split_whitespace());
        let uri = Command::try_parse_from(words).unwrap().uri;
        let server = uri.role.server().unwrap();
        uri.client.check(&uri.login, &uri.options)?;
        let timers = Settings::default().timers();
        let parameters = uri.client.parameters(server, &uri.options, &timers);
        let hosts = hosts(&fixture::status(), server, uri.client)?;
        Ok(render(hosts, uri.client, &uri.login, &parameters))
    }

    fn refusal(line: &str) -> String {
        let error = uris(line).unwrap_err().to_api_error();
        assert_eq!((error.code, error.reason.as_str()), (1, "bad_value"), "{line}");
        error.message
    }

    #[test]
    fn the_primary_comes_first_and_ipv6_is_in_brackets() {
        assert_eq!(
            uris("--dbname app").unwrap(),
            ["postgres://10.0.0.2:5432,10.0.0.1:5432,[fd00::3]:5433/app\
             ?target_session_attrs=read-write&connect_timeout=2&tcp_user_timeout=4000\
             &keepalives_idle=1&keepalives_interval=1&keepalives_count=3"]
        );
    }

    #[test]
    fn roles_and_logins() {
        let plain = "--connect-timeout 0 --tcp-timeout 0";
        let any = uris(&format!("--role any --dbname a {plain}")).unwrap();
        assert!(any.iter().all(|uri| uri.ends_with("/a?target_session_attrs=any")), "{any:?}");
        let standby = uris(&format!("--role prefer-standby --user o'neil@x {plain}")).unwrap();
        assert_eq!(
            standby,
            ["postgres://o%27neil%40x@10.0.0.1:5432,10.0.0.2:5432,[fd00::3]:5433/postgres\
             ?target_session_attrs=prefer-standby"]
        );
        assert_eq!(uris("--role read-write").unwrap(), uris("--role primary").unwrap());
        assert_eq!(escape("my db"), "my%20db");
    }

    #[test]
    fn tls_goes_into_the_string() {
        let line = "--tcp-timeout 0 --sslmode verify-full --sslrootcert /etc/ssl/a%b.pem \
                    --sslcert /c.pem --sslkey /k.pem";
        let uri = uris(line).unwrap().concat();
        let end = "&sslmode=verify-full&sslrootcert=%2Fetc%2Fssl%2Fa%25b.pem\
                   &sslcert=%2Fc.pem&sslkey=%2Fk.pem";
        assert!(uri.ends_with(end), "{uri}");
    }

    /// Seconds, and a name of its own for the number of probes.
    #[test]
    fn tokio_postgres_has_other_units() {
        let uri = uris("--client tokio-postgres --role standby --sslmode require").unwrap();
        let uri = uri.concat();
        let end = "?target_session_attrs=read-only&connect_timeout=2&tcp_user_timeout=4\
                   &keepalives_idle=1&keepalives_interval=1&keepalives_retries=3&sslmode=require";
        assert!(uri.ends_with(end), "{uri}");
        let config: tokio_postgres::Config = uri.parse().unwrap();
        assert_eq!(config.get_hosts().len(), 3);
        assert_eq!(config.get_tcp_user_timeout().map(std::time::Duration::as_secs), Some(4));
    }

    #[test]
    fn hosts_in_random_order() {
        for client in ["libpq", "tokio-postgres"] {
            let uri = uris(&format!("--client {client} --load-balance-hosts")).unwrap().concat();
            assert!(uri.contains("&load_balance_hosts=random"), "{uri}");
        }
        let uri = uris("--client tokio-postgres --load-balance-hosts").unwrap().concat();
        assert!(uri.parse::<tokio_postgres::Config>().is_ok(), "{uri}");
    }

    /// node-postgres decodes less of a path than it should.
    #[test]
    fn names_of_databases() {
        let path = |client: &str, name: &str| {
            let client = Client::from_str(client, false).unwrap();
            client.path(name)
        };
        for client in ["libpq", "tokio-postgres", "sqlx"] {
            assert_eq!(path(client, "a&b/c ö"), "a%26b%2Fc%20%C3%B6");
        }
        assert_eq!(path("node-postgres", "a;:@&=+$,b % ö"), "a;:@&=+$,b%20%25%20%C3%B6");
    }

    /// The limit follows from the time after which a silent node is replaced.
    #[test]
    fn a_silent_server_is_given_up_when_another_is_there() {
        let limit = |node_timeout_ms| {
            let timers = Settings { node_timeout_ms, ..Settings::default() }.timers();
            let parameters = Client::Libpq.parameters(Server::Any, &Options::default(), &timers);
            let value =
                |wanted| parameters.iter().find(|(key, _)| *key == wanted).unwrap().1.clone();
            (value("tcp_user_timeout"), value("keepalives_idle"), value("keepalives_interval"))
        };
        let strings = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
        assert_eq!(limit(1000), strings("2000", "1", "1"));
        assert_eq!(limit(3000), strings("4000", "1", "1"));
        assert_eq!(limit(3001), strings("5000", "2", "1"));
        assert_eq!(limit(10_000), strings("11000", "5", "2"));
    }

    #[test]
    fn clients_of_one_host_get_a_line_for_each() {
        assert_eq!(
            uris("--client sqlx --dbname app").unwrap(),
            ["10.0.0.2:5432", "10.0.0.1:5432", "[fd00::3]:5433"]
                .map(|host| format!("postgres://{host}/app"))
        );
        let node = uris("--client node-postgres --role standby --sslmode require").unwrap();
        assert_eq!(node.len(), 3);
        let end = "10.0.0.1:5432/postgres?uselibpqcompat=true&sslmode=require";
        assert!(node.first().unwrap().ends_with(end), "{node:?}");
    }

    #[test]
    fn what_a_client_does_not_take_is_refused() {
        for (line, wanted) in [
            ("--client sqlx --tcp-timeout 5", "in the program"),
            ("--client node-postgres --connect-timeout 5", "in the program"),
            ("--client tokio-postgres --sslmode verify-full", "disable, prefer or require"),
            ("--client tokio-postgres --sslcert /c.pem", "connector"),
            ("--client node-postgres --sslmode prefer", "disable, require"),
            ("--client node-postgres --sslmode verify-ca", "--sslrootcert"),
            ("--client sqlx --sslrootcert system", "system"),
            ("--sslrootcert system --sslmode require", "verify-full"),
            ("--sslmode verify-ca --sslrootcert root.crt", "absolute"),
            ("--sslrootcert /root.crt", "verify-full"),
            ("--sslmode prefer --sslrootcert /root.crt", "no certificate is checked"),
            ("--client sqlx --sslmode require --sslrootcert /root.crt", "checks nothing"),
            ("--client sqlx --sslcert /c.pem", "together"),
            ("--client node-postgres --sslkey /k.pem", "together"),
            ("--sslmode disable --sslcert /c.pem", "--sslmode disable"),
            ("--client sqlx --load-balance-hosts", "one host"),
            ("--client node-postgres --dbname a/b", "'/'"),
            ("--client node-postgres --dbname a?b", "'?'"),
            ("--client sqlx --dbname ..", "'..'"),
            ("--client node-postgres --dbname .", "'.'"),
        ] {
            let message = refusal(line);
            assert!(message.contains(wanted), "{line}: {message}");
        }
        assert!(Command::try_parse_from(["uri", "--sslmode", "on"]).is_err());
        assert!(Command::try_parse_from(["uri", "--tcp-timeout", "9999"]).is_err());
        assert!(Command::try_parse_from(["uri", "--dbname", ""]).is_err());
        assert!(Command::try_parse_from(["uri", "--user", ""]).is_err());
    }
}
