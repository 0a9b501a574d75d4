//! The way of a request, told to a collector.

use std::time::{Duration, Instant};

use serde_json::Value;
use tests::otlp::{Manner, Received, Receiver};
use tests::{Program, Sekali, servers, until};

use crate::path::event;

const SERVER: i32 = 2;
const CLIENT: i32 = 3;
const PRODUCER: i32 = 4;
const CONSUMER: i32 = 5;

/// A sender's trace, which is recorded.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

fn traceparent(flags: &str) -> String {
    format!("00-{TRACE}-{SPAN}-{flags}")
}

fn borrowed(variables: &[(String, String)]) -> Vec<(&str, &str)> {
    let variables = variables.iter();
    variables
        .map(|(name, value)| (&name[..], &value[..]))
        .collect()
}

/// The one that comes after a span, of a process and a kind.
fn child<'s>(
    spans: &'s [Received],
    parent: &Received,
    service: &str,
    kind: i32,
) -> Option<&'s Received> {
    spans.iter().find(|span| {
        (&span.trace, &span.parent) == (&parent.trace, &parent.id)
            && (&span.service[..], span.kind) == (service, kind)
    })
}

/// A request's span, and what it led to: at the gateway, on its way to the queue, at the
/// worker, and the commit.
fn way<'s>(spans: &'s [Received], request: &'s Received) -> Option<[&'s Received; 4]> {
    let server = child(spans, request, "sekali-aggregator", SERVER)?;
    let producer = child(spans, server, "sekali-aggregator", PRODUCER)?;
    let consumer = child(spans, producer, "sekali-worker", CONSUMER)?;
    let commit = child(spans, consumer, "sekali-worker", CLIENT)?;
    Some([server, producer, consumer, commit])
}

#[tokio::test]
async fn each_request_is_one_trace_from_the_publisher_to_the_commit() {
    for protocol in ["http/protobuf", "grpc"] {
        let receiver = Receiver::start(Manner::Willing).await;
        let variables = receiver.variables(protocol);
        let sekali = Sekali::full_in(1, &variables).await;
        let flags = ["--events=60", "--batch=5", "--seed=1", "--duplicates=0.3"];
        let url = sekali.url("");
        let flags = [&flags[..], &["--target-url", &url]].concat();
        let mut publisher = Program::start_in("sekali-publisher", &flags, &borrowed(&variables));
        assert!(publisher.ended().await.success(), "{}", publisher.log());
        sekali.settled().await;

        let mut spans = Vec::new();
        until("every request's trace is whole", async || {
            spans = receiver.spans();
            let requests = spans
                .iter()
                .filter(|span| span.service == "sekali-publisher");
            let ways = requests.map(|request| way(&spans, request));
            let ways: Vec<_> = ways.collect();
            ways.len() >= 12 && ways.iter().all(Option::is_some)
        })
        .await;
        for request in spans
            .iter()
            .filter(|span| span.service == "sekali-publisher")
        {
            assert_eq!((request.kind, &request.parent[..]), (CLIENT, ""));
            let [server, producer, consumer, commit] = way(&spans, request).unwrap();
            assert_eq!(server.name, "POST /publish");
            assert_eq!(server.attributes["http.route"], "/publish");
            assert_eq!(server.attributes["http.response.status_code"], "200");
            assert_eq!(producer.attributes["messaging.system"], "redis");
            assert!(consumer.links.contains(&producer.id), "{consumer:?}");
            assert_eq!(commit.attributes["db.system.name"], "postgresql");
        }
    }
}

#[tokio::test]
async fn a_process_is_called_as_the_environment_says() {
    let receiver = Receiver::start(Manner::Willing).await;
    let sekali = Sekali::embedded().await;
    let url = sekali.url("");
    let flags = ["--events=1", "--target-url", &url];
    let attributes = ("OTEL_RESOURCE_ATTRIBUTES", "service.name=shop,team=till");
    let name = ("OTEL_SERVICE_NAME", "desk");
    for (told, service) in [
        (&[][..], "sekali-publisher"),
        (&[attributes], "shop"),
        (&[attributes, name], "desk"),
    ] {
        let variables = receiver.variables("http/protobuf");
        let variables = [&borrowed(&variables)[..], told].concat();
        let mut publisher = Program::start_in("sekali-publisher", &flags, &variables);
        assert!(publisher.ended().await.success(), "{}", publisher.log());
        let mut spans = Vec::new();
        until("its span is received", async || {
            spans = receiver.spans();
            spans.iter().any(|span| span.service == service)
        })
        .await;
        let span = spans.iter().find(|span| span.service == service).unwrap();
        assert_eq!(span.attributes["server.address"], "127.0.0.1");
    }
}

