//! The settings that an operator may not give: those that the keeper writes itself (a test compares
//! this list with what it writes), and those with which pgtandem cannot keep its promises.

/// Names and reasons.
const REFUSED: &[(&str, &str)] = &[
    ("port", "it is an option of the keeper, --port"),
    ("listen_addresses", "it is an option of the keeper, --listen-addresses"),
    ("unix_socket_directories", "it is an option of the keeper, --socket-dir"),
    ("max_slot_wal_keep_size", "it is an option of the keeper, --max-slot-wal-keep-size"),
    ("synchronous_standby_names", "pgtandem keeps the sync set: see `pgtandem sync`"),
    ("primary_conninfo", UPSTREAM),
    ("primary_slot_name", UPSTREAM),
    ("restore_command", "it is an option of the keeper: see docs/archiving.md"),
    ("hot_standby", "standbys have to say where their log ends"),
    ("wal_log_hints", "pg_rewind needs it"),
    ("full_page_writes", "pg_rewind needs it"),
    ("wal_keep_size", "it bounds what a rewind has to copy"),
    ("wal_retrieve_retry_interval", "a failover would take as long"),
    ("wal_receiver_status_interval", "the proof by streaming depends on it"),
    ("wal_receiver_timeout", "it follows from node-timeout"),
    ("wal_sender_timeout", "it follows from node-timeout"),
    ("recovery_init_sync_method", "the restart budget depends on it"),
    ("restart_after_crash", "the keeper counts crashes and restarts the server"),
    ("fsync", "what was acknowledged has to be on the disk"),
    ("recovery_min_apply_delay", "a node that replays late cannot say where its log ends"),
    ("promote_trigger_file", "pgtandem alone promotes"),
    ("recovery_target", RECOVERY),
    ("recovery_target_action", RECOVERY),
    ("recovery_target_inclusive", RECOVERY),
    ("recovery_target_lsn", RECOVERY),
    ("recovery_target_name", RECOVERY),
    ("recovery_target_time", RECOVERY),
    ("recovery_target_timeline", RECOVERY),
    ("recovery_target_xid", RECOVERY),
    ("data_directory", PLACE),
    ("config_file", PLACE),
    ("hba_file", PLACE),
    ("ident_file", PLACE),
    ("external_pid_file", PLACE),
];

const UPSTREAM: &str = "pgtandem says whom a standby follows";
const RECOVERY: &str = "a standby has to follow its primary to the end";
const PLACE: &str = "the keeper has to find the files where it put them";

/// With less than this a server does not start, or its keeper and its peers cannot connect.
const LEAST: &[(&str, u16, &str)] = &[
    ("max_connections", 20, "since the keeper and the monitor connect too"),
    ("max_wal_senders", 10, "since every other node streams, and copies need some"),
    (
        "max_replication_slots",
        10,
        "since every other node has slots, and too few keep a server down",
    ),
];

/// Why an operator may not give it, whatever the value; the name in lower case.
pub fn why_refused(name: &str) -> Option<&'static str> {
    REFUSED.iter().find(|(refused, _)| *refused == name).map(|(_, why)| *why)
}

/// The smallest value that pgtandem can work with, and why.
pub(super) fn least(name: &str) -> Option<(u16, &'static str)> {
    LEAST.iter().find(|(known, ..)| *known == name).map(|(_, least, why)| (*least, *why))
}

/// The setting by which a server shows which of the operator's settings it has read.
pub const MARK: &str = "pgtandem.settings";

/// Whether a name is in our own name space.
pub(super) fn is_ours(name: &str) -> bool {
    name.to_ascii_lowercase().starts_with("pgtandem.")
}
