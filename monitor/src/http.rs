//! The monitor's HTTP API: what is asked is parsed here, handed to a group or the store, and what
//! comes back becomes JSON. Nothing is decided here.

mod actions;
mod error;
mod events;
mod explanations;
mod extract;
mod formations;
pub mod health;
mod nodes;
mod stream;
mod tokens;

pub use error::{internal, not_found, store_away, store_failed, unavailable};

use crate::service::Service;
use axum::Router;
use axum::routing::{delete, get, post};
use error::Failure;
use std::sync::Arc;

/// What every handler gives.
type Result<T> = std::result::Result<T, Failure>;
/// What every handler is given.
type State = axum::extract::State<Arc<Service>>;

/// No request may be held for longer, whatever it asks for.
const LONGEST_WAIT_MS: u64 = 30_000;

/// All paths.
pub fn router(service: Arc<Service>) -> Router {
    let formation = Router::new()
        .route("/status", get(formations::status))
        .route("/settings", get(formations::settings))
        .route("/members", get(formations::members))
        .route("/postgres-settings", get(formations::postgres_settings))
        .route("/explain", get(explanations::explain))
        .route("/timelines", get(explanations::timelines))
        .route("/events", get(events::list))
        .route("/stream", get(stream::stream))
        .route("/actions", post(actions::act))
        .route("/predictions", post(explanations::predict))
        .route("/operations/{id}", get(actions::operation))
        .route("/tokens", get(tokens::list).post(tokens::create))
        .route("/tokens/{id}", delete(tokens::revoke));
    Router::new()
        .route("/", get(health::page))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .route("/v1/openapi.json", get(health::openapi))
        .route("/v1/rules", get(health::rules))
        .route("/v1/join", post(nodes::join))
        .route("/v1/nodes/{id}/report", post(nodes::report))
        .route("/v1/formations", get(formations::list).post(formations::create))
        .route("/v1/formations/{formation}", delete(formations::remove))
        .nest("/v1/formations/{formation}", formation)
        .fallback(error::no_such_path)
        .method_not_allowed_fallback(error::no_such_method)
        .with_state(service)
}
