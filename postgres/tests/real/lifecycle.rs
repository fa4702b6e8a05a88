//! Creating, starting, finding again, stopping; and what happens when a server dies.

use crate::harness::{LIMIT, Place, SUPERUSER, configure, connect, eventually, start, stop};
use postgres::control::ClusterState;
use postgres::datadir::Contents;
use postgres::hba;
use postgres::pidfile::PidStatus;
use postgres::postmaster::{Postmaster, PostmasterError, Signal, end_children};
use postgres::process::{self, Process};
use postgres::programs::{Program, ServerVersion};
use postgres::session::{Session, SessionError, Target};
use std::time::Duration;

#[tokio::test]
async fn a_server_is_created_started_adopted_reloaded_and_stopped() {
    let place = Place::new();
    let instance = place.cluster("a").await;
    let version = instance.programs.version().unwrap();
    assert_eq!(instance.data_dir.contents(), Contents::Cluster { major: version.major });
    assert!(Postmaster::adopt(&instance).await.unwrap().is_none());

    let server = start(&instance).await;
    assert_eq!(server.status().await.unwrap(), Some(PidStatus::Ready));
    let control = instance.control_data().await.unwrap();
    assert_eq!(control.state, ClusterState::InProduction);
    assert!(control.checksums);
    let adopted = Postmaster::adopt(&instance).await.unwrap().unwrap();
    assert_eq!(adopted.pid(), server.pid());

    let session = connect(&instance).await;
    assert_eq!(ServerVersion::parse(&session.server_version().await.unwrap()), Some(version));
    let before = session.setting("work_mem").await.unwrap().unwrap();
    assert!(before.source_file.is_none());
    configure(&instance, &[("work_mem", "5MB")]);
    adopted.signal(Signal::Reload).unwrap();
    let after = eventually("the new value", async || {
        let setting = connect(&instance).await.setting("work_mem").await.unwrap().unwrap();
        if setting.value == "5120" { Ok(setting) } else { Err(setting.value) }
    })
    .await;
    assert!(after.source_file.unwrap().ends_with(postgres::config::FILE));

    drop(server);
    stop(&adopted, Signal::FastStop).await;
    assert!(!adopted.is_alive());
    assert!(Postmaster::adopt(&instance).await.unwrap().is_none());
    assert_eq!(instance.control_data().await.unwrap().state, ClusterState::ShutDown);
    let refused = Session::connect(&Target::socket(&instance, SUPERUSER, "postgres"), LIMIT).await;
    assert!(matches!(refused, Err(SessionError::Refused { .. })), "{refused:?}");
}

/// What is wrong with it is told from what is wrong with its data.
#[tokio::test]
async fn whether_a_server_would_start() {
    let place = Place::new();
    let instance = place.cluster("a").await;
    instance.check_start().await.unwrap();
    let said = async || instance.check_start().await.unwrap_err().to_string();
    configure(&instance, &[("work_mem", "much")]);
    assert!(said().await.contains("work_mem"), "{}", said().await);
    configure(&instance, &[("shared_preload_libraries", "no_such_library")]);
    assert!(said().await.contains("no_such_library"), "{}", said().await);
    configure(&instance, &[]);
    let mode = std::os::unix::fs::PermissionsExt::from_mode;
    let path = instance.data_dir.path().to_owned();
    std::fs::set_permissions(&path, mode(0o777)).unwrap();
    assert!(said().await.contains("invalid permissions"), "{}", said().await);
    std::fs::set_permissions(&path, mode(0o700)).unwrap();
    // Its data is damaged, and nothing else.
    std::fs::remove_dir_all(instance.data_dir.wal_dir()).unwrap();
    std::fs::create_dir(instance.data_dir.wal_dir()).unwrap();
    instance.owner.chown(&instance.data_dir.wal_dir()).unwrap();
    instance.check_start().await.unwrap();
    let server = Postmaster::start(&instance).await.unwrap();
    server.wait_ready(LIMIT).await.unwrap_err();
    let words = server.last_words().await.unwrap();
    assert!(words.contains("PANIC"), "{words}");
}

#[tokio::test]
async fn the_size_of_the_data() {
    let place = Place::new();
    let instance = place.cluster("a").await;
    let server = start(&instance).await;
    let (data, wal) = connect(&instance).await.data_size().await.unwrap();
    assert!(data > 10 << 20 && wal >= 16 << 20, "{data} {wal}");
    postgres::storage::sync(&instance.data_dir).unwrap();
    stop(&server, Signal::FastStop).await;
}

