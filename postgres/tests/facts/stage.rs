//! Where one fact is looked at: servers of one version in one directory, and a line that says which fact
//! was not seen on which version when the test fails.

use crate::harness::Place;
use crate::node::Node;
use crate::versions;
use postgres::datadir::DataDir;
use postgres::session::Session;
use shared::ids::{Epoch, Gen, NodeId};
use shared::spec::Spec;
use std::io::Write as _;
use std::time::{Duration, Instant};
use tokio_postgres::error::SqlState;

/// How long something that shall not happen is looked at. What it would take if it did happen is some
/// milliseconds (docs/postgres-facts.md, sections 1, 2 and 10).
pub const LOOK: Duration = Duration::from_millis(400);

/// For all of one fact, so that a test that hangs fails, and ends its servers, before the runner kills it
/// (`.config/nextest.toml`).
pub const FACT_LIMIT: Duration = Duration::from_secs(100);

/// Between two looks; there are no events for what is awaited here.
pub const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Where Linux has a file system in memory (`shm_overview(7)`).
const MEMORY: &str = "/dev/shm";

/// Several facts at once, each with up to four clusters of some 100 MB.
const ROOM_BYTES: u64 = 2 << 30;

/// Servers of one version.
pub struct Stage {
    pub place: Place,
}

impl Stage {
    /// A new primary, running under these settings.
    pub async fn primary(&self, id: u64, settings: &[(&str, &str)]) -> Node {
        let instance = self.place.cluster(&format!("n{id}")).await;
        Node::begin(NodeId(id), instance, settings).await
    }

    /// A copy of `upstream` that streams from it under its member name.
    pub async fn standby(&self, id: u64, upstream: &Node) -> Node {
        let node = self.copy(id, upstream).await;
        upstream.streams_to(&node).await;
        node
    }

    /// A copy of `upstream` that is started as its standby, whether or not it streams already.
    pub async fn copy(&self, id: u64, upstream: &Node) -> Node {
        let instance = self.place.instance(&format!("n{id}"));
        Node::copy(NodeId(id), instance, upstream).await
    }
}

/// Looks at a fact on one major version. A panic within is told together with the fact.
pub async fn look(
    major: u32,
    section: &'static str,
    says: &'static str,
    fact: impl AsyncFnOnce(&Stage),
) {
    let programs = versions::programs(major);
    let version = programs.version().unwrap().to_string();
    let teller = Teller { section, says, version };
    let stage = Stage { place: Place::within(parent(), programs) };
    tokio::time::timeout(FACT_LIMIT, fact(&stage)).await.unwrap();
    drop(stage);
    drop(teller);
}

/// In memory where there is room: what a fact costs is nearly all waiting for a disk that other tests use
/// too, and no fact is about a machine that loses power.
fn parent() -> &'static str {
    let free = DataDir::new(MEMORY).free_bytes();
    if free.is_ok_and(|free| free >= ROOM_BYTES) { MEMORY } else { "/tmp" }
}

/// Tells when it is dropped by a panic.
struct Teller {
    section: &'static str,
    says: &'static str,
    version: String,
}

impl Drop for Teller {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self { section, says, version } = self;
            // A test that fails has nothing better to do with an error.
            drop(writeln!(
                std::io::stderr(),
                "PostgreSQL {version} was not seen to behave as docs/postgres-facts.md, section {section}, says: {says}"
            ));
        }
    }
}

/// `synchronous_standby_names` for these standbys of node 1; none: asynchronous.
pub fn any(required: usize, standbys: &[&Node]) -> String {
    let spec = Spec {
        generation: Gen(1),
        epoch: Epoch(1),
        primary: NodeId(1),
        required,
        standbys: standbys.iter().map(|node| node.id).collect(),
    };
    spec.setting()
}

/// Whether a condition holds, in SQL.
pub async fn holds(session: &Session, condition: &str) -> bool {
    match session.execute(&format!("SELECT 1 / ({condition})::int")).await {
        Ok(()) => true,
        Err(error) if error.code() == Some(&SqlState::DIVISION_BY_ZERO) => false,
        Err(error) => panic!("{condition}: {error}"),
    }
}

/// What must be so at every look, for [`LOOK`].
pub async fn meanwhile(what: &str, mut ask: impl AsyncFnMut() -> Result<(), String>) {
    let begun = Instant::now();
    while begun.elapsed() < LOOK {
        if let Err(found) = ask().await {
            panic!("{what}: {found} after {} ms", begun.elapsed().as_millis());
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}
