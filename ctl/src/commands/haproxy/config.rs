//! The configuration as text, for HAProxy 2.4 and later. Why it is as it is: docs/load-balancers.md.

use super::plan::{Address, Listen, Plan, RunAs, Server};

/// What the keeper of the primary answers with 200.
pub(super) const PRIMARY: &str = "OPTIONS /primary";

/// What that of a standby answers with 200 which may be read from.
pub(super) fn replica(plan: &Plan) -> String {
    format!("OPTIONS /replica?lag={}", plan.choices.max_lag)
}

/// The whole file.
pub(super) fn render(plan: &Plan) -> String {
    let mut text = head(plan);
    let (rw, ro) = (format!("{}-rw", plan.formation), format!("{}-ro", plan.formation));
    text.push_str(&format!(
        "\n# To the primary. Sessions are cut when their server is none any more.\n\
         listen {rw}\n    bind {}\n{}",
        bind(&plan.choices.listen_rw),
        checks(plan, PRIMARY)
    ));
    for server in &plan.servers {
        text.push_str(&format!("    server {} {}\n", server.name, checked(server)));
    }
    text.push_str(&format!(
        "\n# To the standbys that are near enough; where there are none, to the primary.\n\
         listen {ro}\n    bind {}\n    balance leastconn\n{}",
        bind(&plan.choices.listen_ro),
        checks(plan, &replica(plan))
    ));
    for server in &plan.servers {
        text.push_str(&format!("    server {} {}\n", server.name, checked(server)));
    }
    for server in &plan.servers {
        // No node has a colon in its name. It goes up and down with the one above.
        text.push_str(&format!(
            "    server {name}:primary {} track {rw}/{name} backup{}\n",
            server.postgres,
            lookup(&server.postgres),
            name = server.name,
        ));
    }
    if let Some(stats) = &plan.choices.stats {
        text.push_str(&format!(
            "\nlisten {}-stats\n    mode http\n    bind {}\n    stats enable\n    stats uri /\n    stats refresh 5s\n",
            plan.formation,
            bind(stats)
        ));
    }
    text
}

fn head(plan: &Plan) -> String {
    let run_as = plan
        .choices
        .run_as
        .as_ref()
        .map(|RunAs { user, group }| format!("    user {user}\n    group {group}\n"));
    format!(
        "# Formation {}: made by `pgtandem haproxy`, to be made anew when nodes come, go or move.\n\
         global\n    log stdout format raw daemon notice\n{}\n\
         defaults\n    mode tcp\n    log global\n    \
         # A server that does not take a connection is tried again elsewhere.\n    \
         retries 3\n    option redispatch 1\n    timeout connect {}ms\n    timeout check {}ms\n    \
         # Idle sessions are none of HAProxy's business; those with dead peers are found by keepalives.\n    \
         timeout client 24h\n    timeout server 24h\n    timeout client-fin 30s\n    timeout server-fin 30s\n    \
         option clitcpka\n    option srvtcpka\n",
        plan.formation,
        run_as.unwrap_or_default(),
        plan.connect_ms,
        plan.check.timeout_ms
    )
}

/// Two checks in a row have to fail, so that one lost packet cuts nobody's session; one good answer is
/// enough, since a keeper knows for certain.
fn checks(plan: &Plan, question: &str) -> String {
    format!(
        "    option httpchk {question}\n    http-check expect status 200\n    \
         default-server inter {}ms fastinter {fast}ms downinter {fast}ms fall 2 rise 1 on-marked-down shutdown-sessions\n",
        plan.check.interval_ms,
        fast = plan.check.fast_ms
    )
}

fn bind(listen: &Listen) -> String {
    match listen {
        Listen::At(address) if address.host == "::" => format!("{address} v4v6"),
        Listen::Everywhere(_) | Listen::At(_) => listen.to_string(),
    }
}

/// A server and where its keeper is asked.
fn checked(server: &Server) -> String {
    let Server { postgres, keeper, .. } = server;
    let elsewhere = if keeper.host == postgres.host {
        String::new()
    } else {
        format!(" addr {}", keeper.host())
    };
    format!("{postgres} check{elsewhere} port {}{}", keeper.port, lookup(postgres))
}

