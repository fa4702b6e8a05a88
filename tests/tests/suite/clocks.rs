//! Somebody sets wall clocks, by an hour, forward and back.

use anyhow::{Result, ensure};
use std::time::{Duration, Instant};
use tests::harness::Cluster;

/// Longer than a lease, and than the node timeout.
const A_WHILE: Duration = Duration::from_secs(5);

const HOUR: i64 = 3600;

/// On the monitor, on the primary, on the standbys: nobody is replaced, no write fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_minds() -> Result<()> {
    let cluster = Cluster::builder().nodes(3).with_clocks().start().await?;
    let before = cluster.settled().await?;
    let workload = cluster.workload().await?;
    let begin = Instant::now();
    for seconds in [HOUR, -HOUR, 0] {
        cluster.monitor().clock()?.set(seconds)?;
        workload.goes_on_for(A_WHILE).await?;
        cluster.primary().await?.clock()?.set(-seconds)?;
        workload.goes_on_for(A_WHILE).await?;
        for node in cluster.standbys().await? {
            node.clock()?.set(seconds)?;
        }
        workload.goes_on_for(A_WHILE).await?;
    }
    let after = cluster.settled().await?;
    ensure!(after.epoch == before.epoch, "somebody was replaced: {after:?}");
    workload.so_far().none_failed_between(begin, Instant::now())?;
    cluster.verdict(workload).await?;
    Ok(())
}

/// Without a monitor a primary goes on on the replies of its standbys. They carry the standbys' time, which
/// is set back meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_is_one_whatever_its_time() -> Result<()> {
    let cluster = Cluster::builder().nodes(3).with_clocks().start().await?;
    let workload = cluster.workload().await?;
    let standbys = cluster.standbys().await?;
    cluster.monitor().kill()?;
    let begin = Instant::now();
    workload.goes_on_for(A_WHILE).await?;
    for node in standbys {
        node.clock()?.set(-HOUR)?;
    }
    workload.goes_on_for(A_WHILE).await?;
    workload.so_far().none_failed_between(begin, Instant::now())?;
    cluster.monitor().start()?;
    cluster.settled().await?;
    cluster.verdict(workload).await?;
    Ok(())
}
