//! Does ever more than one node say to load balancers that it is the primary?
//!
//! Every node is asked `/primary` all the time, by real connections. A question is answered at some moment
//! between its being sent and its answer's arrival, so two things must hold:
//!
//! - once a node has answered 200 for an epoch, no question that is sent afterwards is answered 200 by
//!   anybody for an earlier one, and nobody else ever answers for that epoch;
//! - between the arrival of its first answer for an epoch and the sending of the last question that it
//!   answered so, a node was certainly the primary: these spans of two nodes never overlap.
//!
//! The judgement is pure: its tests make answers up.

use super::cluster::Cluster;
use super::node::Node;
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Between two questions to a node: short against the changes that are looked at, and cheap.
const PAUSE: Duration = Duration::from_millis(8);
/// After this a question is given up, and another is asked.
const LIMIT: Duration = Duration::from_millis(300);

/// A question to which a node said that it is the primary.
#[derive(Clone, Debug)]
pub struct Yes {
    /// Which node.
    pub node: String,
    /// Of which epoch.
    pub epoch: u64,
    /// When the question was sent.
    pub sent: Instant,
    /// When the answer was there.
    pub answered: Instant,
}

/// Who is certainly the primary of an epoch from when to when, as seen by its answers.
pub type Reigns = BTreeMap<(u64, String), (Instant, Instant)>;

/// Everybody is asked until it is dropped.
#[derive(Debug)]
pub struct Roles {
    answers: Arc<Mutex<Vec<Yes>>>,
    asking: JoinSet<()>,
}

impl Roles {
    /// Begins to ask all nodes.
    pub fn watch(cluster: &Cluster) -> Self {
        let answers: Arc<Mutex<Vec<Yes>>> = Arc::default();
        let mut asking = JoinSet::new();
        for node in cluster.nodes() {
            asking.spawn(ask_on(node.name().to_owned(), node.rest_address(), Arc::clone(&answers)));
        }
        Self { answers, asking }
    }

    /// Stops asking and judges. At least so many reigns must have been seen, or the test has not looked at
    /// what it wanted to.
    pub fn verdict(mut self, at_least: usize) -> Result<()> {
        self.asking.abort_all();
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let reigns = reigns(&answers);
        let wrong = check(&answers);
        ensure!(wrong.is_empty(), "/primary:\n  {}", wrong.join("\n  "));
        let seen: Vec<_> = reigns.keys().collect();
        ensure!(seen.len() >= at_least, "of {} answers only these reigns: {seen:?}", answers.len());
        eprintln!("/primary was answered 200 {} times, in {seen:?}", answers.len());
        Ok(())
    }
}

impl Node {
    /// Asks its keeper something; the status and the body of the answer.
    pub async fn ask_keeper(&self, path: &str) -> Result<(u16, String)> {
        let answer = tokio::time::timeout(LIMIT, ask(self.rest_address(), path)).await;
        answer.with_context(|| format!("{}: no answer to {path}", self.name()))?
    }
}