#[tokio::test]
async fn a_stale_pid_file_is_no_server() {
    let place = Place::new();
    let instance = place.cluster("a").await;
    for pid in [std::process::id().to_string(), "4194303".to_owned(), "-1".to_owned()] {
        let content = format!("{pid}\n{}\n1\n5432\n", instance.data_dir.path().display());
        std::fs::write(instance.data_dir.join("postmaster.pid"), content).unwrap();
        assert!(Postmaster::adopt(&instance).await.unwrap().is_none(), "{pid}");
    }
}

/// The number of a dead postmaster may be that of another program by now, and PostgreSQL would not start.
#[tokio::test]
async fn a_lock_with_the_number_of_another_program_is_no_obstacle() {
    let place = Place::new();
    let instance = place.cluster("a").await;
    let mut other =
        tokio::process::Command::new("sleep").arg("60").kill_on_drop(true).spawn().unwrap();
    let (pid, dir) = (other.id().unwrap(), instance.data_dir.path().display());
    let content = format!("{pid}\n{dir}\n1\n5432\n\n\n\nready   \n");
    std::fs::write(instance.data_dir.join("postmaster.pid"), content).unwrap();
    end_children(&instance).await.unwrap();
    let server = start(&instance).await;
    stop(&server, Signal::FastStop).await;
    assert!(other.try_wait().unwrap().is_none(), "it was none of ours");
}

#[tokio::test]
async fn single_user_mode_does_not_wait_for_standbys_and_tells_errors() {
    let place = Place::new();
    let instance = place.cluster("a").await;
    let blocked = "x".repeat(75);
    configure(&instance, &[("synchronous_standby_names", &blocked)]);
    let sql = "CREATE ROLE one LOGIN\n PASSWORD 'secret';\n\nCREATE ROLE two; -- a comment\n";
    instance.single_user(sql, LIMIT).await.unwrap();
    let error = instance.single_user("CREATE ROLE one PASSWORD 'secret';", LIMIT).await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("already exists") && !error.contains("secret"), "{error}");
    instance.data_dir.set_standby(&instance.owner).unwrap();
    let error = instance.crash_recover(LIMIT).await.unwrap_err().to_string();
    assert!(error.contains("standby mode"), "{error}");
}

#[tokio::test]
async fn a_server_that_cannot_start_tells_why() {
    let place = Place::new();
    let instance = place.cluster("a").await;
    configure(&instance, &[("shared_buffers", "many")]);
    let server = Postmaster::start(&instance).await.unwrap();
    let error = server.wait_ready(LIMIT).await.unwrap_err();
    assert!(matches!(error, PostmasterError::Ended { .. }), "{error}");
    assert!(error.to_string().contains("shared_buffers"), "{error}");
}

#[tokio::test]
async fn a_killed_postmaster_is_noticed_and_can_be_started_again() {
    let place = Place::new();
    let instance = place.cluster("a").await;
    let server = start(&instance).await;
    let session = connect(&instance).await;
    session.execute("CREATE TABLE t AS SELECT 1").await.unwrap();
    // A backend that cannot notice the death of the postmaster.
    let backend = Process::open(session.backend_pid()).unwrap().unwrap();
    backend.signal(rustix::process::Signal::STOP).unwrap();
    let adopted = Postmaster::adopt(&instance).await.unwrap().unwrap();

    server.signal(Signal::Kill).unwrap();
    let status = tokio::time::timeout(LIMIT, server.exited()).await.unwrap().unwrap();
    assert!(!status.success());
    assert_eq!(tokio::time::timeout(LIMIT, adopted.exited()).await.unwrap(), None);
    assert!(Postmaster::adopt(&instance).await.unwrap().is_none());

    let too_early = Postmaster::start(&instance).await.unwrap();
    let error = too_early.wait_ready(LIMIT).await.unwrap_err().to_string();
    assert!(error.contains("shared memory"), "{error}");
    end_children(&instance).await.unwrap();
    assert_eq!(process::postgres_in(&instance.data_dir.canonical()), Vec::<i32>::new());
    let again = start(&instance).await;
    connect(&instance).await.execute("SELECT * FROM t").await.unwrap();

    // Stopping by force clears the children too.
    let session = connect(&instance).await;
    let backend = Process::open(session.backend_pid()).unwrap().unwrap();
    backend.signal(rustix::process::Signal::STOP).unwrap();
    let stages = [(Signal::FastStop, Duration::from_millis(300)), (Signal::Kill, LIMIT)];
    assert_eq!(again.stop(&stages).await.unwrap(), Some(Signal::Kill));
    assert_eq!(process::postgres_in(&instance.data_dir.canonical()), Vec::<i32>::new());
}

