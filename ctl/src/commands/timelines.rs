//! `pgtandem timelines`.

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;
use crate::text::{Table, bytes, names, or_dash};
use shared::api::{StrayStatus, TimelineState, TimelineStatus, Timelines as History};

/// Shows what became of the group's history: who was the primary when, and why that changed
#[derive(Debug, clap::Args)]
pub struct Timelines {}

impl Timelines {
    pub async fn run(self, context: &Context) -> Result<Exit, Failure> {
        let history = context.client()?.timelines(&context.formation).await?;
        if context.json {
            output::json(&history)?;
        } else {
            output::text(&render(&history))?;
        }
        Ok(Exit::Done)
    }
}

fn render(history: &History) -> String {
    let mut table =
        Table::new(&["Timeline", "Epoch", "State", "Primary", "Since", "Forked from", "On it now"]);
    for timeline in &history.timelines {
        table.row(vec![
            timeline.timeline.to_string(),
            timeline.epoch.to_string(),
            state(timeline).to_owned(),
            or_dash(timeline.primary.as_ref()),
            or_dash(timeline.since.map(|at| at.format("%Y-%m-%d %H:%M:%S UTC"))),
            fork(timeline),
            if timeline.nodes.is_empty() { "-".to_owned() } else { names(&timeline.nodes) },
        ]);
    }
    let mut text = table.render();
    let reasons = history.timelines.iter().filter_map(why);
    let reasons: Vec<_> = reasons.collect();
    if !reasons.is_empty() {
        text = text + "\n" + &reasons.join("\n") + "\n";
    }
    for stray in &history.strays {
        text = text + "\n" + &off_history(stray) + "\n";
    }
    text
}

fn state(timeline: &TimelineStatus) -> &'static str {
    match timeline.state {
        TimelineState::Present => "present",
        TimelineState::Passed => "passed",
        TimelineState::Abandoned => "abandoned",
        TimelineState::Promoting => "promoting",
        TimelineState::NeverBegun => "never begun",
    }
}

fn fork(timeline: &TimelineStatus) -> String {
    match (timeline.parent, timeline.fork_lsn) {
        (Some(parent), Some(lsn)) => format!("{parent} at {lsn}"),
        (Some(_) | None, _) => "-".to_owned(),
    }
}

fn why(timeline: &TimelineStatus) -> Option<String> {
    let (rule, reason) = (timeline.rule.as_ref()?, timeline.reason.as_ref()?);
    let loss = if timeline.data_loss_accepted { " (data loss was accepted)" } else { "" };
    Some(format!("{}: {rule}: {reason}{loss}", timeline.timeline))
}

fn off_history(stray: &StrayStatus) -> String {
    let lost: Vec<_> = stray
        .would_give_up
        .iter()
        .map(|(name, count)| format!("{} of {name}", bytes(*count)))
        .collect();
    let lost =
        if lost.is_empty() { "nothing that is known of".to_owned() } else { lost.join(", ") };
    format!(
        "{} is on a timeline {} of its own, which left timeline {} at {} and is of no epoch; \
         `pgtandem accept timeline {} --reason TEXT` would make it the group's and give up {lost}",
        stray.node, stray.timeline, stray.parent, stray.fork_lsn, stray.timeline
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::ids::{Epoch, GroupId, TimelineId};
    use shared::lsn::Lsn;

    fn timeline(number: u32, state: TimelineState) -> TimelineStatus {
        TimelineStatus {
            epoch: Epoch(2),
            timeline: TimelineId(number),
            state,
            primary: Some("node2".parse().unwrap()),
            decided_at: None,
            since: Some("2026-01-02T03:04:05Z".parse().unwrap()),
            parent: Some(TimelineId(1)),
            fork_lsn: Some(Lsn(0x300_0060)),
            rule: Some("primary-dead".to_owned()),
            reason: Some("a new primary is needed".to_owned()),
            accepted: false,
            data_loss_accepted: false,
            nodes: vec!["node2".parse().unwrap()],
        }
    }

    #[test]
    fn a_history_and_who_left_it() {
        let never = TimelineStatus {
            since: None,
            parent: None,
            fork_lsn: None,
            nodes: Vec::new(),
            reason: None,
            ..timeline(5, TimelineState::NeverBegun)
        };
        let stray = StrayStatus {
            timeline: TimelineId(4),
            node: "node3".parse().unwrap(),
            parent: TimelineId(3),
            fork_lsn: Lsn(0x300_00F0),
            lsn: None,
            would_give_up: [("node2".parse().unwrap(), 200)].into(),
        };
        let history = History {
            formation: "default".parse().unwrap(),
            group: GroupId(0),
            epoch: Epoch(3),
            timelines: vec![timeline(3, TimelineState::Present), never],
            strays: vec![stray],
        };
        assert_eq!(
            render(&history),
            "Timeline  Epoch  State        Primary  Since                    Forked from     On it now\n\
             3         2      present      node2    2026-01-02 03:04:05 UTC  1 at 0/3000060  node2\n\
             5         2      never begun  node2    -                        -               -\n\
             \n3: primary-dead: a new primary is needed\n\
             \nnode3 is on a timeline 4 of its own, which left timeline 3 at 0/30000F0 and is of no \
             epoch; `pgtandem accept timeline 4 --reason TEXT` would make it the group's and give up \
             200 B of node2\n"
        );
    }
}