async fn ask_on(node: String, address: SocketAddr, answers: Arc<Mutex<Vec<Yes>>>) {
    loop {
        let sent = Instant::now();
        // No answer is as good as no.
        let answer = tokio::time::timeout(LIMIT, ask(address, "/primary")).await;
        let answered = Instant::now();
        if let Ok(Ok((200, body))) = answer {
            let epoch = serde_json::from_str(&body).ok();
            let epoch = epoch.and_then(|body: Value| body.get("epoch")?.as_u64());
            // One without an epoch is as wrong as one of an epoch long ago.
            let epoch = epoch.unwrap_or_default();
            let yes = Yes { node: node.clone(), epoch, sent, answered };
            answers.lock().unwrap_or_else(PoisonError::into_inner).push(yes);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn ask(address: SocketAddr, path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    let (head, body) = text.split_once("\r\n\r\n").context("an answer that ends in its head")?;
    let status = head.split_whitespace().nth(1).context("no status")?.parse()?;
    Ok((status, body.to_owned()))
}

/// From the first answer to the last question of each node in each epoch.
fn reigns(answers: &[Yes]) -> Reigns {
    let mut reigns = Reigns::new();
    for yes in answers {
        let key = (yes.epoch, yes.node.clone());
        let (first, last) = reigns.entry(key).or_insert((yes.answered, yes.sent));
        *first = (*first).min(yes.answered);
        *last = (*last).max(yes.sent);
    }
    reigns
}

/// What must not be.
pub fn check(answers: &[Yes]) -> Vec<String> {
    let reigns = reigns(answers);
    let mut wrong = Vec::new();
    for ((early, node), (from, until)) in &reigns {
        for ((late, other), (since, to)) in reigns.range((*early, node.clone())..).skip(1) {
            if early == late {
                wrong.push(format!("{node} and {other} both are the primary of epoch {early}"));
                continue;
            }
            if until > since {
                wrong.push(format!(
                    "{node} says that it is the primary of epoch {early} when asked {:?} after {other} has said that of epoch {late}",
                    until.duration_since(*since)
                ));
            }
            let overlap = (*until).min(*to).checked_duration_since((*from).max(*since));
            if let Some(overlap) = overlap.filter(|overlap| node != other && !overlap.is_zero()) {
                wrong.push(format!("{node} and {other} both are the primary for {overlap:?}"));
            }
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Node, epoch, and when it was asked and answered, in milliseconds.
    fn wrong(answers: &[(&str, u64, u64, u64)]) -> Vec<String> {
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        let yes = |(node, epoch, sent, answered): &(&str, u64, u64, u64)| Yes {
            node: (*node).to_owned(),
            epoch: *epoch,
            sent: at(*sent),
            answered: at(*answered),
        };
        check(&answers.iter().map(yes).collect::<Vec<_>>())
    }

    #[test]
    fn one_after_the_other_is_fine() {
        let there_and_back = [("a", 1, 0, 1), ("a", 1, 8, 9), ("b", 2, 20, 21), ("a", 3, 30, 31)];
        assert_eq!(wrong(&there_and_back), Vec::<String>::new());
        assert_eq!(wrong(&[("a", 1, 0, 1), ("a", 2, 10, 11)]), Vec::<String>::new());
    }

    /// It may have been answered before the other was the primary.
    #[test]
    fn an_answer_that_was_on_its_way_is_fine() {
        assert_eq!(wrong(&[("a", 1, 0, 300), ("b", 2, 20, 21)]), Vec::<String>::new());
    }

    #[test]
    fn one_that_does_not_know_that_it_was_replaced_is_seen() {
        let found = wrong(&[("a", 1, 0, 1), ("b", 2, 20, 21), ("a", 1, 22, 23)]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("asked 1ms after b"), "{found:?}");
        // Also when it wakes up long after.
        assert_eq!(wrong(&[("b", 2, 20, 21), ("b", 2, 30, 31), ("a", 1, 900, 901)]).len(), 1);
    }

    #[test]
    fn two_at_the_same_time_are_seen() {
        let found = wrong(&[("a", 1, 0, 1), ("b", 2, 5, 6), ("a", 1, 10, 11), ("b", 2, 20, 21)]);
        assert!(
            found.iter().any(|text| text.contains("both are the primary for 4ms")),
            "{found:?}"
        );
        // Whichever epoch is the newer one.
        let found = wrong(&[("b", 2, 0, 1), ("a", 3, 5, 6), ("b", 2, 10, 11), ("a", 3, 20, 21)]);
        assert_eq!(found.len(), 2, "{found:?}");
    }

    #[test]
    fn two_of_one_epoch_are_seen() {
        assert_eq!(wrong(&[("a", 3, 0, 1), ("b", 3, 10, 11)]).len(), 1);
    }
}
