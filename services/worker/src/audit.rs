//! What a worker looks after besides: that the queue's counters say what it holds.

use std::time::Duration;

use broker::{Broker, Depth};
use lifecycle::{Process, Ticks};

/// How often they are compared.
const AUDIT: Duration = Duration::from_secs(10);

/// Starts to compare.
pub(crate) fn start(process: &Process, broker: &Broker) {
    let broker = broker.clone();
    let mut ticks = Ticks::every(AUDIT, &process.shutdown);
    process.spawn_until_shutdown("audit", async move {
        while ticks.next().await {
            // A queue that can't be asked is the check's to report.
            let Ok(depth) = broker.depth().await else {
                continue;
            };
            for alarm in alarms(&depth) {
                tracing::error!(?depth, "{alarm}");
            }
        }
    });
}

/// What the counters say that must not be.
fn alarms(depth: &Depth) -> Vec<&'static str> {
    let mut alarms = Vec::new();
    if depth.lost() != 0 {
        alarms.push("the queue is empty, but not all that was counted in was counted out");
    }
    if depth.hidden().is_some_and(|entries| entries > 0) {
        alarms.push("the queue holds entries that no worker will be given");
    }
    alarms
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_and_hidden_entries_are_alarms_and_a_backlog_is_none() {
        let healthy = Depth {
            entries: 5,
            events_in: 100,
            events_out: 50,
            pending: 2,
            lag: Some(3),
            ..Depth::default()
        };
        assert_eq!(alarms(&healthy), Vec::<&str>::new());
        let unknown = Depth {
            lag: None,
            ..healthy
        };
        assert_eq!(alarms(&unknown), Vec::<&str>::new());
        let hidden = Depth {
            lag: Some(2),
            ..healthy
        };
        assert_eq!(alarms(&hidden).len(), 1);
        let lost = Depth {
            entries: 0,
            pending: 0,
            lag: Some(0),
            ..healthy
        };
        assert_eq!((alarms(&lost).len(), lost.lost()), (1, 50));
    }
}
