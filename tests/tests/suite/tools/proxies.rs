//! Proxies: late, lossy, stalled, and cut.

use anyhow::{Context as _, Result, ensure};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tests::harness::Place;
use tests::harness::wait::{DEADLINE, eventually};
use tests::network::{Flow, Network, Proxy};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// How long nothing is watched to happen. What would happen does so at once.
const NOTHING: Duration = Duration::from_millis(300);

/// Sends back all it gets, and says how much that was at the end of it.
async fn echo() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    drop(tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            drop(tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                if let Ok(count) = tokio::io::copy(&mut from, &mut to).await {
                    // A client that is gone asks for nothing.
                    drop(to.write_all(format!("{count}").as_bytes()).await);
                }
            }));
        }
    }));
    Ok(address)
}

async fn proxy(seed: u64) -> Result<Proxy> {
    Proxy::start(&Place::Loopback, 0, echo().await?, seed).await
}

/// Sends a byte, and waits for its return.
async fn ping(stream: &mut TcpStream) -> Result<Duration> {
    let began = Instant::now();
    stream.write_all(b"x").await?;
    let answer = timeout(DEADLINE, stream.read_u8()).await.context("no answer")??;
    ensure!(answer == b'x');
    Ok(began.elapsed())
}

async fn is_reset(stream: &mut TcpStream) -> Result<()> {
    let ended = timeout(DEADLINE, stream.read_u8()).await.context("it goes on")?;
    let kind = ended.err().map(|error| error.kind());
    ensure!(kind == Some(ErrorKind::ConnectionReset), "{kind:?}");
    Ok(())
}

