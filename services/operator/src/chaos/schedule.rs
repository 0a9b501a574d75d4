//! When which fault hits which pod. Pure: a function of the spec, the seed and what was
//! injected so far.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use lifecycle::{GOLDEN, mix};

use crate::resources::{Fault, Injection, Target};
use crate::time::{elapsed, whole_seconds};

/// A pod that may be hit: it runs, and nobody is deleting it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Victim {
    /// First, so that the pods of one target stand together when they are sorted.
    pub(crate) target: Target,
    pub(crate) name: String,
    pub(crate) uid: String,
}

/// How many faults there are to be.
pub(crate) fn planned(faults: &[Fault]) -> usize {
    let counts = faults.iter().map(|fault| usize::try_from(fault.count));
    counts.map(Result::unwrap_or_default).sum()
}

/// What is due now, at most once for each fault. A fault that finds no pod waits for one: the
/// time until the next is counted from when it was injected, so a run that was held up is
/// not hit by all that it missed at once.
pub(crate) fn due(
    faults: &[Fault],
    injected: &[Injection],
    victims: &[Victim],
    seed: i64,
    started: Timestamp,
    now: Timestamp,
) -> Vec<Injection> {
    let mut victims = victims.to_vec();
    victims.sort();
    let mut due = Vec::new();
    for (number, fault) in (0..).zip(faults) {
        let so_far = injected.iter().filter(|one| one.fault == number);
        let before = so_far.clone().count();
        let last = so_far.map(|one| one.at.0).max().unwrap_or(started);
        let is_due = elapsed(last, now) >= Duration::from(fault.every);
        if !is_due || before >= usize::try_from(fault.count).unwrap_or_default() {
            continue;
        }
        let of_target = |victim: &&Victim| victim.target == fault.target;
        let count = victims.iter().filter(of_target).count();
        if count == 0 {
            continue;
        }
        let draw = draw(seed, number, before) % count;
        let hit = victims
            .iter()
            .position(|victim| victim.target == fault.target);
        let victim = victims.remove(hit.unwrap_or_default() + draw);
        due.push(Injection {
            fault: number,
            target: fault.target,
            action: fault.action,
            pod: victim.name,
            uid: victim.uid,
            at: Time(whole_seconds(now)),
            done: false,
        });
    }
    due
}

/// Any number of those that a seed, a fault and a turn make.
fn draw(seed: i64, fault: i32, turn: usize) -> usize {
    let begin = seed.cast_unsigned()
        ^ (u64::from(fault.cast_unsigned()) << 32)
        ^ u64::try_from(turn).unwrap_or_default();
    usize::try_from(mix(begin.wrapping_add(GOLDEN)) >> 33).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::FaultAction;

    fn fault(target: Target, every: u64, count: i32) -> Fault {
        Fault {
            target,
            action: FaultAction::Kill,
            every: Duration::from_secs(every).into(),
            count,
        }
    }

    fn victim(target: Target, name: &str) -> Victim {
        Victim {
            name: name.into(),
            uid: format!("uid-{name}"),
            target,
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    fn workers() -> Vec<Victim> {
        ["c", "a", "b"]
            .map(|name| victim(Target::Worker, name))
            .to_vec()
    }

    #[test]
    fn a_fault_comes_as_often_as_it_is_told_and_at_its_times() {
        let faults = [fault(Target::Worker, 10, 3), fault(Target::Redis, 7, 1)];
        let mut victims = workers();
        victims.push(victim(Target::Redis, "r"));
        let mut injected = Vec::new();
        let mut times = Vec::new();
        for second in 0..100 {
            let due = due(&faults, &injected, &victims, 7, at(0), at(second));
            times.extend(due.iter().map(|one| (second, one.fault)));
            injected.extend(due);
        }
        assert_eq!(times, [(7, 1), (10, 0), (20, 0), (30, 0)]);
        assert_eq!(injected.len(), planned(&faults));
        assert!(injected.iter().all(|one| !one.done));
    }

    #[test]
    fn the_same_seed_hits_the_same_pods_in_whatever_order_they_are_listed() {
        let faults = [fault(Target::Worker, 1, 50)];
        let names = |seed, reverse| {
            let mut victims = workers();
            if reverse {
                victims.reverse();
            }
            let mut injected = Vec::new();
            for second in 1..=50 {
                injected.extend(due(&faults, &injected, &victims, seed, at(0), at(second)));
            }
            injected.into_iter().map(|one| one.pod).collect::<Vec<_>>()
        };
        assert_eq!(names(7, false), names(7, true));
        assert_ne!(names(7, false), names(8, false));
        for name in ["a", "b", "c"] {
            assert!(names(7, false).iter().any(|hit| hit == name), "{name}");
        }
    }

    #[test]
    fn a_fault_without_a_pod_waits_and_nothing_is_caught_up_on() {
        let faults = [fault(Target::Redis, 10, 2)];
        let redis = [victim(Target::Redis, "r")];
        assert_eq!(due(&faults, &[], &workers(), 7, at(0), at(60)), []);
        let first = due(&faults, &[], &redis, 7, at(0), at(60));
        assert_eq!(first.len(), 1);
        assert_eq!(due(&faults, &first, &redis, 7, at(0), at(69)), []);
        assert_eq!(due(&faults, &first, &redis, 7, at(0), at(70)).len(), 1);
    }

    #[test]
    fn two_faults_at_one_time_hit_two_pods() {
        let faults = [fault(Target::Worker, 5, 1), fault(Target::Worker, 5, 1)];
        let two = due(&faults, &[], &workers(), 7, at(0), at(5));
        assert_eq!(two.len(), 2);
        assert_ne!(two[0].pod, two[1].pod);
        let one = due(&faults, &[], &workers()[..1], 7, at(0), at(5));
        assert_eq!(one.len(), 1);
    }
}
