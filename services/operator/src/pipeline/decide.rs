//! From what is asked for and what was seen to what is done and said. Pure.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::desired::{Load, Memory, Staff, desired};
use crate::conditions::{Aspect, Truth};
use crate::gateway::{Books, as_float};
use crate::resources::{Pipeline, PipelineStatus};
use crate::time::whole_seconds;

pub(crate) const READY: &str = "Ready";
pub(crate) const BALANCED: &str = "Balanced";
pub(crate) const SCALING: &str = "Scaling";

/// What was seen of an installation.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// None if there is no such Deployment.
    pub(crate) workers: Option<Replicas>,
    /// What else scales the Deployment, in words.
    pub(crate) owner: Option<String>,
    /// An older Pipeline that claims the same Deployment.
    pub(crate) older: Option<String>,
    /// The books, or why they can't be read.
    pub(crate) books: Result<Books, String>,
}

/// Of the workers' Deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Replicas {
    pub(crate) wanted: i32,
    pub(crate) ready: i32,
}

/// What is to be done and said.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Decision {
    /// So many workers, if that is a change.
    pub(crate) scale: Option<i32>,
    pub(crate) status: PipelineStatus,
}

/// Decides.
pub(crate) fn decide(pipeline: &Pipeline, seen: &Seen, now: Timestamp) -> Decision {
    let mut status = pipeline.status.clone().unwrap_or_default();
    let generation = pipeline.metadata.generation;
    status.observed_generation = generation;
    tell_books(&mut status, seen);
    let staff = seen
        .workers
        .map(|workers| tell_workers(&mut status, workers, now));
    let (wanted, scaling) = scale(pipeline, seen, staff, &mut status, now);
    if seen.workers.is_some() {
        status.desired_workers = Some(wanted);
    }
    for aspect in [ready(pipeline, seen), scaling]
        .into_iter()
        .chain(balanced(seen))
    {
        aspect.enter(&mut status.conditions, generation, now);
    }
    let is_change = staff.is_some_and(|staff| staff.wanted != wanted);
    Decision {
        scale: is_change.then_some(wanted),
        status,
    }
}

fn tell_books(status: &mut PipelineStatus, seen: &Seen) {
    // What was last known stays: Ready says that it is not known now.
    let Ok(books) = &seen.books else { return };
    status.queue = Some(books.queue_depth);
    status.lag = Some(format!("{:.0}s", age(books).as_secs_f64()));
    status.received = Some(books.received);
    status.unique = Some(books.unique_processed);
    status.duplicates = Some(books.duplicate_dropped);
    status.conflicts = Some(books.conflicts);
    status.buried = Some(books.buried);
}

fn tell_workers(status: &mut PipelineStatus, workers: Replicas, now: Timestamp) -> Staff {
    if status.workers != Some(workers.ready) || status.workers_since.is_none() {
        status.workers = Some(workers.ready);
        status.workers_since = Some(Time(whole_seconds(now)));
    }
    let since = status.workers_since.as_ref();
    Staff {
        wanted: workers.wanted,
        ready: workers.ready,
        since: since.map_or(now, |since| since.0),
    }
}

/// How many workers there are to be, and who decides about it.
fn scale(
    pipeline: &Pipeline,
    seen: &Seen,
    staff: Option<Staff>,
    status: &mut PipelineStatus,
    now: Timestamp,
) -> (i32, Aspect) {
    let aspect =
        |truth: bool, reason, message: String| Aspect::new(SCALING, truth, reason, message);
    let limits = &pipeline.spec.workers;
    let name = &limits.deployment;
    // A time in which nobody looks at the load is not a quiet one: each way out but the last
    // begins it anew.
    let quiet_since = status.quiet_since.take();
    let Some(staff) = staff else {
        let message = format!("there is no Deployment {name}");
        return (0, aspect(false, "NoDeployment", message));
    };
    if let Some(older) = &seen.older {
        let message = format!("the Pipeline {older} is older and scales the Deployment {name}");
        return (staff.wanted, aspect(false, "Claimed", message));
    }
    if let Some(owner) = &seen.owner {
        let message = format!("{owner} scales the Deployment {name}; delete it, or leave it to it");
        return (staff.wanted, aspect(false, "OtherOwner", message));
    }
    if pipeline.spec.paused {
        return (0, aspect(false, "Paused", "spec.paused is true".into()));
    }
    let bounded = staff.wanted.clamp(limits.min, limits.max);
    let Ok(books) = &seen.books else {
        let message = "the number stays as it is while the books can't be read";
        return (bounded, aspect(false, "BooksUnreadable", message.into()));
    };
    let load = Load {
        queue: books.queue_depth,
        age: age(books),
        rate: books.recorded_rate,
    };
    let memory = Memory {
        worker_rate: status.worker_rate.map(as_float),
        quiet_since: quiet_since.map(|time| time.0),
    };
    let (wanted, memory) = desired(limits, load, staff, memory, now);
    status.worker_rate = memory.worker_rate.map(as_whole);
    status.quiet_since = memory.quiet_since.map(|time| Time(whole_seconds(time)));
    (
        wanted,
        aspect(true, "ByQueue", "by the queue and its age".into()),
    )
}

/// Whether it is as it was asked to be; a pause is.
fn ready(pipeline: &Pipeline, seen: &Seen) -> Aspect {
    let name = &pipeline.spec.workers.deployment;
    let aspect = |truth: bool, reason, message: String| Aspect::new(READY, truth, reason, message);
    let Some(workers) = seen.workers else {
        let message = format!("there is no Deployment {name}");
        return aspect(false, "NoDeployment", message);
    };
    if let Err(why) = &seen.books {
        return aspect(false, "BooksUnreadable", why.clone());
    }
    if pipeline.spec.paused {
        let message = "the workers are scaled to none; the queue goes on taking";
        return aspect(true, "Paused", message.into());
    }
    if workers.ready == 0 && (workers.wanted > 0 || pipeline.spec.workers.min > 0) {
        return aspect(false, "NoWorker", "no worker is ready".into());
    }
    aspect(true, "Serving", "events are taken and recorded".into())
}

/// Only an empty queue says whether the books balance.
fn balanced(seen: &Seen) -> Option<Aspect> {
    let books = seen.books.as_ref().ok()?;
    let Books {
        received,
        unique_processed,
        duplicate_dropped,
        buried,
        ..
    } = *books;
    if books.queue_depth != 0 {
        return None;
    }
    let became = unique_processed + duplicate_dropped + buried;
    Some(if received == became {
        let message = "received = unique + duplicates + buried";
        Aspect::new(BALANCED, Truth::True, "Exact", message)
    } else {
        let message = format!(
            "the queue is empty, and of {received} events received {became} are accounted for: \
             {unique_processed} unique, {duplicate_dropped} duplicates, {buried} buried"
        );
        Aspect::new(BALANCED, Truth::False, "Differ", message)
    })
}

fn age(books: &Books) -> Duration {
    Duration::try_from_secs_f64(books.oldest_age_seconds).unwrap_or_default()
}

#[expect(clippy::cast_possible_truncation, reason = "it is an estimate")]
fn as_whole(rate: f64) -> i64 {
    // Never 0, which would ask for all the workers there can be.
    rate.max(1.0).round() as i64
}

#[cfg(test)]
mod tests;
