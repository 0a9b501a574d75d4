//! Whole runs against a toy of a gateway.

mod toy;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser as _;
use lifecycle::{CancellationToken, Process};

use crate::Args;
use crate::args::Ack;
use crate::client::Client;
use crate::courier::{Address, Courier, Outcome};
use crate::metrics::Metrics;
use crate::report::Report;
use crate::retry::{End, Receipt, Request, Wish};
use crate::target::Target;
use toy::{KEY, Mischief, Toy};

fn args(toy: &Toy, words: &str) -> Args {
    let words = format!("sekali-publisher --target-url {} {words}", toy.url);
    Args::try_parse_from(words.split_whitespace()).unwrap()
}

async fn run(toy: &Toy, words: &str) -> Report {
    let process = Process::new("test").unwrap();
    let report = crate::report(&process, args(toy, words)).await.unwrap();
    process.tasks.join().await;
    report
}

fn verdict_words(report: &Report) -> &str {
    let verdict = report.verdict.as_ref();
    verdict.map_or("", |verdict| &verdict.words)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_load_ends_with_a_good_verdict() {
    for words in [
        "",
        "--batch 100",
        "--batch 7 --ids v7 --ack stored",
        "--batch 10 --ids text --conflicts 0.2",
        "--malformed 0.2 --payload-bytes 48 --topics 1",
        "--batch 10 --malformed 0.3 --conflicts 0.1 --ack stored --concurrency 1",
    ] {
        let toy = Toy::start(Mischief::None);
        let report = run(&toy, &format!("--events 2000 --seed 7 --verify {words}")).await;
        assert!(report.passed, "{words}: {report:?}");
        let verdict = report.verdict.as_ref().unwrap();
        assert_eq!(verdict.stored, toy.lock().events.len() as u64);
        assert_eq!(verdict.stored + verdict.duplicates, report.acknowledged);
        assert_eq!(report.acknowledged + report.refused.expected, 2_000);
        assert!(report.end_to_end.is_some());
    }
}

#[tokio::test]
async fn the_words_say_what_became_of_the_events() {
    let toy = Toy::start(Mischief::None);
    let report = run(&toy, "--events 2000 --seed 7 --batch 10 --verify").await;
    let stored = toy.lock().events.len();
    let expected = format!(
        "GOOD: 2000 sent, {stored} stored once, {} duplicates dropped, nothing lost, nothing \
         doubled",
        2_000 - stored
    );
    assert_eq!(verdict_words(&report), expected);
    assert!((1_350..1_450).contains(&stored));
}

#[tokio::test]
async fn mischief_does_not_go_unnoticed() {
    for (mischief, expected) in [
        (Mischief::Forget, "1 lost"),
        (Mischief::ForgetAndLie, "1 lost"),
        (Mischief::Double, "4 doubled"),
        (Mischief::Alter, "4 altered"),
        (Mischief::Invent, "4 that nobody sent"),
        (
            Mischief::TakeRefused,
            "that nobody sent or that were refused",
        ),
        (Mischief::TakeBusy, "topics with wrong books"),
        (Mischief::Miscount, "1 topics with wrong books"),
    ] {
        let toy = Toy::start(mischief);
        let words = "--events 400 --seed 7 --batch 10 --malformed 0.2 --duplicates 0.5 --verify";
        let report = run(&toy, words).await;
        assert!(!report.passed, "{mischief:?}");
        let words = verdict_words(&report);
        assert!(words.starts_with("BAD: "), "{mischief:?}: {words}");
        assert!(words.contains(expected), "{mischief:?}: {words}");
        assert!(words.contains("for example: "), "{mischief:?}: {words}");
    }
}

#[tokio::test]
async fn conflicts_that_are_counted_wrongly_are_found_out() {
    for mischief in [Mischief::MissConflicts, Mischief::SeeConflicts] {
        let toy = Toy::start(mischief);
        let report = run(&toy, "--events 400 --seed 7 --conflicts 0.2 --verify").await;
        assert!(!report.passed, "{mischief:?}");
        let words = verdict_words(&report);
        assert!(words.contains("BAD: 4 topics with wrong books"), "{words}");
    }
}

#[tokio::test]
async fn what_a_gateway_may_do_is_no_fault() {
    for (mischief, extra) in [(Mischief::Busy, false), (Mischief::TakeUnknown, true)] {
        let toy = Toy::start(mischief);
        let words = "--events 300 --seed 7 --batch 10 --conflicts 0.2 --verify";
        let report = run(&toy, words).await;
        assert!(report.passed, "{mischief:?}: {report:?}");
        assert!(report.retried >= 10, "{report:?}");
        assert_eq!(report.attempted, 300 + 10 * report.retried);
        let toy = toy.lock();
        // A request that is sent again is the same bytes.
        assert_eq!(toy.bodies.len(), 30);
        assert_eq!(toy.received > 300, extra);
    }
}

#[tokio::test]
async fn a_page_that_broke_off_is_taken_up_again() {
    let toy = Toy::start(Mischief::BreakOff);
    let report = run(&toy, "--events 2000 --seed 7 --batch 100 --verify").await;
    assert!(report.passed, "{report:?}");
}

#[tokio::test]
async fn the_same_seed_sends_the_same_bytes_and_finds_them_there() {
    let toy = Toy::start(Mischief::None);
    let words = "--seed 7 --batch 10 --verify --conflicts 0.1 --malformed 0.1";
    assert!(run(&toy, &format!("--events 1000 {words}")).await.passed);
    let (bodies, stored) = {
        let toy = toy.lock();
        (toy.bodies.clone(), toy.events.len())
    };
    // As if that had been killed: another comes, and stops earlier.
    let report = run(&toy, &format!("--events 500 {words}")).await;
    assert!(report.passed, "{report:?}");
    assert!(report.verdict.unwrap().earlier > 100);
    let toy = toy.lock();
    assert_eq!(toy.bodies, bodies);
    assert_eq!(toy.events.len(), stored);
}

#[tokio::test]
async fn what_is_taken_twice_is_found_out_beside_other_senders_if_the_name_is_new() {
    let toy = Toy::start(Mischief::TakeTwice);
    let words = "--events 400 --run a --seed 7 --batch 10 --new --verify";
    let report = run(&toy, words).await;
    assert!(!report.passed, "{report:?}");
    let words = verdict_words(&report);
    assert!(words.contains("1 topics with wrong books"), "{words}");
    assert!(words.contains("can have been taken"), "{words}");
}

#[tokio::test]
async fn without_a_seed_every_run_is_another() {
    let toy = Toy::start(Mischief::None);
    let seeds: Vec<_> = [
        run(&toy, "--events 10").await,
        run(&toy, "--events 10").await,
    ]
    .into_iter()
    .map(|report| report.seed.unwrap())
    .collect();
    assert_ne!(seeds[0], seeds[1]);
    let topics: BTreeSet<_> = toy.lock().books.keys().cloned().collect();
    for seed in seeds {
        assert!(
            topics
                .iter()
                .any(|topic| topic.starts_with(&format!("run-{seed}-")))
        );
    }
}

#[tokio::test]
async fn a_run_is_cleaned_up_after_it_or_later() {
    let toy = Toy::start(Mischief::None);
    assert!(run(&toy, "--events 100 --run one").await.passed);
    assert!(
        run(&toy, "--events 100 --run two --verify --clean")
            .await
            .passed
    );
    let topics: Vec<_> = toy.lock().books.keys().cloned().collect();
    assert_eq!(topics, ["run-one-0", "run-one-1", "run-one-2", "run-one-3"]);
    let later = run(&toy, "--events 0 --run one --clean --topics 1").await;
    assert!(later.passed);
    assert_eq!(later.sent, 0);
    assert!(toy.lock().books.is_empty());
}

#[tokio::test]
async fn a_run_that_is_cleaned_up_after_under_a_full_queue_does_not_pass() {
    let toy = Toy::start(Mischief::TakeTwice);
    let words = "--events 0 --run one --clean --queue-wait-seconds 1";
    let report = run(&toy, words).await;
    assert!(!report.passed);
    let why = "the queue was not empty: what was in it may make the topics anew";
    assert_eq!(report.failures, [why]);
}

#[tokio::test]
async fn a_key_is_sent_where_one_is_needed() {
    let toy = Toy::start(Mischief::Locked);
    let refused = run(&toy, "--events 1000 --batch 2").await;
    assert!(!refused.passed);
    assert!(
        refused.failures[0].contains("a key is needed"),
        "{refused:?}"
    );
    // It does not go on for ever.
    assert!(toy.lock().requests < 200);

    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{KEY}\n")).unwrap();
    let words = format!(
        "--events 100 --verify --api-key-file {}",
        file.path().display()
    );
    assert!(run(&toy, &words).await.passed);
}

#[tokio::test]
async fn what_fails_is_told_and_not_called_lost() {
    let toy = Toy::start(Mischief::Broken);
    let report = run(&toy, "--events 100 --batch 10 --verify").await;
    assert!(!report.passed);
    assert_eq!((report.acknowledged, report.failed), (0, 100));
    assert!(report.failures[0].contains("a defect"), "{report:?}");
    assert!(report.verdict.unwrap().good);
}

#[tokio::test]
async fn a_gateway_that_is_not_there_is_given_up() {
    let mut toy = Toy::start(Mischief::None);
    toy.url = "http://127.0.0.1:1".into();
    let report = run(
        &toy,
        "--events 100 --max-retry-seconds 1 --queue-wait-seconds 0",
    )
    .await;
    assert!(!report.passed && !report.complete);
    assert_eq!((report.sent, report.acknowledged), (0, 0));
    let gave_up = |why: &String| why.starts_with("gave up: ") && why.contains("refused");
    assert!(report.failures.iter().any(gave_up), "{report:?}");
}

#[tokio::test]
async fn an_endless_run_ends_when_it_is_told_to_and_is_judged() {
    let toy = Toy::start(Mischief::None);
    let process = Process::new("test").unwrap();
    let stop = async {
        for _ in 0..50 {
            toy.taken.notified().await;
        }
        process.shutdown.cancel();
    };
    let args = args(&toy, "--seed 7 --verify --clean");
    let (report, ()) = tokio::join!(crate::report(&process, args), stop);
    let report = report.unwrap();
    assert!(report.passed, "{report:?}");
    assert!(report.sent >= 50);
    assert!(verdict_words(&report).starts_with("GOOD"));
    assert!(toy.lock().books.is_empty());
}

#[tokio::test]
async fn a_run_that_was_to_have_an_end_does_not_pass_without_it() {
    let toy = Toy::start(Mischief::None);
    let process = Process::new("test").unwrap();
    let args = args(&toy, "--events 1000000000 --verify");
    let stop = async {
        toy.taken.notified().await;
        process.shutdown.cancel();
    };
    let (report, ()) = tokio::join!(crate::report(&process, args), stop);
    let report = report.unwrap();
    assert!(!report.passed && !report.complete);
    assert!(verdict_words(&report).starts_with("GOOD"), "{report:?}");
}

#[tokio::test]
async fn a_rate_is_kept() {
    let toy = Toy::start(Mischief::None);
    let report = run(&toy, "--events 60 --batch 10 --rate 500").await;
    assert!(report.passed);
    assert!((0.1..10.0).contains(&report.seconds), "{}", report.seconds);
}

#[tokio::test]
async fn a_rate_is_kept_with_a_file_too() {
    let toy = Toy::start(Mischief::None);
    let text: Vec<_> = (0..60).map(line).collect();
    let report = ship(&toy, &text.join("\n"), "--batch 10 --rate 500").await;
    assert!(report.passed, "{report:?}");
    assert!((0.1..10.0).contains(&report.seconds), "{}", report.seconds);
}

/// One connection of a run that was told to stop.
fn stopped(toy_url: &str, timeout: Duration) -> Courier {
    let target = toy_url.parse::<Target>().unwrap();
    let address = Address {
        uri: target.path("/publish"),
        content_type: "application/x-ndjson",
    };
    let stop = CancellationToken::new();
    stop.cancel();
    let client = Client::new(target, None, timeout).unwrap();
    let registry = lifecycle::metrics::registry("test").unwrap();
    let metrics = Arc::new(Metrics::register(&registry).unwrap());
    Courier::new(client, address, Duration::from_mins(1), stop, metrics)
}

const ONE: Wish = Wish {
    events: 1,
    ack: Ack::Queued,
    request: Request::Sound,
};

#[tokio::test]
async fn what_was_read_before_a_stop_is_sent_though_there_is_no_connection_yet() {
    let toy = Toy::start(Mischief::None);
    let mut courier = stopped(&toy.url, Duration::from_secs(10));
    for number in 0..2 {
        let delivery = courier.deliver(line(number).into(), ONE).await;
        let acknowledged = Outcome::Over(End::Acknowledged(Receipt::default()));
        assert_eq!(delivery.outcome, acknowledged);
    }
    assert_eq!(toy.lock().events.len(), 2);
}

#[tokio::test]
async fn after_a_stop_a_gateway_that_does_not_answer_is_tried_once() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let mut courier = stopped(&url, Duration::from_millis(50));
    for sent in [1, 0] {
        let delivery = courier.deliver(line(0).into(), ONE).await;
        let why = "no answer in time".to_owned();
        assert_eq!(delivery.outcome, Outcome::Interrupted(why));
        assert_eq!(delivery.sent, sent);
    }
}

