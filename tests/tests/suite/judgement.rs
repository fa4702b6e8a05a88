//! The verdict itself, on a real cluster in which something has gone wrong.

use anyhow::{Context as _, Result, ensure};
use tests::harness::Cluster;

/// A mistake, and what the verdict says of it.
const MISTAKES: [(&str, &str); 4] = [
    ("delete from ledger where ctid = (select ctid from ledger order by at limit 1)", "is lost"),
    ("insert into ledger select * from ledger order by at desc limit 1", "is there 2 times"),
    ("insert into ledger (writer, id) values (77, 1)", "nobody has tried"),
    ("select 1 / 0", "division by zero"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sees_what_is_wrong() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let workload = cluster.workload().await?;
    workload.acknowledges(20).await?;
    let sql = cluster.primary().await?.sql().await?;
    for (mistake, _) in MISTAKES {
        // One of them is refused, and that is the mistake.
        drop(sql.run(mistake).await);
    }
    let verdict = cluster.verdict(workload).await.err().context("the verdict finds no fault")?;
    let verdict = format!("{verdict:#}");
    for (mistake, said) in MISTAKES {
        ensure!(verdict.contains(said), "'{mistake}' is not seen: {verdict}");
    }
    cluster.pass();
    Ok(())
}
