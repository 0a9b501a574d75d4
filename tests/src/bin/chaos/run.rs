//! One run, from a schedule to the verdict.

use std::time::Duration;

use futures::future::{LocalBoxFuture, join_all};

use crate::fault::{Line, Member, Place};
use crate::journal::Journal;
use crate::schedule::Schedule;
use crate::sender::Publisher;
use crate::world::World;
use crate::{inject, servers, verdict};

/// How long senders may take after the last fault. They send what the faults held up, wait
/// for the queue and read all of it back.
const PATIENCE: Duration = Duration::from_mins(2);

/// Does what the schedule says, and looks what came of it.
pub(crate) async fn run(schedule: Schedule, journal: &Journal) {
    for load in schedule.loads {
        journal.tell(&format!("load: {load:?}"));
    }
    for planned in &schedule.faults {
        journal.tell(&format!("planned: {planned}"));
    }
    let mut world = World::start().await;
    let doors: Vec<_> = world.doors.iter().map(tests::Proxy::address).collect();
    let mut senders: Vec<_> = (0..schedule.loads.len())
        .map(|number| Publisher::start(number, schedule.loads[number], doors[number]))
        .collect();
    let began = journal.begin();
    inject_all(&schedule, &mut world, &mut senders, journal).await;
    journal.tell("the faults are over");
    let verdicts = join_all(senders.iter_mut().map(|sender| sender.verdict(journal)));
    if tokio::time::timeout(PATIENCE, verdicts).await.is_err() {
        journal.find("publishers do not come to an end");
        for sender in &mut senders {
            sender.kill(journal);
        }
    }
    verdict::judge(&world.redis, &world.postgres, journal).await;
    for process in &mut world.members {
        inject::still_runs(process, journal);
        process.program.kill();
        journal.keep(&process.member.to_string(), &process.program.whole_log());
    }
    journal.tell(&format!("over after {:?}", began.elapsed()));
}

/// Every place does its own faults, one after the other, and all places at once.
async fn inject_all(
    schedule: &Schedule,
    world: &mut World,
    senders: &mut [Publisher],
    journal: &Journal,
) {
    let queue = schedule.at(Place::Queue);
    let backend = schedule.at(Place::Backend);
    let of_senders: Vec<_> = (0..senders.len())
        .map(|number| schedule.at(Place::Sender(number)))
        .collect();
    let of_processes = Member::ALL.map(|member| schedule.at(Place::Process(member)));
    let of_queue_lines = Member::ALL.map(|member| schedule.at(Place::Line(Line::Queue(member))));
    let of_backend_lines =
        Member::ALL.map(|member| schedule.at(Place::Line(Line::Backend(member))));
    let of_doors = [0, 1].map(|number| schedule.at(Place::Line(Line::Door(number))));

    let mut places: Vec<LocalBoxFuture<'_, ()>> = vec![
        Box::pin(servers::queue(&mut world.redis, &queue, journal)),
        Box::pin(servers::backend(&mut world.postgres, &backend, journal)),
    ];
    for (sender, faults) in senders.iter_mut().zip(&of_senders) {
        places.push(Box::pin(inject::sender(sender, faults, journal)));
    }
    for (process, faults) in world.members.iter_mut().zip(&of_processes) {
        let door = match process.member {
            Member::Gateway(number) => world.doors.get(number),
            Member::Worker(_) => None,
        };
        places.push(Box::pin(inject::process(process, door, faults, journal)));
    }
    let lines = world.queue_lines.iter().zip(&of_queue_lines);
    let lines = lines.chain(world.backend_lines.iter().zip(&of_backend_lines));
    for (line, faults) in lines.chain(world.doors.iter().zip(&of_doors)) {
        places.push(Box::pin(inject::line(line, faults, journal)));
    }
    join_all(places).await;
}
