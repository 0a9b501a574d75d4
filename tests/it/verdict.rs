//! The publisher's verdict on a whole Sekali.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;
use tests::{Program, Sekali, until};

/// Runs a publisher to its end; its last words and whether the verdict is good.
pub(crate) async fn publish(sekali: &Sekali, flags: &[&str]) -> (bool, String) {
    publish_to(&sekali.url(""), flags).await
}

/// The same of one that sends to this address.
pub(crate) async fn publish_to(url: &str, flags: &[&str]) -> (bool, String) {
    verdict(publisher(url, flags)).await
}

fn publisher(url: &str, flags: &[&str]) -> Program {
    let mut command = Command::new("bash");
    command
        // Its verdict becomes the last of its log.
        .args(["-c", "exec \"$0\" \"$@\" >&2"])
        .arg(tests::binaries().join("sekali-publisher"))
        .args(flags)
        .args(["--target-url", url, "--verify"])
        .stderr(Stdio::piped());
    Program::spawn("sekali-publisher", &mut command)
}

async fn verdict(mut publisher: Program) -> (bool, String) {
    let status = publisher.ended_within(Duration::from_mins(10)).await;
    (status.success(), publisher.log())
}

#[tokio::test]
async fn what_a_seed_says_is_what_is_stored() {
    let flags = [
        "--events=20000",
        "--duplicates=0.3",
        "--conflicts=0.02",
        "--malformed=0.02",
        "--batch=50",
    ];
    for sekali in Sekali::of_each_kind().await {
        for seed in ["--seed=1", "--seed=2"] {
            let (good, log) = publish(&sekali, &[&flags[..], &[seed]].concat()).await;
            assert!(good, "{seed}: {log}");
        }
        sekali.settled().await;
    }
}

#[tokio::test]
async fn an_event_that_nobody_sent_is_found_out() {
    let sekali = Sekali::embedded().await;
    let flags = ["--events=1000", "--batch=50", "--seed=7", "--run=watched"];
    for _ in 0..2 {
        let (good, log) = publish(&sekali, &flags).await;
        assert!(good, "{log}");
    }
    let foreign = crate::path::event("run-watched-0", "nobody-sent-this");
    sekali.store(&foreign).await.ok();
    let (good, log) = publish(&sekali, &flags).await;
    assert!(!good && log.contains("nobody sent"), "{log}");
}

#[tokio::test]
async fn what_the_queue_has_lost_is_found_out() {
    let mut sekali = Sekali::full(0).await;
    let publisher = publisher(
        &sekali.url(""),
        &["--events=1000", "--batch=50", "--seed=7"],
    );
    let is_queued = async || sekali.stats().await["queue_depth"] == json!(1_000);
    until("all of it is queued", is_queued).await;
    sekali.redis().command(&["DEL", "sekali:{0}:events"]);
    let (good, log) = verdict(publisher).await;
    assert!(!good && log.contains("1000"), "{log}");
    let stats = sekali.stats().await;
    let books = ["received", "unique_processed", "queue_depth"].map(|name| stats[name].as_i64());
    assert_eq!(books, [Some(1_000), Some(0), Some(0)], "{stats}");
}
