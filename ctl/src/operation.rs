//! Asks for an action and waits until it is done.
//!
//! The request carries an idempotency key, so that it can be sent again when its answer was lost.
//! While waiting, a monitor that cannot be reached is no end: it may be restarting, and the
//! operation is recorded. Only the caller's patience ends the wait, with outcome `timeout`.

use crate::commands::events::Follower;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::{output, text};
use ctl::client::{Client, ClientError, idempotency_key};
use shared::api::{Action, ApiError, OperationResult, Outcome};
use shared::ids::FormationId;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};

/// The longest single wait that the monitor is asked for.
const LONG_POLL: Duration = Duration::from_secs(10);
/// Between two tries after an answer that came too soon or not at all.
pub const PAUSE: Duration = Duration::from_millis(300);
/// For an answer that is on its way when patience ends.
const LAST_ANSWER: Duration = Duration::from_millis(500);

/// How long to wait for an action.
#[derive(Debug, clap::Args)]
pub struct Wait {
    /// Returns as soon as the request is recorded
    #[arg(long)]
    pub no_wait: bool,
    /// Waits at most so long; the request stays recorded and goes on
    #[arg(long, env = "PGTANDEM_TIMEOUT", value_name = "SECONDS", default_value_t = 60)]
    pub timeout: u64,
}

/// Asks for the action, waits, and prints the result.
pub async fn perform(context: &Context, action: &Action, wait: &Wait) -> Result<Exit, Failure> {
    let client = context.client()?;
    let deadline = deadline_after(wait.timeout);
    let mut follower = if wait.no_wait || context.json {
        None
    } else {
        Some(Follower::from_now(&client, &context.formation).await?)
    };
    let mut result = submit(&client, &context.formation, action, deadline).await?;
    if result.outcome == Outcome::Accepted && !wait.no_wait {
        let waiting = Waiting { client: &client, formation: &context.formation, deadline };
        result = match &mut follower {
            None => waiting.until_done(result).await?,
            Some(follower) => tokio::select! {
                result = waiting.until_done(result) => result?,
                never = follower.print_progress() => match never {},
            },
        };
    }
    if let Some(follower) = &mut follower {
        follower.print_rest().await;
    }
    show(context, &result)?;
    Ok(Exit::of_outcome(result.outcome))
}

/// The end of so many seconds of patience.
pub fn deadline_after(seconds: u64) -> Instant {
    let now = Instant::now();
    // More than a year is as good as for ever.
    now + Duration::from_secs(seconds.min(366 * 86_400))
}

/// Sends the request, again where its answer was lost.
pub async fn submit(
    client: &Client,
    formation: &FormationId,
    action: &Action,
    deadline: Instant,
) -> Result<OperationResult, Failure> {
    let key = idempotency_key();
    let mut lost = false;
    loop {
        match client.action(formation, action, &key).await {
            Err(ClientError::Unreachable { maybe_delivered, why, .. })
                if lost || maybe_delivered =>
            {
                lost = true;
                if Instant::now() >= deadline {
                    let message = format!(
                        "the monitor's answer was lost ({why}); the request may have been \
                         recorded: `pgtandem status` tells"
                    );
                    return Err(Failure::new(Exit::Unreachable, "answer_lost", message));
                }
                sleep(PAUSE).await;
            }
            other => return Ok(other?),
        }
    }
}

/// For the end of one operation.
struct Waiting<'a> {
    client: &'a Client,
    formation: &'a FormationId,
    deadline: Instant,
}

impl Waiting<'_> {
    async fn until_done(&self, accepted: OperationResult) -> Result<OperationResult, Failure> {
        let mut last = accepted;
        let mut trouble = None;
        loop {
            let started = Instant::now();
            let left = self.deadline.saturating_duration_since(started);
            if left.is_zero() {
                return Ok(timed_out(last, trouble));
            }
            let wait_ms = u64::try_from(left.min(LONG_POLL).as_millis()).unwrap_or(u64::MAX);
            let poll = self.client.operation(self.formation, last.id, wait_ms);
            match timeout_at(self.deadline + LAST_ANSWER, poll).await {
                Ok(Ok(result)) if result.outcome != Outcome::Accepted => return Ok(result),
                Ok(Ok(result)) => (last, trouble) = (result, None),
                Ok(Err(error)) if is_passing(&error) => trouble = Some(error),
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => return Ok(timed_out(last, trouble)),
            }
            if started.elapsed() < PAUSE {
                sleep(PAUSE.min(left)).await;
            }
        }
    }
}

/// Whether the same question may be answered a little later.
pub fn is_passing(error: &ClientError) -> bool {
    match error {
        ClientError::Unreachable { .. } => true,
        ClientError::Api { error: ApiError { code, .. }, .. } => {
            [Exit::Unreachable, Exit::TimedOut, Exit::Busy].contains(&Exit::of_error(*code))
        }
        ClientError::Dropped | ClientError::Protocol { .. } | ClientError::Setup(_) => false,
    }
}

fn timed_out(last: OperationResult, trouble: Option<ClientError>) -> OperationResult {
    let mut reason = format!(
        "not done yet; operation {} stays recorded and goes on: `pgtandem status` shows it",
        last.id
    );
    for said in [Some(last.reason), trouble.map(|error| error.to_string())].into_iter().flatten() {
        if !said.is_empty() {
            reason.push_str("; ");
            reason.push_str(&said);
        }
    }
    OperationResult { outcome: Outcome::Timeout, reason, ..last }
}

/// Prints a result.
pub fn show(context: &Context, result: &OperationResult) -> Result<(), Failure> {
    if context.json {
        return output::json(result);
    }
    output::text(&render(result))
}

fn render(result: &OperationResult) -> String {
    let outcome = match result.outcome {
        Outcome::Done => "done",
        Outcome::Accepted => "accepted",
        Outcome::Refused => "refused",
        Outcome::Timeout => "timeout",
        Outcome::Failed => "failed",
    };
    let mut line = format!("{outcome}: {}", result.reason);
    if result.id > 0 {
        line = format!("operation {} {line}", result.id);
    }
    if result.new_primary.is_some() && result.old_primary != result.new_primary {
        let old = text::or_dash(result.old_primary.as_ref());
        let new = text::or_dash(result.new_primary.as_ref());
        let timeline = text::or_dash(result.timeline);
        line = format!("{line}\nprimary: {old} -> {new}, timeline {timeline}");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::ids::TimelineId;

    fn result(outcome: Outcome) -> OperationResult {
        OperationResult {
            id: 7,
            outcome,
            reason: "node2 is the primary".to_owned(),
            old_primary: Some("node1".parse().unwrap()),
            new_primary: Some("node2".parse().unwrap()),
            timeline: Some(TimelineId(3)),
            started_at: "2026-01-02T03:04:05Z".parse().unwrap(),
            finished_at: None,
        }
    }

    #[test]
    fn a_result_names_both_primaries() {
        assert_eq!(
            render(&result(Outcome::Done)),
            "operation 7 done: node2 is the primary\nprimary: node1 -> node2, timeline 3"
        );
    }

    #[test]
    fn a_timeout_says_that_the_operation_goes_on() {
        let result = timed_out(result(Outcome::Accepted), None);
        assert_eq!(result.outcome, Outcome::Timeout);
        assert!(result.reason.contains("operation 7 stays recorded and goes on"));
    }
}
