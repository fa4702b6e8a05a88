//! `pgtandem haproxy`. What is decided from the formation is in `plan`, how HAProxy is told in `config`.
//!
//! The output depends on the formation's nodes, its timers and the arguments, and on nothing that changes
//! by itself: the same formation gives the same bytes, whoever is the primary.

mod config;
mod plan;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;
use fsm::group::request::parse_duration;
use plan::{Choices, Listen, Plan, RunAs};
use serde_json::{Value, json};
use shared::size::Size;

/// Prints a configuration of HAProxy for the formation
#[derive(Debug, clap::Args)]
pub struct Haproxy {
    /// Where clients connect that write: they get to the primary
    #[arg(long, value_name = "ADDR:PORT", default_value = "*:5000")]
    listen_rw: Listen,
    /// Where clients connect that read: they get to a standby, or to the primary where none is fit
    #[arg(long, value_name = "ADDR:PORT", default_value = "*:5001")]
    listen_ro: Listen,
    /// The most that a standby may be behind to be read from
    #[arg(long, value_name = "SIZE", default_value = "16MB", allow_negative_numbers = true)]
    max_lag: Size,
    /// How often each keeper is asked [default: a quarter of the formation's lease]
    #[arg(long, value_name = "DURATION", value_parser = duration, allow_negative_numbers = true)]
    check_interval: Option<u64>,
    /// Where HAProxy's own statistics are shown [default: nowhere]
    #[arg(long, value_name = "ADDR:PORT")]
    stats: Option<Listen>,
    /// As whom HAProxy runs where root starts it: the packages of distributions have a user `haproxy` [default: as who starts it]
    #[arg(long, value_name = "USER[:GROUP]")]
    run_as: Option<RunAs>,
}

/// Checks further apart than this find nothing in time.
const LONGEST_INTERVAL_MS: u64 = 3_600_000;

fn duration(text: &str) -> Result<u64, String> {
    match parse_duration(text) {
        Ok(0) => Err(format!("'{text}' is no time at all")),
        Ok(ms) if ms > LONGEST_INTERVAL_MS => Err(format!("'{text}' is longer than an hour")),
        Ok(ms) => Ok(ms),
        Err(error) => Err(error.message),
    }
}

impl Haproxy {
    pub async fn run(self, context: &Context) -> Result<Exit, Failure> {
        let client = context.client()?;
        let status = client.status(&context.formation, None, 0).await?;
        let settings = client.settings(&context.formation).await?;
        let choices = Choices {
            listen_rw: self.listen_rw,
            listen_ro: self.listen_ro,
            max_lag: self.max_lag,
            check_interval_ms: self.check_interval,
            stats: self.stats,
            run_as: self.run_as,
        };
        let plan = Plan::new(&status, &settings.timers, choices)?;
        for node in plan.only_asked_locally() {
            output::note(&format!(
                "pgtandem: the keeper of {node} answers on its own host only: for a HAProxy elsewhere give it another --rest-listen"
            ));
        }
        if plan.check.longest_ms() > settings.timers.lease_ms {
            output::note(&format!(
                "pgtandem: by these checks a primary that stands still is given up after {} ms only, and its lease is {} ms: there may be another by then",
                plan.check.longest_ms(),
                settings.timers.lease_ms
            ));
        }
        let text = config::render(&plan);
        if context.json {
            output::json(&document(&plan, &text))?;
        } else {
            output::script(&text)?;
        }
        Ok(Exit::Done)
    }
}

fn document(plan: &Plan, text: &str) -> Value {
    let servers: Vec<_> = plan
        .servers
        .iter()
        .map(|server| {
            json!({
                "name": server.name, "address": server.postgres.to_string(),
                "check": server.keeper.to_string(),
            })
        })
        .collect();
    json!({
        "formation": plan.formation,
        "read_write": { "listen": plan.choices.listen_rw.to_string(), "check": config::PRIMARY },
        "read_only": {
            "listen": plan.choices.listen_ro.to_string(), "check": config::replica(plan),
            "max_lag_bytes": plan.choices.max_lag,
        },
        "stats": plan.choices.stats.as_ref().map(ToString::to_string),
        "check_ms": {
            "interval": plan.check.interval_ms, "fast": plan.check.fast_ms,
            "timeout": plan.check.timeout_ms,
        },
        "servers": servers,
        "configuration": text,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(Debug, clap::Parser)]
    struct Command {
        #[command(flatten)]
        haproxy: Haproxy,
    }

    fn refusal(option: &str, value: &str) -> String {
        Command::try_parse_from(["haproxy", option, value]).unwrap_err().to_string()
    }

    #[test]
    fn values_that_cannot_be_read_are_said_to_be_so() {
        for value in ["-1", "some", "16M", ""] {
            assert!(refusal("--max-lag", value).contains("is not a size"), "{value}");
        }
        assert!(refusal("--check-interval", "0s").contains("no time at all"));
        assert!(refusal("--check-interval", "61min").contains("longer than an hour"));
        assert!(refusal("--listen-rw", "5000").contains("write it like"));
        assert!(refusal("--run-as", "a b").contains("is not a user"));
        let interval = Command::try_parse_from(["haproxy", "--check-interval", "60min"]).unwrap();
        assert_eq!(interval.haproxy.check_interval, Some(LONGEST_INTERVAL_MS));
    }
}