#[tokio::test]
async fn the_report_is_saved_where_it_was_asked_for() {
    let toy = Toy::start(Mischief::None);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("report.json");
    let words = format!("--events 10 --seed 7 --verify --report {}", path.display());
    let process = Process::new("test").unwrap();
    crate::run(process, args(&toy, &words)).await.unwrap();
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(json["passed"], true);
    assert_eq!(json["seed"], 7);
    assert_eq!(json["verdict"]["good"], true);
    assert!(json["latency_ms"]["p99"].is_number());

    let nowhere = format!("--events 10 --report {}", dir.path().join("a/b").display());
    let process = Process::new("test").unwrap();
    let error = crate::report(&process, args(&toy, &nowhere))
        .await
        .unwrap_err();
    assert!(error.is::<lifecycle::ConfigError>());
}

/// Lines of a file, with what is between them.
async fn ship(toy: &Toy, text: &str, words: &str) -> Report {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    run(toy, &format!("--file {} {words}", file.path().display())).await
}

fn line(id: usize) -> String {
    format!(
        r#"{{"topic":"t","event_id":"e{id}","timestamp":"2026-01-01T00:00:00Z","source":"s","payload":{{"n": {id}}}}}"#
    )
}

#[tokio::test]
async fn every_line_of_a_file_is_shipped() {
    for words in ["", "--batch 1", "--batch 7 --ack stored", "--concurrency 1"] {
        let toy = Toy::start(Mischief::Busy);
        let text: Vec<_> = (0..1_000).map(line).collect();
        let report = ship(&toy, &text.join("\n"), words).await;
        assert!(report.passed, "{report:?}");
        assert_eq!((report.sent, report.acknowledged), (1_000, 1_000));
        assert_eq!(report.resume_from_line, None);
        assert_eq!(toy.lock().events.len(), 1_000);
    }
}

