//! `run` and `create`: checks, the join, and the tasks.

use crate::address;
use crate::agent::{Agent, Ended, Ending};
use crate::archive::Opened;
use crate::attachment::{self, Attachment};
use crate::cli::failure;
use crate::config::Config;
use crate::destroy;
use crate::guard::{self, Right};
use crate::hooks::Desk;
use crate::link::{Heard, Link, is_about};
use crate::node::{Node, disk};
use crate::rest::{self, Rest};
use crate::state::{Announced, State, Store};
use crate::steps::LONGEST_STOP;
use crate::trace::Trace;
use crate::vitals::{Health, Watch};
use crate::watchdog::Watchdog;
use ctl::client::{Client, ClientError, MonitorUrl, Options};
use postgres::datadir::{Contents, DataDir};
use postgres::instance::Instance;
use postgres::owner::Owner;
use postgres::postmaster::{Postmaster, Signal};
use postgres::programs::Programs;
use postgres::storage::Room;
use program::notify::Line;
use shared::api::{ApiError, JoinAnswer, JoinRequest};
use shared::report::Data;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// How long a connection to the monitor may take; a report interval is a fraction of a second.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a new node waits for a monitor that does not answer yet.
const JOIN_PATIENCE: Duration = Duration::from_secs(10);
/// How often it asks.
const JOIN_RETRY: Duration = Duration::from_millis(250);
/// Why a monitor does not take a node that has joined before, which is no reason to end.
const STRANGE: [&str; 3] = ["unknown_node", "unknown_formation", "quarantine"];
/// The word for a node that is no longer part of its formation.
const DROPPED: &str = "dropped";
/// The code of an error that passes.
const BUSY: u8 = 6;

/// An empty cluster: some 40 MB, its first WAL segments included, and what the first minutes add.
const ROOM_FOR_A_CLUSTER: u64 = 64 << 20;

/// When to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// When told to.
    Ended,
    /// When the goal has been reached once.
    Reached,
}

