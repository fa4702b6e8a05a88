//! One method for each request that the monitor serves.
//!
//! The client has a list of ways to reach the monitor and stays with the one that answered last. A
//! request goes on to the next one when it gets no answer, or 502 or 503, or an error that is not in
//! the monitor's form. That is safe because every request here can be sent again: it reads, or is
//! idempotent, or carries an idempotency key. Retrying later is left to the caller, who knows for how
//! long that makes sense.

mod answer;
mod error;
mod monitor_url;
mod stream;
mod transport;

pub use error::ClientError;
pub use monitor_url::{DEFAULT_PORT, InvalidMonitorUrl, MonitorUrl, parse_monitor_urls};
pub use stream::{Stream, Streamed};
pub use transport::Options;

use reqwest::Method;
use shared::api::{
    Action, CreateFormation, Explanation, FormationSettings, FormationSummary, Identity,
    JoinAnswer, JoinRequest, JoinToken, Members, OperationResult, Prediction, Ready, Status,
    Timelines,
};
use shared::event::Event;
use shared::ids::{FormationId, NodeName, Revision};
use shared::pgsettings::PostgresConfig;
use shared::report::{Answer, Report};
use std::sync::Arc;
use std::time::Duration;
use transport::{Call, Limit, Transport};

/// A client of the monitor. Clones share their connections.
#[derive(Clone, Debug)]
pub struct Client {
    transport: Arc<Transport>,
}

/// A key under which a request can be sent again without being carried out twice.
pub fn idempotency_key() -> String {
    format!("{:032x}", rand::random::<u128>())
}

impl Client {
    /// A client that tries these ways to the monitor, in their order. Connects to nothing yet.
    pub fn new(monitors: Vec<MonitorUrl>, options: Options) -> Result<Self, ClientError> {
        Ok(Self { transport: Arc::new(Transport::new(monitors, options)?) })
    }

    /// The ways to the monitor, in the order given.
    pub fn monitors(&self) -> Vec<MonitorUrl> {
        self.transport.monitors()
    }

    /// Replaces the ways to the monitor, as an answer may ask for; an empty list changes nothing.
    /// The one that answered last stays preferred where the new list has it.
    pub fn set_monitors(&self, monitors: Vec<MonitorUrl>) {
        self.transport.set_monitors(monitors);
    }

    /// Registers a node, or says that it has moved.
    pub async fn join(&self, request: &JoinRequest) -> Result<JoinAnswer, ClientError> {
        let call = Call::new(Method::POST, &["v1", "join"])
            .idempotency_key(&idempotency_key())
            .body(request)?;
        self.send(call).await?.dropped_if_gone()?.json()
    }

    /// Delivers an observation and waits up to `wait_ms` for a new goal. `timeout` limits all of it,
    /// connecting and other ways to the monitor included.
    pub async fn report(
        &self,
        identity: &Identity,
        report: &Report,
        wait_ms: u64,
        timeout: Duration,
    ) -> Result<Answer, ClientError> {
        let node = identity.node_id.to_string();
        let call = Call::new(Method::POST, &["v1", "nodes", &node, "report"])
            .query("formation", &identity.formation)
            .query("wait_ms", &wait_ms)
            .bearer(&identity.secret)
            .body(report)?
            .limit(Limit::Overall(timeout));
        self.transport.send(&call).await?.dropped_if_gone()?.json()
    }

    /// Asks for an action. The same `idempotency_key` again gives the same operation.
    pub async fn action(
        &self,
        formation: &FormationId,
        action: &Action,
        idempotency_key: &str,
    ) -> Result<OperationResult, ClientError> {
        let path = ["v1", "formations", formation.as_str(), "actions"];
        let call = Call::new(Method::POST, &path).idempotency_key(idempotency_key).body(action)?;
        self.send(call).await?.json()
    }

    /// How an operation stands; waits up to `wait_ms` for its end.
    pub async fn operation(
        &self,
        formation: &FormationId,
        id: u64,
        wait_ms: u64,
    ) -> Result<OperationResult, ClientError> {
        let id = id.to_string();
        let call =
            Call::new(Method::GET, &["v1", "formations", formation.as_str(), "operations", &id]);
        self.send(self.waiting(call, wait_ms)).await?.json()
    }

    /// A snapshot; with `wait_revision`, waits up to `wait_ms` for one that is newer.
    pub async fn status(
        &self,
        formation: &FormationId,
        wait_revision: Option<Revision>,
        wait_ms: u64,
    ) -> Result<Status, ClientError> {
        let call = Call::new(Method::GET, &["v1", "formations", formation.as_str(), "status"])
            .query_if("wait_revision", wait_revision);
        self.send(self.waiting(call, wait_ms)).await?.json()
    }

    /// The events after `after`, oldest first, at most `count` of them; waits up to `wait_ms` for
    /// the first. Without `after`: the newest `count`.
    pub async fn events(
        &self,
        formation: &FormationId,
        after: Option<u64>,
        count: Option<u32>,
        wait_ms: u64,
    ) -> Result<Vec<Event>, ClientError> {
        let call = Call::new(Method::GET, &["v1", "formations", formation.as_str(), "events"])
            .query_if("after", after)
            .query_if("count", count);
        self.send(self.waiting(call, wait_ms)).await?.json()
    }

