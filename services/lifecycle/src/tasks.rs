//! Every task is owned, named and joined.
//!
//! A task that nobody watches can die while its process stays ready; so one that ends
//! before the shutdown, however it ends, is a failure of the process.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::anyhow;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

type Name = Cow<'static, str>;

/// What a process has started. Clones are the same set.
#[derive(Clone)]
pub struct Tasks(Arc<Inner>);

struct Inner {
    shutdown: CancellationToken,
    tracker: TaskTracker,
    running: Mutex<BTreeMap<Name, usize>>,
    failure: Mutex<Option<anyhow::Error>>,
    failed: CancellationToken,
}

impl Tasks {
    /// No tasks yet; once `shutdown` is cancelled they may end.
    pub fn new(shutdown: CancellationToken) -> Self {
        Self(Arc::new(Inner {
            shutdown,
            tracker: TaskTracker::new(),
            running: Mutex::default(),
            failure: Mutex::default(),
            failed: CancellationToken::new(),
        }))
    }

    /// Starts a task that lasts as long as the process. If it ends before the shutdown,
    /// well or badly, the process ends with a failure that names it; after it, only an
    /// error or a panic is a failure.
    pub fn spawn<F>(&self, name: impl Into<Name>, future: F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let mut task = Lasting {
            running: self.enter(name.into()),
            finished: false,
        };
        self.0.tracker.spawn(async move {
            let result = future.await;
            task.finish(result);
        });
    }

    /// Starts a task that ends on its own, such as a connection. The drain waits for it;
    /// its panic is logged and nothing more.
    pub fn spawn_transient<F>(&self, name: &'static str, future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let running = self.enter(name.into());
        self.0.tracker.spawn(async move {
            let _running = running;
            future.await
        })
    }

    /// Waits until a task has failed, perhaps for ever.
    pub async fn failed(&self) {
        self.0.failed.cancelled().await;
    }

    /// The first failure, once.
    pub fn take_failure(&self) -> Option<anyhow::Error> {
        lock(&self.0.failure).take()
    }

    /// Waits until nothing runs; what is started meanwhile is waited for too.
    pub async fn join(&self) {
        self.0.tracker.close();
        self.0.tracker.wait().await;
    }

    /// What runs, for a log line: `consumer, http (3)`.
    pub fn running(&self) -> String {
        let names: Vec<_> = lock(&self.0.running)
            .iter()
            .map(|(name, count)| match count {
                1 => name.to_string(),
                _ => format!("{name} ({count})"),
            })
            .collect();
        names.join(", ")
    }

    fn enter(&self, name: Name) -> Running {
        *lock(&self.0.running).entry(name.clone()).or_default() += 1;
        Running {
            tasks: self.clone(),
            name,
        }
    }

    fn fail(&self, error: anyhow::Error) {
        let mut failure = lock(&self.0.failure);
        if failure.is_none() {
            *failure = Some(error);
            self.0.failed.cancel();
        } else {
            // Only the first ends the process; nobody else would tell of this one.
            tracing::error!(error = format!("{error:#}"), "another task failed");
        }
    }
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tasks").field(&self.running()).finish()
    }
}

/// A name on the list for as long as it lives, which a panic ends too.
struct Running {
    tasks: Tasks,
    name: Name,
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut running = lock(&self.tasks.0.running);
        if let Some(count) = running.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                running.remove(&self.name);
            }
        }
    }
}

/// A task that may not end before the shutdown.
struct Lasting {
    running: Running,
    finished: bool,
}

impl Lasting {
    fn finish(&mut self, result: anyhow::Result<()>) {
        self.finished = true;
        let Running { tasks, name } = &self.running;
        match result {
            Ok(()) if tasks.0.shutdown.is_cancelled() => {}
            Ok(()) => tasks.fail(anyhow!("the task {name} ended early")),
            Err(error) => tasks.fail(error.context(format!("run the task {name}"))),
        }
    }
}

impl Drop for Lasting {
    fn drop(&mut self) {
        // Without a panic, an unfinished task was dropped together with its runtime.
        if !self.finished && std::thread::panicking() {
            let Running { tasks, name } = &self.running;
            tasks.fail(anyhow!("the task {name} panicked"));
        }
    }
}

/// Nothing here panics while it holds a lock, so a poisoned one is as good as any.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn failure(tasks: &Tasks) -> String {
        tasks.failed().await;
        let error = tasks.take_failure().expect("it has failed");
        format!("{error:#}")
    }

    #[tokio::test]
    async fn a_task_that_ends_early_is_a_failure_that_names_it() {
        let tasks = Tasks::new(CancellationToken::new());
        tasks.spawn("consumer", async { Ok(()) });
        assert_eq!(failure(&tasks).await, "the task consumer ended early");

        let tasks = Tasks::new(CancellationToken::new());
        tasks.spawn("consumer", async { Err(anyhow!("connection refused")) });
        assert_eq!(
            failure(&tasks).await,
            "run the task consumer: connection refused"
        );

        let tasks = Tasks::new(CancellationToken::new());
        tasks.spawn("consumer", async { panic!("on purpose") });
        assert_eq!(failure(&tasks).await, "the task consumer panicked");
    }

    #[tokio::test]
    async fn after_the_shutdown_only_an_error_is_a_failure() {
        let shutdown = CancellationToken::new();
        let tasks = Tasks::new(shutdown.clone());
        let stop = shutdown.clone();
        tasks.spawn("good", async move {
            stop.cancelled().await;
            Ok(())
        });
        tasks.spawn("bad", {
            let stop = shutdown.clone();
            async move {
                stop.cancelled().await;
                Err(anyhow!("could not flush"))
            }
        });
        assert_eq!(tasks.running(), "bad, good");
        shutdown.cancel();
        tasks.join().await;
        assert_eq!(tasks.running(), "");
        assert_eq!(failure(&tasks).await, "run the task bad: could not flush");
    }

    #[tokio::test]
    async fn transient_tasks_are_waited_for_and_may_end_or_panic() {
        let tasks = Tasks::new(CancellationToken::new());
        let gate = CancellationToken::new();
        for _ in 0..3 {
            tasks.spawn_transient("connection", gate.clone().cancelled_owned());
        }
        assert_eq!(tasks.running(), "connection (3)");
        let panicked = tasks.spawn_transient("clumsy", async { panic!("on purpose") });
        assert!(panicked.await.is_err());
        gate.cancel();
        tasks.join().await;
        assert!(tasks.take_failure().is_none());
    }
}
