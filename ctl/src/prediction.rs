//! What would happen, for people.

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::operation::Wait;
use crate::{operation, output, text};
use shared::api::{Action, PredictedOutcome, PredictedStep, Prediction};

/// Whether to do it, or only to say what would come of it.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct DryRun {
    /// Changes nothing: says what would be decided and how it would end, or why it would be refused
    #[arg(long, conflicts_with = "no_wait")]
    dry_run: bool,
}

impl DryRun {
    /// Asks for the action, or for what would come of it.
    pub async fn perform(
        self,
        context: &Context,
        action: &Action,
        wait: &Wait,
    ) -> Result<Exit, Failure> {
        if !self.dry_run {
            return operation::perform(context, action, wait).await;
        }
        let foreseen = context.client()?.predict(&context.formation, action).await?;
        show(context, &foreseen)?;
        Ok(exit(foreseen.outcome))
    }
}

/// As the command would end without `--dry-run`.
fn exit(outcome: PredictedOutcome) -> Exit {
    match outcome {
        PredictedOutcome::TakesWrites
        | PredictedOutcome::Waits
        | PredictedOutcome::StandsStill
        | PredictedOutcome::ChangesNothing => Exit::Done,
        PredictedOutcome::Fails => Exit::Refused,
        PredictedOutcome::DoesNotEnd => Exit::TimedOut,
    }
}

/// Prints a prediction.
pub fn show(context: &Context, prediction: &Prediction) -> Result<(), Failure> {
    if context.json {
        return output::json(prediction);
    }
    output::text(&render(prediction))
}

fn render(prediction: &Prediction) -> String {
    let mut lines: Vec<_> = prediction.steps.iter().map(step).collect();
    if !lines.is_empty() {
        lines.push(String::new());
    }
    lines.extend(ends(prediction));
    lines.join("\n")
}

fn step(step: &PredictedStep) -> String {
    format!("{:>7} ms  {}: {}", step.after_ms, step.rule, step.reason)
}

/// How it would end, and what is not obvious from that.
pub fn ends(prediction: &Prediction) -> Vec<String> {
    let mut lines = vec![prediction.reason.clone()];
    for other in &prediction.alternatives {
        lines.push(format!("or, by chance alone: {}", other.reason));
    }
    lines.extend(at_risk(prediction));
    lines
}

fn at_risk(prediction: &Prediction) -> Option<String> {
    if prediction.outcome == PredictedOutcome::ChangesNothing {
        return None;
    }
    match (prediction.bytes_at_risk, &prediction.primary) {
        (Some(0), Some(_)) => Some("no acknowledged commit would be lost".to_owned()),
        (Some(bytes), Some(primary)) => Some(format!(
            "{primary} would lack at least {} of what may have been acknowledged",
            text::bytes(bytes)
        )),
        (Some(bytes), None) => Some(format!(
            "nobody is promoted without proof; `pgtandem failover --allow-data-loss` would give up at least {} of what may have been acknowledged, by the newest reports",
            text::bytes(bytes)
        )),
        (None, Some(_) | None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::api::SyncStatus;

    fn prediction(primary: Option<&str>, bytes_at_risk: Option<u64>) -> Prediction {
        Prediction {
            steps: vec![PredictedStep {
                after_ms: 3000,
                rule: "primary-dead".to_owned(),
                node: None,
                reason: "a new primary is needed".to_owned(),
            }],
            outcome: PredictedOutcome::TakesWrites,
            reason: "it would end".to_owned(),
            primary: primary.map(|name| name.parse().unwrap()),
            alternatives: Vec::new(),
            sync: SyncStatus {
                in_force: None,
                members: Vec::new(),
                required: 0,
                pending: None,
                generation: None,
            },
            writable: true,
            writable_after_ms: Some(3000),
            blocked_by: Vec::new(),
            bytes_at_risk,
        }
    }

    #[test]
    fn steps_and_end() {
        let mut prediction = prediction(Some("node2"), Some(0));
        prediction
            .alternatives
            .push(Prediction { reason: "it would end otherwise".to_owned(), ..prediction.clone() });
        assert_eq!(
            render(&prediction),
            "   3000 ms  primary-dead: a new primary is needed\n\nit would end\n\
             or, by chance alone: it would end otherwise\nno acknowledged commit would be lost"
        );
    }

    #[test]
    fn what_is_at_risk() {
        let said = |primary, bytes| at_risk(&prediction(primary, bytes)).unwrap_or_default();
        assert!(said(Some("node2"), Some(100)).starts_with("node2 would lack at least 100 B"));
        assert!(said(None, Some(100)).contains("--allow-data-loss"));
        assert_eq!(said(None, None), "");
    }

    #[test]
    fn exit_codes_are_those_of_the_real_thing() {
        let codes = [
            (PredictedOutcome::TakesWrites, 0),
            (PredictedOutcome::ChangesNothing, 0),
            (PredictedOutcome::Fails, 3),
            (PredictedOutcome::DoesNotEnd, 5),
        ];
        for (outcome, code) in codes {
            assert_eq!(exit(outcome).code(), code, "{outcome:?}");
        }
    }
}
