//! What the managed configuration file and HBA block of a node say.
//!
//! The file is written from `fsm::node::File` (upstream and sync spec) and from what does not change
//! from moment to moment; it is read back, so that a restarted keeper knows what Postgres runs under.

use crate::node::Node;
use crate::pgsettings::Given;
use fsm::node::{File, Upstream};
use postgres::config::ManagedConfig;
use postgres::conninfo::Source;
use shared::goal::{Assignment, Member};
use shared::ids::{NodeId, Ticket};
use shared::spec::Spec;
use std::net::IpAddr;

/// The role that walreceivers, copies, rewinds and admissions log in with.
pub const REPLICATOR: &str = "pgtandem_replicator";
/// The role of the keeper itself, over the unix socket only.
pub const KEEPER: &str = "pgtandem_keeper";
/// The role of the monitor's probe.
pub const MONITOR: &str = "pgtandem_monitor";

/// Settings that PostgreSQL's defaults make slow or unsafe here.
const FIXED: &[(&str, &str)] = &[
    // Standbys answer questions, and their end of log can be asked for.
    ("hot_standby", "on"),
    // pg_rewind needs hint-bit changes in the log, also of clusters without checksums.
    ("wal_log_hints", "on"),
    ("full_page_writes", "on"),
    // A standby asks its new primary again after this; 5 s by default, nearly all of a failover.
    ("wal_retrieve_retry_interval", "100ms"),
    // The proof by streaming needs an answer well within a lease; 10 s by default.
    ("wal_receiver_status_interval", "1s"),
    // Crash recovery syncs the whole data directory first: by one call, not one for each file, which
    // takes longer than all the rest of it.
    ("recovery_init_sync_method", "syncfs"),
    // A crash of one process is for the keeper to count and to mend: a server that starts itself again
    // and again would look as if it were starting for the first time.
    ("restart_after_crash", "off"),
    // A backup may have been taken where somebody recovered by hand.
    ("recovery_target", ""),
    ("recovery_target_lsn", ""),
    ("recovery_target_name", ""),
    ("recovery_target_time", ""),
    ("recovery_target_timeline", "latest"),
    ("recovery_target_xid", ""),
    // A rewind needs the log back to the checkpoint before the fork; it also copies all that its
    // source keeps, so more would make it slow.
    ("wal_keep_size", "64MB"),
];

/// The whole file, with the operator's settings in it.
pub fn render(node: &Node, assignment: &Assignment, file: &File, given: &Given) -> ManagedConfig {
    let mut config = ManagedConfig::default();
    config.set_note("upstream", upstream_note(file.upstream.as_ref()));
    config.set_note("restore", file.restore.to_string());
    config.set_note("spec", serde_json::to_string(&file.spec).unwrap_or_default());
    for (name, value) in node.instance.listen_settings() {
        config.set(name, value);
    }
    for (name, value) in FIXED {
        config.set(*name, *value);
    }
    let silence = (assignment.timers.node_timeout_ms * 2).max(5000);
    config.set("wal_receiver_timeout", format!("{silence}ms"));
    config.set("wal_sender_timeout", format!("{silence}ms"));
    // A lost member must not fill the disk: its slots are given up, and it is copied anew.
    config.set("max_slot_wal_keep_size", node.config.max_slot_wal_keep_size.clone());
    let names = file.spec.as_ref().map_or_else(Spec::blocking_setting, Spec::setting);
    config.set("synchronous_standby_names", names);
    let (conninfo, slot) = upstream_settings(node, assignment, file.upstream.as_ref());
    config.set("primary_conninfo", conninfo);
    config.set("primary_slot_name", slot);
    if let Some(archive) = &node.config.archive {
        // A standby too keeps what it has until it is known to be stored.
        config.set("archive_mode", "always");
        // A library would go before the command.
        config.set("archive_library", "");
        config.set("archive_command", archive.archive_command(&node.config.state_dir));
        let restore = archive.restore_command(&node.config.state_dir);
        config.set("restore_command", if file.restore { restore } else { String::new() });
    }
    given.write(&mut config);
    config
}

/// What a file that was written by [`render`] says, if nothing else has changed since; an unreadable note
/// counts as blocking and alone.
pub fn read(config: &ManagedConfig) -> File {
    let upstream = config.note("upstream").and_then(parse_upstream);
    let spec = config.note("spec").and_then(|text| serde_json::from_str(text).ok()).flatten();
    File { upstream, spec, current: true, restore: config.note("restore") == Some("true") }
}

fn upstream_note(upstream: Option<&Upstream>) -> String {
    match upstream {
        None => "none".to_owned(),
        Some(Upstream::Member { node, admission }) => format!("member {node} {admission}"),
        Some(Upstream::Fetch { node }) => format!("fetch {node}"),
    }
}

