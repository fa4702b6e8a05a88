//! The real router on a real listener, asked as a load balancer asks, over what a keeper may know.

use super::moment::Moment;
use super::serve::{Limits, serve};
use super::{Source, routes};
use crate::attachment::Attachment;
use crate::link::Heard;
use anyhow::{Context as _, Result, ensure};
use fsm::group::{Record, View, goals, join};
use fsm::{Millis, Now};
use shared::api::JoinRequest;
use shared::goal::{Assignment, Goal, Upstream};
use shared::ids::{Epoch, Gen, GroupId, NodeId};
use shared::lsn::Lsn;
use shared::report::{Answer, Archived, PostgresView, Report};
use shared::settings::Settings;
use shared::spec::Spec;
use shared::state::NodeState;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

const HANG: Duration = Duration::from_secs(10);
const OWN: NodeId = NodeId(1);
const OTHER: NodeId = NodeId(2);
const NOW: Millis = Millis(1_000_000);
/// Where the upstream's log ends.
const END: u64 = 100 << 20;

fn assignment() -> Result<Assignment> {
    let record = Record::new("default".parse()?, GroupId(0), Settings::default());
    let now = Now { mono: Millis(0), wall: chrono::Utc::now() };
    let request = JoinRequest::of_new_node("default".parse()?, "node1".parse()?);
    let joined = join::join(&record, &request, "secret", now).ok().context("a node")?;
    let record = joined.decision.context("a decision")?.record;
    goals::assignment(&record, &View::default(), joined.node).context("an assignment")
}

fn moment(goal: Goal, goal_state: NodeState, postgres: PostgresView) -> Result<Moment> {
    let assignment = Assignment { goal, goal_state, epoch: Epoch(4), ..assignment()? };
    let answer = Answer {
        nonce: 0,
        revision: shared::ids::Revision(1),
        assignment,
        lease: None,
        flushed: vec![(OTHER, Lsn(END))],
        sync_members: vec![OWN],
        monitors: Vec::new(),
        wants_catalogue: false,
        archived: Archived::default(),
    };
    let heard = Heard { answer: Some(answer), at: Some(NOW), ..Heard::default() };
    let report = Report { state: goal_state, postgres, ..Report::of_new_node("") };
    Ok(Moment {
        id: OWN,
        name: "node1".to_owned(),
        reign: None,
        granted: true,
        lives: true,
        ails: false,
        report: Some(report),
        heard,
        attachment: Attachment::default(),
        step_limit_ms: None,
        looked: NOW.minus(100),
        now: NOW,
    })
}

fn primary() -> Result<Moment> {
    let spec = Spec {
        generation: Gen(1),
        epoch: Epoch(4),
        primary: OWN,
        required: 1,
        standbys: BTreeSet::from([OTHER]),
    };
    let goal = Goal::Primary { timeline: None, spec };
    let postgres = PostgresView {
        running: true,
        in_recovery: Some(false),
        lsn: Some(Lsn(END)),
        ..PostgresView::default()
    };
    Ok(Moment { reign: Some(Epoch(4)), ..moment(goal, NodeState::Primary, postgres)? })
}

/// A standby of the sync set that is so many bytes behind.
fn standby(behind: u64) -> Result<Moment> {
    let goal = Goal::Follow { upstream: Upstream::Primary { node: OTHER } };
    let postgres = PostgresView {
        running: true,
        in_recovery: Some(true),
        received: Some(Lsn(END)),
        replayed: Some(Lsn(END - behind)),
        upstream_end: Some(Lsn(END)),
        ..PostgresView::default()
    };
    let mut moment = moment(goal, NodeState::Secondary, postgres)?;
    change(&mut moment, |report| report.streaming = true);
    Ok(moment)
}

fn change(moment: &mut Moment, change: impl FnOnce(&mut Report)) {
    if let Some(report) = &mut moment.report {
        change(report);
    }
}

fn told(moment: &mut Moment, change: impl FnOnce(&mut Answer)) {
    if let Some(answer) = &mut moment.heard.answer {
        change(answer);
    }
}

fn with(mut moment: Moment, change: impl FnOnce(&mut Moment)) -> Moment {
    change(&mut moment);
    moment
}

/// The status of an answer and its body; a load balancer of old speaks HTTP/1.0 and names no host.
async fn ask(moment: &Moment, method: &str, path: &str) -> Result<(u16, String)> {
    say(moment, &format!("{method} {path} HTTP/1.0\r\n\r\n")).await
}

