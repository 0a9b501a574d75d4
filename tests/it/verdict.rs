//! The publisher's verdict on a whole Sekali.

use std::process::{Command, Stdio};
use std::time::Duration;

use tests::{Program, Sekali};

/// Runs a publisher to its end; its last words and whether the verdict is good.
pub(crate) async fn publish(sekali: &Sekali, flags: &[&str]) -> (bool, String) {
    let mut command = Command::new("bash");
    command
        // Its verdict becomes the last of its log.
        .args(["-c", "exec \"$0\" \"$@\" >&2"])
        .arg(tests::binaries().join("sekali-publisher"))
        .args(flags)
        .args(["--target-url", &sekali.url(""), "--verify"])
        .stderr(Stdio::piped());
    let mut publisher = Program::spawn("sekali-publisher", &mut command);
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
