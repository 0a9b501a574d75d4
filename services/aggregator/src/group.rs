//! Group commit: what arrives while one round trip is under way goes into the next.
//!
//! Whoever waits is told the outcome; whoever stopped waiting is not missed. When the last
//! sender is gone, what was handed in is finished and the task ends.

use std::sync::Arc;

use lifecycle::Tasks;
use tokio::sync::{Semaphore, mpsc};

/// How much goes into one group, and how much waits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Groups that are under way at once. With one, either this process or the server
    /// waits all the time.
    pub(crate) in_flight: usize,
    /// A group is closed when its weight reaches this.
    pub(crate) weight: usize,
    /// Jobs that wait; further ones are turned away.
    pub(crate) waiting: usize,
}

/// Something that joins a group.
pub(crate) trait Job: Send + 'static {
    /// Its share of a group, in the unit of the limit.
    fn weight(&self) -> usize;
}

/// Starts a task that hands groups of jobs to `work`.
pub(crate) fn start<J, W, F>(
    name: &'static str,
    tasks: &Tasks,
    limits: Limits,
    work: W,
) -> mpsc::Sender<J>
where
    J: Job,
    W: Fn(Vec<J>) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let (sender, mut jobs) = mpsc::channel(limits.waiting);
    let places = Arc::new(Semaphore::new(limits.in_flight));
    let owner = tasks.clone();
    tasks.spawn(name, async move {
        while let Some(first) = jobs.recv().await {
            // First the place, then the group: what arrives meanwhile joins it.
            let place = Arc::clone(&places).acquire_owned().await?;
            let group = fill(first, &mut jobs, limits.weight);
            let working = work(group);
            owner.spawn_transient(name, async move {
                working.await;
                drop(place);
            });
        }
        Ok(())
    });
    sender
}

fn fill<J: Job>(first: J, jobs: &mut mpsc::Receiver<J>, limit: usize) -> Vec<J> {
    let mut weight = first.weight();
    let mut group = vec![first];
    while weight < limit {
        let Ok(job) = jobs.try_recv() else { break };
        weight += job.weight();
        group.push(job);
    }
    group
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use lifecycle::CancellationToken;
    use tokio::sync::oneshot;

    use super::*;

    struct Numbered(usize, oneshot::Sender<()>);

    impl Job for Numbered {
        fn weight(&self) -> usize {
            1
        }
    }

    #[tokio::test]
    async fn what_arrives_during_a_round_trip_goes_into_the_next() {
        let shutdown = CancellationToken::new();
        let tasks = Tasks::new(shutdown.clone());
        let groups = Arc::new(Mutex::new(Vec::new()));
        let gate = Arc::new(Semaphore::new(0));
        let limits = Limits {
            in_flight: 1,
            weight: 4,
            waiting: 16,
        };
        let (seen, door) = (Arc::clone(&groups), Arc::clone(&gate));
        let sender = start("group", &tasks, limits, move |jobs: Vec<Numbered>| {
            let (seen, door) = (Arc::clone(&seen), Arc::clone(&door));
            async move {
                door.acquire().await.unwrap().forget();
                let numbers: Vec<_> = jobs.iter().map(|job| job.0).collect();
                seen.lock().unwrap().push(numbers);
                for job in jobs {
                    job.1.send(()).unwrap();
                }
            }
        });
        let mut answers = Vec::new();
        let (answer, first) = oneshot::channel();
        sender.try_send(Numbered(0, answer)).ok().unwrap();
        // The first is under way before the others come.
        while sender.capacity() < 16 {
            tokio::task::yield_now().await;
        }
        for number in 1..=6 {
            let (answer, answered) = oneshot::channel();
            sender.try_send(Numbered(number, answer)).ok().unwrap();
            answers.push(answered);
        }
        gate.add_permits(3);
        first.await.unwrap();
        for answer in answers {
            answer.await.unwrap();
        }
        assert_eq!(
            *groups.lock().unwrap(),
            [vec![0], vec![1, 2, 3, 4], vec![5, 6]]
        );
        shutdown.cancel();
        drop(sender);
        tasks.join().await;
        assert!(tasks.take_failure().is_none());
    }
}