#[tokio::test]
async fn rules_passwords_and_addresses_over_tcp() {
    let place = Place::new();
    let mut instance = place.cluster("a").await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    instance.port = free.local_addr().unwrap().port();
    drop(free);
    let limit = Duration::from_secs(5);
    let target = Target::tcp("127.0.0.1", instance.port, "one", "postgres").password("secret");
    let refused = Session::connect(&target, limit).await;
    assert!(matches!(refused, Err(SessionError::Refused { .. })), "{refused:?}");

    "127.0.0.1".clone_into(&mut instance.listen_addresses);
    configure(&instance, &[]);
    let sql = "CREATE ROLE one LOGIN REPLICATION PASSWORD 'secret';";
    instance.single_user(sql, LIMIT).await.unwrap();
    let path = instance.data_dir.join("pg_hba.conf");
    let rules = ["host postgres one 127.0.0.1/32 scram-sha-256".to_owned()];
    hba::apply(&path, &rules, &instance.owner).unwrap();
    start(&instance).await;
    let session = Session::connect(&target, limit).await.unwrap();
    // The role of the admission slots is no superuser.
    session.create_slot("pgtandem_2_1", false).await.unwrap();
    let wrong = Target::tcp("127.0.0.1", instance.port, "one", "postgres").password("other");
    let error = Session::connect(&wrong, limit).await.unwrap_err();
    assert!(matches!(error, SessionError::Connect { .. }), "{error}");
    assert!(!format!("{error} {error:?} {wrong:?}").contains("other"));
}

/// Where nobody reaps the adopted server, its number stays taken, and PostgreSQL would refuse to start
/// beside a lock file of that number.
#[tokio::test]
async fn a_dead_postmaster_that_nobody_reaps_is_no_obstacle() {
    let place = Place::new();
    let instance = place.cluster("a").await;
    let program = instance.programs.path(Program::Postgres);
    let script = format!(
        "{} -D {} >/dev/null 2>&1 & exec sleep 600",
        program.display(),
        instance.data_dir.path().display()
    );
    let mut parent = instance.owner.command("sh");
    let mut parent = parent.arg("-c").arg(script).kill_on_drop(true).spawn().unwrap();
    let adopted = eventually("the server of another", async || {
        let found = Postmaster::adopt(&instance).await.unwrap();
        found.ok_or("no server yet".to_owned())
    })
    .await;
    adopted.wait_ready(LIMIT).await.unwrap();
    adopted.signal(Signal::Kill).unwrap();
    tokio::time::timeout(LIMIT, adopted.exited()).await.unwrap();
    end_children(&instance).await.unwrap();
    start(&instance).await;
    parent.kill().await.unwrap();
}

/// As by `pg_ctl restart`, between the look that finds no server and the start of one.
#[tokio::test]
async fn a_server_that_somebody_else_has_started_is_not_killed() {
    let place = Place::new();
    let instance = place.cluster("a").await;
    let server = start(&instance).await;
    let session = connect(&instance).await;
    let ended = end_children(&instance).await;
    assert!(matches!(ended, Err(PostmasterError::Another { pid, .. }) if pid == server.pid()));
    assert!(server.is_alive());
    session.execute("SELECT 1").await.unwrap();
    // What is left of it does not pass for one.
    let dir = instance.data_dir.canonical();
    assert_eq!(process::postmaster_in(&dir), Some(server.pid()));
    let backend = Process::open(session.backend_pid()).unwrap().unwrap();
    backend.signal(rustix::process::Signal::STOP).unwrap();
    server.signal(Signal::Kill).unwrap();
    tokio::time::timeout(LIMIT, server.exited()).await.unwrap();
    assert_eq!(process::postmaster_in(&dir), None);
    end_children(&instance).await.unwrap();
    assert_eq!(process::postgres_in(&dir), Vec::<i32>::new());
}

/// The lock file that a killed server leaves behind says in which second it was started, and the next one
/// may be started in the same.
#[tokio::test]
async fn a_server_that_is_started_again_within_a_second_gets_ready() {
    let place = Place::new();
    let instance = place.cluster("a").await;
    for _ in 0..5 {
        let server = start(&instance).await;
        server.signal(Signal::Kill).unwrap();
        tokio::time::timeout(LIMIT, server.exited()).await.unwrap();
        end_children(&instance).await.unwrap();
    }
}
