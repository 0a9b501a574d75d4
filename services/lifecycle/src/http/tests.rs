use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex};

use axum::body::Body as AxumBody;
use axum::routing::{MethodRouter, get, post};
use hyper::body::{Body, Bytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::*;

/// Longer than anything here takes: what waits for it has failed.
const PATIENCE: Duration = Duration::from_secs(20);

struct Server {
    addr: SocketAddr,
    tasks: Tasks,
    announced: CancellationToken,
    shutdown: CancellationToken,
}

impl Server {
    fn start(router: Router, limits: Limits) -> Self {
        let shutdown = CancellationToken::new();
        let tasks = Tasks::new(shutdown.clone());
        let listener = bind(([127, 0, 0, 1], 0).into()).unwrap();
        let announced = CancellationToken::new();
        let closing = Closing {
            announced: announced.clone(),
            begun: shutdown.clone(),
        };
        let addr = serve("http", listener, router, limits, &tasks, closing).unwrap();
        Self {
            addr,
            tasks,
            announced,
            shutdown,
        }
    }

    async fn connect(&self) -> Client {
        Client(TcpStream::connect(self.addr).await.unwrap())
    }

    async fn drained(&self) {
        self.shutdown.cancel();
        patiently(self.tasks.join()).await;
        assert!(self.tasks.take_failure().is_none());
    }
}

struct Client(TcpStream);

impl Client {
    async fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    /// Reads until the text has come, or fails.
    async fn expect(&mut self, text: &str) -> String {
        let mut read = Vec::new();
        let found = async {
            loop {
                if String::from_utf8_lossy(&read).contains(text) {
                    break;
                }
                if self.0.read_buf(&mut read).await.unwrap() == 0 {
                    break;
                }
            }
        };
        patiently(found).await;
        let read = String::from_utf8(read).unwrap();
        assert!(read.contains(text), "no {text:?} in {read:?}");
        read
    }

    /// Reads on until the server closes, and returns what came.
    async fn rest(&mut self) -> io::Result<String> {
        let mut read = String::new();
        patiently(self.0.read_to_string(&mut read)).await?;
        Ok(read)
    }
}

async fn patiently<F: Future>(future: F) -> F::Output {
    timeout(PATIENCE, future).await.expect("it takes too long")
}

fn hello() -> Router {
    Router::new().route("/", get(|| async { "hello" }))
}

const GET: &str = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";

#[tokio::test]
async fn pipelined_requests_are_answered_in_order_on_one_connection() {
    let router = Router::new()
        .route("/a", get(|| async { "first" }))
        .route("/b", get(|| async { "second" }));
    let server = Server::start(router, Limits::default());
    let mut client = server.connect().await;
    client
        .send("GET /a HTTP/1.1\r\nhost: x\r\n\r\nGET /b HTTP/1.1\r\nhost: x\r\n\r\n")
        .await;
    let answers = client.expect("second").await;
    assert!(answers.find("first") < answers.find("second"), "{answers}");
    client.send(&GET.replace("/ ", "/a ")).await;
    client.expect("first").await;
    server.drained().await;
}

#[tokio::test]
async fn a_drain_closes_idle_connections_and_lets_a_request_in_flight_finish() {
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    let gate = CancellationToken::new();
    let opened = gate.clone();
    let slow = move || {
        let (arrived, opened) = (arrived.clone(), opened.clone());
        async move {
            arrived.send(()).unwrap();
            opened.cancelled().await;
            "finished"
        }
    };
    let server = Server::start(hello().route("/slow", get(slow)), Limits::default());

    let mut silent = server.connect().await;
    let mut idle = server.connect().await;
    idle.send(GET).await;
    idle.expect("hello").await;
    let mut busy = server.connect().await;
    busy.send(&GET.replace("/ ", "/slow ")).await;
    patiently(arrivals.recv()).await;

    server.shutdown.cancel();
    assert_eq!(idle.rest().await.unwrap(), "");
    assert_eq!(silent.rest().await.unwrap(), "");
    assert_eq!(server.tasks.running(), "http");
    gate.cancel();
    let answer = busy.rest().await.unwrap();
    assert!(answer.contains("connection: close"), "{answer}");
    assert!(answer.ends_with("finished"), "{answer}");
    server.drained().await;
    assert!(TcpStream::connect(server.addr).await.is_err());
}

#[tokio::test]
async fn an_announced_drain_closes_connections_with_their_answers_and_takes_new_ones() {
    let server = Server::start(hello(), Limits::default());
    let mut kept = server.connect().await;
    kept.send(GET).await;
    let before = kept.expect("hello").await;
    assert!(!before.contains("connection: close"), "{before}");

    server.announced.cancel();
    for mut client in [kept, server.connect().await] {
        client.send(GET).await;
        let answer = client.rest().await.unwrap();
        assert!(answer.contains("connection: close"), "{answer}");
        assert!(answer.ends_with("hello"), "{answer}");
    }
    server.drained().await;
}

#[tokio::test]
async fn a_request_that_came_before_the_drain_is_answered() {
    let server = Server::start(hello(), Limits::default());
    let mut client = server.connect().await;
    // The server has not run since the connection was made: nothing was awaited.
    client.0.try_write(GET.as_bytes()).unwrap();
    server.shutdown.cancel();
    let answer = client.rest().await.unwrap();
    assert!(answer.ends_with("hello"), "{answer}");
    server.drained().await;
}

#[tokio::test]
async fn slow_headers_and_quiet_connections_are_closed_but_slow_answers_are_not() {
    let limits = Limits {
        header_timeout: Duration::from_millis(60),
        idle_timeout: Duration::from_millis(60),
        ..Limits::default()
    };
    let (pieces, stream) = stream();
    let server = Server::start(hello().route("/stream", stream), limits);

    let mut streaming = server.connect().await;
    streaming.send(&GET.replace("/ ", "/stream ")).await;
    pieces.send(Bytes::from_static(b"piece-1")).unwrap();
    streaming.expect("piece-1").await;

    // Each of these waits for longer than the limits are.
    let mut slow = server.connect().await;
    slow.send("GET / HT").await;
    assert_eq!(slow.rest().await.unwrap(), "");
    let mut idle = server.connect().await;
    idle.send(GET).await;
    idle.expect("hello").await;
    assert_eq!(idle.rest().await.unwrap(), "");

    pieces.send(Bytes::from_static(b"piece-2")).unwrap();
    streaming.expect("piece-2").await;
    drop(pieces);
    let end = streaming.rest().await.unwrap();
    assert!(end.ends_with("0\r\n\r\n"), "{end:?}");
    server.drained().await;
}

/// Beyond what the kernel takes of an answer ahead of a reader: some 4 MiB, and what a
/// reader's side takes that has asked for little yet.
const MUCH: usize = 32 * 1024 * 1024;

#[tokio::test]
async fn an_answer_that_is_read_slowly_arrives_whole() {
    let limits = Limits {
        header_timeout: Duration::from_millis(500),
        idle_timeout: Duration::from_millis(500),
        ..Limits::default()
    };
    let much = Bytes::from(vec![b'x'; MUCH]);
    let answer = move || std::future::ready(much.clone());
    let server = Server::start(Router::new().route("/", get(answer)), limits);
    let mut client = server.connect().await;
    client
        .send("GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await;
    // Twenty pieces of it, and twice the time-out.
    let mut pause = tokio::time::interval(Duration::from_millis(50));
    let mut read = Vec::new();
    loop {
        pause.tick().await;
        let mut piece = (&mut client.0).take(MUCH as u64 / 20);
        if patiently(piece.read_to_end(&mut read)).await.unwrap() == 0 {
            break;
        }
    }
    assert!(read.len() > MUCH, "{} bytes", read.len());
    server.drained().await;
}

#[tokio::test]
async fn a_reader_that_takes_nothing_of_its_answer_is_closed() {
    let limits = Limits {
        header_timeout: Duration::from_millis(60),
        idle_timeout: Duration::from_millis(60),
        ..Limits::default()
    };
    let (pieces, stream) = stream();
    let server = Server::start(Router::new().route("/", stream), limits);
    let mut client = server.connect().await;
    client.send(GET).await;
    client.expect("200 OK").await;
    let piece = Bytes::from(vec![b'x'; MUCH / 32]);
    for _ in 0..32 {
        pieces.send(piece.clone()).unwrap();
    }
    // The body is given up unread, with pieces left in it.
    patiently(pieces.closed()).await;
    server.drained().await;
}

/// A route whose one answer is written piece by piece, and where the pieces come from.
fn stream() -> (mpsc::UnboundedSender<Bytes>, MethodRouter) {
    let (pieces, body) = mpsc::unbounded_channel();
    let body = Mutex::new(Some(Pieces(body)));
    let answer = move || {
        let pieces = body.lock().unwrap().take().unwrap();
        std::future::ready(AxumBody::new(pieces))
    };
    let answer = Arc::new(answer);
    (pieces, get(move || answer()))
}

/// A body that is written piece by piece.
struct Pieces(mpsc::UnboundedReceiver<Bytes>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, Infallible>>> {
        self.0
            .poll_recv(cx)
            .map(|piece| piece.map(|bytes| Ok(hyper::body::Frame::data(bytes))))
    }
}

#[tokio::test]
async fn headers_beyond_the_limit_are_refused() {
    let server = Server::start(hello(), Limits::default());
    let mut client = server.connect().await;
    client.send("GET / HTTP/1.1\r\nx: ").await;
    // The server may close before all of it is written.
    let _ = client.0.write_all(&vec![b'a'; 32 * 1024]).await;
    client.expect("431").await;
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_a_place() {
    let limits = Limits {
        max_connections: 1,
        ..Limits::default()
    };
    let server = Server::start(hello(), limits);
    let mut first = server.connect().await;
    first.send(GET).await;
    first.expect("hello").await;
    let mut second = server.connect().await;
    second.send(GET).await;
    let nothing = timeout(Duration::from_millis(50), second.expect("hello")).await;
    assert!(nothing.is_err(), "it had no place");
    assert_eq!(server.tasks.running(), "http (2)");
    drop(first);
    second.expect("hello").await;
}

#[tokio::test]
async fn a_handler_that_panics_ends_its_connection_alone() {
    async fn clumsy() -> &'static str {
        panic!("on purpose")
    }
    let server = Server::start(hello().route("/clumsy", get(clumsy)), Limits::default());
    let mut client = server.connect().await;
    client.send(&GET.replace("/ ", "/clumsy ")).await;
    assert_eq!(client.rest().await.unwrap_or_default(), "");
    let mut client = server.connect().await;
    client.send(GET).await;
    client.expect("hello").await;
    server.drained().await;
}

#[tokio::test]
async fn bodies_are_read_whole_and_continue_is_said() {
    let echo = post(|body: Bytes| async { body });
    let server = Server::start(Router::new().route("/", echo), Limits::default());
    let mut client = server.connect().await;
    let body = "x".repeat(200_000);
    client
        .send(
            "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 200000\r\nexpect: 100-continue\r\n\r\n",
        )
        .await;
    client.expect("100 Continue").await;
    client.send(&format!("{body}{GET}")).await;
    let answers = client.expect("405").await;
    assert!(answers.contains(&body));
}
