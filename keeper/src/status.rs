//! `status` and `rules`: what can be said of the node without its keeper and its monitor.

use crate::attachment::Attachment;
use crate::cli::{Local, failure, say};
use crate::state::{self, State};
use postgres::datadir::DataDir;
use postgres::pidfile::PidFile;
use serde_json::{Value, json};
use shared::api::ApiError;
use std::process::ExitCode;
use std::time::Duration;

/// A keeper on the same host answers at once or not at all.
const LIMIT: Duration = Duration::from_secs(2);

pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> Result<T, ApiError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| failure(8, "internal", error.to_string()))?;
    Ok(runtime.block_on(work))
}

/// A part of a document, by its JSON pointer; null where there is none.
pub(crate) fn at(document: &Value, pointer: &str) -> Value {
    document.pointer(pointer).cloned().unwrap_or_default()
}

/// The JSON of a running keeper's `/node`.
pub(crate) async fn live(address: &str) -> Option<Value> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let ask = async {
        let mut stream = tokio::net::TcpStream::connect(address).await.ok()?;
        stream.write_all(b"GET /node HTTP/1.0\r\nHost: keeper\r\n\r\n").await.ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await.ok()?;
        let (_, body) = text.split_once("\r\n\r\n")?;
        serde_json::from_str(body).ok()
    };
    tokio::time::timeout(LIMIT, ask).await.ok().flatten()
}

