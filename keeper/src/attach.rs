//! `attach` and `detach`: another monitor for this node, or none, whether its keeper runs or not.

use crate::attachment::Attachment;
use crate::cli::{Local, failure, say};
use crate::state;
use crate::status::{at, block_on, live};
use ctl::client::{Client, Options, parse_monitor_urls};
use postgres::owner::Owner;
use serde_json::{Value, json};
use shared::api::{ApiError, Identity};
use std::process::ExitCode;
use std::time::Duration;

/// A running keeper notices it at once; it may be busy for a while.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is asked.
const ASK: Duration = Duration::from_millis(100);

/// Calls the monitor at these URLs from now on.
pub(crate) fn attach(
    local: &Local,
    monitor: &str,
    token: Option<String>,
    as_json: bool,
) -> Result<ExitCode, ApiError> {
    let urls =
        parse_monitor_urls(monitor).map_err(|error| failure(1, "bad_value", error.to_string()))?;
    let monitors: Vec<_> = urls.iter().map(ToString::to_string).collect();
    let shown = monitors.join(", ");
    write(local, &Attachment { monitors: monitors.clone(), token, detached: None })?;
    let said = format!("this node calls the monitor at {shown} from now on");
    say(&if as_json { json!({ "monitors": monitors }).to_string() } else { said });
    Ok(ExitCode::SUCCESS)
}

/// Calls no monitor any more. One that is alive would miss this node, and may replace it.
pub(crate) fn detach(local: &Local, force: bool, as_json: bool) -> Result<ExitCode, ApiError> {
    let state = state::load(&local.state_dir)
        .map_err(|error| failure(2, "state_directory", error.to_string()))?;
    let Some(identity) = state.identity.clone() else {
        return Err(failure(3, "not_a_node", "this node has never joined a formation"));
    };
    let before = read(local)?;
    if !force && let Some(url) = block_on(answering(local, &state, &before, &identity))? {
        let message = format!(
            "the monitor at {url} is alive and knows this node: it would take it for dead, and may promote another; --force detaches all the same"
        );
        return Err(failure(3, "monitor_is_alive", message));
    }
    let since = before.detached.unwrap_or_else(chrono::Utc::now);
    write(local, &Attachment { detached: Some(since), ..before })?;
    let said =
        "this node calls no monitor any more; `pgtandem-keeper attach` gives it one".to_owned();
    say(&if as_json { json!({ "detached": since }).to_string() } else { said });
    Ok(ExitCode::SUCCESS)
}

fn read(local: &Local) -> Result<Attachment, ApiError> {
    Attachment::load(&local.state_dir)
        .map_err(|error| failure(2, "state_directory", error.to_string()))
}

/// Durable first; then a keeper that runs has to have taken it up.
fn write(local: &Local, wanted: &Attachment) -> Result<(), ApiError> {
    let owner = Owner::for_data_dir(&local.pgdata)
        .map_err(|error| failure(2, "pgdata", error.to_string()))?;
    let unusable = |error: &dyn std::fmt::Display| failure(2, "state_directory", error.to_string());
    postgres::durable::create_dir(&local.state_dir, 0o700, &owner).map_err(|e| unusable(&e))?;
    wanted.save(&local.state_dir, &owner).map_err(|error| unusable(&error))?;
    if block_on(taken_up(local, wanted))? {
        return Ok(());
    }
    let message = "it is stored, and the running keeper has not taken it up yet; it will, or at its next start";
    Err(failure(5, "timeout", message))
}

/// Whether no keeper of this directory runs, or it has taken up what was written.
async fn taken_up(local: &Local, wanted: &Attachment) -> bool {
    let own = state::load(&local.state_dir).ok().and_then(|state| state.identity);
    let own = json!(own.map(|identity| identity.node_id));
    let shown = json!({ "monitors": wanted.monitors, "detached": wanted.detached });
    let address = local.rest_listen.replace("0.0.0.0", "127.0.0.1");
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let Some(node) = live(&address).await.filter(|node| at(node, "/node_id") == own) else {
            return true;
        };
        // A keeper of a former version says nothing of it.
        let said = at(&node, "/attachment");
        if said == shown || said == Value::Null {
            return true;
        }
        if tokio::time::Instant::now() > deadline {
            return false;
        }
        tokio::time::sleep(ASK).await;
    }
}

/// Where a monitor answers that knows this node and gives orders.
async fn answering(
    local: &Local,
    state: &state::State,
    before: &Attachment,
    identity: &Identity,
) -> Option<String> {
    let attached = Some(before.monitors.join(",")).filter(|urls| !urls.is_empty());
    let told = attached.or_else(|| local.monitor.clone());
    let urls = told.unwrap_or_else(|| state.monitors.join(","));
    let client = Client::new(parse_monitor_urls(&urls).ok()?, Options::default()).ok()?;
    let status = client.status(&identity.formation, None, 0).await.ok()?;
    let known = status.nodes.iter().any(|node| node.id == identity.node_id);
    known.then_some(urls)
}