fn parse_upstream(text: &str) -> Option<Upstream> {
    let words: Vec<_> = text.split(' ').collect();
    match words.as_slice() {
        ["member", node, admission] => Some(Upstream::Member {
            node: node.parse().ok()?,
            admission: admission.parse::<Ticket>().ok()?,
        }),
        ["fetch", node] => Some(Upstream::Fetch { node: node.parse().ok()? }),
        _ => None,
    }
}

/// How the replicator reaches a member.
pub fn source(node: &Node, member: &Member) -> Source {
    Source {
        host: member.host.clone(),
        port: member.port,
        user: REPLICATOR.to_owned(),
        passfile: Some(node.passfile()),
    }
}

fn upstream_settings(
    node: &Node,
    assignment: &Assignment,
    upstream: Option<&Upstream>,
) -> (String, String) {
    let (id, name, slot) = match upstream {
        None => return (String::new(), String::new()),
        Some(Upstream::Member { node: id, admission }) => {
            (*id, node.id.application_name(), node.id.admission_slot(*admission))
        }
        Some(Upstream::Fetch { node: id }) => (*id, "pgtandem-fetch".to_owned(), String::new()),
    };
    let Some(member) = assignment.member(id) else { return (String::new(), String::new()) };
    // A peer that vanishes without a word is noticed after the node timeout, not after the 15
    // minutes that TCP takes.
    let timeout = assignment.timers.node_timeout_ms.to_string();
    (source(node, member).conninfo(&name, &[("tcp_user_timeout", &timeout)]), slot)
}

/// How the HBA block is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Hba {
    /// A line for each member.
    #[default]
    Manage,
    /// Lines for the networks that the host is in.
    Lan,
    /// None: the operator writes them.
    Skip,
}

/// The rules of the managed block.
pub fn hba_rules(hba: Hba, members: &[Member]) -> Vec<String> {
    let addresses: Vec<String> = match hba {
        Hba::Skip => return Vec::new(),
        Hba::Lan => vec!["samenet".to_owned()],
        Hba::Manage => members.iter().map(|member| address(&member.host)).collect(),
    };
    let mut rules = vec![
        format!("local all {KEEPER} scram-sha-256"),
        format!("host all {KEEPER} all reject"),
        format!("local all {MONITOR} scram-sha-256"),
        // The monitor may come from anywhere; the role may look at statistics and nothing else.
        format!("host postgres {MONITOR} all scram-sha-256"),
    ];
    let mut seen = Vec::new();
    for address in addresses {
        if seen.contains(&address) {
            continue;
        }
        rules.push(format!("host replication {REPLICATOR} {address} scram-sha-256"));
        rules.push(format!("host all {REPLICATOR} {address} scram-sha-256"));
        seen.push(address);
    }
    rules
}

fn address(host: &str) -> String {
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => format!("{ip}/32"),
        Ok(IpAddr::V6(ip)) => format!("{ip}/128"),
        Err(_) => host.to_owned(),
    }
}

/// The statements that make our roles, each on one line; they can be repeated. They do not wait for
/// standbys: a primary that has just been adopted acknowledges nothing yet.
pub fn roles(passwords: &shared::api::RolePasswords) -> String {
    let literal = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let role = |name: &str, options: &str, password: &str| {
        format!(
            "DO $do$ BEGIN IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = '{name}') THEN CREATE ROLE {name}; END IF; END $do$;\nALTER ROLE {name} LOGIN {options} PASSWORD {};\n",
            literal(password)
        )
    };
    let mut sql = String::from("SET synchronous_commit = local;\n");
    sql += &role(KEEPER, "SUPERUSER", &passwords.keeper);
    sql += &role(REPLICATOR, "REPLICATION", &passwords.replicator);
    sql += &role(MONITOR, "", &passwords.monitor);
    sql += &format!("GRANT pg_monitor TO {MONITOR};\n");
    // The sizes of tablespaces, before they are copied.
    sql += &format!("GRANT pg_read_all_stats TO {REPLICATOR};\n");
    // What the documentation of pg_rewind lists for a role that is not a superuser.
    for function in [
        "pg_ls_dir(text, boolean, boolean)",
        "pg_stat_file(text, boolean)",
        "pg_read_binary_file(text)",
        "pg_read_binary_file(text, bigint, bigint, boolean)",
    ] {
        sql += &format!("GRANT EXECUTE ON FUNCTION pg_catalog.{function} TO {REPLICATOR};\n");
    }
    sql
}

/// A database of a new cluster, behind other statements. The empty line before it ends those in single-user mode:
/// what stands together there is one transaction, in which no database can be made.
pub fn database(name: &str) -> String {
    format!("\nCREATE DATABASE \"{}\";\n", name.replace('"', "\"\""))
}

/// Whether a walsender's name is that of a member.
pub fn member_of(application_name: &str) -> Option<NodeId> {
    NodeId::from_application_name(&application_name.to_ascii_lowercase())
}
