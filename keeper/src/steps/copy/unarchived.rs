//! What a copy would lack for the archive: the primary's WAL from before the copy that is not stored yet. Once
//! this node is the primary, nobody else may be left that has it (docs/safety.md, A2).
//!
//! It is read from the primary's own `pg_wal`, file by file, and marked as waiting; the gate lets it go when it
//! is known to be stored. Not here: what is wanting (`fsm::node::archive`).

use fsm::node::archive::{WalFile, is_wanting};
use postgres::control::ControlData;
use postgres::instance::Instance;
use postgres::session::retention::Unarchived;
use postgres::session::{Session, SessionError, Target};
use shared::history::History;
use std::path::Path;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;

/// For one part of a file, however slow the network is.
const PART_LIMIT: Duration = Duration::from_secs(30);
/// A server makes a part in its memory, in hexadecimal digits.
const PART: u64 = 1 << 20;
/// What is archived and removed while it is read is looked for no more; anything else goes wrong for a reason.
const ATTEMPTS: u32 = 3;

/// Why it is not all there.
#[derive(Debug, thiserror::Error)]
pub(super) enum UnarchivedError {
    /// The primary does not say.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// It cannot be written.
    #[error("cannot write {file} of what is not archived yet: {source}")]
    Write {
        /// Which file.
        file: String,
        /// Why.
        source: std::io::Error,
    },
    /// It says that it keeps what it has not got.
    #[error("{0} waits to be archived on the primary, and is not there")]
    Gone(String),
}

/// Brings all of it; says how many files that were.
pub(super) async fn bring(
    copy: &Instance,
    control: &ControlData,
    history: &History,
    primary: &Target,
) -> Result<usize, UnarchivedError> {
    let session = Session::connect(primary, PART_LIMIT).await?;
    let (mut brought, mut gone) = (0, None);
    for _ in 0..ATTEMPTS {
        gone = None;
        for Unarchived { file, bytes } in session.unarchived().await? {
            let parsed = WalFile::parse(&file, control.wal_segment_size);
            let wanting = parsed.is_some_and(|it| is_wanting(it, history, control.redo));
            // An empty history is a placeholder of rule 8.
            if !wanting || bytes == 0 {
                continue;
            }
            if copy.data_dir.wal_dir().join(&file).exists() {
                mark(copy, &file).await?;
            } else if fetch(copy, &session, &file).await? {
                mark(copy, &file).await?;
                brought += 1;
            } else {
                gone = Some(file);
            }
        }
        if gone.is_none() {
            break;
        }
    }
    gone.map_or(Ok(brought), |file| Err(UnarchivedError::Gone(file)))
}

/// Brings one file; `false` where it was removed meanwhile. PostgreSQL removes only what is archived, and makes
/// nothing new under an old name: what was read to its end is whole.
async fn fetch(copy: &Instance, session: &Session, file: &str) -> Result<bool, UnarchivedError> {
    let failed = |source| UnarchivedError::Write { file: file.to_owned(), source };
    let path = copy.data_dir.wal_dir().join(file);
    let mut to = tokio::fs::File::create(&path).await.map_err(failed)?;
    let mut read = 0;
    loop {
        let Some(part) = session.wal_bytes(file, read, PART).await? else {
            tokio::fs::remove_file(&path).await.map_err(failed)?;
            return Ok(false);
        };
        to.write_all(&part).await.map_err(failed)?;
        let bytes = u64::try_from(part.len()).unwrap_or(u64::MAX);
        read = read.saturating_add(bytes);
        if bytes < PART {
            break;
        }
    }
    to.flush().await.map_err(failed)?;
    give(copy, &path).map_err(failed)?;
    Ok(true)
}

/// It waits to be archived here as well.
async fn mark(copy: &Instance, file: &str) -> Result<(), UnarchivedError> {
    let failed = |source| UnarchivedError::Write { file: file.to_owned(), source };
    let mark = copy.data_dir.wal_dir().join("archive_status").join(format!("{file}.ready"));
    tokio::fs::write(&mark, b"").await.map_err(failed)?;
    give(copy, &mark).map_err(failed)
}

/// As PostgreSQL makes its files.
fn give(copy: &Instance, path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    copy.owner.chown(path).map_err(std::io::Error::other)
}