/// Also where it happens before the client has seen that it is connected.
async fn newcomer_is_reset(address: SocketAddr) -> Result<()> {
    match TcpStream::connect(address).await {
        Ok(mut stream) => is_reset(&mut stream).await,
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[tokio::test]
async fn all_arrives_through_a_proxy_and_so_does_the_end() -> Result<()> {
    let proxy = proxy(1).await?;
    let sent: Vec<u8> = (0..3_000_000_u32).map(|number| number.to_le_bytes()[0]).collect();
    let mut stream = TcpStream::connect(proxy.address()).await?;
    let (mut from, mut to) = stream.split();
    let mut received = Vec::new();
    tokio::try_join!(
        async {
            to.write_all(&sent).await?;
            to.shutdown().await
        },
        from.read_to_end(&mut received)
    )?;
    ensure!(received.strip_prefix(&sent[..]) == Some(b"3000000"), "{}", received.len());
    let counts = proxy.counts();
    ensure!(counts.bytes == 6_000_007, "{counts:?}");
    ensure!((counts.connections, counts.lost, counts.cut) == (1, 0, 0), "{counts:?}");
    Ok(())
}

#[tokio::test]
async fn a_delay_is_one_each_way() -> Result<()> {
    let proxy = proxy(1).await?;
    let mut stream = TcpStream::connect(proxy.address()).await?;
    proxy.delay(Duration::from_millis(60));
    for _ in 0..3 {
        let took = ping(&mut stream).await?;
        ensure!(took >= Duration::from_millis(120), "{took:?}");
    }
    proxy.delay(Duration::ZERO);
    let mut fastest = Duration::MAX;
    for _ in 0..20 {
        fastest = fastest.min(ping(&mut stream).await?);
    }
    ensure!(fastest < Duration::from_millis(60), "{fastest:?}");
    Ok(())
}

/// Many chunks are under way at once.
#[tokio::test]
async fn a_delay_does_not_add_up() -> Result<()> {
    let proxy = proxy(1).await?;
    let mut stream = TcpStream::connect(proxy.address()).await?;
    proxy.delay(Duration::from_millis(200));
    let began = Instant::now();
    let sent = vec![7; 500_000];
    stream.write_all(&sent).await?;
    let mut received = vec![0; sent.len()];
    timeout(DEADLINE, stream.read_exact(&mut received)).await??;
    let (took, chunks) = (began.elapsed(), proxy.counts().chunks);
    ensure!(took >= Duration::from_millis(400), "{took:?}");
    ensure!(took < Duration::from_millis(100) * u32::try_from(chunks)?, "{took:?}, {chunks}");
    Ok(())
}

/// How many of so many pings were lost in a row, of each.
async fn losses(seed: u64, percent: u8, pings: u32) -> Result<Vec<u64>> {
    let proxy = proxy(seed).await?;
    let mut stream = TcpStream::connect(proxy.address()).await?;
    proxy.lose(percent);
    let mut found = Vec::new();
    for _ in 0..pings {
        let before = proxy.counts().lost;
        let took = ping(&mut stream).await?;
        let lost = proxy.counts().lost - before;
        // The fewest that they can have waited: where half of them are of each direction.
        let waits = [lost / 2, lost - lost / 2].map(|lost| 200 * ((1 << lost) - 1));
        let least = Duration::from_millis(waits.iter().sum());
        ensure!(took >= least, "{took:?} with {lost} losses");
        found.push(lost);
    }
    Ok(found)
}

#[tokio::test]
async fn what_is_lost_comes_later_and_is_told_by_the_seed() -> Result<()> {
    let (one, same, other) =
        tokio::try_join!(losses(1, 30, 12), losses(1, 30, 12), losses(2, 30, 12))?;
    ensure!(one.iter().sum::<u64>() > 0, "nothing was lost");
    ensure!(one == same, "{one:?} and {same:?}");
    ensure!(one != other, "{one:?} with any seed");
    ensure!(losses(1, 0, 12).await? == [0; 12]);
    Ok(())
}

#[tokio::test]
async fn nothing_passes_a_stalled_proxy_and_nothing_is_forgotten() -> Result<()> {
    let proxy = proxy(1).await?;
    let mut stream = TcpStream::connect(proxy.address()).await?;
    ping(&mut stream).await?;
    proxy.flow(Flow::Stalled);
    let before = proxy.counts();
    stream.write_all(b"x").await?;
    let mut newcomer = TcpStream::connect(proxy.address()).await?;
    newcomer.write_all(b"y").await?;
    ensure!(timeout(NOTHING, stream.read_u8()).await.is_err(), "it has passed");
    ensure!(proxy.counts().bytes == before.bytes);
    proxy.flow(Flow::On);
    ensure!(timeout(DEADLINE, stream.read_u8()).await?? == b'x');
    ensure!(timeout(DEADLINE, newcomer.read_u8()).await?? == b'y');
    Ok(())
}

#[tokio::test]
async fn a_cut_resets_all_that_there_is_and_all_that_comes() -> Result<()> {
    let proxy = proxy(1).await?;
    let mut stream = TcpStream::connect(proxy.address()).await?;
    ping(&mut stream).await?;
    proxy.flow(Flow::Cut);
    is_reset(&mut stream).await?;
    newcomer_is_reset(proxy.address()).await?;
    let counts = proxy.counts();
    ensure!((counts.cut, counts.refused) == (1, 1), "{counts:?}");
    proxy.flow(Flow::On);
    let mut stream = TcpStream::connect(proxy.address()).await?;
    ping(&mut stream).await?;
    // One that is over at once.
    proxy.flow(Flow::Cut);
    proxy.flow(Flow::On);
    is_reset(&mut stream).await?;
    ping(&mut TcpStream::connect(proxy.address()).await?).await?;
    Ok(())
}

#[tokio::test]
async fn a_proxy_ends_with_its_test() -> Result<()> {
    let proxy = proxy(1).await?;
    let (address, mut stream) = (proxy.address(), TcpStream::connect(proxy.address()).await?);
    ping(&mut stream).await?;
    drop(proxy);
    ensure!(timeout(DEADLINE, stream.read_u8()).await?.is_err(), "it goes on");
    eventually("a closed port", DEADLINE, async || {
        let open = TcpStream::connect(address).await.is_ok();
        Ok(if open { Err("open".to_owned()) } else { Ok(()) })
    })
    .await
}

/// Nobody but the host reaches it under the address that it listens on, and it reaches what the host does.
#[test]
fn a_proxy_runs_on_a_host() -> Result<()> {
    let network = Network::new()?;
    let (host, target) = (network.host("proxy")?, network.host("target")?);
    network.block_on(async {
        let place = Place::Host(std::sync::Arc::clone(&target));
        let behind = Proxy::start(&place, 0, "127.0.0.1:1".parse()?, 1).await?;
        behind.flow(Flow::Stalled);
        let place = Place::Host(std::sync::Arc::clone(&host));
        let proxy = Proxy::start(&place, 7000, behind.address(), 1).await?;
        ensure!(proxy.address() == SocketAddr::new(host.address().into(), 7000));
        let stream = TcpStream::connect(proxy.address()).await?;
        eventually("a connection to the other host", DEADLINE, async || {
            let count = behind.counts().connections;
            Ok(if count == 1 { Ok(()) } else { Err(format!("{count}")) })
        })
        .await?;
        drop(stream);
        Ok(())
    })
}