#[tokio::test]
async fn refused_lines_are_told_by_number_and_hold_up_no_others() {
    let toy = Toy::start(Mischief::None);
    let mut text: Vec<_> = (0..300).map(line).collect();
    text[0] = String::new();
    text[150] = "{\"topic\":\"t\"}".into();
    text[250] = "nonsense".into();
    let report = ship(&toy, &text.join("\r\n"), "").await;
    assert!(!report.passed);
    assert_eq!((report.acknowledged, report.refused.unexpected), (297, 2));
    assert!(report.complete && report.resume_from_line.is_none());
    assert!(
        report
            .failures
            .iter()
            .any(|why| why.starts_with("line 151: ")),
        "{report:?}"
    );
    assert!(
        report
            .failures
            .iter()
            .any(|why| why.starts_with("line 251: ")),
        "{report:?}"
    );
    assert_eq!(toy.lock().events.len(), 297);
}

#[tokio::test]
async fn what_could_not_be_shipped_is_told_by_its_first_line() {
    let toy = Toy::start(Mischief::Broken);
    let text: Vec<_> = (0..300).map(line).collect();
    let report = ship(&toy, &text.join("\n"), "").await;
    assert!(!report.passed);
    assert_eq!((report.failed, report.resume_from_line), (300, Some(1)));

    // It can be opened and not read.
    let report = run(&toy, "--file /").await;
    assert!(!report.passed && !report.complete);
    assert_eq!(report.resume_from_line, Some(1));

    let missing = args(&toy, "--file /nowhere/at/all");
    let process = Process::new("test").unwrap();
    let error = crate::report(&process, missing).await.unwrap_err();
    assert!(error.is::<lifecycle::ConfigError>());
}
