//! A TCP connection that is slow, loses segments, stands still, or is cut, where the network itself is well.
//!
//! What must hold: bytes arrive whole and in order, or the connection is reset; what a chunk suffers is
//! drawn from the seed, the number of its connection, its direction, and its place in it. How the bytes fall
//! into chunks is not in our hands.
//!
//! What is not here: what the kernel does by itself. Connecting to the proxy succeeds at once, whatever the
//! faults; and a sender is acknowledged by the proxy, so only what it waits for as an answer is late. Nobody
//! gives up retransmitting. Where that matters, see [`super::Fault`].

use crate::harness::Place;
use anyhow::{Context as _, Result};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

/// How long Linux waits at least before it sends a segment again, and how long at most.
const RETRANSMIT: Duration = Duration::from_millis(200);
const RETRANSMIT_MAX: Duration = Duration::from_mins(2);

/// What suffers one fate. Small, so that much data is many chunks.
const CHUNK: usize = 8 << 10;

/// So many chunks are under way in one direction before the sender has to wait: a megabyte.
const UNDER_WAY: usize = 128;

/// Whether anything passes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flow {
    /// It does.
    #[default]
    On,
    /// Nothing passes, and nobody is told: all waits.
    Stalled,
    /// Connections were reset, and new ones are at once.
    Cut,
}

/// What has happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections that were accepted to be passed on.
    pub connections: u64,
    /// Connections that were reset because they were cut.
    pub cut: u64,
    /// Connections that came while all was cut.
    pub refused: u64,
    /// Chunks that were passed on.
    pub chunks: u64,
    /// Bytes that were passed on.
    pub bytes: u64,
    /// How often a chunk was lost; one that is sent again may be lost again.
    pub lost: u64,
}

/// What is wrong now.
#[derive(Clone, Copy, Debug, Default)]
struct Faults {
    delay: Duration,
    loss: u8,
    flow: Flow,
    /// Which cut this is: one that is healed before a connection has noticed it is one all the same.
    cuts: u64,
}

/// Connections to it reach its target through the faults. It ends when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    faults: watch::Sender<Faults>,
    counts: Arc<Mutex<Counts>>,
}

impl Proxy {
    /// Starts one without faults, on a port or, with 0, on any, at a place from which it reaches its target.
    pub async fn start(place: &Place, port: u16, target: SocketAddr, seed: u64) -> Result<Self> {
        let (faults, receiver) = watch::channel(Faults::default());
        let (ready, bound) = oneshot::channel();
        let counts = Arc::<Mutex<Counts>>::default();
        let path = Path { target, seed, faults: receiver, counts: Arc::clone(&counts) };
        let listen = place.address(port);
        place.spawn(async move {
            let listener = TcpListener::bind(listen).await;
            // Nobody waits where the start was given up.
            drop(ready.send(listener.as_ref().map_or_else(
                |error| Err(io::Error::new(error.kind(), error.to_string())),
                TcpListener::local_addr,
            )));
            if let Ok(listener) = listener {
                path.serve(&listener).await;
            }
        })?;
        let address = bound.await.context("the place of the proxy is gone")?;
        let address = address.with_context(|| format!("no proxy can listen on {listen}"))?;
        Ok(Self { address, faults, counts })
    }

    /// Where it is reached.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Chunks that come from now on arrive so much later, in each direction.
    pub fn delay(&self, each_way: Duration) {
        self.faults.send_modify(|faults| faults.delay = each_way);
    }

    /// So many of a hundred chunks are lost and sent again as TCP would: after 200 ms, then after twice as
    /// long, and so on. All behind them waits.
    pub fn lose(&self, percent: u8) {
        self.faults.send_modify(|faults| faults.loss = percent);
    }

    /// Stops all, cuts all, or lets all pass again.
    pub fn flow(&self, flow: Flow) {
        self.faults.send_modify(|faults| {
            faults.flow = flow;
            faults.cuts += u64::from(flow == Flow::Cut);
        });
    }

