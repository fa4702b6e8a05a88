//! `pgtandem config show`: a row for each setting, a column for each node.

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;
use crate::text::Table;
use shared::ids::NodeName;
use shared::pgsettings::{NodeConfig, PostgresConfig};
use std::collections::BTreeSet;

/// Prints the settings, of all nodes or of one.
pub(super) async fn show(context: &Context, node: Option<&NodeName>) -> Result<Exit, Failure> {
    let mut config = context.client()?.postgres_settings(&context.formation).await?;
    if let Some(name) = node {
        config.nodes.retain(|node| node.name == *name);
        if config.nodes.is_empty() {
            let message = format!("formation {} has no node {name}", context.formation);
            return Err(Failure::new(Exit::BadArguments, "unknown_node", message));
        }
    }
    if context.json {
        output::json(&config)?;
    } else {
        output::text(&render(&config))?;
    }
    Ok(Exit::Done)
}

fn render(config: &PostgresConfig) -> String {
    let set = config.values.keys().chain(config.nodes.iter().flat_map(|node| node.values.keys()));
    let waiting = config.nodes.iter().flat_map(|node| node.pending_restart.iter());
    let names: BTreeSet<&str> = set.chain(waiting).map(String::as_str).collect();
    let mut headings = vec!["Setting", "All nodes"];
    headings.extend(config.nodes.iter().map(|node| node.name.as_str()));
    let mut table = Table::new(&headings);
    for name in &names {
        let all = config.values.get(*name).map_or_else(|| "-".to_owned(), Clone::clone);
        let cells = config.nodes.iter().map(|node| cell(node, name));
        table.row([(*name).to_owned(), all].into_iter().chain(cells).collect());
    }
    let mut lines = if names.is_empty() {
        "nothing is set: what postgresql.conf says counts\n".to_owned()
    } else {
        table.render()
    };
    for node in &config.nodes {
        for note in notes(node) {
            lines.push_str(&format!("{}: {note}\n", node.name));
        }
    }
    lines
}

/// What is in force, with what is special about it.
fn cell(node: &NodeConfig, name: &str) -> String {
    let mut text = node.in_force.get(name).map_or_else(|| "-".to_owned(), Clone::clone);
    if let Some(own) = node.values.get(name) {
        text.push_str(&format!(" (own: {own})"));
    }
    if node.pending_restart.contains(name) {
        text.push_str(" (waits for a restart)");
    }
    text
}

fn notes(node: &NodeConfig) -> Vec<String> {
    let mut notes = Vec::new();
    if !node.reachable {
        notes.push("cannot be reached; it gets what is set when it is back".to_owned());
    } else if let Some(why) = &node.refused {
        notes.push(format!("keeps what it had: {why}"));
    } else if !node.applied {
        notes.push("has not read the newest settings yet".to_owned());
    }
    notes.extend(node.waits.iter().cloned());
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_set_and_what_is_in_force_stand_side_by_side() {
        let node = |name: &str, work_mem: &str| {
            json!({
                "name": name, "values": {}, "reachable": true, "applied": true,
                "in_force": { "work_mem": work_mem, "max_connections": "100" },
                "pending_restart": ["max_connections"], "refused": null, "waits": []
            })
        };
        let mut second = node("node2", "16MB");
        second["values"] = json!({ "work_mem": "16MB" });
        second["pending_restart"] = json!([]);
        second["waits"] = json!(["max_connections waits"]);
        let mut third = node("node3", "4MB");
        third["reachable"] = json!(false);
        let config = json!({
            "formation": "default", "revision": 7,
            "values": { "max_connections": "200", "work_mem": "8MB" },
            "nodes": [node("node1", "8MB"), second, third]
        });
        let text = render(&serde_json::from_value(config).unwrap());
        let expected = "\
Setting          All nodes  node1                        node2             node3
max_connections  200        100 (waits for a restart)    100               100 (waits for a restart)
work_mem         8MB        8MB                          16MB (own: 16MB)  4MB
node2: max_connections waits
node3: cannot be reached; it gets what is set when it is back
";
        let squeeze = |text: &str| {
            let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
            text.lines().map(words).collect::<Vec<_>>()
        };
        assert_eq!(squeeze(&text), squeeze(expected));
    }
}
