//! How many workers there are to be. Pure.
//!
//! More at once: as many as work the present queue off within the target, at the rate that
//! one worker was seen to reach, and one more each time that the oldest event has waited
//! longer than the target though all of them run. Fewer slowly: only after fewer would have
//! been enough for the whole quiet period, and then at most half of them go, of one that one.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use crate::gateway::as_float;
use crate::resources::Workers;
use crate::time::elapsed;

/// Events a second that one worker is taken to record until one was seen. Low: too many
/// workers for a while cost less than too few.
const ASSUMED_RATE: f64 = 2_000.0;

/// The rate is one over the last minute: what is shorter than that says nothing of so many
/// workers.
const MEASURED_OVER: Duration = Duration::from_mins(1);

/// How long a further worker has until the queue must be seen to shrink.
const STEP: Duration = Duration::from_secs(15);

/// What the books and the queue say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Load {
    /// Events in the queue.
    pub(crate) queue: i64,
    /// How long the oldest of them has waited.
    pub(crate) age: Duration,
    /// Events a second that all workers together recorded, over the last minute.
    pub(crate) rate: f64,
}

/// The workers that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Staff {
    /// As the Deployment is told.
    pub(crate) wanted: i32,
    /// Those of them that run.
    pub(crate) ready: i32,
    /// Since when there were so many.
    pub(crate) since: Timestamp,
}

/// What one decision hands to the next; the status keeps it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Memory {
    /// Events a second that one worker was seen to record.
    pub(crate) worker_rate: Option<f64>,
    /// Since when fewer workers would be enough.
    pub(crate) quiet_since: Option<Timestamp>,
}

/// How many workers there are to be, and what to remember.
pub(crate) fn desired(
    limits: &Workers,
    load: Load,
    staff: Staff,
    memory: Memory,
    now: Timestamp,
) -> (i32, Memory) {
    let unchanged_for = elapsed(staff.since, now);
    let worker_rate = learn(load, staff, memory.worker_rate, unchanged_for);
    let rate = worker_rate.unwrap_or(ASSUMED_RATE);
    let enough = enough(limits, load, staff, rate, unchanged_for).clamp(limits.min, limits.max);
    let wanted = staff.wanted.clamp(limits.min, limits.max);
    let remember = |quiet_since| Memory {
        worker_rate,
        quiet_since,
    };
    if enough >= wanted {
        return (enough, remember(None));
    }
    let quiet_since = memory.quiet_since.unwrap_or(now);
    if elapsed(quiet_since, now) < limits.quiet_period.into() {
        return (wanted, remember(Some(quiet_since)));
    }
    // Half of them, rounded up, stay: the next quiet period says whether that was right. The
    // last one has no half.
    (enough.max(wanted - (wanted / 2).max(1)), remember(None))
}

/// How many would be enough, whatever the bounds.
fn enough(limits: &Workers, load: Load, staff: Staff, rate: f64, unchanged_for: Duration) -> i32 {
    let target: Duration = limits.target_lag.into();
    let for_queue = whole(as_float(load.queue) / (rate * target.as_secs_f64()));
    // Who records as much as comes in leaves no queue; taking one away would make one. Of
    // what others recorded nobody needs more than there are.
    let for_rate = whole(load.rate / rate - 0.05).min(staff.wanted);
    let is_late = load.queue > 0 && load.age > target;
    let all_run = staff.ready >= staff.wanted && unchanged_for >= STEP;
    let for_age = if is_late {
        staff.wanted + i32::from(all_run)
    } else {
        0
    };
    for_queue.max(for_rate).max(for_age)
}

