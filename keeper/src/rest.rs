//! What load balancers, peers and people ask the keeper: the paths that they know from Patroni
//! (docs/load-balancers.md), by GET, HEAD and OPTIONS.
//!
//! 200 where it holds, else 503. Every answer is made from what is known at that moment (`moment`): the
//! live right to serve, and a look at the node that is not too old. What a path asks for is in `role`,
//! what its query may say in `wanted`, the documents in `show`. Nothing here changes anything, and nothing
//! waits for Postgres, for the disk or for the monitor.

mod moment;
mod peers;
mod role;
mod serve;
mod show;
#[cfg(test)]
mod tests;
mod wanted;

use crate::agent::Agent;
use crate::attachment::Attachment;
use crate::clock;
use crate::guard::Right;
use crate::link::Heard;
use crate::vitals::Health;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, get};
use axum::{Json, Router};
use fsm::Millis;
use moment::Moment;
use postgres::postmaster::Postmaster;
use role::Role;
use serde_json::json;
use serve::Limits;
use shared::ids::NodeId;
use shared::report::{Report, StepView};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::watch;
use wanted::Wanted;

/// What the answers are made from.
#[derive(Clone, Debug)]
pub struct Rest {
    /// This node.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// The newest report.
    pub report: watch::Receiver<Option<Report>>,
    /// When the agent began the look that it was made from.
    pub looked: watch::Receiver<Millis>,
    /// The step under way.
    pub step: watch::Receiver<Option<StepView>>,
    /// The running postmaster; `None` also while it is being stopped.
    pub postmaster: watch::Receiver<Option<Postmaster>>,
    /// Whether Postgres and its storage answer.
    pub health: watch::Receiver<Health>,
    /// What was heard from the monitor.
    pub heard: watch::Receiver<Heard>,
    /// The right to serve.
    pub right: Right,
    /// Which monitor is called.
    pub attachment: watch::Receiver<Attachment>,
}

impl Rest {
    /// Of an agent that is about to run.
    pub fn of(agent: &Agent, health: watch::Receiver<Health>) -> Self {
        Self {
            id: agent.node.id,
            name: agent.node.config.name.to_string(),
            report: agent.outgoing.subscribe(),
            looked: agent.looked.subscribe(),
            step: agent.node.step.subscribe(),
            postmaster: agent.node.postmaster.subscribe(),
            health,
            heard: agent.heard.clone(),
            right: agent.right.clone(),
            attachment: agent.attachment.clone(),
        }
    }

    /// All that is known now.
    fn moment(&self) -> Moment {
        Moment {
            id: self.id,
            name: self.name.clone(),
            lives: self.postmaster.borrow().as_ref().is_some_and(Postmaster::is_alive),
            ails: self.health.borrow().ailment.is_some(),
            report: self.report.borrow().clone(),
            heard: self.heard.borrow().clone(),
            attachment: self.attachment.borrow().clone(),
            step_limit_ms: self.step.borrow().as_ref().and_then(|step| step.limit_ms),
            looked: *self.looked.borrow(),
            now: clock::now(),
            granted: self.right.is_granted() || self.right.is_suspended(),
            // Last, so that nothing else that is looked at makes it older.
            reign: self.right.reign(),
        }
    }
}

/// Where each answer gets its moment from.
type Source = Arc<dyn Fn() -> Moment + Send + Sync>;

/// The paths that ask for a role.
const ROLES: &[(&str, Role)] = &[
    ("/", Role::Primary),
    ("/primary", Role::Primary),
    ("/read-write", Role::Primary),
    ("/leader", Role::Primary),
    ("/standby-leader", Role::StandbyLeader),
    ("/replica", Role::Replica),
    ("/read-only", Role::ReadOnly),
    ("/sync", Role::Sync),
    ("/synchronous", Role::Sync),
    ("/read-only-sync", Role::ReadOnlySync),
    ("/quorum", Role::Sync),
    ("/read-only-quorum", Role::ReadOnlySync),
    ("/async", Role::Async),
    ("/asynchronous", Role::Async),
    ("/readiness", Role::Ready),
    ("/health", Role::Healthy),
];

/// Answers whoever asks on this listener, for ever.
pub async fn serve(listener: TcpListener, rest: Rest) {
    let router = routes(Arc::new(move || rest.moment()));
    serve::serve(listener, router, Limits::default()).await;
}

fn routes(source: Source) -> Router {
    let roles = ROLES.iter().fold(Router::new(), |router, (path, role)| {
        let role = *role;
        router.route(
            path,
            all(move |moment: &Moment, query: &Parameters| in_role(moment, role, query)),
        )
    });
    roles
        .route("/liveness", all(|moment, _| alive(moment)))
        .route("/node", all(|moment, _| show::node(moment)))
        .route("/cluster", all(|moment, _| show::cluster(moment)))
        .route("/metrics", all(|moment, _| show::metrics(moment)))
        .route("/peers/{id}", get(peers::answer))
        .with_state(source)
}

/// The query of a request.
type Parameters = BTreeMap<String, String>;

/// GET, HEAD and OPTIONS, of which only GET is answered with a body.
fn all(
    answer: impl Fn(&Moment, &Parameters) -> Response + Clone + Send + Sync + 'static,
) -> MethodRouter<Source> {
    let bare = answer.clone();
    get(move |State(source): State<Source>, Query(query): Query<Parameters>| async move {
        answer(&source(), &query)
    })
    .options(
        move |State(source): State<Source>, Query(query): Query<Parameters>| async move {
            bare(&source(), &query).status()
        },
    )
}

fn in_role(moment: &Moment, role: Role, query: &Parameters) -> Response {
    let wanted = if role.takes_conditions() { Wanted::read(query) } else { Ok(Wanted::default()) };
    match wanted {
        Ok(wanted) => {
            (status(role.holds(moment, &wanted)), Json(show::role(moment))).into_response()
        }
        // No load balancer sends anybody here, and a person sees why.
        Err(error) => {
            let message = json!({ "message": error.to_string() });
            (StatusCode::BAD_REQUEST, Json(message)).into_response()
        }
    }
}

fn alive(moment: &Moment) -> Response {
    let body = json!({ "look_age_ms": moment.look_age_ms() });
    (status(moment.is_alive()), Json(body)).into_response()
}

fn status(holds: bool) -> StatusCode {
    if holds { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}