#[tokio::test]
async fn what_a_sender_says_of_its_trace_is_honoured() {
    let receiver = Receiver::start(Manner::Willing).await;
    let mut sekali = Sekali::full_in(0, &receiver.variables("grpc")).await;
    let ask = |path: &str, flags: &str| {
        let request = sekali.client().get(sekali.url(path));
        sekali.ask(request.header("traceparent", traceparent(flags)))
    };
    // In this order: what is sent of the second is sent after what was sent of the first.
    assert_eq!(ask("/topics", "00").await.status, 200);
    assert_eq!(ask("/readyz", "01").await.status, 200);
    assert_eq!(ask("/stats", "01").await.status, 200);
    // Of the sender's trace: the start asked for the same, in traces of its own.
    until("it is received", async || {
        let spans = receiver.spans();
        let mut of_sender = spans.iter().filter(|span| span.trace == TRACE);
        of_sender.any(|span| span.name == "GET /stats")
    })
    .await;
    let spans = receiver.spans();
    let of_sender: Vec<_> = spans.iter().filter(|span| span.trace == TRACE).collect();
    assert_eq!(of_sender.len(), 1, "{of_sender:?}");
    assert_eq!(of_sender[0].parent, SPAN);

    // What is logged meanwhile says of which trace it is.
    sekali.redis().program().kill();
    let request = sekali.client().get(sekali.url("/stats"));
    let request = request.header("traceparent", traceparent("01"));
    assert_eq!(sekali.ask(request).await.status, 503);
    until("a line says of which trace it is", async || {
        sekali.gateway(0).log().lines().any(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            line["span"]["trace_id"] == TRACE && line["level"] == "WARN"
        })
    })
    .await;
}

#[tokio::test]
async fn what_the_gateway_records_itself_is_one_trace_to_the_commit() {
    let receiver = Receiver::start(Manner::Willing).await;
    let variables = receiver.variables("http/protobuf");
    let mut gateway = Program::start_in(
        "sekali-aggregator",
        &[
            "--http-addr=127.0.0.1:0",
            "--admin-addr=127.0.0.1:0",
            "--database-url",
            &servers::database().await,
        ],
        &borrowed(&variables),
    );
    let url = format!(
        "http://{}/publish?ack=stored",
        gateway.address("http").await
    );
    let client = reqwest::Client::new();
    until("it is stored", async || {
        let request = client.post(&url).header("content-type", "application/json");
        let request = request.header("traceparent", traceparent("01"));
        let answer = request.body(event("t", "1").to_string()).send().await;
        answer.is_ok_and(|answer| answer.status() == 200)
    })
    .await;
    // Each span is sent when it has ended, the commit's before that of its request.
    until(
        "the commit is received, and the request's span",
        async || {
            let spans = receiver.spans();
            let commit = spans.iter().find(|span| span.name == "commit");
            let server =
                commit.and_then(|commit| spans.iter().find(|span| span.id == commit.parent));
            server.is_some_and(|server| (&server.trace[..], server.kind) == (TRACE, SERVER))
        },
    )
    .await;
}

#[tokio::test]
async fn a_receiver_that_takes_nothing_costs_no_request_and_no_shutdown_anything() {
    let nobody = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9");
    let nobody = vec![(nobody.0.to_owned(), nobody.1.to_owned())];
    for manner in [Some(Manner::Refusing), Some(Manner::Silent), None] {
        for protocol in ["http/protobuf", "grpc"] {
            let (_receiver, mut variables) = match manner {
                None => (None, nobody.clone()),
                Some(manner) => {
                    let receiver = Receiver::start(manner).await;
                    let variables = receiver.variables(protocol);
                    (Some(receiver), variables)
                }
            };
            variables.push(("OTEL_EXPORTER_OTLP_PROTOCOL".into(), protocol.into()));
            variables.push(("OTEL_BSP_SCHEDULE_DELAY".into(), "50".into()));
            // Fewer than are made, so that some are dropped.
            variables.push(("OTEL_BSP_MAX_QUEUE_SIZE".into(), "64".into()));
            let mut sekali = Sekali::full_in(1, &variables).await;
            let mut slowest = Duration::ZERO;
            for number in 0..200 {
                let begun = Instant::now();
                let answer = sekali.publish(&event("t", &number.to_string())).await;
                assert_eq!(answer.status, 200, "{}", answer.body);
                slowest = slowest.max(begun.elapsed());
            }
            // The shortest of the exporter's time-outs is 10 s.
            assert!(slowest < Duration::from_secs(5), "{manner:?}: {slowest:?}");
            assert_eq!(sekali.settled().await["unique_processed"], 200);
            for program in [true, false] {
                let program = if program {
                    sekali.gateway(0)
                } else {
                    sekali.worker(0)
                };
                let begun = Instant::now();
                assert!(program.terminate().await.success(), "{}", program.log());
                // The flush has 2 s, and the drain's deadline is 25 s.
                assert!(begun.elapsed() < Duration::from_secs(8), "{manner:?}");
                let log = program.log();
                let complaints = log
                    .lines()
                    .filter(|line| line.contains("can't export traces"));
                assert!(complaints.count() <= 1, "{log}");
            }
        }
    }
}
