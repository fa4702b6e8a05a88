//! Clients as a user could write them, in Rust: numbered rows by tokio-postgres and by sqlx. Those in other
//! languages are in `tests/clients/`; `tests::clients` runs them all.
//!
//! ```text
//! client tokio-postgres|sqlx write URI...    until standard input ends: a line for each attempt
//! client tokio-postgres|sqlx read URI...     what it was connected to: primary or standby
//! ```

mod with_sqlx;
mod with_tokio_postgres;

use anyhow::{Result, bail};
use std::io::Write as _;
use std::time::{Duration, SystemTime};
use tokio::io::AsyncReadExt as _;

/// For connecting to one host, where the library has no limit of its own that covers all of it.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// For an answer. Who waits longer than a failover takes may wait for nobody: the node timeout and a second.
const ANSWER_LIMIT: Duration = Duration::from_secs(4);

/// Between two attempts.
const PACE: Duration = Duration::from_millis(50);

/// What a server is.
const WHERE: &str = "select case when pg_is_in_recovery() then 'standby' else 'primary' end";

/// What became of an attempt.
enum Outcome {
    /// The server said that it is committed.
    Acknowledged,
    /// The server said that it was not done.
    Refused(String),
    /// Nobody can tell.
    Unknown(String),
    /// It was never sent.
    Unreachable(String),
}

/// What writes a row, and connects before where it has to.
trait Rows {
    async fn write(&mut self, number: i64) -> Outcome;
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let Some(([library, mode], uris)) = arguments.split_first_chunk() else {
        bail!("client tokio-postgres|sqlx write|read URI...")
    };
    match (library.as_str(), mode.as_str()) {
        ("tokio-postgres", "write") => write(with_tokio_postgres::Writer::new(uris)?).await,
        ("tokio-postgres", "read") => say(&with_tokio_postgres::read(uris).await?),
        ("sqlx", "write") => write(with_sqlx::Writer::new(uris)?).await,
        ("sqlx", "read") => say(&with_sqlx::read(uris).await?),
        _ => bail!("client tokio-postgres|sqlx write|read URI..., not {library} {mode}"),
    }
}

async fn write(mut rows: impl Rows) -> Result<()> {
    let mut end =
        tokio::spawn(async { drop(tokio::io::stdin().read_to_end(&mut Vec::new()).await) });
    for number in 1.. {
        tokio::select! {
            _ = &mut end => break,
            () = tokio::time::sleep(PACE) => {}
        }
        let began = now()?;
        let (outcome, why) = match rows.write(number).await {
            Outcome::Acknowledged => ("acknowledged", String::new()),
            Outcome::Refused(why) => ("refused", why),
            Outcome::Unknown(why) => ("unknown", why),
            Outcome::Unreachable(why) => ("unreachable", why),
        };
        say(&format!("{began} {} {number} {outcome} {}", now()?, why.replace('\n', " ")))?;
    }
    Ok(())
}

/// Microseconds.
fn now() -> Result<u128> {
    Ok(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_micros())
}

fn say(line: &str) -> Result<()> {
    Ok(writeln!(std::io::stdout(), "{line}")?)
}
