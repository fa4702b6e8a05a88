//! Waiting for something to become true: with a deadline, and with what was last seen in the error.

use anyhow::{Result, bail};
use std::time::{Duration, Instant};

/// For whatever a cluster does by itself.
pub const DEADLINE: Duration = Duration::from_mins(1);

/// Short against all that is waited for, long against the cost of a look.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What a look found: what was waited for, or what is there instead.
pub type Look<T> = std::result::Result<T, String>;

/// Looks again and again until a look finds what is waited for. An error ends the wait at once.
pub async fn eventually<T>(
    what: &str,
    limit: Duration,
    look: impl AsyncFnMut() -> Result<Look<T>>,
) -> Result<T> {
    eventually_every(LOOK_AGAIN, what, limit, look).await
}

/// The same, looking as often as said: for measurements.
pub async fn eventually_every<T>(
    pause: Duration,
    what: &str,
    limit: Duration,
    mut look: impl AsyncFnMut() -> Result<Look<T>>,
) -> Result<T> {
    let began = Instant::now();
    loop {
        let seen = match look().await? {
            Ok(found) => return Ok(found),
            Err(seen) => seen,
        };
        if began.elapsed() > limit {
            bail!("waited {} s for {what}; last seen: {seen}", began.elapsed().as_secs());
        }
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_error_says_what_was_last_seen() {
        let mut looks = 0;
        let found = eventually("a third look", DEADLINE, async || {
            looks += 1;
            Ok(if looks == 3 { Ok(looks) } else { Err(format!("look {looks}")) })
        });
        assert_eq!(found.await.unwrap(), 3);
        let never: Result<()> = eventually("a miracle", Duration::ZERO, async || {
            Ok(Err("nothing out of the ordinary".to_owned()))
        })
        .await;
        let text = never.unwrap_err().to_string();
        assert!(text.ends_with("a miracle; last seen: nothing out of the ordinary"), "{text}");
    }
}
