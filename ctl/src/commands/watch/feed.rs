//! What the monitor sends, whatever happens to the connection in between.
//!
//! After each connect comes all that there is, the status and the newest events, and then what is new: it
//! does not matter what was missed. What cannot pass by itself, such as a formation that was dropped, ends
//! the feed.

use crate::failure::Failure;
use crate::operation::is_passing;
use ctl::client::{Client, ClientError, Streamed};
use shared::api::Status;
use shared::event::Event;
use shared::ids::FormationId;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

/// How many of the newest events are fetched at each connect.
const HISTORY: u32 = 200;
/// Between two tries to connect.
const RETRY: Duration = Duration::from_secs(1);
/// News that wait to be shown; a terminal that is slower than this holds up the stream.
const WAITING: usize = 64;

/// What there is to show.
#[derive(Debug)]
pub enum News {
    /// From here on it is about this formation.
    Formation(FormationId),
    /// The status.
    Status(Box<Status>),
    /// The newest events, in place of all before.
    History(Vec<Event>),
    /// One more event.
    Event(Box<Event>),
    /// Nothing is new, and the monitor is there.
    Alive,
    /// The monitor is not there, and why; it is tried again.
    Lost(String),
}

/// The news, as they come.
#[derive(Debug)]
pub struct Feed {
    news: mpsc::Receiver<News>,
    switch: Arc<Notify>,
    task: JoinHandle<ClientError>,
}

impl Feed {
    /// Begins with a formation.
    pub fn start(client: Client, formation: FormationId) -> Self {
        let (sender, news) = mpsc::channel(WAITING);
        let switch = Arc::new(Notify::new());
        let source = Source { client, formation, news: sender, asked: Arc::clone(&switch) };
        Self { news, switch, task: tokio::spawn(source.run()) }
    }

    /// What is new; an error where nothing will ever come again. Can be dropped and called again.
    pub async fn next(&mut self) -> Result<News, Failure> {
        match self.news.recv().await {
            Some(news) => Ok(news),
            None => Err(match (&mut self.task).await {
                Ok(error) => error.into(),
                Err(error) => std::io::Error::other(error).into(),
            }),
        }
    }

    /// Goes on to the next formation. Asked for again before that is done, it is done once.
    pub fn next_formation(&self) {
        self.switch.notify_one();
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What runs behind a [`Feed`].
struct Source {
    client: Client,
    formation: FormationId,
    news: mpsc::Sender<News>,
    asked: Arc<Notify>,
}

impl Source {
    async fn run(mut self) -> ClientError {
        loop {
            let lost = tokio::select! {
                ended = follow(&self.client, &self.formation, &self.news) => match ended {
                    Ok(()) => "the monitor has ended the stream".to_owned(),
                    Err(error) if is_passing(&error) => error.to_string(),
                    Err(error) => return error,
                },
                () = self.asked.notified() => match self.switch().await {
                    Ok(()) => continue,
                    Err(error) => error.to_string(),
                },
            };
            self.tell(News::Lost(lost)).await;
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Goes on to the formation that comes next by name, and from the last one to the first.
    async fn switch(&mut self) -> Result<(), ClientError> {
        let all = self.client.formations().await?;
        let mut names: Vec<_> = all.into_iter().map(|formation| formation.name).collect();
        names.sort();
        let next = names.iter().find(|name| **name > self.formation).or(names.first());
        if let Some(next) = next.filter(|next| **next != self.formation) {
            self.formation = next.clone();
            self.tell(News::Formation(next.clone())).await;
        }
        Ok(())
    }

    async fn tell(&self, news: News) {
        // Nobody listens any more: the task is about to be ended.
        drop(self.news.send(news).await);
    }
}

/// Until the stream ends.
async fn follow(
    client: &Client,
    formation: &FormationId,
    news: &mpsc::Sender<News>,
) -> Result<(), ClientError> {
    // As above; the next thing to be sent finds out.
    let tell = async |what| drop(news.send(what).await);
    tell(News::Status(Box::new(client.status(formation, None, 0).await?))).await;
    let events = client.events(formation, None, Some(HISTORY), 0).await?;
    let last = events.last().map_or(0, |event| event.id);
    tell(News::History(events)).await;
    let mut stream = client.stream(formation, Some(last)).await?;
    while let Some(streamed) = stream.next().await? {
        tell(match streamed {
            Streamed::Event(event) => News::Event(event),
            Streamed::Status(status) => News::Status(status),
            Streamed::Alive => News::Alive,
        })
        .await;
    }
    Ok(())
}