pub(crate) fn run(config: Config, until: Until) -> Result<ExitCode, ApiError> {
    let first = program::first::serve();
    if let Some(code) = first.map_err(|error| failure(8, "internal", error.to_string()))? {
        return Ok(code);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .map_err(|error| failure(8, "internal", error.to_string()))?;
    let outcome = runtime.block_on(start(config, until));
    // Nothing that still runs in the background may keep the process.
    runtime.shutdown_timeout(Duration::from_millis(200));
    outcome
}

async fn start(config: Config, until: Until) -> Result<ExitCode, ApiError> {
    let mut instance = instance(&config)?;
    let store = Store::open(&config.state_dir, instance.owner.clone())
        .map_err(|error| failure(2, "state_directory", error.to_string()))?;
    let mut state =
        store.load().map_err(|error| failure(2, "state_directory", error.to_string()))?;
    if state.announced.as_ref() == Some(&config.announcement())
        && let Some(own) = address::known(&state)
    {
        address::take(&mut instance, &config, own);
    }
    if state.dropped && destroy::is_ordered(&state) {
        return destroy_the_rest(&config, &instance, &state).await;
    }
    if state.dropped {
        let message = format!(
            "this node was dropped from its formation; remove {} to join as a new node",
            config.state_dir.display()
        );
        return Err(failure(3, DROPPED, message));
    }
    // First of all: a keeper that was killed has left the device to tick.
    let watchdog = watchdog(&config, &instance, &state);
    check_free(&config, &instance, &state).await?;
    postgres::process::end_tools_on(instance.data_dir.path(), Duration::from_secs(2)).await;
    let listener = TcpListener::bind(config.rest_listen).await.map_err(|error| {
        let message = format!(
            "cannot listen on {} for load balancers: {error}; choose another --rest-listen",
            config.rest_listen
        );
        failure(2, "port_in_use", message)
    })?;
    let options = Options { connect_timeout: CONNECT_TIMEOUT, ..Options::default() };
    let attachment = Attachment::load(&config.state_dir)
        .map_err(|error| failure(2, "state_directory", error.to_string()))?;
    let monitors = monitors(&config, &mut state, &attachment);
    let client = Client::new(monitors, options).map_err(|e| e.to_api_error())?;
    let rest_address = listener.local_addr().unwrap_or(config.rest_listen);
    let mut request = join_request(&config, &instance, &state, rest_address).await?;
    request.token = attachment.token.clone().or(request.token);
    if attachment.detached.is_none() {
        match join(&client, &store, &mut state, &request).await {
            Err(error) if error.reason == DROPPED && destroy::is_ordered(&state) => {
                return destroy_the_rest(&config, &instance, &state).await;
            }
            joined => joined?,
        }
    } else if state.identity.is_none() {
        let message = "this node has never joined, and is detached from the monitor: `pgtandem-keeper attach` gives it one";
        return Err(failure(3, "detached", message));
    }
    let Some(identity) = state.identity.clone() else {
        return Err(failure(8, "internal", "the monitor gave no identity"));
    };
    let mut node = Node::new(identity.node_id, config.clone(), instance, store, state);
    node.watchdog = watchdog;
    request.identity = Some(identity);
    request.passwords.clone_from(&node.state.passwords);
    let archive = Opened::new(&node.config, &node.instance)
        .map_err(|error| failure(2, "archive", error.to_string()))?;
    let doors = Doors { listener, archive };
    Ok(Box::pin(supervise(node, (client, request), doors, attachment, until)).await)
}

/// The keeper ended between leaving and having destroyed all that it was told to.
async fn destroy_the_rest(
    config: &Config,
    instance: &Instance,
    state: &State,
) -> Result<ExitCode, ApiError> {
    let refused = |why: String| failure(3, "not_destroyed", why);
    let running = Postmaster::adopt(instance).await.map_err(|error| refused(error.to_string()))?;
    if let Some(running) = running {
        let stages = [(Signal::FastStop, LONGEST_STOP), (Signal::ImmediateStop, LONGEST_STOP)];
        running.stop(&stages).await.map_err(|error| failure(7, "postgres", error.to_string()))?;
    }
    let (data_dir, state_dir) = (&instance.data_dir, &config.state_dir);
    disk(|| destroy::everything(data_dir, state_dir, state))
        .map_err(|error| refused(error.to_string()))?;
    tracing::info!("this node was dropped; its data has been destroyed, as ordered");
    Ok(ExitCode::SUCCESS)
}

fn watchdog(config: &Config, instance: &Instance, state: &State) -> Option<Watchdog> {
    let device = config.watchdog.clone()?;
    let promoted = state.persisted.as_ref().filter(|persisted| persisted.promoted.is_some());
    let primary = promoted.filter(|_| !instance.data_dir.is_standby());
    let claim = primary.map(|persisted| persisted.assignment.timers.lease());
    Watchdog::start(device, instance.data_dir.canonical(), claim)
        .inspect_err(|error| tracing::error!("no watchdog without a thread for it: {error}"))
        .ok()
}

/// Where the monitor is: as the operator said last, and as it said itself.
fn monitors(config: &Config, state: &mut State, attachment: &Attachment) -> Vec<MonitorUrl> {
    let given: Vec<_> = config.monitors.iter().map(ToString::to_string).collect();
    let named = attachment.in_place_of(&given, state.attached.as_ref());
    state.take_up(attachment, &given);
    let mut all = match named {
        Some(named) => named.iter().filter_map(|url| url.parse().ok()).collect(),
        None => config.monitors.clone(),
    };
    all.extend(state.monitors.iter().filter_map(|url| url.parse().ok()));
    let mut seen = Vec::new();
    all.retain(|url: &MonitorUrl| {
        let text = url.to_string();
        let new = !seen.contains(&text);
        seen.push(text);
        new
    });
    all
}

fn instance(config: &Config) -> Result<Instance, ApiError> {
    let programs = Programs::find(config.bin_dir.as_deref())
        .map_err(|error| failure(2, "missing_programs", error.to_string()))?;
    programs
        .version()
        .and_then(postgres::programs::ServerVersion::refuse_if_too_old)
        .map_err(|error| failure(2, "postgres_version", error.to_string()))?;
    let owner = match &config.run_as {
        Some(name) => Owner::by_name(name),
        None => Owner::for_data_dir(&config.pgdata),
    }
    .map_err(|error| failure(2, "run_as", error.to_string()))?;
    let instance = Instance {
        programs,
        data_dir: DataDir::new(&config.pgdata),
        owner,
        port: config.port,
        socket_dir: config.socket_dir.clone(),
        listen_addresses: config.listen_addresses.clone(),
        log_path: config.state_dir.join("postgres.log"),
    };
    instance.check_socket_path().map_err(|error| failure(2, "socket_dir", error.to_string()))?;
    Ok(instance)
}

/// Nothing is asked of the monitor before it is clear that this node could do its part. A node that is known
/// has done so: what is wrong with its disk now it says in `status`, and it waits until somebody has mended
/// that.
async fn check_free(config: &Config, instance: &Instance, state: &State) -> Result<(), ApiError> {
    if state.identity.is_none() {
        usable(config, instance)?;
    }
    let running = Postmaster::adopt(instance).await;
    if let Ok(None) = running {
        // What Postgres would listen on must be free.
        for address in instance.listen_addresses.split(',').map(str::trim) {
            let address = if address == "*" { "0.0.0.0" } else { address };
            if let Err(error) = TcpListener::bind((address, instance.port)).await {
                let message = format!(
                    "cannot listen on {address}:{} for Postgres: {error}; choose another --port or --listen-addresses, or stop what uses it",
                    instance.port
                );
                return Err(failure(2, "port_in_use", message));
            }
        }
    }
    Ok(())
}

fn usable(config: &Config, instance: &Instance) -> Result<(), ApiError> {
    let refused =
        |why: String| failure(2, "pgdata", format!("{} cannot be {why}", config.pgdata.display()));
    let contents = instance.data_dir.contents();
    if let Contents::Unusable { reason } = &contents {
        return Err(refused(format!("used: {reason}")));
    }
    let unwritable = |error: &dyn std::fmt::Display| refused(format!("written: {error}"));
    instance.data_dir.create(&instance.owner).map_err(|error| unwritable(&error))?;
    let probe = config.pgdata.join(".pgtandem-write-probe");
    let written = std::fs::write(&probe, [0; 8192]);
    let removed = std::fs::remove_file(&probe);
    written.and(removed).map_err(|error| unwritable(&error))?;
    let empty = matches!(contents, Contents::Missing | Contents::Empty);
    match instance.data_dir.free_bytes() {
        Ok(free) if empty && free < ROOM_FOR_A_CLUSTER => {
            let message = format!(
                "{} has {} MB of free space, and a cluster needs {} MB to begin with",
                config.pgdata.display(),
                free >> 20,
                ROOM_FOR_A_CLUSTER >> 20
            );
            Err(failure(2, "pgdata", message))
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

/// What the monitor is told of this node.
async fn join_request(
    config: &Config,
    instance: &Instance,
    state: &State,
    rest: SocketAddr,
) -> Result<JoinRequest, ApiError> {
    let data = match instance.data_dir.contents() {
        _ if state.rebuilding => Data::Rebuilding,
        Contents::Missing | Contents::Empty => Data::Empty,
        Contents::Unusable { .. } => Data::Unusable,
        Contents::Cluster { .. } => match instance.control_data().await {
            Ok(control) => Data::Present { system_identifier: control.system_identifier },
            Err(_) if state.identity.is_some() => Data::Unusable,
            Err(error) => return Err(failure(2, "pgdata", error.to_string())),
        },
    };
    let host = if rest.ip().is_unspecified() { config.host.clone() } else { rest.ip().to_string() };
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    Ok(JoinRequest {
        protocol: config.protocol,
        formation: config.formation.clone(),
        name: config.name.clone(),
        host: config.host.clone(),
        port: config.port,
        rest: format!("{host}:{}", rest.port()),
        candidate_priority: config.candidate_priority,
        replication_quorum: config.replication_quorum,
        zone: config.zone.clone(),
        token: config.join_token.clone(),
        data,
        standby: instance.data_dir.is_standby(),
        identity: state.identity.clone(),
        passwords: state.passwords.clone(),
        unchanged: state.announced.as_ref() == Some(&config.announcement()),
    })
}

async fn join(
    client: &Client,
    store: &Store,
    state: &mut State,
    request: &JoinRequest,
) -> Result<(), ApiError> {
    match join_patiently(client, request, state.identity.is_none()).await {
        Ok(answer) => {
            state.identity = Some(answer.identity);
            state.passwords = Some(answer.passwords);
            state.monitors = answer.monitors;
            state.announced = Some(Announced {
                name: request.name.clone(),
                host: request.host.clone(),
                port: request.port,
                zone: request.zone.clone(),
            });
            store.save(state).map_err(|error| failure(2, "state_directory", error.to_string()))
        }
        // A node that has joined before goes on with what it knows.
        Err(ClientError::Unreachable { why, .. }) if state.identity.is_some() => {
            tracing::warn!("the monitor cannot be reached ({why}); going on with what is known");
            Ok(())
        }
        // The monitor may be another one, which does not know it or has lost what it knew.
        Err(error) if state.identity.is_some() && is_about(&error, &STRANGE) => {
            tracing::warn!(
                "the monitor does not take this node ({error}); going on with what is known"
            );
            Ok(())
        }
        Err(ClientError::Dropped) => {
            let message = format!(
                "this node was dropped from formation {}; remove {} to join as a new node",
                request.formation,
                store.dir().display()
            );
            Err(failure(3, DROPPED, message))
        }
        Err(error) => Err(error.to_api_error()),
    }
}

/// All parts of a cluster may be started at once: a monitor that is not there yet is given a moment by
/// a node that cannot do without it.
async fn join_patiently(
    client: &Client,
    request: &JoinRequest,
    patient: bool,
) -> Result<JoinAnswer, ClientError> {
    let deadline = tokio::time::Instant::now() + JOIN_PATIENCE;
    loop {
        let error = match client.join(request).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let passing = match &error {
            ClientError::Unreachable { .. } => patient,
            ClientError::Api { error, .. } => error.code == BUSY,
            ClientError::Dropped | ClientError::Protocol { .. } | ClientError::Setup(_) => false,
        };
        if !passing || tokio::time::Instant::now() > deadline {
            return Err(error);
        }
        tokio::time::sleep(JOIN_RETRY).await;
    }
}

/// Where others come to the keeper.
struct Doors {
    listener: TcpListener,
    archive: Option<Opened>,
}

async fn supervise(
    node: Node,
    (client, join): (Client, JoinRequest),
    doors: Doors,
    attachment: Attachment,
    until: Until,
) -> ExitCode {
    let Some(identity) = node.state.identity.clone() else { return ExitCode::from(8) };
    let attachment = watch::Sender::new(attachment);
    let right = Right::default();
    let heard = watch::Sender::new(Heard::default());
    let outgoing = watch::Sender::new(None);
    let (ending, reload) = (watch::Sender::new(Ending::No), watch::Sender::new(()));
    tokio::spawn(guard::run(right.clone(), node.postmaster.subscribe()));
    if let Some(watchdog) = &node.watchdog {
        watchdog.attach(right.clone(), node.postmaster.subscribe());
    }
    let (health, room) = (watch::Sender::new(Health::default()), watch::Sender::new(Vec::new()));
    watch_vitals(&node, &heard, &health, &room);
    let (trace, state_dir) = (Trace::begin(node.id), node.config.state_dir.clone());
    let hooks = Desk::open(&node, right.fences());
    let last_moments = hooks.last_moments();
    let how = ending.subscribe();
    let archive = doors.archive.map(|it| it.serve(&node, heard.subscribe(), right.clone()));
    let agent = Agent {
        node,
        heard: heard.subscribe(),
        attachment: attachment.subscribe(),
        outgoing: outgoing.clone(),
        looked: watch::Sender::new(crate::clock::now()),
        right: right.clone(),
        room: room.subscribe(),
        ending: ending.subscribe(),
        trouble: None,
        refused: false,
        since: (String::new(), fsm::Millis(0)),
        claimed_at: fsm::Millis(0),
        leaving_since: None,
        trace,
        line: Line::open(),
        reload: reload.subscribe(),
        hooks,
        archive,
    };
    tokio::spawn(rest::serve(doors.listener, Rest::of(&agent, health.subscribe())));
    let link = Link {
        client,
        identity,
        join,
        attachment: attachment.subscribe(),
        keeper: format!("{:016x}", rand::random::<u64>()),
        outgoing: outgoing.subscribe(),
        health: health.subscribe(),
        heard,
        right,
    };
    tokio::spawn(link.run());
    tokio::spawn(attachment::follow(state_dir, attachment));
    tokio::spawn(signals(ending.clone(), reload));
    if until == Until::Reached {
        tokio::spawn(end_when_reached(outgoing.subscribe(), ending));
    }
    let ended = agent.run().await;
    let at_once = matches!(*how.borrow(), Ending::LeavePostgres | Ending::Immediate);
    if ended == Ended::Dropped {
        tracing::info!("the node was dropped from its formation; postgres is stopped");
    } else if !at_once {
        last_moments.await;
    }
    ExitCode::SUCCESS
}

fn watch_vitals(
    node: &Node,
    heard: &watch::Sender<Heard>,
    health: &watch::Sender<Health>,
    room: &watch::Sender<Vec<Room>>,
) {
    let vitals = Watch {
        instance: node.instance.clone(),
        target: node.target(),
        postmaster: node.postmaster.subscribe(),
        heard: heard.subscribe(),
        health: health.clone(),
        room: room.clone(),
    };
    tokio::spawn(vitals.run());
}

async fn end_when_reached(
    mut report: watch::Receiver<Option<shared::report::Report>>,
    ending: watch::Sender<Ending>,
) {
    use shared::state::NodeState;
    let there = |report: &Option<shared::report::Report>| {
        report.as_ref().is_some_and(|report| {
            let state = report.state;
            let serves =
                matches!(state, NodeState::Single | NodeState::WaitPrimary | NodeState::Primary);
            state == NodeState::Secondary || (serves && report.in_force.is_some())
        })
    };
    loop {
        if there(&report.borrow_and_update()) {
            ending.send_replace(Ending::Fast);
            return;
        }
        // Most changes of a report are no news, hence not signalled.
        drop(tokio::time::timeout(Duration::from_millis(100), report.changed()).await);
    }
}

/// TERM planned, INT fast, QUIT at once, HUP lets Postgres read its configuration, USR2 leaves it running.
/// A second TERM or INT is a fast stop.
async fn signals(ending: watch::Sender<Ending>, reload: watch::Sender<()>) {
    let open = |kind| signal(kind);
    let (Ok(mut term), Ok(mut int), Ok(mut quit), Ok(mut hup), Ok(mut usr2)) = (
        open(SignalKind::terminate()),
        open(SignalKind::interrupt()),
        open(SignalKind::quit()),
        open(SignalKind::hangup()),
        open(SignalKind::user_defined2()),
    ) else {
        tracing::error!("cannot handle signals");
        return;
    };
    loop {
        let next = tokio::select! {
            _ = term.recv() => {
                if *ending.borrow() == Ending::No { Ending::Planned } else { Ending::Fast }
            }
            _ = int.recv() => Ending::Fast,
            _ = quit.recv() => Ending::Immediate,
            _ = usr2.recv() => Ending::LeavePostgres,
            _ = hup.recv() => {
                reload.send_replace(());
                continue;
            }
        };
        tracing::info!("asked to end: {next:?}");
        ending.send_replace(next);
    }
}
