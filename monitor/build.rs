//! Rebuilds the crate when a migration is added.

fn main() {
    use std::io::Write as _;
    drop(writeln!(std::io::stdout(), "cargo:rerun-if-changed=../migrations"));
}
