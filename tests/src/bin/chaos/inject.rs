//! Faults of our processes, of publishers and of the lines between two.

use std::time::Duration;

use tests::Proxy;

use crate::fault::{self, Fault, Wire};
use crate::journal::Journal;
use crate::schedule::Planned;
use crate::sender::Publisher;
use crate::world::Process;

/// What delay and what rate a bad line has, and how many answers are not torn.
const DELAY: Duration = Duration::from_millis(150);
const BYTES_PER_SECOND: u32 = 20_000;
const ONE_OF: u64 = 7;

/// Does what is planned for one of our processes.
pub(crate) async fn process(
    process: &mut Process,
    door: Option<&Proxy>,
    faults: &[Planned],
    journal: &Journal,
) {
    for planned in faults {
        let Fault::Process(fault) = planned.fault else {
            continue;
        };
        journal.reach(planned.at).await;
        still_runs(process, journal);
        journal.tell(&format!("{} {}", planned.fault, planned.place));
        match fault {
            fault::Process::Kill => {
                process.kill(door, journal);
                tokio::time::sleep(planned.lasts).await;
                process.come_back(door).await;
            }
            fault::Process::Terminate => {
                let status = process.program.terminate().await;
                if !status.success() {
                    journal.find(&format!("{} ends with {status}", planned.place));
                }
                process.gone(door, journal);
                tokio::time::sleep(planned.lasts).await;
                process.come_back(door).await;
            }
            fault::Process::Stop => {
                process.program.signal("STOP");
                tokio::time::sleep(planned.lasts).await;
                process.program.signal("CONT");
            }
            fault::Process::Replace => {
                process.kill(door, journal);
                tokio::time::sleep(planned.lasts).await;
                process.replace(door).await;
            }
        }
        journal.tell(&format!("over: {} {}", planned.fault, planned.place));
    }
}

/// Nothing that happens ends a process of ours.
pub(crate) fn still_runs(process: &mut Process, journal: &Journal) {
    if process.program.has_ended() {
        journal.find(&format!("{} has ended by itself", process.member));
    }
}

/// Does what is planned for a publisher.
pub(crate) async fn sender(publisher: &mut Publisher, faults: &[Planned], journal: &Journal) {
    for planned in faults {
        journal.reach(planned.at).await;
        journal.tell(&format!("{} {}", planned.fault, planned.place));
        publisher.kill(journal);
        tokio::time::sleep(planned.lasts).await;
        publisher.come_back();
        journal.tell(&format!("over: {} {}", planned.fault, planned.place));
    }
}

/// Does what is planned for a line.
pub(crate) async fn line(proxy: &Proxy, faults: &[Planned], journal: &Journal) {
    for planned in faults {
        let Fault::Wire(fault) = planned.fault else {
            continue;
        };
        journal.reach(planned.at).await;
        journal.tell(&format!("{} {}", planned.fault, planned.place));
        match fault {
            Wire::Cut => proxy.cut(),
            Wire::Stalled => proxy.stall(),
            Wire::Mute => proxy.mute(),
            // Those that are open stay dead when the fault is over.
            Wire::Stranded => proxy.strand(),
            Wire::Slow => proxy.slow(DELAY),
            Wire::Torn => proxy.tear(ONE_OF),
            Wire::Narrow => proxy.narrow(BYTES_PER_SECOND),
        }
        tokio::time::sleep(planned.lasts).await;
        proxy.mend();
        journal.tell(&format!("over: {} {}", planned.fault, planned.place));
    }
}
