//! The link to the monitor: one call, again and again. It delivers the newest report, is held by the
//! monitor until there is something new, and brings the assignment and the lease.
//!
//! Never waits for the agent: while that is busy, its last report is repeated, and the lease goes on.

use crate::attachment::Attachment;
use crate::clock;
use crate::guard::Right;
use crate::vitals::Health;
use ctl::client::{Client, ClientError, parse_monitor_urls};
use fsm::Millis;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use shared::api::{Identity, JoinRequest};
use shared::ids::{Epoch, Gen, NodeId, Revision, Ticket};
use shared::lsn::Lsn;
use shared::pgsettings::SettingsReport;
use shared::report::{Answer, Report};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// After a failed call the next one waits this part of the report interval; an answer that comes so much
/// later than it should is overdue.
const RETRY_SHARE: u32 = 4;
/// Calls under way where all is well: one that is held, and one with news.
const CALLS: usize = 2;
/// Calls under way while answers are overdue: as many as there is time for.
const MOST_CALLS: usize = 8;

/// What the agent gets from the link.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    /// The newest answer.
    pub answer: Option<Answer>,
    /// When the report was sent that it answers.
    pub at: Option<Millis>,
    /// Why the last call failed, if it did.
    pub unreachable: Option<String>,
    /// The monitor is in quarantine: it wants to hear all that this node knows.
    pub quarantined: bool,
    /// It has answered since an operator named it, or since the keeper was started.
    pub since_attached: bool,
    /// The monitor says that this node is not part of the formation any more.
    pub dropped: bool,
}

/// The keeper's side of the link.
#[derive(Debug)]
pub struct Link {
    /// Calls.
    pub client: Client,
    /// Whose reports.
    pub identity: Identity,
    /// What a monitor is told that does not know this node.
    pub join: JoinRequest,
    /// Which monitor is called.
    pub attachment: watch::Receiver<Attachment>,
    /// Random per process.
    pub keeper: String,
    /// What to report; a change that is news is signalled.
    pub outgoing: watch::Receiver<Option<Report>>,
    /// Whether Postgres answers: the agent may be in no state to say.
    pub health: watch::Receiver<Health>,
    /// What was heard.
    pub heard: watch::Sender<Heard>,
    /// Where leases go.
    pub right: Right,
}

impl Link {
    /// Calls for ever. Where an answer is overdue, another call is made beside the one that waits, and
    /// another: a connection whose first packet was lost is tried again by Linux after a whole second only
    /// (`TCP_TIMEOUT_INIT`), which is a third of the default node timeout.
    pub async fn run(mut self) {
        let mut calls = FuturesUnordered::new();
        let mut seq = 0;
        let mut due = Instant::now();
        let (mut news, mut trouble) = (false, false);
        loop {
            tokio::select! {
                changed = self.attachment.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    // What the other one may still answer is no word of this one's.
                    calls = FuturesUnordered::new();
                    self.turn();
                    (due, news) = (Instant::now(), true);
                }
                changed = self.outgoing.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    news = true;
                }
                changed = self.health.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    news = true;
                }
                Some((sent, outcome)) = calls.next(), if !calls.is_empty() => {
                    let before = self.heard.borrow().quarantined;
                    let pause = self.take(sent, outcome);
                    if !before && self.heard.borrow().quarantined {
                        // What a lost monitor said comes before this node offers what it knows, or never.
                        calls = FuturesUnordered::new();
                    }
                    if calls.is_empty() {
                        due = Instant::now() + pause;
                    }
                    trouble = !pause.is_zero();
                }
                () = sleep_until(due) => {}
            }
            if self.attachment.borrow().detached.is_some() {
                (due, news) = (Instant::now() + self.interval(), false);
                continue;
            }
            let overdue = Instant::now() >= due;
            if (overdue && calls.len() < MOST_CALLS) || (news && calls.len() < CALLS) {
                let Some(report) = self.newest(seq + 1) else {
                    if self.outgoing.changed().await.is_err() {
                        return;
                    }
                    continue;
                };
                (seq, news) = (seq + 1, false);
                trouble |= overdue && !calls.is_empty();
                let interval = self.interval();
                // After a silence any answer is welcome, at once.
                let wait = if trouble { Duration::ZERO } else { interval };
                let (client, identity) = (self.client.clone(), self.identity.clone());
                let known = (identity, self.join.clone());
                calls.push(call(client, known, report, (wait, interval)));
                due = Instant::now() + wait + interval / RETRY_SHARE;
            } else if overdue {
                due = Instant::now() + self.interval() / RETRY_SHARE;
            }
        }
    }

    /// An operator has named another monitor, or none.
    fn turn(&mut self) {
        let attachment = self.attachment.borrow_and_update().clone();
        if let Ok(monitors) = parse_monitor_urls(&attachment.monitors.join(",")) {
            self.client.set_monitors(monitors);
        }
        self.join.token = attachment.token.or(self.join.token.take());
        let unreachable =
            attachment.detached.map(|_| "detached from the monitor by an operator".to_owned());
        self.heard.send_modify(|heard| {
            heard.unreachable = unreachable;
            heard.quarantined = false;
            heard.since_attached = false;
        });
    }

    /// What is to be reported now, if anything is yet.
    fn newest(&mut self, seq: u64) -> Option<Report> {
        let mut report = self.outgoing.borrow_and_update().clone()?;
        let health = self.health.borrow_and_update().clone();
        report.seq = seq;
        report.failed = report.failed.or(health.ailment);
        report.silent_ms = health.silent_since.map_or(0, |at| clock::now().since(at));
        report.keeper.clone_from(&self.keeper);
        report.nonce = rand::random();
        report.revision = self.heard.borrow().answer.as_ref().map_or(Revision(0), |a| a.revision);
        Some(report)
    }

    fn interval(&self) -> Duration {
        let heard = self.heard.borrow();
        let timers = heard.answer.as_ref().map(|answer| answer.assignment.timers);
        timers.map_or(Duration::from_millis(500), |timers| timers.report_interval())
    }

    /// Takes in what came of a call; how long to wait before the next.
    fn take(&mut self, sent: Millis, outcome: Result<Answer, ClientError>) -> Duration {
        match outcome {
            Ok(answer) => {
                // Its lease may be one without an end that the monitor has taken back since.
                let known = |known: &Answer| answer.is_older_than(known);
                if self.heard.borrow().answer.as_ref().is_some_and(known) {
                    return Duration::ZERO;
                }
                self.right
                    .update(|tenure| tenure.grant(answer.lease, answer.assignment.order, sent));
                if let Ok(monitors) = parse_monitor_urls(&answer.monitors.join(",")) {
                    self.client.set_monitors(monitors);
                }
                self.heard.send_replace(Heard {
                    answer: Some(answer),
                    at: Some(sent),
                    unreachable: None,
                    quarantined: false,
                    since_attached: true,
                    dropped: false,
                });
                Duration::ZERO
            }
            Err(ClientError::Dropped) => {
                self.heard.send_modify(|heard| heard.dropped = true);
                self.interval()
            }
            Err(error) => {
                // Of calls beside each other the last may fail after another was answered.
                let answered = self.heard.borrow().at.is_some_and(|at| at > sent);
                let text = error.to_string();
                let quarantined = is_about(&error, &["quarantine"]);
                if quarantined != self.heard.borrow().quarantined && !answered {
                    self.heard.send_modify(|heard| heard.quarantined = quarantined);
                }
                let new = self.heard.borrow().unreachable.as_ref() != Some(&text);
                if new && !answered {
                    tracing::warn!("the monitor does not take reports: {text}");
                    self.heard.send_modify(|heard| heard.unreachable = Some(text));
                }
                self.interval() / RETRY_SHARE
            }
        }
    }
}

