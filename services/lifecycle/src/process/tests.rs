use std::collections::VecDeque;
use std::future::pending;
use std::sync::mpsc as std_mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use super::drain::{EX_FORCED, running, supervise};
use super::*;
use crate::args::Drain;

const QUICK: Drain = Drain {
    delay: Duration::ZERO,
    deadline: Duration::from_secs(20),
};

fn process() -> Process {
    Process::new("test").unwrap()
}

/// A world in which these signals come, one after another, and then no more.
fn signals(names: &[&'static str]) -> impl AsyncFnMut() -> &'static str {
    let mut names: VecDeque<_> = names.iter().copied().collect();
    async move || match names.pop_front() {
        Some(name) => name,
        None => pending().await,
    }
}

async fn run_service(
    process: &Process,
    drain: Drain,
    signal: impl AsyncFnMut() -> &'static str,
    start: impl AsyncFnOnce(Process) -> anyhow::Result<()>,
) -> Result<ExitCode, String> {
    let work = serve(process.clone(), start);
    supervise(process, drain, signal, work)
        .await
        .map_err(|error| format!("{error:#}"))
}

async fn get(addr: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn a_signal_ends_a_service_with_success() {
    let process = process();
    let status = run_service(&process, QUICK, signals(&["SIGTERM"]), async |process| {
        let shutdown = process.shutdown.clone();
        process.tasks.spawn("consumer", async move {
            shutdown.cancelled().await;
            Ok(())
        });
        Ok(())
    });
    assert_eq!(status.await, Ok(ExitCode::SUCCESS));
    assert!(!process.readiness.is_ready());
}

#[tokio::test]
async fn a_signal_during_a_start_that_hangs_ends_it_with_success() {
    let start = async |_| pending().await;
    let process = process();
    let status = run_service(&process, QUICK, signals(&["SIGTERM"]), start);
    assert_eq!(status.await, Ok(ExitCode::SUCCESS));
}

#[tokio::test]
async fn a_task_that_dies_ends_the_process_with_its_name() {
    let process = process();
    let status = run_service(&process, QUICK, signals(&[]), async |process| {
        process
            .tasks
            .spawn("consumer", async { Err(anyhow!("no route")) });
        Ok(())
    });
    assert_eq!(status.await, Err("run the task consumer: no route".into()));
}

#[tokio::test]
async fn a_start_that_fails_ends_the_tasks_that_it_started() {
    let process = process();
    let status = run_service(&process, QUICK, signals(&[]), async |process| {
        let shutdown = process.shutdown.clone();
        process.tasks.spawn("consumer", async move {
            shutdown.cancelled().await;
            Ok(())
        });
        Err(anyhow!("refused")).context("connect to the store")
    });
    assert_eq!(status.await, Err("connect to the store: refused".into()));
    assert_eq!(process.tasks.running(), "");
}

#[tokio::test]
async fn a_start_that_fails_is_reported_rather_than_what_it_took_down() {
    let process = process();
    let status = run_service(&process, QUICK, signals(&[]), async |process| {
        let (jobs, mut taken) = mpsc::channel::<()>(1);
        process.tasks.spawn("consumer", async move {
            while taken.recv().await.is_some() {}
            Ok(())
        });
        drop(jobs);
        process.tasks.failed().await;
        Err(anyhow!("port in use"))
    });
    assert_eq!(status.await, Err("port in use".into()));
}

#[tokio::test]
async fn a_drain_beyond_its_deadline_is_a_failure_and_says_what_held_it_up() {
    let drain = Drain {
        deadline: Duration::from_millis(20),
        ..QUICK
    };
    let deaf = async |process: Process| {
        process.tasks.spawn("deaf", pending());
        Ok(())
    };
    let scraped = async |process: Process| {
        process
            .admin_tasks
            .spawn_transient("scrape", pending::<()>());
        Ok(())
    };
    let first = process();
    let status = run_service(&first, drain, signals(&["SIGTERM"]), deaf);
    assert_eq!(status.await, Ok(ExitCode::FAILURE));
    assert_eq!(running(&first), "deaf");

    let second = process();
    let status = run_service(&second, drain, signals(&["SIGTERM"]), scraped);
    assert_eq!(status.await, Ok(ExitCode::FAILURE));
    assert_eq!(running(&second), "scrape");

    let third = process();
    third.serve_admin(([127, 0, 0, 1], 0).into()).unwrap();
    let work = supervise(&third, drain, signals(&["SIGTERM"]), pending());
    assert_eq!(work.await.unwrap(), ExitCode::FAILURE);
    assert_eq!(running(&third), "the main task");
}

#[tokio::test]
async fn a_drain_that_is_cut_short_swallows_no_reason_for_the_end() {
    let drain = Drain {
        deadline: Duration::from_millis(20),
        ..QUICK
    };
    let failed = process();
    let status = run_service(&failed, drain, signals(&[]), async |process| {
        process.tasks.spawn("deaf", pending());
        process
            .tasks
            .spawn("consumer", async { Err(anyhow!("no route")) });
        Ok(())
    });
    assert_eq!(status.await, Err("run the task consumer: no route".into()));

    let misled = async |process: Process| {
        process.tasks.spawn("deaf", pending());
        Err::<(), _>(anyhow::Error::new(ConfigError::new(
            "--flag can't be meant",
        )))
    };
    let late = process();
    let work = serve(late.clone(), misled);
    let ended = supervise(&late, drain, signals(&[]), work).await;
    assert!(ended.unwrap_err().is::<ConfigError>());
    let again = process();
    let forced = run_service(&again, QUICK, signals(&["SIGTERM"]), misled);
    assert_eq!(forced.await, Ok(ExitCode::from(EX_FORCED)));
}

#[tokio::test]
async fn a_second_signal_forces_the_end() {
    let signals = signals(&["SIGTERM", "SIGINT"]);
    let process = process();
    let status = run_service(&process, QUICK, signals, async |process| {
        process.tasks.spawn("deaf", pending());
        Ok(())
    });
    assert_eq!(status.await, Ok(ExitCode::from(EX_FORCED)));
}

#[tokio::test]
async fn the_admin_port_answers_from_before_the_start_until_after_the_drain() {
    let process = process();
    let addr = process.serve_admin(([127, 0, 0, 1], 0).into()).unwrap();
    assert!(get(addr, "/livez").await.starts_with("HTTP/1.1 200"));
    let starting = get(addr, "/readyz").await;
    assert!(starting.starts_with("HTTP/1.1 503"), "{starting}");
    assert!(get(addr, "/metrics").await.contains("sekali_build_info"));

    let (stop, mut stopped) = mpsc::channel(1);
    let signal = async move || match stopped.recv().await {
        Some(name) => name,
        None => pending().await,
    };
    let (told, mut during) = mpsc::unbounded_channel();
    let run = run_service(&process, QUICK, signal, async |process| {
        let shutdown = process.shutdown.clone();
        process.tasks.spawn("flush", async move {
            shutdown.cancelled().await;
            told.send(get(addr, "/readyz").await)?;
            Ok(())
        });
        Ok(())
    });
    let outside = async {
        while !process.readiness.is_ready() {
            tokio::task::yield_now().await;
        }
        let ready = get(addr, "/readyz").await;
        assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
        stop.send("SIGTERM").await.unwrap();
    };
    let (status, ()) = tokio::join!(run, outside);
    assert_eq!(status, Ok(ExitCode::SUCCESS));
    let draining = during.recv().await.unwrap();
    assert!(draining.contains(r#""process":"draining""#), "{draining}");
    assert!(TcpStream::connect(addr).await.is_err());
}

/// So many threads, and no more.
fn runtime(threads: usize) -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .unwrap()
}

/// Holds a thread of a runtime until it is dropped.
fn hold(work: &Runtime) -> std_mpsc::Sender<()> {
    let (gate, opened) = std_mpsc::channel();
    let (told, held) = std_mpsc::channel();
    work.spawn(async move {
        told.send(()).unwrap();
        let _ = opened.recv();
    });
    held.recv_timeout(Duration::from_secs(20)).unwrap();
    gate
}

#[test]
fn the_admin_port_answers_while_the_work_is_stuck_and_says_so() {
    let (work, admin, client) = (runtime(2), runtime(1), runtime(1));
    let ask = |addr, path| {
        let begun = Instant::now();
        let patience = Duration::from_secs(20);
        let asked = async { tokio::time::timeout(patience, get(addr, path)).await };
        let answer = client.block_on(asked).expect("it does not answer");
        (answer, begun.elapsed())
    };
    let within = work.enter();
    let mut process = process();
    process.admin_runtime = admin.handle().clone();
    let addr = process.serve_admin(([127, 0, 0, 1], 0).into()).unwrap();
    drop(within);
    assert!(ask(addr, "/livez").0.starts_with("HTTP/1.1 200"));

    let held = [hold(&work), hold(&work)];
    let (metrics, took) = ask(addr, "/metrics");
    assert!(metrics.contains("sekali_build_info"), "{metrics}");
    assert!(took < Duration::from_secs(1), "{took:?}");
    for (path, word) in [
        ("/livez", r#""status":"stuck""#),
        ("/readyz", r#""process":"stuck""#),
    ] {
        let (stuck, took) = ask(addr, path);
        assert!(stuck.starts_with("HTTP/1.1 503"), "{stuck}");
        assert!(stuck.contains(word), "{stuck}");
        assert!(took < Duration::from_secs(3), "{took:?}");
    }

    drop(held);
    assert!(ask(addr, "/livez").0.starts_with("HTTP/1.1 200"));
    let start = async |_| Ok(());
    let run = run_service(&process, QUICK, signals(&["SIGTERM"]), start);
    assert_eq!(work.block_on(run), Ok(ExitCode::SUCCESS));
    assert!(client.block_on(TcpStream::connect(addr)).is_err());
}

#[tokio::test]
async fn the_delay_keeps_intake_open_after_readiness_went_off() {
    let drain = Drain {
        delay: Duration::from_millis(100),
        ..QUICK
    };
    let process = process();
    let seen = async {
        process.draining.cancelled().await;
        assert!(!process.readiness.is_ready());
        tokio::time::sleep(drain.delay / 2).await;
        assert!(!process.shutdown.is_cancelled());
    };
    let start = async |_| Ok(());
    let run = run_service(&process, drain, signals(&["SIGTERM"]), start);
    // On a machine so busy that both times have passed, this one looks first.
    let ((), status) = tokio::join!(biased; seen, run);
    assert_eq!(status, Ok(ExitCode::SUCCESS));
}

#[tokio::test]
async fn connections_learn_of_the_drain_before_the_delay() {
    let drain = Drain {
        delay: Duration::from_millis(100),
        ..QUICK
    };
    let process = process();
    let closing = process.closing();
    let seen = async {
        closing.announced.cancelled().await;
        assert!(!closing.begun.is_cancelled());
    };
    let start = async |_| Ok(());
    let run = run_service(&process, drain, signals(&["SIGTERM"]), start);
    let (status, ()) = tokio::join!(run, seen);
    assert_eq!(status, Ok(ExitCode::SUCCESS));
    assert!(closing.begun.is_cancelled());
}

#[tokio::test]
async fn a_job_ends_with_the_status_that_it_found() {
    let process = process();
    let work = async { Ok(ExitCode::from(3)) };
    let status = supervise(&process, QUICK, signals(&[]), work).await;
    assert_eq!(status.unwrap(), ExitCode::from(3));
}