    /// The events after `after`, or from now on, as they come; with the status, at once and whenever it
    /// differs. For a caller to whom this client has just answered something: it is asked of the way
    /// to the monitor that answered last.
    pub async fn stream(
        &self,
        formation: &FormationId,
        after: Option<u64>,
    ) -> Result<Stream, ClientError> {
        let call = Call::new(Method::GET, &["v1", "formations", formation.as_str(), "stream"])
            .query_if("after", after)
            .query("status", &true);
        let (url, response) = self.transport.open(&call).await?;
        Ok(Stream::new(url, response))
    }

    /// The state of affairs in sentences, of the formation or of one node.
    pub async fn explain(
        &self,
        formation: &FormationId,
        node: Option<&str>,
    ) -> Result<Explanation, ClientError> {
        let call = Call::new(Method::GET, &["v1", "formations", formation.as_str(), "explain"])
            .query_if("node", node);
        self.send(call).await?.json()
    }

    /// The same, with what would come of it if these nodes died now.
    pub async fn explain_if_dies(
        &self,
        formation: &FormationId,
        nodes: &[NodeName],
    ) -> Result<Explanation, ClientError> {
        let nodes: Vec<_> = nodes.iter().map(NodeName::as_str).collect();
        let call = Call::new(Method::GET, &["v1", "formations", formation.as_str(), "explain"])
            .query("if_dies", &nodes.join(","));
        self.send(call).await?.json()
    }

    /// What became of the group's history.
    pub async fn timelines(&self, formation: &FormationId) -> Result<Timelines, ClientError> {
        let path = ["v1", "formations", formation.as_str(), "timelines"];
        self.send(Call::new(Method::GET, &path)).await?.json()
    }

    /// What would come of an action; nothing is changed.
    pub async fn predict(
        &self,
        formation: &FormationId,
        action: &Action,
    ) -> Result<Prediction, ClientError> {
        let path = ["v1", "formations", formation.as_str(), "predictions"];
        self.send(Call::new(Method::POST, &path).body(action)?).await?.json()
    }

    /// What is set, and what is in force.
    pub async fn settings(
        &self,
        formation: &FormationId,
    ) -> Result<FormationSettings, ClientError> {
        let path = ["v1", "formations", formation.as_str(), "settings"];
        self.send(Call::new(Method::GET, &path)).await?.json()
    }

    /// The settings of PostgreSQL that the operator gave, and how far each node is.
    pub async fn postgres_settings(
        &self,
        formation: &FormationId,
    ) -> Result<PostgresConfig, ClientError> {
        let path = ["v1", "formations", formation.as_str(), "postgres-settings"];
        self.send(Call::new(Method::GET, &path)).await?.json()
    }

    /// Where clients connect.
    pub async fn members(&self, formation: &FormationId) -> Result<Members, ClientError> {
        let path = ["v1", "formations", formation.as_str(), "members"];
        self.send(Call::new(Method::GET, &path)).await?.json()
    }

    /// All formations.
    pub async fn formations(&self) -> Result<Vec<FormationSummary>, ClientError> {
        self.send(Call::new(Method::GET, &["v1", "formations"])).await?.json()
    }

    /// Creates a formation.
    pub async fn create_formation(
        &self,
        request: &CreateFormation,
    ) -> Result<FormationSummary, ClientError> {
        let call = Call::new(Method::POST, &["v1", "formations"])
            .idempotency_key(&idempotency_key())
            .body(request)?;
        self.send(call).await?.json()
    }

    /// Removes a formation that has no nodes.
    pub async fn drop_formation(&self, formation: &FormationId) -> Result<(), ClientError> {
        let call = Call::new(Method::DELETE, &["v1", "formations", formation.as_str()])
            .idempotency_key(&idempotency_key());
        self.send(call).await?.nothing()
    }

    /// The join tokens, without their secrets.
    pub async fn tokens(&self, formation: &FormationId) -> Result<Vec<JoinToken>, ClientError> {
        let path = ["v1", "formations", formation.as_str(), "tokens"];
        self.send(Call::new(Method::GET, &path)).await?.json()
    }

    /// Creates a join token; the answer is the only place where its secret is told.
    pub async fn create_token(&self, formation: &FormationId) -> Result<JoinToken, ClientError> {
        let path = ["v1", "formations", formation.as_str(), "tokens"];
        let call = Call::new(Method::POST, &path).idempotency_key(&idempotency_key());
        self.send(call).await?.json()
    }

    /// Revokes the join token with this id.
    pub async fn revoke_token(&self, formation: &FormationId, id: &str) -> Result<(), ClientError> {
        let path = ["v1", "formations", formation.as_str(), "tokens", id];
        let call = Call::new(Method::DELETE, &path).idempotency_key(&idempotency_key());
        self.send(call).await?.nothing()
    }

    /// Whether the monitor serves requests. One that says no is an answer too.
    pub async fn ready(&self) -> Result<Ready, ClientError> {
        let call = Call::new(Method::GET, &["readyz"]).take_unavailable();
        self.send(call).await?.json_whatever_the_status()
    }

    fn waiting<'a>(&self, call: Call<'a>, wait_ms: u64) -> Call<'a> {
        let margin = self.transport.options().answer_margin;
        let call = call.limit(Limit::Each(Duration::from_millis(wait_ms).saturating_add(margin)));
        if wait_ms == 0 { call } else { call.query("wait_ms", &wait_ms) }
    }

    async fn send(&self, call: Call<'_>) -> Result<answer::RawAnswer, ClientError> {
        self.transport.send(&call).await
    }
}
