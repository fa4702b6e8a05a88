//! Registers and lists that several callers share: one copy is what they see, whoever is the primary.

#![expect(
    clippy::print_stdout,
    reason = "figures and faults, for whoever runs it with --no-capture"
)]

use anyhow::{Context as _, Result, bail, ensure};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tests::harness::history::operations::{Call, Found, INITIAL, Operation, Reply, tally};
use tests::harness::verdict::lists::Lists;
use tests::harness::verdict::registers::Last;
use tests::harness::verdict::rows::Wrong;
use tests::harness::verdict::{lists, read_lists, read_registers, registers};
use tests::harness::{Cluster, History, Outcome};

const CALLERS: usize = 4;

/// Long enough for some thousand operations.
const A_WHILE: Duration = Duration::from_secs(3);

/// What is wrong with the operations of a history.
fn wrong(operations: Vec<Operation>, last: &Last, items: &Lists) -> Vec<String> {
    let history = History::new(Vec::new(), Instant::now()).with_operations(operations);
    let found: [Wrong; 2] = [registers::check(&history, last), lists::check(&history, items)];
    found.into_iter().flat_map(|wrong| [wrong.lost, wrong.other].concat()).collect()
}

/// The history with another outcome of the newest operation for which there is one.
fn doctored(
    operations: &[Operation],
    another: impl Fn(&Operation, &Reply) -> Option<Outcome<Reply>>,
) -> Result<Vec<Operation>> {
    let mut doctored = operations.to_vec();
    for operation in doctored.iter_mut().rev() {
        let Some((reply, _)) = operation.reply() else { continue };
        if let Some(outcome) = another(operation, reply) {
            operation.outcome = outcome;
            return Ok(doctored);
        }
    }
    bail!("no operation is fit for it")
}

fn instead(reply: &Reply, found: Found) -> Outcome<Reply> {
    Outcome::Acknowledged(Reply { found, ..*reply })
}

/// Whether a register was certainly written before an operation began.
fn was_written_before(operations: &[Operation], later: &Operation) -> bool {
    let saw_a_value = |earlier: &Operation| {
        let reply = earlier.reply().filter(|(_, ended)| *ended < later.started);
        reply.is_some_and(|(reply, _)| reply.found != Found::Value(INITIAL))
    };
    let same = |earlier: &&Operation| earlier.call.register() == later.call.register();
    operations.iter().filter(same).any(saw_a_value)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn are_as_one_copy_whoever_is_the_primary() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let mut workload = cluster.workload().await?;
    workload.start_callers(CALLERS);
    workload.goes_on_for(A_WHILE).await?;
    cluster.primary().await?.kill_postmaster()?;
    workload.callers_go_on().await?;
    cluster.settled().await?;
    cluster.perform(&["switchover"]).await?;
    workload.callers_go_on().await?;
    workload.goes_on_for(A_WHILE).await?;
    let old = cluster.primary().await?;
    old.kill_both()?;
    workload.callers_go_on().await?;
    cluster.settled().await?;
    old.start_keeper()?;
    cluster.settled().await?;
    workload.callers_go_on().await?;
    let history = cluster.verdict(workload).await?;
    println!("{}\n{}", history.summary(), tally(history.operations()));
    let replies = history.operations().iter().filter_map(Operation::reply);
    let reigns: BTreeSet<_> = replies.map(|(reply, _)| reply.reign).collect();
    ensure!(reigns.len() > 2, "{reigns:?}");
    let sql = cluster.primary().await?.sql().await?;
    is_not_blind(history.operations(), &read_registers(&sql).await?, &read_lists(&sql).await?)
}

/// One outcome is another in a history that is right, and it is wrong.
fn is_not_blind(operations: &[Operation], last: &Last, items: &Lists) -> Result<()> {
    ensure!(wrong(operations.to_vec(), last, items).is_empty());
    let stale = doctored(operations, |operation, reply| {
        let fit = matches!(operation.call, Call::Read(_))
            && was_written_before(operations, operation)
            && reply.found != Found::Value(INITIAL);
        fit.then(|| instead(reply, Found::Value(INITIAL)))
    })?;
    let refused = doctored(operations, |operation, _| {
        let written = Found::Value(operation.call.writes()?);
        let saw_it = |other: &&Operation| {
            other.started != operation.started
                && other.reply().is_some_and(|(reply, _)| reply.found == written)
        };
        operations.iter().find(saw_it).map(|_| Outcome::Refused("doctored".to_owned()))
    })?;
    let shortened = doctored(operations, |_, reply| match &reply.found {
        Found::Items(items) if items.len() > 20 => {
            Some(instead(reply, Found::Items(items.iter().take(2).copied().collect())))
        }
        Found::Items(_) | Found::Value(_) | Found::Nothing => None,
    })?;
    for (doctored, said) in [
        (stale, "not linearizable"),
        (refused, "was seen and nobody has written it"),
        (shortened, "is not in the order of time"),
    ] {
        let wrong = wrong(doctored, last, items);
        ensure!(wrong.iter().any(|text| text.contains(said)), "{said}: {wrong:?}");
        println!("{}", wrong.join("\n"));
    }
    Ok(())
}

/// What somebody does behind the callers' backs, and what the verdict says of it.
const MISTAKES: [(&str, &str); 4] = [
    ("update registers set value = 0", "not linearizable"),
    ("delete from registers where key = 9", "Register(9) is not there"),
    ("update lists set items = items[2:]", "acknowledged and lost"),
    ("update lists set items = items || items[1]", "twice, at"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn are_not_to_be_tampered_with() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let mut workload = cluster.workload().await?;
    workload.start_callers(CALLERS);
    workload.callers_go_on().await?;
    workload.acknowledges(200).await?;
    let sql = cluster.primary().await?.sql().await?;
    for (mistake, _) in MISTAKES {
        sql.run(mistake).await?;
    }
    workload.callers_go_on().await?;
    let verdict = cluster.verdict(workload).await.err().context("the verdict finds no fault")?;
    let verdict = format!("{verdict:#}");
    for (mistake, said) in MISTAKES {
        ensure!(verdict.contains(said), "'{mistake}' is not seen: {verdict}");
    }
    cluster.pass();
    Ok(())
}
