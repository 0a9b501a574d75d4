//! What is seen while a run goes on: a bar on a terminal, a log line now and then elsewhere.

use std::io::IsTerminal as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use lifecycle::{CancellationToken, Tasks, Ticks};
use tokio::task::JoinHandle;

use crate::metrics::Metrics;

/// How often the bar moves.
const BAR: Duration = Duration::from_millis(200);

/// How often a line is logged.
const LINE: Duration = Duration::from_secs(5);

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// So many events are to be sent, if there is an end.
    Sending(Option<u64>),
    /// The queue is waited for.
    Settling,
    /// About so many events are read back.
    Reading(u64),
}

/// Tells how far a run is, until it is dropped.
pub(crate) struct Progress {
    phase: Arc<Mutex<Phase>>,
    done: CancellationToken,
    teller: Option<JoinHandle<()>>,
}

impl Progress {
    pub(crate) fn start(phase: Phase, metrics: &Arc<Metrics>, tasks: &Tasks) -> Self {
        let phase = Arc::new(Mutex::new(phase));
        let done = CancellationToken::new();
        let teller = Teller {
            phase: Arc::clone(&phase),
            metrics: Arc::clone(metrics),
            last: None,
        };
        let ticking = done.clone();
        let teller = tasks.spawn_transient("progress", async move {
            if std::io::stderr().is_terminal() {
                teller.draw(&ticking).await;
            } else {
                teller.log(&ticking).await;
            }
        });
        Self {
            phase,
            done,
            teller: Some(teller),
        }
    }

    pub(crate) fn enter(&self, phase: Phase) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
    }

    /// Ends it, and waits until the terminal is clear.
    pub(crate) async fn finish(mut self) {
        self.done.cancel();
        if let Some(teller) = self.teller.take() {
            // Only its panic could be told here, and that is logged already.
            let _ = teller.await;
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.done.cancel();
    }
}

struct Teller {
    phase: Arc<Mutex<Phase>>,
    metrics: Arc<Metrics>,
    /// What was counted when it was last told, and when that was.
    last: Option<(Phase, u64, Instant)>,
}

/// How far it is.
struct Look {
    phase: Phase,
    count: u64,
    /// Events a second since the last look.
    rate: f64,
    retries: u64,
    trouble: Option<String>,
}

impl Teller {
    async fn draw(mut self, done: &CancellationToken) {
        let bar = ProgressBar::no_length();
        let mut ticks = Ticks::every(BAR, done);
        while ticks.next().await {
            let look = self.look();
            let total = look.total();
            bar.set_style(style(total.is_some()));
            match total {
                Some(total) => bar.set_length(total),
                None => bar.unset_length(),
            }
            bar.set_position(look.count);
            bar.set_message(look.words());
        }
        bar.finish_and_clear();
    }

    async fn log(mut self, done: &CancellationToken) {
        let mut ticks = Ticks::every(LINE, done);
        // The first tick comes at once, and there is nothing to tell yet.
        let _ = ticks.next().await;
        let _ = self.look();
        while ticks.next().await {
            let look = self.look();
            let (events, rate, retries) = (look.count, look.rate.round(), look.retries);
            let trouble = look.trouble.as_deref();
            let of = look.total();
            tracing::info!(events, of, rate, retries, trouble, "{}", look.verb());
        }
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "a rate is shown to a few digits"
    )]
    fn look(&mut self) -> Look {
        let phase = *self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        let metrics = &self.metrics;
        let count = match phase {
            Phase::Sending(_) | Phase::Settling => {
                metrics.acknowledged.get() + metrics.refused.get() + metrics.failed.get()
            }
            Phase::Reading(_) => metrics.read_back.get(),
        };
        let now = Instant::now();
        let rate = match self.last {
            Some((same, before, at)) if same == phase => {
                count.saturating_sub(before) as f64 / (now - at).as_secs_f64().max(1e-3)
            }
            _ => 0.0,
        };
        self.last = Some((phase, count, now));
        Look {
            phase,
            count,
            rate,
            retries: metrics.retries.get(),
            trouble: metrics.take_trouble(),
        }
    }
}

impl Look {
    fn total(&self) -> Option<u64> {
        match self.phase {
            Phase::Sending(total) => total,
            Phase::Settling => None,
            Phase::Reading(total) => Some(total),
        }
    }

    fn verb(&self) -> &'static str {
        match self.phase {
            Phase::Sending(_) => "sending",
            Phase::Settling => "waiting until the queue is empty",
            Phase::Reading(_) => "reading back",
        }
    }

    fn words(&self) -> String {
        let mut words = match self.phase {
            Phase::Settling => self.verb().to_owned(),
            _ => format!("{}, {:.0} events/s", self.verb(), self.rate),
        };
        if self.retries > 0 {
            words = format!("{words}, {} retries", self.retries);
        }
        if let Some(trouble) = &self.trouble {
            words = format!("{words} ({trouble})");
        }
        words
    }
}

fn style(has_end: bool) -> ProgressStyle {
    let template = if has_end {
        "{bar:30} {human_pos}/{human_len} {wide_msg}"
    } else {
        "{spinner} {human_pos} {wide_msg}"
    };
    ProgressStyle::with_template(template).expect("both templates are well formed")
}

#[cfg(test)]
mod tests {
    use lifecycle::Process;

    use super::*;

    fn teller(phase: Phase) -> (Teller, Arc<Metrics>) {
        let process = Process::new("test").unwrap();
        let metrics = Arc::new(Metrics::register(&process.metrics).unwrap());
        let teller = Teller {
            phase: Arc::new(Mutex::new(phase)),
            metrics: Arc::clone(&metrics),
            last: None,
        };
        (teller, metrics)
    }

    #[test]
    fn both_bars_can_be_drawn() {
        for template in [true, false] {
            let bar = ProgressBar::hidden();
            bar.set_style(style(template));
            bar.tick();
        }
    }

    #[tokio::test]
    async fn trouble_is_told_once_and_retries_are_counted() {
        let (mut teller, metrics) = teller(Phase::Sending(Some(10)));
        metrics.acknowledged.inc_by(4);
        metrics.retry("connection refused");
        let look = teller.look();
        assert_eq!((look.count, look.total()), (4, Some(10)));
        assert_eq!(
            look.words(),
            "sending, 0 events/s, 1 retries (connection refused)"
        );
        assert!(!teller.look().words().contains("refused"));
    }

    #[tokio::test]
    async fn what_is_read_back_is_counted_anew() {
        let (mut teller, metrics) = teller(Phase::Reading(10));
        metrics.acknowledged.inc_by(4);
        assert_eq!(teller.look().count, 0);
    }
}