/// A name that cannot be looked up must not keep HAProxy from starting with all the others.
fn lookup(address: &Address) -> &'static str {
    if address.is_name() { " init-addr last,libc,none" } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::haproxy::plan::Choices;
    use crate::commands::status::fixture;
    use shared::api::NodeStatus;
    use shared::ids::NodeId;
    use shared::settings::Settings;
    use shared::size::Size;
    use shared::state::NodeState;
    use std::io::Write as _;
    use std::process::Command;

    fn choices() -> Choices {
        Choices {
            listen_rw: "*:5000".parse().unwrap(),
            listen_ro: "[::]:5001".parse().unwrap(),
            max_lag: Size(16 << 20),
            check_interval_ms: None,
            stats: None,
            run_as: None,
        }
    }

    fn plan(choices: Choices) -> Plan {
        Plan::new(&fixture::status(), &Settings::default().timers(), choices).unwrap()
    }

    #[test]
    fn the_whole_file() {
        insta::assert_snapshot!("three_nodes", render(&plan(choices())));
        let stats = Some("127.0.0.1:7000".parse().unwrap());
        let run_as = Some("haproxy".parse().unwrap());
        let (max_lag, check_interval_ms) = (Size(1000), Some(100));
        let mut status = fixture::status();
        status.nodes.truncate(1);
        status.nodes[0].host = "db1.example.org".to_owned();
        let choices = Choices { max_lag, check_interval_ms, stats, run_as, ..choices() };
        let plan = Plan::new(&status, &Settings::default().timers(), choices).unwrap();
        insta::assert_snapshot!("one_node_by_name", render(&plan));
        assert_eq!(plan.only_asked_locally().count(), 0);
    }

    /// The real one, of which version there is, takes all these files together.
    fn is_accepted(texts: &[String]) {
        let mut haproxy = Command::new("/usr/sbin/haproxy");
        haproxy.arg("-c");
        let mut files = Vec::new();
        for text in texts {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(text.as_bytes()).unwrap();
            haproxy.arg("-f").arg(file.path());
            files.push(file);
        }
        let output = haproxy.output().expect("`make setup` brings HAProxy");
        let said = String::from_utf8_lossy(&output.stderr);
        let is_fine = output.status.success() && !said.contains("WARNING");
        assert!(is_fine && !said.contains("ALERT"), "{said}\n{texts:?}");
    }

    /// With IPv6, with names, wherever it listens, as a user of its own.
    #[test]
    fn haproxy_itself_accepts_it() {
        let timers = Settings::default().timers();
        let mut status = fixture::status();
        status.nodes[0].host = "localhost".to_owned();
        status.nodes[1].rest = "[fd00::2]:8008".to_owned();
        for (rw, ro) in [("*:5000", "[::]:5001"), ("127.0.0.1:5000", "[::1]:5000")] {
            let (listen_rw, listen_ro) = (rw.parse().unwrap(), ro.parse().unwrap());
            let stats = Some("localhost:7000".parse().unwrap());
            let run_as = Some("haproxy".parse().unwrap());
            let choices = Choices { listen_rw, listen_ro, stats, run_as, ..choices() };
            is_accepted(&[render(&Plan::new(&status, &timers, choices).unwrap())]);
        }
    }

    /// One HAProxy for two formations, and for as many nodes as names allow.
    #[test]
    fn haproxy_itself_accepts_several_formations() {
        let timers = Settings::default().timers();
        let mut other = fixture::status();
        other.formation = "a-rw.x_Y".parse().unwrap();
        let node = other.nodes[0].clone();
        other.nodes.extend((10..60).map(|id| {
            let name = format!("{}.{id}", "n".repeat(60)).parse().unwrap();
            NodeStatus { id: NodeId(id), name, ..node.clone() }
        }));
        let (listen_rw, listen_ro) = ("*:6000".parse().unwrap(), "*:6001".parse().unwrap());
        let elsewhere = Choices { listen_rw, listen_ro, ..choices() };
        let run_as = Some("haproxy".parse().unwrap());
        is_accepted(&[
            render(&plan(Choices { run_as, ..choices() })),
            render(&Plan::new(&other, &timers, elsewhere).unwrap()),
        ]);
    }

    /// Who is the primary, and how everybody is, changes no byte.
    #[test]
    fn the_same_formation_gives_the_same_file() {
        let mut status = fixture::status();
        let timers = Settings::default().timers();
        let before = render(&Plan::new(&status, &timers, choices()).unwrap());
        status.primary = Some("node1".parse().unwrap());
        status.epoch.0 += 1;
        status.nodes.reverse();
        for node in &mut status.nodes {
            node.goal_state = NodeState::Maintenance;
            node.lag_bytes = None;
        }
        assert_eq!(render(&Plan::new(&status, &timers, choices()).unwrap()), before);
    }

    #[test]
    fn nodes_that_are_being_dropped_are_left_out() {
        let mut status = fixture::status();
        status.nodes[1].goal_state = NodeState::Dropped;
        let plan = Plan::new(&status, &Settings::default().timers(), choices()).unwrap();
        assert!(!render(&plan).contains("node2"));
        status.nodes.clear();
        let error = Plan::new(&status, &Settings::default().timers(), choices()).unwrap_err();
        assert_eq!(error.to_api_error().code, 3);
    }

    /// A check that was just missed and two that time out end within the lease, whatever the timers.
    #[test]
    fn checks_fit_into_a_lease() {
        for node_timeout_ms in [1000, 3000, 10_000, 3_600_000] {
            let timers = Settings { node_timeout_ms, ..Settings::default() }.timers();
            let check = Plan::new(&fixture::status(), &timers, choices()).unwrap().check;
            assert!(check.longest_ms() <= timers.lease_ms, "{check:?} {timers:?}");
        }
    }

    #[test]
    fn what_cannot_be_told_to_haproxy_is_refused() {
        let timers = Settings::default().timers();
        let refused = |status, choices, reason: &str, code| {
            let error = Plan::new(&status, &timers, choices).unwrap_err().to_api_error();
            assert_eq!((error.reason.as_str(), error.code), (reason, code));
        };
        let mut status = fixture::status();
        status.nodes[0].host = "a b".to_owned();
        refused(status, choices(), "bad_address", 3);
        let mut status = fixture::status();
        status.nodes[0].rest = String::new();
        refused(status, choices(), "no_rest", 3);
        let twice = Choices { listen_ro: choices().listen_rw, ..choices() };
        refused(fixture::status(), twice, "bad_value", 1);
    }

    #[test]
    fn a_keeper_that_only_its_own_host_can_ask() {
        let mut status = fixture::status();
        status.nodes[0].rest = "127.0.0.1:8008".to_owned();
        let plan = Plan::new(&status, &Settings::default().timers(), choices()).unwrap();
        let names: Vec<_> = plan.only_asked_locally().map(ToString::to_string).collect();
        assert_eq!(names, ["node1"]);
        assert!(
            render(&plan).contains("server node1 10.0.0.1:5432 check addr 127.0.0.1 port 8008\n")
        );
    }
}
