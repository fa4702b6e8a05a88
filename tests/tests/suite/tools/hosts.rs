//! Hosts of the test network.

use anyhow::{Result, ensure};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tests::harness::Place;
use tests::network::{Flow, Host, Network, Proxy};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Others remember the address of a network card for 15 s at least.
const AT_ONCE: Duration = Duration::from_secs(10);

/// As with a real machine, whose network card stays in it: whoever knew it need not ask again.
#[test]
fn a_host_is_reached_at_once_when_it_is_on_again() -> Result<()> {
    let network = Network::new()?;
    let host = network.host("host")?;
    network.block_on(async {
        let listening = reached(&host).await?;
        host.power_off()?;
        drop(listening);
        host.power_on()?;
        drop(reached(&host).await?);
        Ok(())
    })
}

async fn reached(host: &Arc<Host>) -> Result<Proxy> {
    let nobody: SocketAddr = "127.0.0.1:1".parse()?;
    let proxy = Proxy::start(&Place::Host(Arc::clone(host)), 7000, nobody, 1).await?;
    proxy.flow(Flow::Stalled);
    timeout(AT_ONCE, TcpStream::connect(proxy.address())).await??;
    ensure!(proxy.counts().connections <= 1, "somebody else");
    Ok(proxy)
}