/// The same for a question in full.
async fn say(moment: &Moment, question: &str) -> Result<(u16, String)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let moment = moment.clone();
    let source: Source = Arc::new(move || moment.clone());
    let server = tokio::spawn(serve(listener, routes(source), Limits::default()));
    let asked = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(question.as_bytes()).await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        anyhow::Ok(text)
    };
    let text = timeout(HANG, asked).await??;
    server.abort();
    let status = text.split_whitespace().nth(1).context("no status")?.parse()?;
    let (_, body) = text.split_once("\r\n\r\n").context("no end of the head")?;
    Ok((status, body.to_owned()))
}

/// Each path answers alike by each method, and only GET has a body.
async fn status(moment: &Moment, path: &str) -> Result<u16> {
    let (status, body) = ask(moment, "GET", path).await?;
    ensure!(!body.is_empty() || status == 404, "GET {path}: no body");
    for method in ["HEAD", "OPTIONS"] {
        let (other, body) = ask(moment, method, path).await?;
        ensure!(other == status, "{method} {path}: {other}, and GET: {status}");
        ensure!(body.is_empty(), "{method} {path}: {body}");
    }
    Ok(status)
}

const PRIMARY: [&str; 4] = ["/", "/primary", "/read-write", "/leader"];
const ALL: [&str; 16] = [
    "/",
    "/primary",
    "/read-write",
    "/leader",
    "/standby-leader",
    "/replica",
    "/read-only",
    "/sync",
    "/synchronous",
    "/read-only-sync",
    "/quorum",
    "/read-only-quorum",
    "/async",
    "/asynchronous",
    "/readiness",
    "/health",
];

/// Exactly these of [`ALL`] answer 200, the others 503.
async fn answers(what: &str, moment: Result<Moment>, expected: &[&str]) -> Result<()> {
    let moment = moment?;
    for path in ALL {
        let wanted = if expected.contains(&path) { 200 } else { 503 };
        let found = status(&moment, path).await?;
        ensure!(found == wanted, "{what}: {path} is {found}, not {wanted}");
    }
    Ok(())
}

#[tokio::test]
async fn a_primary() -> Result<()> {
    let reads = ["/read-only", "/read-only-sync", "/read-only-quorum", "/readiness", "/health"];
    let all = [&PRIMARY[..], &reads].concat();
    answers("a primary", primary(), &all).await?;
    answers("its lease is over", primary().map(|m| with(m, |m| m.reign = None)), &["/health"])
        .await?;
    let ended = with(primary()?, |m| m.lives = false);
    answers("its server has ended, or is being stopped", Ok(ended), &[]).await?;
    answers("its server stands still", primary().map(|m| with(m, |m| m.ails = true)), &[]).await?;
    let drains = |m: &mut Moment| told(m, |a| a.assignment.goal = Goal::Seal { drain: true });
    answers("it is to stop", primary().map(|m| with(m, drains)), &["/health"]).await?;
    let newer = |m: &mut Moment| told(m, |a| a.assignment.epoch = Epoch(5));
    answers("not of this epoch yet", primary().map(|m| with(m, newer)), &["/health"]).await?;
    // The right ends by itself: a step that takes long, a slow answer and a lost monitor change nothing.
    let busy = with(primary()?, |m| m.looked = NOW.minus(20_000));
    let all_but_health: Vec<_> = all.iter().copied().filter(|path| *path != "/health").collect();
    answers("it is busy", Ok(busy), &all_but_health).await?;
    let silent = |m: &mut Moment| {
        m.heard = Heard::default();
        change(m, |report| report.postgres = PostgresView::default());
    };
    answers("one look was in vain", primary().map(|m| with(m, silent)), &all_but_health).await
}

#[tokio::test]
async fn a_standby() -> Result<()> {
    let sync = ["/sync", "/synchronous", "/quorum", "/read-only-sync", "/read-only-quorum"];
    let both = ["/replica", "/read-only", "/readiness", "/health"];
    answers("of the sync set", standby(0), &[&both[..], &sync].concat()).await?;
    let other = with(standby(0)?, |m| told(m, |answer| answer.sync_members = vec![OTHER]));
    let replica = [&both[..], &["/async", "/asynchronous"]].concat();
    answers("of no sync set", Ok(other), &replica).await?;
    let alone = with(standby(0)?, |m| m.heard = Heard::default());
    answers("the monitor is not heard", Ok(alone), &replica).await
}

