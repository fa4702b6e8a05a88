//! `pgtandem uri`.

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;
use serde_json::json;
use shared::api::{NodeStatus, Status};
use shared::state::NodeState;

/// Prints the connection string with which clients find their server
#[derive(Debug, clap::Args)]
pub struct Uri {
    /// Which server
    #[arg(long, value_enum, default_value_t = Role::Primary)]
    role: Role,
    #[command(flatten)]
    login: Login,
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Role {
    /// The one that takes writes
    Primary,
    /// The first that answers
    Any,
    /// A standby, or the primary where there is none
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

    /// libpq's name for it; the monitor is no Postgres.
    fn target_session_attrs(self) -> Option<&'static str> {
        match self {
            Self::Primary => Some("read-write"),
            Self::Any => Some("any"),
            Self::Standby => Some("prefer-standby"),
            Self::Monitor => None,
        }
    }
}

impl Uri {
    pub async fn run(self, context: &Context) -> Result<Exit, Failure> {
        let client = context.client()?;
        let uri = match self.role.target_session_attrs() {
            None => {
                let urls: Vec<_> = client.monitors().iter().map(ToString::to_string).collect();
                urls.join(",")
            }
            Some(attributes) => {
                let status = client.status(&context.formation, None, 0).await?;
                render(&status, attributes, &self.login)?
            }
        };
        if context.json {
            output::json(&json!({ "role": self.role.name(), "uri": uri }))?;
        } else {
            output::text(&uri)?;
        }
        Ok(Exit::Done)
    }
}

fn render(status: &Status, attributes: &str, login: &Login) -> Result<String, Failure> {
    let mut nodes: Vec<&NodeStatus> =
        status.nodes.iter().filter(|node| node.goal_state != NodeState::Dropped).collect();
    if nodes.is_empty() {
        let message = format!("formation {} has no nodes to connect to", status.formation);
        return Err(Failure::new(Exit::Refused, "no_nodes", message));
    }
    nodes.sort_by_key(|node| (status.primary.as_ref() != Some(&node.name), node.id));
    let hosts: Vec<_> = nodes.iter().map(|node| host(&node.host, node.port)).collect();
    let user = login.user.as_ref().map(|user| format!("{}@", escape(user))).unwrap_or_default();
    Ok(format!(
        "postgres://{user}{}/{}?target_session_attrs={attributes}",
        hosts.join(","),
        escape(&login.dbname)
    ))
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

    fn login(dbname: &str, user: Option<&str>) -> Login {
        Login { dbname: dbname.to_owned(), user: user.map(str::to_owned) }
    }

    fn uri(role: Role, login: &Login) -> String {
        render(&fixture::status(), role.target_session_attrs().unwrap(), login).unwrap()
    }

    #[test]
    fn the_primary_comes_first_and_ipv6_is_in_brackets() {
        assert_eq!(
            uri(Role::Primary, &login("app", None)),
            "postgres://10.0.0.2:5432,10.0.0.1:5432,[fd00::3]:5433/app\
             ?target_session_attrs=read-write"
        );
    }

    #[test]
    fn roles_and_logins() {
        assert!(uri(Role::Any, &login("a", None)).ends_with("/a?target_session_attrs=any"));
        let standby = uri(Role::Standby, &login("my db", Some("o'neil@x")));
        assert!(standby.starts_with("postgres://o%27neil%40x@10.0.0.2:5432,"), "{standby}");
        assert!(standby.ends_with("/my%20db?target_session_attrs=prefer-standby"), "{standby}");
    }

    #[test]
    fn no_nodes_no_uri() {
        let mut status = fixture::status();
        status.nodes.clear();
        let error = render(&status, "any", &login("a", None)).unwrap_err();
        assert_eq!(error.to_api_error().code, 3);
    }
}