async fn call(
    client: Client,
    (identity, join): (Identity, JoinRequest),
    report: Report,
    (wait, interval): (Duration, Duration),
) -> (Millis, Result<Answer, ClientError>) {
    let wait_ms = u64::try_from(wait.as_millis()).unwrap_or_default();
    let sent = clock::now();
    let nonce = report.nonce;
    // A call that takes longer than a wait and another interval is lost; others may get through
    // before the lease (four intervals) ends.
    let limit = interval * 2;
    let outcome = match client.report(&identity, &report, wait_ms, limit).await {
        // It may be one that has lost what it knew.
        Err(error) if is_about(&error, &["unknown_node", "unknown_formation"]) => {
            let join = JoinRequest { data: report.data, ..join };
            client.join(&join).await.and(Err(error))
        }
        outcome => outcome,
    };
    // An answer to another question is none (rule 2).
    let outcome = outcome.and_then(|answer| {
        if answer.nonce == nonce {
            Ok(answer)
        } else {
            Err(ClientError::Setup("the answer belongs to another report".to_owned()))
        }
    });
    (sent, outcome)
}

/// Whether the monitor gave one of these reasons.
pub(crate) fn is_about(error: &ClientError, reasons: &[&str]) -> bool {
    match error {
        ClientError::Api { error, .. } => reasons.contains(&error.reason.as_str()),
        ClientError::Unreachable { .. }
        | ClientError::Dropped
        | ClientError::Protocol { .. }
        | ClientError::Setup(_) => false,
    }
}

/// Whether a report has something that the monitor should hear at once, not with the next interval.
pub fn is_news(before: &Report, after: &Report) -> bool {
    let rows = |report: &Report| -> Vec<_> {
        report.replicas.iter().map(|row| (row.node, row.state.clone(), row.slot.clone())).collect()
    };
    let essence = |report: &Report| Essence {
        accepted: report.accepted.map(|a| (a.order.ticket, a.order.generation, a.epoch)),
        state: report.state,
        sealed: report.sealed,
        in_force: report.in_force,
        promoted: report.promoted.clone(),
        data: report.data,
        running: report.postgres.running,
        in_recovery: report.postgres.in_recovery,
        streaming: report.streaming,
        failed: report.failed.is_some(),
        vetoes: report.vetoes.is_some(),
        leaving: report.leaving,
        rows: rows(report),
        settings: report.settings.clone(),
        catalogue: report.catalogue.is_some(),
        offers: report.offer.is_some(),
    };
    essence(before) != essence(after)
}

#[derive(PartialEq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "the facts of a report, compared and nothing else"
)]
struct Essence {
    accepted: Option<(Ticket, Gen, Epoch)>,
    state: shared::state::NodeState,
    sealed: Option<shared::report::Sealed>,
    in_force: Option<shared::report::InForce>,
    promoted: Option<shared::report::Promoted>,
    data: shared::report::Data,
    running: bool,
    in_recovery: Option<bool>,
    streaming: bool,
    failed: bool,
    vetoes: bool,
    leaving: bool,
    rows: Vec<(NodeId, String, Option<String>)>,
    settings: SettingsReport,
    catalogue: bool,
    offers: bool,
}

/// Up to where the members have the log, as the monitor last said.
pub fn flushed(heard: &Heard) -> Vec<(NodeId, Lsn)> {
    heard.answer.as_ref().map(|answer| answer.flushed.clone()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
