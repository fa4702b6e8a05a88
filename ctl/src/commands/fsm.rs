//! `pgtandem fsm`. The rules compiled into this version; the monitor is not asked.

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;
use crate::text::Table;
use fsm::group::rules::RULES;
use serde_json::{Value, json};
use shared::state::NodeState;

/// Shows the rules of the group's machine and the states of nodes
#[derive(Debug, clap::Args)]
pub struct Fsm {}

impl Fsm {
    #[expect(clippy::unused_async, reason = "all commands are run alike")]
    pub async fn run(self, context: &Context) -> Result<Exit, Failure> {
        if context.json {
            output::json(&as_json())?;
        } else {
            output::text(&render())?;
        }
        Ok(Exit::Done)
    }
}

fn as_json() -> Value {
    let rules = RULES.iter().map(|rule| {
        json!({
            "rule": rule.name,
            "phase": rule.phase,
            "conditions": rule.conditions,
            "next": rule.next,
        })
    });
    let states = NodeState::ALL.iter().map(|state| state.as_str());
    json!({ "rules": rules.collect::<Vec<_>>(), "states": states.collect::<Vec<_>>() })
}

fn render() -> String {
    let mut table = Table::new(&["Rule", "Phase", "Next", "Conditions"]);
    for rule in RULES {
        table.row([rule.name, rule.phase, rule.next, rule.conditions].map(str::to_owned).to_vec());
    }
    let states: Vec<_> = NodeState::ALL.iter().map(|state| state.as_str()).collect();
    format!("{}\nStates of a node: {}\n", table.render(), states.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_every_rule_and_state() {
        let value = as_json();
        assert_eq!(value["rules"].as_array().unwrap().len(), RULES.len());
        assert!(render().contains("catchingup"));
    }

    /// The document is written from the rules: where it differs, its table is to be replaced by the one
    /// that this prints.
    #[test]
    fn the_document_has_the_rules_that_the_program_has() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/state-machine.md");
        let document = std::fs::read_to_string(path).unwrap();
        let mut table = String::from("| | rule | phase | when | next |\n|---|---|---|---|---|\n");
        for (index, rule) in RULES.iter().enumerate() {
            let (name, phase, when, next) = (rule.name, rule.phase, rule.conditions, rule.next);
            table += &format!("| {} | `{name}` | {phase} | {when} | {next} |\n", index + 1);
        }
        assert!(document.contains(&table), "docs/state-machine.md should have:\n{table}");
        for state in NodeState::ALL {
            assert!(document.contains(&format!("`{state}`")), "{state} is not in the document");
        }
    }
}
