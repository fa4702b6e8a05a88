//! Carries one request over HTTP to the first way to the monitor that answers; or begins one whose
//! answer goes on.
//!
//! Connections are kept alive and used again. Every wait has a limit: for the connection, for data
//! that is not acknowledged, for the answer, and for its size.

use super::answer::RawAnswer;
use super::error::ClientError;
use super::monitor_url::MonitorUrl;
use reqwest::{Method, RequestBuilder, Response, header, redirect};
use serde::Serialize;
use std::error::Error as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// An answer larger than this is no answer: the largest, a page of events, has some megabytes.
const MAX_BODY_BYTES: usize = 64 << 20;

/// How long the client waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// For a connection.
    pub connect_timeout: Duration,
    /// For an answer, beyond what the request asks the monitor to wait.
    pub answer_margin: Duration,
    /// For the other side to acknowledge what was sent: a cut cable is noticed after this time.
    pub silence_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(2),
            answer_margin: Duration::from_secs(5),
            silence_timeout: Duration::from_secs(5),
        }
    }
}

/// For how long a request may take.
#[derive(Clone, Copy, Debug)]
pub(super) enum Limit {
    /// With each of the ways to the monitor.
    Each(Duration),
    /// With all of them together.
    Overall(Duration),
}

/// One request, before it is known where it goes.
#[derive(Debug)]
pub(super) struct Call<'a> {
    method: Method,
    path: Vec<&'a str>,
    query: Vec<(&'static str, String)>,
    bearer: Option<&'a str>,
    idempotency_key: Option<String>,
    body: Option<Vec<u8>>,
    limit: Option<Limit>,
    take_unavailable: bool,
}

impl<'a> Call<'a> {
    pub(super) fn new(method: Method, path: &[&'a str]) -> Self {
        Self {
            method,
            path: path.to_vec(),
            query: Vec::new(),
            bearer: None,
            idempotency_key: None,
            body: None,
            limit: None,
            take_unavailable: false,
        }
    }

    pub(super) fn query(mut self, name: &'static str, value: &impl ToString) -> Self {
        self.query.push((name, value.to_string()));
        self
    }

    pub(super) fn query_if(self, name: &'static str, value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => self.query(name, &value),
            None => self,
        }
    }

    pub(super) fn bearer(mut self, secret: &'a str) -> Self {
        self.bearer = Some(secret);
        self
    }

    pub(super) fn idempotency_key(mut self, key: &str) -> Self {
        self.idempotency_key = Some(key.to_owned());
        self
    }

    pub(super) fn body(mut self, value: &impl Serialize) -> Result<Self, ClientError> {
        let body = serde_json::to_vec(value);
        self.body = Some(body.map_err(|error| ClientError::Setup(error.to_string()))?);
        Ok(self)
    }

    pub(super) fn limit(mut self, limit: Limit) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Takes 503 for an answer instead of going on to the next way to the monitor.
    pub(super) fn take_unavailable(mut self) -> Self {
        self.take_unavailable = true;
        self
    }
}

/// The connections, and the ways to the monitor.
#[derive(Debug)]
pub(super) struct Transport {
    http: reqwest::Client,
    options: Options,
    monitors: Mutex<Monitors>,
}

#[derive(Debug)]
struct Monitors {
    urls: Vec<MonitorUrl>,
    /// Where the next request begins.
    first: usize,
}

/// Why a way to the monitor gave no answer.
struct NoAnswer {
    why: String,
    maybe_delivered: bool,
}

