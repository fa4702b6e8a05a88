//! `pgtandem config`: the settings of PostgreSQL. The monitor knows what is valid and keeps it; here
//! the request is made, and the nodes are waited for.
//!
//! A change holds as soon as the monitor has it, so it is no operation; what is waited for is that every
//! node that can be reached has read it, and the caller's patience ends that.

mod edit;
mod show;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::operation::{self, PAUSE, Wait, deadline_after, is_passing};
use crate::output;
use ctl::client::Client;
use shared::api::{Action, OperationResult, Outcome};
use shared::ids::{NodeName, Revision};
use shared::pgsettings::{NodeConfig, PostgresConfig};
use std::collections::BTreeMap;
use std::str::FromStr;
use tokio::time::{Instant, sleep};

/// Shows and changes the settings of Postgres on all nodes
#[derive(Debug, clap::Args)]
pub struct Config {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Shows what is set, what is in force on each node, and what waits for a restart
    Show {
        /// Only this node
        node: Option<NodeName>,
    },
    /// Sets settings for all nodes, or for one
    Set {
        /// Names and values
        #[arg(required = true, value_name = "NAME=VALUE")]
        settings: Vec<Assigned>,
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        wait: Wait,
    },
    /// Takes settings back: what postgresql.conf says counts again
    Unset {
        /// Their names
        #[arg(required = true, value_name = "NAME")]
        settings: Vec<String>,
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        wait: Wait,
    },
    /// Opens the settings in $VISUAL or $EDITOR, and applies what was changed
    Edit {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        wait: Wait,
    },
}

/// For whom.
#[derive(Debug, clap::Args)]
struct Place {
    /// For this node instead of all
    #[arg(long, value_name = "NODE")]
    node: Option<NodeName>,
}

/// `NAME=VALUE`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Assigned {
    name: String,
    value: String,
}

impl FromStr for Assigned {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, value)) if !name.trim().is_empty() => {
                // The end of a log_line_prefix may well be a blank.
                Ok(Self { name: name.trim().to_owned(), value: value.to_owned() })
            }
            Some(_) | None => Err("write it as NAME=VALUE".to_owned()),
        }
    }
}

/// New values by name; `None` takes one back.
type Changes = BTreeMap<String, Option<String>>;

impl Config {
    pub async fn run(self, context: &Context) -> Result<Exit, Failure> {
        match self.what {
            What::Show { node } => show::show(context, node.as_ref()).await,
            What::Set { settings, place, wait } => {
                let changes = once(settings.into_iter().map(|it| (it.name, Some(it.value))))?;
                apply(context, Request::new(place.node, changes), &wait).await
            }
            What::Unset { settings, place, wait } => {
                let changes = once(settings.into_iter().map(|name| (name, None)))?;
                apply(context, Request::new(place.node, changes), &wait).await
            }
            What::Edit { place, wait } => edit::edit(context, place.node, &wait).await,
        }
    }
}

/// The changes, where each setting is named once: PostgreSQL does not tell upper from lower case.
fn once(given: impl Iterator<Item = (String, Option<String>)>) -> Result<Changes, Failure> {
    let mut changes = Changes::new();
    for (name, value) in given {
        if changes.keys().any(|known| known.eq_ignore_ascii_case(&name)) {
            let message = format!("{name}: is given a second time; which one shall it be?");
            return Err(Failure::new(Exit::BadArguments, "bad_arguments", message));
        }
        changes.insert(name, value);
    }
    Ok(changes)
}

/// What to ask for.
#[derive(Debug)]
struct Request {
    node: Option<NodeName>,
    changes: Changes,
    if_revision: Option<Revision>,
}

impl Request {
    fn new(node: Option<NodeName>, changes: Changes) -> Self {
        Self { node, changes, if_revision: None }
    }

    fn action(self) -> Action {
        let Self { node, changes, if_revision } = self;
        Action::Configure { node, changes, if_revision, by: whoami() }
    }
}

/// Who asks, as far as the environment says.
fn whoami() -> Option<String> {
    let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    ["PGTANDEM_USER", "SUDO_USER", "USER", "LOGNAME"].into_iter().find_map(set)
}