/// Whatever Postgres and the last report say.
#[tokio::test]
async fn a_standby_that_nobody_should_be_sent_to() -> Result<()> {
    let goal = |goal, state| {
        move |m: &mut Moment| {
            told(m, |answer| {
                (answer.assignment.goal, answer.assignment.goal_state) = (goal, state);
            });
        }
    };
    let cases: Vec<(&str, Moment)> = vec![
        ("sealed", with(standby(0)?, goal(Goal::Seal { drain: false }, NodeState::ReportLsn))),
        ("in maintenance", with(standby(0)?, goal(Goal::Maintenance, NodeState::Maintenance))),
        ("leaves", with(standby(0)?, |m| change(m, |report| report.leaving = true))),
        ("does not stream", with(standby(0)?, |m| change(m, |report| report.streaming = false))),
    ];
    for (what, moment) in cases {
        answers(what, Ok(moment), &["/health"]).await?;
    }
    let before = with(standby(0)?, |m| {
        let upstream = Upstream::Primary { node: OTHER };
        goal(Goal::Follow { upstream }, NodeState::WaitMaintenance)(m);
    });
    answers("on its way to maintenance", Ok(before), &["/health"]).await?;
    // By default a look is too old after 2.5 s: a frozen keeper's, or that of one whose Postgres is.
    let young = with(standby(0)?, |m| m.looked = NOW.minus(2500));
    ensure!(status(&young, "/replica").await? == 200);
    let old = with(standby(0)?, |m| m.looked = NOW.minus(2501));
    answers("an old look", Ok(old), &[]).await?;
    answers("no report yet", standby(0).map(|m| with(m, |m| m.report = None)), &[]).await
}

#[tokio::test]
async fn how_far_a_standby_may_be_behind() -> Result<()> {
    let behind = standby(10 << 20)?;
    for path in ["/replica", "/read-only", "/sync", "/quorum", "/readiness"] {
        for (lag, expected) in [
            ("10485760", 200),
            ("10485759", 503),
            ("10240kB", 200),
            ("10mb", 200),
            ("9MB", 503),
            ("1GB", 200),
            ("", 400),
            ("10", 503),
            ("10parsecs", 400),
            ("-1", 400),
        ] {
            let path = format!("{path}?lag={lag}");
            let found = status(&behind, &path).await?;
            ensure!(found == expected, "{path}: {found}, not {expected}");
        }
    }
    ensure!(status(&behind, "/replica?lag=1MB&mode=write").await? == 200);
    ensure!(status(&behind, "/replica?lag=1MB&mode=apply").await? == 503);
    ensure!(status(&behind, "/replica?mode=some").await? == 400);
    ensure!(status(&behind, "/async?lag=1GB").await? == 503);
    ensure!(status(&standby(17 << 20)?, "/readiness").await? == 503);
    ensure!(status(&standby(16 << 20)?, "/readiness").await? == 200);
    // A primary is not behind, and its own paths do not look at it.
    ensure!(status(&primary()?, "/read-only?lag=0").await? == 200);
    ensure!(status(&primary()?, "/primary?lag=some").await? == 200);
    Ok(())
}

/// By the stream and by the monitor; what neither says is not near.
#[tokio::test]
async fn what_a_lag_is_measured_by() -> Result<()> {
    let by_stream = with(standby(5)?, |m| m.heard.at = Some(NOW.minus(10_000)));
    ensure!(status(&by_stream, "/replica?lag=5").await? == 200);
    ensure!(status(&by_stream, "/replica?lag=4").await? == 503);
    let by_monitor = with(standby(5)?, |m| {
        change(m, |report| report.postgres.upstream_end = Some(Lsn(END - 5)));
    });
    ensure!(status(&by_monitor, "/replica?lag=4").await? == 503);
    let by_nobody = with(by_stream, |m| change(m, |report| report.postgres.upstream_end = None));
    ensure!(status(&by_nobody, "/replica?lag=1GB").await? == 503);
    ensure!(status(&by_nobody, "/replica").await? == 200);
    Ok(())
}

#[tokio::test]
async fn what_else_a_question_may_say() -> Result<()> {
    ensure!(status(&standby(0)?, "/replica?replication_state=streaming").await? == 200);
    ensure!(status(&standby(0)?, "/replica?replication_state=starting").await? == 503);
    ensure!(status(&standby(0)?, "/replica?tag_zone=east").await? == 503);
    ensure!(status(&primary()?, "/primary?tag_zone=east").await? == 200);
    ensure!(status(&standby(0)?, "/no-such-path").await? == 404);
    ensure!(ask(&standby(0)?, "POST", "/primary").await?.0 == 405);
    Ok(())
}