impl Transport {
    pub(super) fn new(urls: Vec<MonitorUrl>, options: Options) -> Result<Self, ClientError> {
        if urls.is_empty() {
            return Err(ClientError::Setup("no URL of a monitor is given".to_owned()));
        }
        let http = reqwest::Client::builder()
            .user_agent(concat!("pgtandem/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(options.connect_timeout)
            .tcp_nodelay(true)
            .tcp_keepalive(options.silence_timeout)
            .tcp_keepalive_interval(options.silence_timeout / 3)
            .tcp_user_timeout(options.silence_timeout)
            .pool_max_idle_per_host(4)
            .redirect(redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(|error| ClientError::Setup(error.to_string()))?;
        Ok(Self { http, options, monitors: Mutex::new(Monitors { urls, first: 0 }) })
    }

    pub(super) fn options(&self) -> Options {
        self.options
    }

    pub(super) fn monitors(&self) -> Vec<MonitorUrl> {
        self.lock().urls.clone()
    }

    pub(super) fn set_monitors(&self, urls: Vec<MonitorUrl>) {
        if urls.is_empty() {
            return;
        }
        let mut monitors = self.lock();
        let preferred = monitors.urls.get(monitors.first);
        let first = urls.iter().position(|url| Some(url) == preferred).unwrap_or(0);
        *monitors = Monitors { urls, first };
    }

    /// Sends the request to one way to the monitor after the other, until one answers.
    pub(super) async fn send(&self, call: &Call<'_>) -> Result<RawAnswer, ClientError> {
        let started = Instant::now();
        let limit = call.limit.unwrap_or(Limit::Each(self.options.answer_margin));
        let (mut tried, mut why, mut maybe_delivered) = (Vec::new(), Vec::new(), false);
        let mut no_use = None;
        for monitor in self.in_order() {
            let timeout = match limit {
                Limit::Each(timeout) => timeout,
                Limit::Overall(timeout) => timeout.saturating_sub(started.elapsed()),
            };
            if timeout.is_zero() {
                break;
            }
            tried.push(monitor.to_string());
            match self.attempt(&monitor, call, timeout).await {
                Ok(answer) if !call.take_unavailable && answer.may_be_better_elsewhere() => {
                    self.turn_away_from(&monitor);
                    no_use = no_use.or(Some(answer));
                }
                Ok(answer) => {
                    self.stay_with(&monitor);
                    return Ok(answer);
                }
                Err(no_answer) => {
                    tracing::debug!(monitor.url = %monitor, error = no_answer.why, "no answer");
                    self.turn_away_from(&monitor);
                    why.push(format!("{monitor}: {}", no_answer.why));
                    maybe_delivered |= no_answer.maybe_delivered;
                }
            }
        }
        if why.is_empty() {
            why.push("no time was left to try".to_owned());
        }
        let unreachable = ClientError::Unreachable { tried, why: why.join("; "), maybe_delivered };
        no_use.ok_or(unreachable)
    }

    async fn attempt(
        &self,
        monitor: &MonitorUrl,
        call: &Call<'_>,
        timeout: Duration,
    ) -> Result<RawAnswer, NoAnswer> {
        let request = self.request(monitor, call).timeout(timeout);
        let response = request.send().await.map_err(|error| NoAnswer::new(&error, timeout))?;
        whole(monitor, response, timeout).await
    }

    /// Begins an answer that goes on, without a limit for the whole of it. Only the way that answered
    /// last is tried: whoever wants this has just asked for something else, which found that way.
    pub(super) async fn open(&self, call: &Call<'_>) -> Result<(String, Response), ClientError> {
        let setup = || ClientError::Setup("no URL of a monitor is given".to_owned());
        let monitor = self.in_order().into_iter().next().ok_or_else(setup)?;
        let margin = self.options.answer_margin;
        let begun = async {
            let late = |_| NoAnswer {
                why: format!("no answer within {} ms", margin.as_millis()),
                maybe_delivered: true,
            };
            let sent = tokio::time::timeout(margin, self.request(&monitor, call).send()).await;
            let response = sent.map_err(late)?.map_err(|error| NoAnswer::new(&error, margin))?;
            if response.status().is_success() {
                return Ok(Ok(response));
            }
            let refusal = tokio::time::timeout(margin, whole(&monitor, response, margin)).await;
            refusal.map_err(late)?.map(Err)
        };
        match begun.await {
            Ok(Ok(response)) => Ok((monitor.to_string(), response)),
            Ok(Err(refusal)) => Err(refusal.error()),
            Err(NoAnswer { why, maybe_delivered }) => {
                self.turn_away_from(&monitor);
                let why = format!("{monitor}: {why}");
                let tried = vec![monitor.to_string()];
                Err(ClientError::Unreachable { tried, why, maybe_delivered })
            }
        }
    }

    fn request(&self, monitor: &MonitorUrl, call: &Call<'_>) -> RequestBuilder {
        let url = monitor.request(&call.path, &call.query);
        let mut request = self.http.request(call.method.clone(), url);
        if let Some(secret) = call.bearer {
            request = request.bearer_auth(secret);
        }
        if let Some(key) = &call.idempotency_key {
            request = request.header("Idempotency-Key", key);
        }
        if let Some(body) = &call.body {
            request = request.header(header::CONTENT_TYPE, "application/json").body(body.clone());
        }
        request
    }

    /// All ways to the monitor, the preferred one first.
    fn in_order(&self) -> Vec<MonitorUrl> {
        let monitors = self.lock();
        let all = monitors.urls.iter().cycle().skip(monitors.first);
        all.take(monitors.urls.len()).cloned().collect()
    }

    fn stay_with(&self, monitor: &MonitorUrl) {
        let mut monitors = self.lock();
        if let Some(index) = monitors.urls.iter().position(|url| url == monitor) {
            monitors.first = index;
        }
    }

    /// Lets the next request begin elsewhere: where the time of a call is spent on a silent one,
    /// the next call must not spend its time there again.
    fn turn_away_from(&self, monitor: &MonitorUrl) {
        let mut monitors = self.lock();
        if monitors.urls.get(monitors.first) == Some(monitor) {
            monitors.first = (monitors.first + 1) % monitors.urls.len().max(1);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Monitors> {
        self.monitors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All of an answer.
async fn whole(
    monitor: &MonitorUrl,
    mut response: Response,
    timeout: Duration,
) -> Result<RawAnswer, NoAnswer> {
    let mut body = Vec::new();
    let describe = |error| NoAnswer::new(&error, timeout);
    while let Some(chunk) = response.chunk().await.map_err(describe)? {
        if body.len() + chunk.len() > MAX_BODY_BYTES {
            let why = format!("an answer of more than {} MB", MAX_BODY_BYTES >> 20);
            return Err(NoAnswer { why, maybe_delivered: true });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(RawAnswer { url: monitor.to_string(), status: response.status(), body })
}

impl NoAnswer {
    fn new(error: &reqwest::Error, timeout: Duration) -> Self {
        let why = match (error.is_connect(), error.is_timeout()) {
            (true, true) => "no connection in time".to_owned(),
            (false, true) => format!("no answer within {} ms", timeout.as_millis()),
            (true | false, false) => root_cause(error),
        };
        Self { why, maybe_delivered: !error.is_connect() }
    }
}

pub(super) fn root_cause(error: &reqwest::Error) -> String {
    let mut cause = error.source();
    let mut text = error.to_string();
    while let Some(deeper) = cause {
        text = deeper.to_string();
        cause = deeper.source();
    }
    text
}
