//! Which programs a major version is tested with.

use postgres::programs::Programs;
use std::path::PathBuf;

/// A list of directories with the programs, like `PATH`; looked at before [`INSTALLED`].
const VARIABLE: &str = "PGTANDEM_TEST_POSTGRES";

/// Where `.ci/setup` and the packages put them: `<here>/<major>/bin`.
const INSTALLED: [&str; 2] = ["/opt/pgtandem-test", "/usr/lib/postgresql"];

/// The programs of a major version, in a minor version that a keeper would accept.
pub fn programs(major: u32) -> Programs {
    let listed = std::env::var_os(VARIABLE).unwrap_or_default();
    let installed = INSTALLED.map(|dir| PathBuf::from(dir).join(major.to_string()).join("bin"));
    let dirs = std::env::split_paths(&listed).chain(installed);
    let found = dirs.filter_map(|dir| Programs::find(Some(&dir)).ok());
    let wanted = found.into_iter().find(|programs| {
        let version = programs.version();
        version.is_ok_and(|v| v.major == major && v.refuse_if_too_old().is_ok())
    });
    wanted.unwrap_or_else(|| {
        panic!("no usable PostgreSQL {major} for tests: run 'make setup', or list its directory of programs in {VARIABLE}")
    })
}
