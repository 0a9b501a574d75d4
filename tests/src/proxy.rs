//! A bad network, between two processes.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
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
    /// How many connections there ever were.
    opened: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

/// What a network is like at an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    target: SocketAddr,
    weather: Weather,
    /// Connections with a number below this are dead, and nobody was told.
    stranded: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weather {
    Good,
    Slow(Duration),
    /// So many bytes a second, in each direction of each connection.
    Narrow(u32),
    /// Connections stay open, and nothing gets through.
    Stalled,
    /// The same, of what comes back only.
    Mute,
    /// Of every so many pieces that come back, one is cut off in its middle, and its
    /// connection with it.
    Torn(u64),
    /// What is open is closed, and so is what is opened.
    Cut,
}

impl Proxy {
    /// To this address, at first without any fault.
    pub async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (network, seen) = watch::channel(Network {
            target,
            weather: Weather::Good,
            stranded: 0,
        });
        let mut tasks = JoinSet::new();
        let opened = Arc::new(AtomicU64::new(0));
        tasks.spawn(accept(listener, seen, Arc::clone(&opened)));
        Self {
            address,
            network,
            opened,
            _tasks: tasks,
        }
    }

    /// Where to connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Leads connections that are opened from now on to another address.
    pub fn lead_to(&self, target: SocketAddr) {
        self.network.send_modify(|network| network.target = target);
    }

    /// Mends whatever was broken; what was stalled arrives now, unless it is stranded.
    pub fn mend(&self) {
        self.turn(Weather::Good);
    }

    /// Everything takes so much longer, in each direction.
    pub fn slow(&self, delay: Duration) {
        self.turn(Weather::Slow(delay));
    }

    /// So many bytes a second get through, in each direction of each connection.
    pub fn narrow(&self, bytes_per_second: u32) {
        self.turn(Weather::Narrow(bytes_per_second));
    }

    /// Nothing gets through, and nobody is told.
    pub fn stall(&self) {
        self.turn(Weather::Stalled);
    }

    /// Requests get through, answers don't, and nobody is told.
    pub fn mute(&self) {
        self.turn(Weather::Mute);
    }

    /// One of so many pieces of answers is cut off in its middle, with its connection.
    pub fn tear(&self, one_of: u64) {
        self.turn(Weather::Torn(one_of));
    }

    /// Closes every connection, with what is on its way, and every new one.
    pub fn cut(&self) {
        self.turn(Weather::Cut);
    }

    /// The connections that are open now are dead from now on, and nobody is told: what a
    /// firewall does that has forgotten them. New ones are not affected.
    pub fn strand(&self) {
        let opened = self.opened.load(Ordering::Relaxed);
        self.network
            .send_modify(|network| network.stranded = opened);
    }

    fn turn(&self, weather: Weather) {
        self.network
            .send_modify(|network| network.weather = weather);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    There,
    Back,
}

impl Network {
    fn lets_through(&self, connection: u64, direction: Direction) -> bool {
        connection >= self.stranded
            && match self.weather {
                Weather::Stalled => false,
                Weather::Mute => direction == Direction::There,
                Weather::Good
                | Weather::Slow(_)
                | Weather::Narrow(_)
                | Weather::Torn(_)
                | Weather::Cut => true,
            }
    }
}

async fn accept(listener: TcpListener, network: watch::Receiver<Network>, opened: Arc<AtomicU64>) {
    let mut connections = JoinSet::new();
    let pieces = Arc::new(AtomicU64::new(0));
    while let Ok((near, _)) = listener.accept().await {
        let connection = Connection {
            number: opened.fetch_add(1, Ordering::Relaxed),
            network: network.clone(),
            pieces: Arc::clone(&pieces),
        };
        let mut cut = network.clone();
        connections.spawn(async move {
            tokio::select! {
                biased;
                _ = cut.wait_for(|network| network.weather == Weather::Cut) => {}
                _ = connection.carry(near) => {}
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

#[derive(Clone)]
struct Connection {
    number: u64,
    network: watch::Receiver<Network>,
    /// Pieces of answers that any connection was given.
    pieces: Arc<AtomicU64>,
}

impl Connection {
    async fn carry(self, near: TcpStream) -> io::Result<()> {
        let target = self.network.borrow().target;
        let far = TcpStream::connect(target).await?;
        near.set_nodelay(true)?;
        far.set_nodelay(true)?;
        let (from_near, to_near) = near.into_split();
        let (from_far, to_far) = far.into_split();
        let there = self.clone().pass(from_near, to_far, Direction::There);
        let back = self.pass(from_far, to_near, Direction::Back);
        tokio::try_join!(there, back)?;
        Ok(())
    }

    async fn pass(
        mut self,
        mut from: OwnedReadHalf,
        mut to: OwnedWriteHalf,
        direction: Direction,
    ) -> io::Result<()> {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let read = from.read(&mut buffer).await?;
            let number = self.number;
            let open = |network: &Network| network.lets_through(number, direction);
            let weather = match self.network.wait_for(open).await {
                Ok(network) => network.weather,
                // The proxy is gone.
                Err(_) => return Ok(()),
            };
            if read == 0 {
                return to.shutdown().await;
            }
            match weather {
                Weather::Slow(delay) => tokio::time::sleep(delay).await,
                Weather::Narrow(rate) => {
                    let seconds = f64::from(u32::try_from(read).unwrap()) / f64::from(rate);
                    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
                }
                Weather::Torn(one_of) if direction == Direction::Back => {
                    let piece = self.pieces.fetch_add(1, Ordering::Relaxed) + 1;
                    if piece.is_multiple_of(one_of) {
                        to.write_all(&buffer[..read / 2]).await?;
                        return Err(io::ErrorKind::ConnectionReset.into());
                    }
                }
                Weather::Good
                | Weather::Torn(_)
                | Weather::Stalled
                | Weather::Mute
                | Weather::Cut => {}
            }
            to.write_all(&buffer[..read]).await?;
        }
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

        proxy.narrow(20);
        let began = std::time::Instant::now();
        stream.write_all(b"n").await.unwrap();
        stream.read_exact(&mut byte).await.unwrap();
        assert!(began.elapsed() >= 2 * moment);

        proxy.tear(1);
        stream.write_all(b"torn").await.unwrap();
        let mut half = Vec::new();
        let _ = stream.read_to_end(&mut half).await;
        assert_eq!(half, b"to");

        proxy.mend();
        let mut stranded = TcpStream::connect(proxy.address()).await.unwrap();
        stranded.write_all(b"s").await.unwrap();
        stranded.read_exact(&mut byte).await.unwrap();
        proxy.strand();
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        stranded.write_all(b"s").await.unwrap();
        stream.write_all(b"t").await.unwrap();
        stream.read_exact(&mut byte).await.unwrap();
        assert_eq!(&byte, b"t", "a new connection is as good as ever");
        let answer = tokio::time::timeout(moment, stranded.read(&mut byte)).await;
        assert!(answer.is_err(), "something got through");

        proxy.cut();
        assert!(matches!(stream.read(&mut byte).await, Ok(0) | Err(_)));
        assert!(matches!(stranded.read(&mut byte).await, Ok(0) | Err(_)));
        proxy.mend();
        let (other, _other_server) = echo().await;
        proxy.lead_to(other);
        until("the network is mended", async || {
            let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
            stream.write_all(b"d").await.is_ok() && stream.read_exact(&mut byte).await.is_ok()
        })
        .await;
    }
}
