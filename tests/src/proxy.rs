//! A bad network, between two processes.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Carries connections to an address, for as long and as well as it is told to.
pub struct Proxy {
    address: SocketAddr,
    network: watch::Sender<Network>,
    _tasks: JoinSet<()>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Network {
    Good,
    Slow(Duration),
    /// Connections stay open, and nothing gets through.
    Stalled,
    /// The same, of what comes back only.
    Mute,
    /// What is open is closed, and so is what is opened.
    Cut,
}

impl Proxy {
    /// To this address, at first without any fault.
    pub async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (network, seen) = watch::channel(Network::Good);
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, target, seen));
        Self {
            address,
            network,
            _tasks: tasks,
        }
    }

    /// Where to connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Mends whatever was broken; what was stalled arrives now.
    pub fn mend(&self) {
        self.network.send_replace(Network::Good);
    }

    /// Everything takes so much longer, in each direction.
    pub fn slow(&self, delay: Duration) {
        self.network.send_replace(Network::Slow(delay));
    }

    /// Nothing gets through, and nobody is told.
    pub fn stall(&self) {
        self.network.send_replace(Network::Stalled);
    }

    /// Requests get through, answers don't, and nobody is told.
    pub fn mute(&self) {
        self.network.send_replace(Network::Mute);
    }

    /// Closes every connection, with what is on its way, and every new one.
    pub fn cut(&self) {
        self.network.send_replace(Network::Cut);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    There,
    Back,
}

async fn accept(listener: TcpListener, target: SocketAddr, network: watch::Receiver<Network>) {
    let mut connections = JoinSet::new();
    while let Ok((near, _)) = listener.accept().await {
        let network = network.clone();
        connections.spawn(async move {
            let mut cut = network.clone();
            tokio::select! {
                biased;
                _ = cut.wait_for(|network| *network == Network::Cut) => {}
                _ = carry(near, target, network) => {}
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn carry(
    near: TcpStream,
    target: SocketAddr,
    network: watch::Receiver<Network>,
) -> io::Result<()> {
    let far = TcpStream::connect(target).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let (from_near, to_near) = near.into_split();
    let (from_far, to_far) = far.into_split();
    let there = pass(from_near, to_far, Direction::There, network.clone());
    let back = pass(from_far, to_near, Direction::Back, network);
    tokio::try_join!(there, back)?;
    Ok(())
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    direction: Direction,
    mut network: watch::Receiver<Network>,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut buffer).await?;
        let lets_through = |network: &Network| match network {
            Network::Stalled => false,
            Network::Mute => direction == Direction::There,
            Network::Good | Network::Slow(_) | Network::Cut => true,
        };
        let seen = network.wait_for(lets_through).await.map(|seen| *seen);
        if let Ok(Network::Slow(delay)) = seen {
            tokio::time::sleep(delay).await;
        }
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..read]).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::until;

    /// A server that says everything again.
    async fn echo() -> (SocketAddr, JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                connections.spawn(async move {
                    let (mut from, mut to) = stream.split();
                    tokio::io::copy(&mut from, &mut to).await.ok();
                });
            }
        });
        (address, tasks)
    }

    #[tokio::test]
    async fn a_network_is_as_bad_as_it_is_told_to_be() {
        let (target, _server) = echo().await;
        let proxy = Proxy::to(target).await;
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        let mut byte = [0; 1];
        let moment = Duration::from_millis(50);

        stream.write_all(b"a").await.unwrap();
        stream.read_exact(&mut byte).await.unwrap();
        assert_eq!(&byte, b"a");

        for fault in [Proxy::stall, Proxy::mute] {
            fault(&proxy);
            stream.write_all(b"b").await.unwrap();
            let answer = tokio::time::timeout(moment, stream.read(&mut byte)).await;
            assert!(answer.is_err(), "something got through");
            proxy.mend();
            stream.read_exact(&mut byte).await.unwrap();
            assert_eq!(&byte, b"b");
        }

        proxy.slow(moment);
        let began = std::time::Instant::now();
        stream.write_all(b"c").await.unwrap();
        stream.read_exact(&mut byte).await.unwrap();
        assert!(began.elapsed() >= 2 * moment);

        proxy.cut();
        assert!(matches!(stream.read(&mut byte).await, Ok(0) | Err(_)));
        proxy.mend();
        until("the network is mended", async || {
            let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
            stream.write_all(b"d").await.is_ok() && stream.read_exact(&mut byte).await.is_ok()
        })
        .await;
    }
}
