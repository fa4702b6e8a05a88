//! `drop`: a node leaves its formation by itself, also with the monitor down. Where its keeper runs, that one
//! is dropped in order, through the monitor; else the node leaves here, and the monitor is told if it can
//! be reached.

use crate::cli::{Local, failure, say};
use crate::destroy;
use crate::state::{State, StateError, Store, is_locked, load};
use crate::status::block_on;
use ctl::client::{Client, ClientError, Options, idempotency_key, parse_monitor_urls};
use postgres::datadir::DataDir;
use postgres::owner::Owner;
use serde_json::json;
use shared::api::{Action, ApiError, Identity, OperationResult, Outcome, Status};
use shared::goal::Goal;
use shared::ids::NodeName;
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long a drop in order may take: a hand-over, and the stop of Postgres.
const PATIENCE: Duration = Duration::from_mins(2);
/// The longest single wait that the monitor is asked for.
const LONG_POLL_MS: u64 = 10_000;
/// How often it is looked whether the keeper has ended; nothing tells of the end of another's lock.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Leaves the formation, and never starts again under this identity.
pub(crate) fn leave(local: &Local, destroy: bool, as_json: bool) -> Result<ExitCode, ApiError> {
    let owner = Owner::for_data_dir(&local.pgdata)
        .map_err(|error| failure(2, "pgdata", error.to_string()))?;
    let state = load(&local.state_dir).map_err(|error| broken(&error))?;
    let Some(identity) = state.identity.clone() else {
        return Err(failure(3, "not_a_node", "this node has never joined a formation"));
    };
    match Store::open(&local.state_dir, owner) {
        Ok(store) => block_on(leave_here(local, &store, &identity, destroy))??,
        Err(StateError::Locked(_)) => {
            block_on(through_the_monitor(local, &state, &identity, destroy))??;
        }
        Err(error) => return Err(broken(&error)),
    }
    let and = if destroy { ", and its data is destroyed" } else { "" };
    let said = json!({ "dropped": identity.node_id, "destroyed": destroy });
    say(&if as_json { said.to_string() } else { format!("the node has left its formation{and}") });
    Ok(ExitCode::SUCCESS)
}

fn broken(error: &StateError) -> ApiError {
    failure(2, "state_directory", error.to_string())
}

/// The monitor, as far as it can be reached.
struct Monitor {
    client: Client,
    status: Status,
}

impl Monitor {
    async fn reach(local: &Local, state: &State, identity: &Identity) -> Result<Self, ApiError> {
        let urls = local.monitor.clone().unwrap_or_else(|| state.monitors.join(","));
        let urls = parse_monitor_urls(&urls)
            .map_err(|error| failure(1, "bad_value", error.to_string()))?;
        let api = |error: ClientError| error.to_api_error();
        let client = Client::new(urls, Options::default()).map_err(api)?;
        let status = client.status(&identity.formation, None, 0).await.map_err(api)?;
        Ok(Self { client, status })
    }

    /// What this node is called there; `None` where it has been dropped.
    fn name(&self, identity: &Identity) -> Option<NodeName> {
        let node = self.status.nodes.iter().find(|node| node.id == identity.node_id);
        node.map(|node| node.name.clone())
    }

    /// Drops this node, which does nothing any more.
    async fn forget(&self, identity: &Identity) -> Result<(), ApiError> {
        let Some(node) = self.name(identity) else { return Ok(()) };
        self.ask(identity, &Action::Drop { node, force: true, destroy: false }).await.map(drop)
    }

    async fn ask(&self, identity: &Identity, action: &Action) -> Result<OperationResult, ApiError> {
        let asked = self.client.action(&identity.formation, action, &idempotency_key()).await;
        asked.map_err(|error| error.to_api_error())
    }
}