/// Asks for the changes, waits for the nodes, and prints the result.
async fn apply(context: &Context, request: Request, wait: &Wait) -> Result<Exit, Failure> {
    let client = context.client()?;
    let deadline = deadline_after(wait.timeout);
    let action = request.action();
    let mut result = operation::submit(&client, &context.formation, &action, deadline).await?;
    if !wait.no_wait {
        result = until_applied(context, &client, result, deadline).await?;
    }
    operation::show(context, &result)?;
    Ok(Exit::of_outcome(result.outcome))
}

/// Waits until all nodes that can be reached have read the newest settings, or have refused them. There
/// is no event for that: nothing durable changes.
async fn until_applied(
    context: &Context,
    client: &Client,
    done: OperationResult,
    deadline: Instant,
) -> Result<OperationResult, Failure> {
    loop {
        match client.postgres_settings(&context.formation).await {
            Ok(config) if missing(&config).is_empty() => {
                notes(context, &config);
                return Ok(with_refusals(done, &config));
            }
            Ok(config) if Instant::now() >= deadline => {
                let names: Vec<_> = missing(&config).iter().map(ToString::to_string).collect();
                let why = format!("not read yet by {}", names.join(", "));
                return Ok(timed_out(done, &why));
            }
            Err(error) if is_passing(&error) && Instant::now() >= deadline => {
                return Ok(timed_out(done, &error.to_string()));
            }
            Ok(_) => {}
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(error.into()),
        }
        sleep(PAUSE).await;
    }
}

/// The change holds, whether or not anybody has seen the nodes read it.
fn timed_out(done: OperationResult, why: &str) -> OperationResult {
    let reason =
        format!("{}; it is recorded, and {why}: `pgtandem config show` tells", done.reason);
    OperationResult { outcome: Outcome::Timeout, reason, ..done }
}

/// The nodes that can be reached and have not read the newest settings.
fn missing(config: &PostgresConfig) -> Vec<&NodeName> {
    let waits = |node: &&NodeConfig| node.reachable && !node.applied && node.refused.is_none();
    config.nodes.iter().filter(waits).map(|node| &node.name).collect()
}

/// The monitor took it, a server did not.
fn with_refusals(done: OperationResult, config: &PostgresConfig) -> OperationResult {
    let refused: Vec<_> = config
        .nodes
        .iter()
        .filter_map(|node| {
            Some(format!("{} keeps what it had: {}", node.name, node.refused.as_ref()?))
        })
        .collect();
    if refused.is_empty() {
        return done;
    }
    OperationResult { outcome: Outcome::Failed, reason: refused.join("; "), ..done }
}

/// What the operator still has to do.
fn notes(context: &Context, config: &PostgresConfig) {
    if context.json {
        return;
    }
    for node in &config.nodes {
        if !node.pending_restart.is_empty() {
            let names: Vec<_> = node.pending_restart.iter().map(String::as_str).collect();
            output::note(&format!("{}: waits for a restart: {}", node.name, names.join(", ")));
        }
        for wait in &node.waits {
            output::note(&format!("{}: {wait}", node.name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_are_told_apart_at_the_first_sign() {
        let read = |text: &str| text.parse::<Assigned>().map(|it| (it.name, it.value));
        let pair = |name: &str, value: &str| Ok((name.to_owned(), value.to_owned()));
        assert_eq!(read("work_mem=8MB"), pair("work_mem", "8MB"));
        assert_eq!(read(" log_line_prefix =%m "), pair("log_line_prefix", "%m "));
        assert_eq!(read("x.options=a=b"), pair("x.options", "a=b"));
        assert_eq!(read("log_line_prefix="), pair("log_line_prefix", ""));
        assert!(read("work_mem").is_err() && read("=1").is_err());
    }

    #[test]
    fn each_setting_is_named_once() {
        let names = |names: &[&str]| once(names.iter().map(|name| ((*name).to_owned(), None)));
        assert_eq!(names(&["a", "b"]).unwrap().len(), 2);
        assert!(names(&["a", "b", "A"]).unwrap_err().to_string().starts_with("A: "));
    }
}
