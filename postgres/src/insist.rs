//! Asking something over the network that may lose packets: again and again, each time on a new
//! connection, until there is an answer.
//!
//! Linux sends the first packet of a connection again after one second (`TCP_TIMEOUT_INIT`), which is as
//! long as a probe may take: one lost packet, or a cut that ends right after it, would pass for silence.
//! Not here: what is asked, and what follows from it.

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use std::time::Duration;
use tokio::time::{interval, sleep};

/// Questions within the limit, as long as none has failed.
const ASKED: u32 = 4;
/// After one that has: a process that is being killed goes in pieces, and resets connections before it
/// refuses them.
const PAUSE: Duration = Duration::from_millis(40);

/// Asks until there is an answer, at most for `limit`; `ask` gives `None` where there was none. Earlier
/// questions go on beside later ones.
pub async fn insist<T, F: Future<Output = Option<T>>>(
    limit: Duration,
    ask: impl Fn() -> F,
) -> Option<T> {
    let mut asked = FuturesUnordered::new();
    let mut again = interval((limit / ASKED).max(Duration::from_millis(1)));
    let over = sleep(limit);
    tokio::pin!(over);
    loop {
        tokio::select! {
            () = &mut over => return None,
            _ = again.tick() => asked.push(ask()),
            Some(answer) = asked.next(), if !asked.is_empty() => {
                if answer.is_some() {
                    return answer;
                }
                again.reset_after(PAUSE);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[tokio::test(start_paused = true)]
    async fn the_first_answer_counts_whichever_question_it_belongs_to() {
        let number = AtomicU32::new(0);
        let answer = insist(Duration::from_secs(1), || async {
            let number = number.fetch_add(1, Ordering::Relaxed);
            // The first question is lost, and the second answered after the third.
            match number {
                0 => std::future::pending().await,
                1 => sleep(Duration::from_millis(400)).await,
                _ => {}
            }
            Some(number)
        });
        assert_eq!(answer.await, Some(2));
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_is_asked_again_soon() {
        let (began, number) = (tokio::time::Instant::now(), AtomicU32::new(0));
        let answer = insist(Duration::from_secs(1), || async {
            (number.fetch_add(1, Ordering::Relaxed) == 2).then_some(())
        });
        assert_eq!(answer.await, Some(()));
        assert_eq!(began.elapsed(), PAUSE * 2);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_lasts_as_long_as_the_limit() {
        let began = tokio::time::Instant::now();
        let answer: Option<()> = insist(Duration::from_secs(1), || async { None }).await;
        assert_eq!((answer, began.elapsed()), (None, Duration::from_secs(1)));
    }
}