    /// What has happened so far.
    pub fn counts(&self) -> Counts {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The way through the proxy.
#[derive(Clone, Debug)]
struct Path {
    target: SocketAddr,
    seed: u64,
    faults: watch::Receiver<Faults>,
    counts: Arc<Mutex<Counts>>,
}

impl Path {
    /// Accepts connections until the proxy is dropped; then they are, too.
    async fn serve(mut self, listener: &TcpListener) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => if let Ok((client, _)) = accepted {
                    connections.spawn(self.clone().connection(client));
                },
                changed = self.faults.changed() => if changed.is_err() { return },
                Some(_) = connections.join_next() => {}
            }
        }
    }

    async fn connection(self, mut client: TcpStream) {
        let mut server = None;
        let Faults { flow, cuts, .. } = *self.faults.borrow();
        if flow == Flow::Cut {
            self.count(|counts| counts.refused += 1);
        } else {
            tokio::select! {
                ended = self.relay(&mut client, &mut server) => if ended.is_ok() { return },
                () = self.cut_after(cuts) => self.count(|counts| counts.cut += 1),
            }
        }
        for end in server.iter().chain([&client]) {
            // It is closed without a goodbye. An error means that it is gone already.
            drop(end.set_zero_linger());
        }
    }

    /// Until both sides have said all; an error where one of them was reset or is not there.
    async fn relay(
        &self,
        client: &mut TcpStream,
        server: &mut Option<TcpStream>,
    ) -> io::Result<()> {
        let number = self.count(|counts| {
            counts.connections += 1;
            counts.connections
        });
        self.flows().await;
        let server = server.insert(TcpStream::connect(self.target).await?);
        // What is late shall be late because of us only.
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        tokio::try_join!(
            self.lane(number, 0).carry(from_client, to_server),
            self.lane(number, 1).carry(from_server, to_client),
        )?;
        Ok(())
    }

    /// One direction of a connection.
    fn lane(&self, number: u64, direction: u64) -> Lane {
        // Another one for each; the generator spreads them.
        let seed = self.seed ^ ((number << 1) | direction).rotate_left(32);
        Lane { path: self.clone(), dice: StdRng::seed_from_u64(seed) }
    }

    async fn flows(&self) {
        let mut faults = self.faults.clone();
        // An error means that the proxy was dropped, and this with it.
        drop(faults.wait_for(|faults| faults.flow == Flow::On).await);
    }

    async fn cut_after(&self, cuts: u64) {
        let mut faults = self.faults.clone();
        drop(faults.wait_for(|faults| faults.cuts > cuts).await);
    }

    fn count<T>(&self, change: impl FnOnce(&mut Counts) -> T) -> T {
        change(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// When a chunk arrives at the earliest, and what is in it. An empty one is the end.
type Chunk = (Instant, Vec<u8>);

/// One direction of a connection.
#[derive(Debug)]
struct Lane {
    path: Path,
    dice: StdRng,
}

impl Lane {
    /// Takes chunks in and gives them out later, so that many can be under way.
    async fn carry(self, from: ReadHalf<'_>, to: WriteHalf<'_>) -> io::Result<()> {
        let (sender, receiver) = mpsc::channel(UNDER_WAY);
        let faults = self.path.faults.clone();
        tokio::try_join!(take(from, sender, faults), self.give(to, receiver))?;
        Ok(())
    }

    async fn give(
        mut self,
        mut to: WriteHalf<'_>,
        mut chunks: mpsc::Receiver<Chunk>,
    ) -> io::Result<()> {
        while let Some((due, chunk)) = chunks.recv().await {
            sleep_until(due).await;
            self.resend().await;
            self.path.flows().await;
            if chunk.is_empty() {
                return to.shutdown().await;
            }
            // Before, so that whoever has received something finds it counted.
            self.path.count(|counts| {
                counts.chunks += 1;
                counts.bytes += u64::try_from(chunk.len()).unwrap_or(u64::MAX);
            });
            to.write_all(&chunk).await?;
        }
        Ok(())
    }

    /// Until the chunk is not lost any more. The dice are thrown for each, also where nothing can be lost,
    /// so that what a chunk suffers does not depend on when the loss began.
    async fn resend(&mut self) {
        let mut wait = RETRANSMIT;
        while self.dice.random_range(0..100) < self.path.faults.borrow().loss {
            self.path.count(|counts| counts.lost += 1);
            sleep(wait).await;
            wait = (wait * 2).min(RETRANSMIT_MAX);
        }
    }
}

/// Reads until the end, which is passed on as an empty chunk.
async fn take(
    mut from: ReadHalf<'_>,
    sender: mpsc::Sender<Chunk>,
    faults: watch::Receiver<Faults>,
) -> io::Result<()> {
    loop {
        let mut chunk = vec![0; CHUNK];
        let length = from.read(&mut chunk).await?;
        chunk.truncate(length);
        let due = Instant::now() + faults.borrow().delay;
        // Where nobody takes it, its way out has failed and says so.
        if sender.send((due, chunk)).await.is_err() || length == 0 {
            return Ok(());
        }
    }
}
