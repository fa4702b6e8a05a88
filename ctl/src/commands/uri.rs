//! `pgtandem uri`: the nodes of a formation, as a connection string.
//!
//! What a client takes in its string, and what it refuses, is in [`client`]; what it has to do besides
//! is in docs/clients.md. No password is ever printed: clients have their own ways to it.

mod client;
mod tls;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;
use client::{Client, Limits};
use serde_json::json;
use shared::api::{NodeStatus, Status};
use shared::state::NodeState;
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
    #[arg(long, default_value = "postgres")]
    dbname: String,
    /// The user [default: none, the client's own]
    #[arg(long)]
    user: Option<String>,
}

/// How it gets there.
#[derive(Debug, Default, clap::Args)]
struct Options {
    #[command(flatten)]
    limits: Limits,
    #[command(flatten)]
    tls: Tls,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Role {
    /// The one that takes writes
    #[value(alias = "read-write")]
    Primary,
    /// The first that answers
    Any,
    /// A standby, or the primary where there is none
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
                let parameters = self.client.parameters(server, &self.options)?;
                let status = monitors.status(&context.formation, None, 0).await?;
                render(&nodes(&status, server)?, self.client, &self.login, &parameters)
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

/// The nodes, the one to be tried first in front.
fn nodes(status: &Status, server: Server) -> Result<Vec<&NodeStatus>, Failure> {
    let mut nodes: Vec<&NodeStatus> =
        status.nodes.iter().filter(|node| node.goal_state != NodeState::Dropped).collect();
    if nodes.is_empty() {
        let message = format!("formation {} has no nodes to connect to", status.formation);
        return Err(Failure::new(Exit::Refused, "no_nodes", message));
    }
    let is_primary = |node: &NodeStatus| status.primary.as_ref() == Some(&node.name);
    nodes.sort_by_key(|node| match server {
        Server::Primary | Server::Any => (!is_primary(node), node.id),
        Server::Standby => (is_primary(node), node.id),
    });
    Ok(nodes)
}

/// One URI with all hosts, or one for each.
fn render(
    nodes: &[&NodeStatus],
    client: Client,
    login: &Login,
    parameters: &[(&str, String)],
) -> Vec<String> {
    let user = login.user.as_ref().map(|user| format!("{}@", escape(user))).unwrap_or_default();
    let database = escape(&login.dbname);
    let parameters: Vec<_> =
        parameters.iter().map(|(key, value)| format!("{key}={}", escape(value))).collect();
    let question = if parameters.is_empty() { "" } else { "?" };
    let tail = format!("/{database}{question}{}", parameters.join("&"));
    let mut hosts: Vec<_> = nodes.iter().map(|node| host(&node.host, node.port)).collect();
    if client.takes_several_hosts() {
        hosts = vec![hosts.join(",")];
    }
    hosts.iter().map(|host| format!("postgres://{user}{host}{tail}")).collect()
}

fn host(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{}]:{port}", host.replace('%', "%25"))
    } else {
        format!("{}:{port}", escape(host))
    }
}

/// Percent-encodes all that a URI does not take as it is.
fn escape(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let escape = |byte| {
        if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }
    };
    text.bytes().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::status::fixture;
    use clap::Parser as _;

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
        let parameters = uri.client.parameters(server, &uri.options)?;
        Ok(render(&nodes(&fixture::status(), server)?, uri.client, &uri.login, &parameters))
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
             ?target_session_attrs=read-write&connect_timeout=2&tcp_user_timeout=5000\
             &keepalives_idle=2&keepalives_interval=1&keepalives_count=3"]
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
            ["postgres://o%27neil%40x@10.0.0.1:5432,[fd00::3]:5433,10.0.0.2:5432/postgres\
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
        let end = "?target_session_attrs=read-only&connect_timeout=2&tcp_user_timeout=5\
                   &keepalives_idle=2&keepalives_interval=1&keepalives_retries=3&sslmode=require";
        assert!(uri.ends_with(end), "{uri}");
        let config: tokio_postgres::Config = uri.parse().unwrap();
        assert_eq!(config.get_hosts().len(), 3);
        assert_eq!(config.get_tcp_user_timeout().map(std::time::Duration::as_secs), Some(5));
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
            ("--sslrootcert root.crt", "absolute"),
            ("--sslmode disable --sslcert /c.pem", "--sslmode disable"),
        ] {
            let message = refusal(line);
            assert!(message.contains(wanted), "{line}: {message}");
        }
        assert!(Command::try_parse_from(["uri", "--sslmode", "on"]).is_err());
        assert!(Command::try_parse_from(["uri", "--tcp-timeout", "9999"]).is_err());
    }

    #[test]
    fn no_nodes_no_uri() {
        let mut status = fixture::status();
        status.nodes.clear();
        let error = nodes(&status, Server::Any).unwrap_err().to_api_error();
        assert_eq!((error.code, error.reason.as_str()), (3, "no_nodes"));
    }
}
