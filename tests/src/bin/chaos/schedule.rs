//! What happens in one run, and when: a pure function of the seed.

use std::fmt;
use std::time::Duration;

use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use rand_xorshift::XorShiftRng;

use crate::fault::{Backend, Fault, Line, Member, Place, Process, Queue, Sender, Wire};

/// How long a worker's entries may wait before another takes them over.
pub(crate) const CLAIM_IDLE: Duration = Duration::from_secs(1);

/// When the last fault begins, at the latest.
const SPAN_MS: u64 = 7_000;

/// All that a run is made of.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Schedule {
    pub(crate) loads: [Load; 2],
    /// By when they begin. Those at one place follow one another.
    pub(crate) faults: Vec<Planned>,
}

/// What one publisher sends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Load {
    pub(crate) seed: u64,
    pub(crate) events: u64,
    pub(crate) rate: u64,
    pub(crate) batch: u64,
    pub(crate) connections: u64,
    pub(crate) payload_bytes: u64,
    pub(crate) is_stored: bool,
}

/// A fault, and when it begins and ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Planned {
    pub(crate) at: Duration,
    pub(crate) lasts: Duration,
    pub(crate) place: Place,
    pub(crate) fault: Fault,
}

impl Schedule {
    /// The schedule of a seed.
    pub(crate) fn of(seed: u64) -> Self {
        let mut draw = XorShiftRng::seed_from_u64(seed);
        let loads = [load(&mut draw), load(&mut draw)];
        let mut faults: Vec<Planned> = Vec::new();
        for _ in 0..draw.random_range(5..=9) {
            let place = place(&mut draw);
            let fault = fault(&mut draw, place);
            let at = draw.random_range(300..SPAN_MS);
            let lasts = lasts(&mut draw, fault);
            // One place has one fault at a time.
            let free = faults
                .iter()
                .filter(|other| other.place == place)
                .map(|other| other.at + other.lasts + Duration::from_millis(300))
                .max();
            faults.push(Planned {
                at: Duration::from_millis(at).max(free.unwrap_or_default()),
                lasts,
                place,
                fault,
            });
        }
        faults.sort_by_key(|planned| planned.at);
        Self { loads, faults }
    }

    /// The faults at one place, in order.
    pub(crate) fn at(&self, place: Place) -> Vec<Planned> {
        let here = self.faults.iter().filter(|planned| planned.place == place);
        here.copied().collect()
    }
}

fn load(draw: &mut XorShiftRng) -> Load {
    let batch = *[1, 10, 100, 500].choose(draw).expect("there are some");
    // One by one, an event costs ten times as much.
    let rate = if batch == 1 { 150 } else { 1_500 };
    Load {
        seed: draw.random_range(0..1 << 48),
        events: rate * SPAN_MS / 1_000,
        rate,
        batch,
        connections: draw.random_range(1..=8),
        payload_bytes: draw.random_range(100..=900),
        is_stored: draw.random_ratio(1, 4),
    }
}

fn place(draw: &mut XorShiftRng) -> Place {
    let member = *Member::ALL.choose(draw).expect("there are some");
    match draw.random_range(0..100) {
        0..30 => Place::Process(member),
        30..45 => Place::Queue,
        45..65 => Place::Backend,
        65..72 => Place::Sender(draw.random_range(0..2)),
        72..90 if draw.random_bool(0.5) => Place::Line(Line::Queue(member)),
        72..90 => Place::Line(Line::Backend(member)),
        _ => Place::Line(Line::Door(draw.random_range(0..2))),
    }
}

fn fault(draw: &mut XorShiftRng, place: Place) -> Fault {
    match place {
        Place::Process(Member::Gateway(_)) => {
            Fault::Process(*Process::OF_ALL.choose(draw).expect("there are some"))
        }
        Place::Process(Member::Worker(_)) => {
            Fault::Process(*Process::ALL.choose(draw).expect("there are some"))
        }
        Place::Queue => Fault::Queue(*Queue::ALL.choose(draw).expect("there are some")),
        Place::Backend => Fault::Backend(*Backend::ALL.choose(draw).expect("there are some")),
        Place::Sender(_) => Fault::Sender(Sender::Kill),
        Place::Line(_) => Fault::Wire(*Wire::ALL.choose(draw).expect("there are some")),
    }
}

fn lasts(draw: &mut XorShiftRng, fault: Fault) -> Duration {
    let claim_idle = u64::try_from(CLAIM_IDLE.as_millis()).expect("it is short");
    let millis = match fault {
        // Most of them for longer than others wait.
        Fault::Process(Process::Stop) => draw.random_range(claim_idle / 2..3 * claim_idle),
        Fault::Process(_) | Fault::Sender(_) => draw.random_range(0..1_000),
        Fault::Queue(_) | Fault::Backend(_) | Fault::Wire(_) => draw.random_range(100..3_000),
    };
    Duration::from_millis(millis)
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            at,
            lasts,
            place,
            fault,
        } = self;
        let (at, lasts) = (at.as_secs_f32(), lasts.as_secs_f32());
        write!(f, "{at:6.3} s, for {lasts:5.3} s: {fault} {place}")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_is_a_schedule() {
        assert_eq!(Schedule::of(7), Schedule::of(7));
        assert_ne!(Schedule::of(7), Schedule::of(8));
        // What one machine found, another can repeat.
        let first = Schedule::of(1).faults[0].to_string();
        assert_eq!(first, " 0.700 s, for 0.575 s: fast shutdown of postgres");
    }

    #[test]
    fn one_place_has_one_fault_at_a_time_and_all_are_over_soon() {
        for seed in 0..500 {
            let schedule = Schedule::of(seed);
            for planned in &schedule.faults {
                let here = schedule.at(planned.place);
                let apart = |pair: &[Planned]| pair[0].at + pair[0].lasts < pair[1].at;
                assert!(here.windows(2).all(apart), "{seed}");
                assert!(
                    planned.at + planned.lasts < Duration::from_secs(40),
                    "{seed}"
                );
            }
        }
    }

    #[test]
    fn a_hundred_seeds_hold_every_fault() {
        let schedules = || (0..100).map(Schedule::of);
        let kinds: BTreeSet<String> = schedules()
            .flat_map(|schedule| schedule.faults)
            .map(|planned| planned.fault.to_string())
            .collect();
        let all = Process::ALL.len() + Queue::ALL.len() + Backend::ALL.len() + Wire::ALL.len() + 1;
        assert_eq!(kinds.len(), all, "{kinds:?}");
        let long = |planned: &Planned| {
            planned.fault == Fault::Process(Process::Stop) && planned.lasts > CLAIM_IDLE
        };
        assert!(schedules().any(|schedule| schedule.faults.iter().any(long)));
    }
}