pub(crate) fn show(local: &Local, as_json: bool) -> Result<ExitCode, ApiError> {
    let state = state::load(&local.state_dir)
        .map_err(|error| failure(2, "state_directory", error.to_string()))?;
    let attachment = Attachment::load(&local.state_dir)
        .map_err(|error| failure(2, "state_directory", error.to_string()))?;
    let address = local.rest_listen.replace("0.0.0.0", "127.0.0.1");
    let live = block_on(live(&address))?;
    let own = state.identity.as_ref().map(|identity| identity.node_id);
    let live = live.filter(|live| at(live, "/node_id") == json!(own));
    let pid = std::fs::read_to_string(local.state_dir.join("keeper.lock"))
        .ok()
        .and_then(|text| text.trim().parse::<u32>().ok())
        .filter(|_| live.is_some());
    let postmaster = PidFile::read(&DataDir::new(&local.pgdata)).ok().flatten();
    let running = postmaster.as_ref().is_some_and(|file| {
        postgres::process::is_postgres_of(file.pid, &DataDir::new(&local.pgdata).canonical())
    });
    let report = live.as_ref().map(|live| at(live, "/report")).unwrap_or_default();
    let goal = state.persisted.as_ref().map(|persisted| persisted.assignment.goal_state);
    let document = json!({
        "keeper": { "pids": pid.into_iter().collect::<Vec<_>>(), "main_pid": pid },
        "node_id": own,
        "reported_state": at(&report, "/state"),
        "goal_state": goal,
        "monitor": {
            "urls": state.monitors,
            "last_contact_ms": live.as_ref().map(|live| at(live, "/monitor/last_contact_ms")),
            "last_contact_at": live.as_ref().and_then(last_contact),
            "reachable": live.as_ref().map(|live| at(live, "/monitor/reachable")),
            "attached": (!attachment.monitors.is_empty()).then_some(&attachment.monitors),
            "detached": attachment.detached,
            "lease_suspended": state.suspended,
        },
        "postgres": {
            "pid": postmaster.as_ref().filter(|_| running).map(|file| file.pid),
            "data_dir": local.pgdata,
            "port": postmaster.as_ref().and_then(|file| file.port),
            "running": running,
            "in_recovery": in_recovery(&report, running, &DataDir::new(&local.pgdata)),
            "timeline": at(&report, "/postgres/timeline"),
        },
        "step": at(&report, "/step"),
    });
    if as_json {
        say(&document.to_string());
    } else {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        say(&format!(
            "{}: {} (goal {}), keeper {}, postgres {}",
            who(&state),
            text(&at(&document, "/reported_state")),
            text(&at(&document, "/goal_state")),
            if pid.is_some() { "running" } else { "not running" },
            if running { "running" } else { "not running" },
        ));
        if let Some(since) = attachment.detached {
            say(&format!("detached since {since}: no monitor is called"));
        }
        if state.suspended {
            say(
                "the lease is suspended: under an asynchronous spec this primary serves without one",
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The node, as others call it. Its id alone might be taken for a name.
fn who(state: &State) -> String {
    let Some(id) = state.identity.as_ref().map(|identity| identity.node_id) else {
        return "a node that has not joined".to_owned();
    };
    let told = state.persisted.as_ref().and_then(|persisted| persisted.assignment.member(id));
    let announced = state.announced.as_ref().map(|announced| &announced.name);
    match told.map(|member| &member.name).or(announced) {
        Some(name) => format!("{name} (id {id})"),
        None => format!("the node with id {id}"),
    }
}

/// As the keeper sees it; without one, as the files say.
fn in_recovery(report: &Value, running: bool, data_dir: &DataDir) -> Value {
    let seen = at(report, "/postgres/in_recovery");
    if seen.is_null() && running { json!(data_dir.is_standby()) } else { seen }
}

fn last_contact(live: &Value) -> Option<String> {
    let ago = at(live, "/monitor/last_contact_ms").as_i64()?;
    let at = chrono::Utc::now() - chrono::Duration::milliseconds(ago);
    Some(at.to_rfc3339())
}

/// The plan in words: what is done for each goal, from each class of observation.
const RULES: &[(&str, &str, &str)] = &[
    ("any", "wait", "nothing"),
    ("postgres runs", "dropped", "stop (fast)"),
    ("an operator asked for a new copy", "follow", "clone"),
    ("an operator asked for a restart, postgres answers", "primary, follow", "restart"),
    ("postgres is writable", "maintenance", "stop (immediate)"),
    (
        "postgres is writable, it drains, a pre_demote hook has not answered yet",
        "seal",
        "wait for it, in its limit",
    ),
    ("postgres is writable", "seal", "stop: fast where it drains, else immediate"),
    ("standby with an upstream", "seal", "configure without upstream, wait for the three signs"),
    ("standby whose signs do not come", "seal", "stop (immediate), start as a standby"),
    (
        "postgres is stopped",
        "seal",
        "start as a standby without upstream; a drained primary stays down",
    ),
    ("sealed, behind the target", "fast_forward", "configure with the source as upstream"),
    ("target reached", "fast_forward", "configure without upstream, wait for the three signs"),
    ("empty or half-made data directory", "follow", "clone"),
    ("postgres is writable", "follow", "stop (immediate)"),
    (
        "restored from a backup, and the archive may have more",
        "follow",
        "configure with the archive and without upstream, start as a standby",
    ),
    (
        "the upstream lacks WAL, and the archive may have it",
        "follow",
        "catch up from the archive: no upstream, no admission",
    ),
    (
        "the archive has no more",
        "follow",
        "configure without it, wait for the three signs; clone where it never became consistent",
    ),
    ("the upstream lacks WAL, and so does the archive", "follow", "clone"),
    ("end of the log unknown", "follow", "seal"),
    ("log is a prefix of the upstream's history", "follow", "admission, configure, stream"),
    (
        "log on a timeline that was accepted as another node's, or that strayed and came back to a number of ours",
        "follow",
        "clone",
    ),
    ("log has diverged", "follow", "stop (fast), rewind; clone where that fails"),
    (
        "a copy or a rewind is needed, the upstream is a standby",
        "follow",
        "wait for the primary as its upstream",
    ),
    ("empty or half-made data directory", "primary of the first epoch", "initdb"),
    ("cluster that is not ours", "primary of the first epoch", "adopt"),
    ("sealed standby that somebody has promoted by hand", "primary", "wait for another primary"),
    (
        "sealed standby, a pre_promote hook has not answered yet, or refuses",
        "primary",
        "wait for it, in its limit; ask again after a while",
    ),
    ("sealed standby", "primary", "promote onto the reserved timeline, confirm promotion"),
    ("promoted, stopped, lease held", "primary", "start as the primary"),
    (
        "promoted, running",
        "primary",
        "block commits, set sync spec, wait for the barrier, checkpoint",
    ),
    ("lease over", "primary", "stop at once (the guard), then wait for the monitor"),
];

pub(crate) fn rules(as_json: bool) -> String {
    if as_json {
        let rows: Vec<_> = RULES
            .iter()
            .map(|(observation, goal, step)| json!({ "observation": observation, "goal": goal, "step": step }))
            .collect();
        return Value::from(rows).to_string();
    }
    RULES
        .iter()
        .map(|(seen, goal, step)| format!("{goal}: {seen}: {step}"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Announced;
    use shared::api::Identity;
    use shared::ids::NodeId;

    #[test]
    fn a_node_is_called_by_its_name() {
        assert_eq!(who(&State::default()), "a node that has not joined");
        let formation = "default".parse().unwrap();
        let identity = Identity { formation, node_id: NodeId(3), secret: String::new() };
        let joined = State { identity: Some(identity), ..State::default() };
        assert_eq!(who(&joined), "the node with id 3");
        let (name, host) = ("node1".parse().unwrap(), "127.0.0.1".to_owned());
        let announced = Some(Announced { name, host, port: 5432, zone: None });
        assert_eq!(who(&State { announced, ..joined }), "node1 (id 3)");
    }
}