/// The best that was seen is what one reaches. Only who had a queue for all of the time that
/// the rate is measured over shows that it can do no more than that.
fn learn(load: Load, staff: Staff, before: Option<f64>, unchanged_for: Duration) -> Option<f64> {
    if staff.ready < 1 || load.rate < 1.0 || unchanged_for < MEASURED_OVER {
        return before;
    }
    let seen = load.rate / f64::from(staff.ready);
    let was_busy = load.age >= MEASURED_OVER;
    Some(match before {
        None => seen,
        Some(best) if seen < best && was_busy => best + (seen - best) / 4.0,
        Some(best) => best.max(seen),
    })
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "it is clamped to what an i32 holds"
)]
fn whole(workers: f64) -> i32 {
    workers.ceil().clamp(0.0, f64::from(i32::MAX)) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(min: i32, max: i32) -> Workers {
        Workers {
            deployment: "w".into(),
            min,
            max,
            target_lag: Duration::from_secs(10).into(),
            quiet_period: Duration::from_mins(2).into(),
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    fn load(queue: i64, age: u64, rate: f64) -> Load {
        Load {
            queue,
            age: Duration::from_secs(age),
            rate,
        }
    }

    /// So many, all of them ready, since second 0.
    fn staff(workers: i32) -> Staff {
        Staff {
            wanted: workers,
            ready: workers,
            since: at(0),
        }
    }

    fn known(worker_rate: f64) -> Memory {
        Memory {
            worker_rate: Some(worker_rate),
            quiet_since: None,
        }
    }

    #[test]
    fn there_are_as_many_as_drain_the_queue_within_the_target() {
        // (queue, age, rate), workers, what one reaches -> wanted, at second 10.
        for (load, workers, rate, wanted) in [
            (load(0, 0, 0.0), 1, None, 1),
            // Nobody knows what one reaches: 50,000 / (2,000 x 10 s).
            (load(50_000, 2, 0.0), 1, None, 3),
            (load(50_000, 2, 0.0), 1, Some(5_000.0), 1),
            (load(50_001, 2, 0.0), 1, Some(5_000.0), 2),
            (load(10_000_000, 2, 0.0), 1, Some(5_000.0), 8),
            // From none to one, for one event.
            (load(1, 0, 0.0), 0, Some(5_000.0), 1),
            // Two keep up with what 1.5 of them reach: neither more nor fewer.
            (load(10, 0, 7_500.0), 2, Some(5_000.0), 2),
            (load(i64::MAX, 0, 0.0), 1, Some(0.1), 8),
        ] {
            let memory = Memory {
                worker_rate: rate,
                quiet_since: None,
            };
            let (found, memory) = desired(
                &limits(workers.min(1), 8),
                load,
                staff(workers),
                memory,
                at(10),
            );
            assert_eq!(found, wanted, "{load:?} with {workers} at {rate:?}");
            assert_eq!(memory.quiet_since, None, "{load:?}");
        }
    }

    #[test]
    fn bounds_hold_whatever_the_queue() {
        let idle = load(0, 0, 0.0);
        assert_eq!(
            desired(&limits(2, 4), idle, staff(0), known(1.0), at(0)).0,
            2
        );
        assert_eq!(
            desired(&limits(2, 4), idle, staff(9), known(1.0), at(0)).0,
            4
        );
        let full = load(1_000_000, 0, 0.0);
        assert_eq!(
            desired(&limits(2, 4), full, staff(2), known(1.0), at(0)).0,
            4
        );
    }

    #[test]
    fn a_queue_that_stays_old_gets_one_more_once_all_of_them_run() {
        let late = load(100, 11, 5_000.0);
        let (wanted, _) = desired(&limits(1, 8), late, staff(2), known(5_000.0), at(15));
        assert_eq!(wanted, 3);
        let just_changed = desired(&limits(1, 8), late, staff(2), known(5_000.0), at(14));
        assert_eq!(just_changed.0, 2);
        let starting = Staff {
            ready: 1,
            ..staff(2)
        };
        let (wanted, _) = desired(&limits(1, 8), late, starting, known(5_000.0), at(15));
        assert_eq!(wanted, 2);
        let in_time = load(100, 10, 5_000.0);
        let (wanted, memory) = desired(&limits(1, 8), in_time, staff(2), known(5_000.0), at(15));
        assert_eq!((wanted, memory.quiet_since), (2, Some(at(15))));
    }

    #[test]
    fn there_are_fewer_only_after_the_quiet_period_and_half_at_a_time() {
        let idle = load(0, 0, 0.0);
        let mut memory = known(5_000.0);
        let mut workers = 7;
        let mut seen = Vec::new();
        for second in (0..1_000).step_by(5) {
            let (wanted, next) = desired(&limits(1, 8), idle, staff(workers), memory, at(second));
            if wanted != workers {
                seen.push((second, wanted));
            }
            (workers, memory) = (wanted, next);
        }
        assert_eq!(seen, [(120, 4), (245, 2), (370, 1)]);
    }

    #[test]
    fn the_last_one_goes_only_if_there_may_be_none_and_then_all_rests() {
        let idle = load(0, 0, 0.0);
        for (min, expected) in [(0, vec![(120, 0)]), (1, vec![])] {
            let (mut workers, mut memory) = (1, known(5_000.0));
            let mut seen = Vec::new();
            for second in (0..1_000).step_by(5) {
                let (wanted, next) =
                    desired(&limits(min, 8), idle, staff(workers), memory, at(second));
                if wanted != workers {
                    seen.push((second, wanted));
                }
                (workers, memory) = (wanted, next);
            }
            assert_eq!(seen, expected, "of at least {min}");
            // Else each look would write another status.
            assert_eq!(memory, known(5_000.0));
            let (wanted, _) = desired(
                &limits(min, 8),
                load(1, 0, 0.0),
                staff(workers),
                memory,
                at(1_000),
            );
            assert_eq!(wanted, 1);
        }
    }

    #[test]
    fn a_burst_within_the_quiet_period_starts_it_anew() {
        let memory = Memory {
            worker_rate: Some(5_000.0),
            quiet_since: Some(at(0)),
        };
        let burst = load(150_000, 1, 0.0);
        let (wanted, memory) = desired(&limits(1, 8), burst, staff(3), memory, at(119));
        assert_eq!((wanted, memory.quiet_since), (3, None));
        let idle = load(0, 0, 0.0);
        let (wanted, memory) = desired(&limits(1, 8), idle, staff(3), memory, at(121));
        assert_eq!((wanted, memory.quiet_since), (3, Some(at(121))));
    }

    #[test]
    fn what_one_reaches_is_learned_from_a_whole_minute_of_so_many() {
        let learned = |load, second, before| {
            let memory = Memory {
                worker_rate: before,
                quiet_since: None,
            };
            let (_, memory) = desired(&limits(1, 8), load, staff(2), memory, at(second));
            memory.worker_rate
        };
        let working = load(10, 0, 8_000.0);
        assert_eq!(learned(working, 60, None), Some(4_000.0));
        // Some of what was recorded in that minute was another number's.
        assert_eq!(learned(working, 59, None), None);
        assert_eq!(learned(working, 59, Some(3_000.0)), Some(3_000.0));
        assert_eq!(learned(working, 60, Some(3_000.0)), Some(4_000.0));
        // Less than before says nothing unless there was enough to do.
        assert_eq!(learned(working, 60, Some(6_000.0)), Some(6_000.0));
        let busy = load(10, 60, 8_000.0);
        assert_eq!(learned(busy, 60, Some(6_000.0)), Some(5_500.0));
        assert_eq!(learned(load(0, 0, 0.0), 60, Some(6_000.0)), Some(6_000.0));
    }

    #[test]
    fn a_clock_that_goes_back_ends_no_quiet_period() {
        let memory = Memory {
            worker_rate: None,
            quiet_since: Some(at(500)),
        };
        let (wanted, memory) = desired(&limits(1, 8), load(0, 0, 0.0), staff(3), memory, at(0));
        assert_eq!((wanted, memory.quiet_since), (3, Some(at(500))));
    }
}
