//! Settings of PostgreSQL: all changes of a request are checked, then all of them hold, or none.

use super::{Reply, Request};
use crate::group::record::{Node, Note, Record};
use crate::pgsettings::{Refusal, check, check_name};
use serde_json::json;
use shared::api::{ApiError, Outcome};
use shared::ids::{NodeId, NodeName, Revision};
use shared::pgsettings::{Catalogue, PostgresSettings, Values, is_required};
use std::collections::BTreeMap;

/// What is asked for.
pub(super) struct Wish<'a> {
    pub(super) node: Option<&'a NodeName>,
    pub(super) changes: &'a BTreeMap<String, Option<String>>,
    pub(super) if_revision: Option<Revision>,
    pub(super) by: Option<&'a str>,
}

/// A node, where it is about one.
type Place<'a> = Option<(NodeId, &'a Node)>;

impl Request<'_> {
    pub(super) fn configure(&self, wish: &Wish<'_>) -> Result<Reply, ApiError> {
        let place = wish.node.map(|name| self.named(name)).transpose()?;
        let present = &self.record.postgres;
        if wish.if_revision.is_some_and(|known| known != present.revision) {
            let message =
                "the settings were changed by somebody else meanwhile: look at them again";
            return Err(busy("changed_meanwhile", message));
        }
        let before = present.place(place.map(|(id, _)| id)).cloned().unwrap_or_default();
        let after = self.checked(&before, wish.changes)?;
        if after == before {
            return Ok(self.already("the settings are so already"));
        }
        let notes = notes(&before, &after, place, wish.by);
        let reason = notes.iter().map(|note| note.reason.as_str()).collect::<Vec<_>>().join("; ");
        let mut next = self.record.clone();
        next.postgres = changed(&self.record.postgres, place.map(|(id, _)| id), after);
        // Both count on where the monitor lost its record, from where each was.
        next.postgres.revision = self.record.revision.max(self.record.postgres.revision).next();
        let decision = self.record.decide(next, notes, self.now);
        Ok(Reply::Decided(Box::new(decision), self.result(0, Outcome::Done, reason)))
    }

    /// What is set in one place after the changes; a line for each that cannot be.
    fn checked(
        &self,
        before: &Values,
        changes: &BTreeMap<String, Option<String>>,
    ) -> Result<Values, ApiError> {
        let catalogues: Vec<_> = self.view.catalogues.values().collect();
        let mut after = before.clone();
        let mut refusals: Vec<Refusal> = Vec::new();
        for (name, value) in changes {
            match value {
                // What was set once can be taken back, whatever the servers know now.
                None => after.retain(|known, _| !known.eq_ignore_ascii_case(name)),
                Some(_) if catalogues.is_empty() => {
                    let message = "no keeper has said yet which settings its server knows: try again when a node runs";
                    return Err(busy("no_catalogue", message));
                }
                Some(value) => match check_all(&catalogues, name, value) {
                    Ok((name, value)) => {
                        after.retain(|known, _| !known.eq_ignore_ascii_case(&name));
                        after.insert(name, value);
                    }
                    Err(refusal) => refusals.push(refusal),
                },
            }
        }
        let Some(first) = refusals.first() else { return Ok(after) };
        let lines: Vec<_> = refusals.iter().map(|refusal| refusal.text.as_str()).collect();
        Err(ApiError {
            code: first.kind.code(),
            reason: first.kind.word().to_owned(),
            message: lines.join("\n"),
            nodes: Vec::new(),
        })
    }
}

fn busy(reason: &str, message: &str) -> ApiError {
    ApiError { code: 6, reason: reason.to_owned(), message: message.to_owned(), nodes: Vec::new() }
}

/// Nodes may run different versions: each has to take it.
fn check_all(
    catalogues: &[&Catalogue],
    name: &str,
    value: &str,
) -> Result<(String, String), Refusal> {
    let mut checked = (name.to_owned(), value.to_owned());
    for catalogue in catalogues {
        let name = check_name(catalogue, name)?;
        let value = check(catalogue, &name, value)?;
        checked = (name, value);
    }
    Ok(checked)
}

fn changed(before: &PostgresSettings, node: Option<NodeId>, values: Values) -> PostgresSettings {
    let mut next = before.clone();
    match node {
        None => next.formation = values,
        Some(id) if values.is_empty() => drop(next.nodes.remove(&id)),
        Some(id) => drop(next.nodes.insert(id, values)),
    }
    let gone = |name: &&str| is_required(name) && !next.names().contains(name);
    let released = before.names().into_iter().filter(gone).map(str::to_owned);
    next.released.extend(released.collect::<Vec<_>>());
    next
}

/// One event for each setting: who changed what, from what to what.
fn notes(before: &Values, after: &Values, place: Place<'_>, by: Option<&str>) -> Vec<Note> {
    let mut names: Vec<_> = before.keys().chain(after.keys()).collect();
    names.sort();
    names.dedup();
    names
        .into_iter()
        .filter(|name| before.get(*name) != after.get(*name))
        .map(|name| note(name, (before.get(name), after.get(name)), place, by))
        .collect()
}

fn note(
    name: &str,
    (before, after): (Option<&String>, Option<&String>),
    place: Place<'_>,
    by: Option<&str>,
) -> Note {
    let whose =
        place.map_or_else(|| "of all nodes".to_owned(), |(_, node)| format!("of {}", node.name));
    let word =
        |value: Option<&String>| value.map_or_else(|| "not set".to_owned(), |it| format!("'{it}'"));
    let who = by.map(|by| format!(", by {by}")).unwrap_or_default();
    let reason = format!("{name} {whose} is now {}, was {}{who}", word(after), word(before));
    let mut note = Note::new("postgres_setting", "operator", reason).evidence(json!({
        "name": name, "by": by, "before": before, "after": after,
    }));
    (note.from, note.to) = (before.cloned(), after.cloned());
    match place {
        None => note,
        Some((id, _)) => note.about(id),
    }
}

/// The record without what was set for a node that has gone.
pub(crate) fn forget(record: &mut Record, node: NodeId) {
    if let Some(values) = record.postgres.nodes.remove(&node) {
        let names = values.into_keys().filter(|name| is_required(name));
        record.postgres.released.extend(names);
    }
}
