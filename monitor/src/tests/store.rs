//! The store over a real Postgres.

use super::harness::Database;
use crate::clock;
use crate::run::RunError;
use crate::store::{CommitError, Receipt, Store, StoreError};
use fsm::group::Record;
use fsm::group::course::Stages;
use serde_json::json;
use shared::api::{OperationResult, Outcome, RolePasswords};
use shared::ids::{FormationId, GroupId};
use shared::settings::Settings;
use shared::version::SCHEMA;
use sqlx::Connection as _;

fn formation() -> FormationId {
    "default".parse().unwrap()
}

fn passwords() -> RolePasswords {
    let same = || "x".to_owned();
    RolePasswords { replicator: same(), monitor: same(), keeper: same() }
}

async fn with_record(store: &Store) -> Record {
    store.migrate().await.unwrap();
    let mut record = Record::new(formation(), GroupId(0), Settings::default());
    assert!(store.create_formation(&mut record, &passwords()).await.unwrap());
    record
}

#[tokio::test]
async fn migrations_can_be_run_again() {
    let database = Database::start().await;
    let store = database.store();
    assert!(!store.migrate().await.unwrap().is_empty());
    assert!(store.migrate().await.unwrap().is_empty());
    assert_eq!(store.schema_version().await.unwrap(), SCHEMA);
    assert!(store.load().await.unwrap().is_empty());
}

/// There is no way back from a migration.
#[tokio::test]
async fn the_database_of_a_newer_monitor_is_refused() {
    let database = Database::start().await;
    let store = database.store();
    store.migrate().await.unwrap();
    let newer = SCHEMA + 1;
    let mut connection = sqlx::PgConnection::connect(&database.embedded.url()).await.unwrap();
    sqlx::query("UPDATE pgtandem._sqlx_migrations SET version = $1 WHERE version = $2")
        .bind(newer)
        .bind(SCHEMA)
        .execute(&mut connection)
        .await
        .unwrap();
    let error = store.migrate().await.unwrap_err();
    assert!(matches!(error, StoreError::Newer(version) if version == newer), "{error:?}");
    assert!(error.to_string().contains("start the newer one again") && !error.is_away());
    assert_eq!(RunError::from(error).code(), 3);
}

#[tokio::test]
async fn a_decision_is_stored_once_and_whole() {
    let database = Database::start().await;
    let store = database.store();
    let record = with_record(&store).await;
    let first = record.monitor_started(clock::now());
    store.commit(record.revision, &first, None).await.unwrap();
    let again = store.commit(record.revision, &first, None).await;
    assert!(matches!(again, Err(CommitError::Stale(_))), "{again:?}");
    let second = first.record.monitor_started(clock::now());
    store.commit(first.record.revision, &second, None).await.unwrap();

    let loaded = store.load_record(&formation(), GroupId(0)).await.unwrap().unwrap();
    assert_eq!(loaded, second.record);
    let events = store.events_after(&formation(), 0, 10).await.unwrap();
    let decided: Vec<_> = first.events.iter().chain(&second.events).cloned().collect();
    assert_eq!(events, decided);
    assert_eq!(events.iter().map(|event| event.id).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(store.newest_events(&formation(), 1).await.unwrap(), second.events);
    assert_eq!(store.load().await.unwrap().len(), 1);
}

/// Of all events only the ends of changes of the primary say how long their stages took.
#[tokio::test]
async fn the_newest_changes_of_the_primary() {
    let database = Database::start().await;
    let store = database.store();
    let mut record = with_record(&store).await;
    let stages = |detect| Stages { detect, seal: 1, elect: 2, promote: 3, first_commit: 4 };
    let said = |detect| json!({ "stages_ms": stages(detect) });
    for (rule, evidence) in [
        ("sync-confirmed", said(10)),
        ("sync-confirmed", json!({})),
        ("elected", said(20)),
        ("sync-confirmed", said(30)),
        ("sync-confirmed", said(40)),
    ] {
        let mut decision = record.monitor_started(clock::now());
        rule.clone_into(&mut decision.events[0].rule);
        decision.events[0].evidence = evidence;
        store.commit(record.revision, &decision, None).await.unwrap();
        record = decision.record;
    }
    let newest = |count| store.newest_stages(&record.formation, count);
    assert_eq!(newest(5).await.unwrap(), [stages(40), stages(30), stages(10)]);
    assert_eq!(newest(1).await.unwrap(), [stages(40)]);
}

#[tokio::test]
async fn what_breaks_an_invariant_is_not_stored() {
    let database = Database::start().await;
    let store = database.store();
    let record = with_record(&store).await;
    let mut gap = record.monitor_started(clock::now());
    gap.events[0].id += 1;
    let mut leap = record.monitor_started(clock::now());
    leap.record.revision = leap.record.revision.next();
    for decision in [gap, leap] {
        let refused = store.commit(record.revision, &decision, None).await;
        assert!(matches!(refused, Err(CommitError::Invalid(_))), "{refused:?}");
    }
    assert_eq!(store.events_after(&formation(), 0, 10).await.unwrap(), []);
}

#[tokio::test]
async fn a_receipt_is_stored_with_its_decision() {
    let database = Database::start().await;
    let store = database.store();
    let record = with_record(&store).await;
    let decision = record.monitor_started(clock::now());
    let result = OperationResult {
        id: 1,
        outcome: Outcome::Done,
        reason: "because".to_owned(),
        old_primary: None,
        new_primary: None,
        timeline: None,
        started_at: clock::wall(),
        finished_at: None,
    };
    let request = serde_json::json!({ "action": "x" });
    let receipt = Receipt { key: "k".to_owned(), request: request.clone(), result };
    store.commit(record.revision, &decision, Some(&receipt)).await.unwrap();
    let kept = store.receipt(&formation(), "k").await.unwrap();
    assert_eq!(kept, Some((request, receipt.result)));
    assert_eq!(store.receipt(&formation(), "other").await.unwrap(), None);
}

#[tokio::test]
async fn a_formation_that_is_there_is_not_made_again() {
    let database = Database::start().await;
    let store = database.store();
    let mut record = with_record(&store).await;
    assert!(!store.create_formation(&mut record, &passwords()).await.unwrap());
    assert!(store.drop_formation(&formation()).await.unwrap());
    assert!(!store.drop_formation(&formation()).await.unwrap());
    assert_eq!(store.load_record(&formation(), GroupId(0)).await.unwrap(), None);
}