/// As HAProxy (with and without a version), curl, proxies and careless people put it.
#[tokio::test]
async fn however_it_is_asked() -> Result<()> {
    let (yes, no) = (primary()?, standby(0)?);
    for question in [
        "OPTIONS /primary HTTP/1.0\r\n\r\n",
        "OPTIONS /primary HTTP/1.1\r\nConnection: close\r\n\r\n",
        "OPTIONS /primary HTTP/1.1\r\nHost: node1\r\nConnection: close\r\n\r\n",
        "GET /primary? HTTP/1.0\r\n\r\n",
        "GET /primary?lag&=&%ff=%zz HTTP/1.0\r\n\r\n",
        "GET http://10.0.0.1:8008/primary HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "GET /primary HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc",
    ] {
        ensure!(say(&yes, question).await?.0 == 200, "{question}");
        ensure!(say(&no, question).await?.0 == 503, "{question}");
    }
    for query in ["lag=%31MB", "lag=1+MB", "lag=1MB&lag=0", "&&lag=1MB&x=%ff"] {
        ensure!(status(&no, &format!("/replica?{query}")).await? == 200, "{query}");
    }
    for query in ["lag", "lag=", "lag=%ff", "lag=1MB&mode", "lag=0&lag=some"] {
        ensure!(status(&no, &format!("/replica?{query}")).await? == 400, "{query}");
    }
    for question in ["GET\r\n\r\n", "options /primary HTTP/1.0\r\n\r\n", "GET / HTTP/9\r\n\r\n"] {
        ensure!(say(&yes, question).await?.0 != 200, "{question}");
    }
    Ok(())
}

/// One that the monitor does not hear may have been replaced since its standbys were seen; one that has a lease has
/// not, however long ago it looked.
#[tokio::test]
async fn a_primary_by_the_word_of_its_standbys_alone() -> Result<()> {
    for (granted, age, expected) in
        [(true, 501, 200), (true, 20_000, 200), (false, 500, 200), (false, 501, 503)]
    {
        let moment = with(primary()?, |it| (it.granted, it.looked) = (granted, NOW.minus(age)));
        ensure!(status(&moment, "/primary").await? == expected, "{granted} {age}");
    }
    Ok(())
}

#[tokio::test]
async fn a_loop_that_is_stuck() -> Result<()> {
    let look = |age, limit| {
        standby(0).map(|m| with(m, |m| (m.looked, m.step_limit_ms) = (NOW.minus(age), limit)))
    };
    ensure!(status(&look(30_000, None)?, "/liveness").await? == 200);
    ensure!(status(&look(30_001, None)?, "/liveness").await? == 503);
    ensure!(status(&look(90_000, Some(60_000))?, "/liveness").await? == 200);
    ensure!(status(&look(90_001, Some(60_000))?, "/liveness").await? == 503);
    Ok(())
}

#[tokio::test]
async fn documents() -> Result<()> {
    let json = async |moment: &Moment, path: &str| -> Result<serde_json::Value> {
        Ok(serde_json::from_str(&ask(moment, "GET", path).await?.1)?)
    };
    let document = json(&primary()?, "/primary").await?;
    ensure!(document["role"] == "primary" && document["epoch"] == 4, "{document}");
    let document = json(&standby(7)?, "/replica").await?;
    ensure!(document["role"] == "replica" && document["lag_bytes"] == 7, "{document}");
    let node = json(&standby(7)?, "/node").await?;
    ensure!(node["node_id"] == 1 && node["serves"] == false, "{node}");
    ensure!(node["goal_state"] == "secondary" && node["monitor"]["reachable"] == true, "{node}");
    let cluster = json(&primary()?, "/cluster").await?;
    ensure!(cluster["members"][0]["role"] == "leader", "{cluster}");
    for path in ["/node", "/cluster", "/metrics", "/liveness"] {
        ensure!(status(&primary()?, path).await? == 200, "{path}");
    }
    Ok(())
}

/// No name is declared twice, which Prometheus refuses.
#[tokio::test]
async fn metrics() -> Result<()> {
    let replica = |node| shared::report::Replica {
        node,
        state: "streaming".to_owned(),
        slot: None,
        flushed: None,
        replayed: None,
        sync_state: "quorum".to_owned(),
        stalled_ms: 5,
        replay_lag_ms: None,
    };
    let primary = with(primary()?, |m| {
        change(m, |report| report.replicas = vec![replica(OTHER), replica(NodeId(3))]);
    });
    let text = ask(&primary, "GET", "/metrics").await?.1;
    ensure!(text.contains("\npgtandem_keeper_serves_as_primary 1\n"), "{text}");
    ensure!(text.contains("pgtandem_keeper_replica_stalled_ms{node_id=\"3\"} 5\n"), "{text}");
    let mut types: Vec<_> = text.lines().filter(|line| line.starts_with("# TYPE")).collect();
    let count = types.len();
    types.sort_unstable();
    types.dedup();
    ensure!(count == types.len(), "{text}");
    let text = ask(&standby(9)?, "GET", "/metrics").await?.1;
    ensure!(text.contains("\npgtandem_keeper_lag_bytes 9\n"), "{text}");
    Ok(())
}