/// The keeper is not running: nobody else is to be asked.
async fn leave_here(
    local: &Local,
    store: &Store,
    identity: &Identity,
    destroy: bool,
) -> Result<(), ApiError> {
    let mut state = store.load().map_err(|error| broken(&error))?;
    let data_dir = DataDir::new(&local.pgdata);
    if !postgres::process::postgres_in(&data_dir.canonical()).is_empty() {
        let message = format!(
            "postgres is still running on {}; stop it first, with its keeper (pgtandem-keeper run, then SIGTERM)",
            local.pgdata.display()
        );
        return Err(failure(3, "postgres_is_running", message));
    }
    let monitor = Monitor::reach(local, &state, identity).await;
    if destroy && !state.dropped {
        may_destroy(&state, identity, monitor.as_ref().ok())?;
    }
    let told = match &monitor {
        Ok(monitor) => monitor.forget(identity).await,
        Err(error) => Err(error.clone()),
    };
    if let Err(error) = told {
        tracing::warn!(
            "the monitor was not told ({error}); `pgtandem drop node NAME --force` there, once it is back"
        );
    }
    state.dropped = true;
    store.save(&state).map_err(|error| broken(&error))?;
    if destroy {
        destroy::everything(&data_dir, &local.state_dir, &state)
            .map_err(|error| failure(3, "not_destroyed", error.to_string()))?;
    }
    Ok(())
}

/// What is destroyed must not be the only copy that the group has.
fn may_destroy(
    state: &State,
    identity: &Identity,
    monitor: Option<&Monitor>,
) -> Result<(), ApiError> {
    let refused = |reason: &str, message: &str| Err(failure(3, reason, message));
    let Some(status) = monitor.map(|monitor| &monitor.status) else {
        let alone = |persisted: &fsm::node::view::Persisted| {
            persisted.assignment.members.iter().all(|member| member.id == identity.node_id)
        };
        let follows = state.persisted.as_ref().is_none_or(|persisted| {
            alone(persisted) || persisted.assignment.goal.upstream().is_some() || is_out(persisted)
        });
        return if follows {
            Ok(())
        } else {
            let message = "nothing is destroyed: the monitor cannot be reached, and as far as is known here this node was not following another one, which would have its data";
            refused("may_be_needed", message)
        };
    };
    let Some(own) = status.nodes.iter().find(|node| node.id == identity.node_id) else {
        return Ok(());
    };
    if status.nodes.len() == 1 {
        return Ok(());
    }
    if status.primary.as_ref() == Some(&own.name) {
        let message = format!(
            "nothing is destroyed: {} is the primary of its group; start its keeper and `pgtandem switchover` first",
            own.name
        );
        return refused("is_primary", &message);
    }
    if status.phase != "serving" || !status.writable {
        let message =
            "nothing is destroyed: the group takes no writes, and may need the data of this node";
        return refused("may_be_needed", message);
    }
    Ok(())
}

/// A node that nobody counts on.
fn is_out(persisted: &fsm::node::view::Persisted) -> bool {
    match persisted.assignment.goal {
        Goal::Maintenance | Goal::Dropped => true,
        Goal::Wait
        | Goal::Primary { .. }
        | Goal::Follow { .. }
        | Goal::Seal { .. }
        | Goal::FastForward { .. } => false,
    }
}

/// Its keeper is running: it is dropped as `pgtandem drop node` does it, and ends.
async fn through_the_monitor(
    local: &Local,
    state: &State,
    identity: &Identity,
    destroy: bool,
) -> Result<(), ApiError> {
    let monitor = Monitor::reach(local, state, identity).await.map_err(|error| {
        let message = format!(
            "the keeper is running, and the monitor cannot be asked to drop it in order ({error}); stop the keeper, then say drop again"
        );
        ApiError { message, ..error }
    })?;
    let deadline = Instant::now() + PATIENCE;
    if let Some(node) = monitor.name(identity) {
        let mut result =
            monitor.ask(identity, &Action::Drop { node, force: false, destroy }).await?;
        while result.outcome == Outcome::Accepted && Instant::now() < deadline {
            let poll = monitor.client.operation(&identity.formation, result.id, LONG_POLL_MS);
            result = poll.await.map_err(|error| error.to_api_error())?;
        }
        if result.outcome == Outcome::Failed {
            return Err(failure(3, "not_dropped", result.reason));
        }
    }
    while is_locked(&local.state_dir) {
        if Instant::now() >= deadline {
            let message = "the keeper has not ended yet; the request stays recorded and goes on";
            return Err(failure(5, "timeout", message));
        }
        sleep(LOOK_AGAIN).await;
    }
    Ok(())
}
