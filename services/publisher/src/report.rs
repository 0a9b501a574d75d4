//! What a run comes to, in words and as JSON.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::tally::Tally;
use crate::verify::Verdict;

/// A Kubernetes termination message takes no more bytes.
const MAX_JSON: usize = 4_096;

/// All that is reported. Counts are of events unless they say requests.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    /// Whether all went as it should; the exit status says the same.
    pub(crate) passed: bool,
    /// Where the events were sent.
    pub(crate) target: String,
    /// Of a load that was made up.
    pub(crate) run: Option<String>,
    pub(crate) seed: Option<u64>,
    /// Whether all was sent that there was to send.
    pub(crate) complete: bool,
    /// In requests that left at least once, and again for every attempt.
    pub(crate) sent: u64,
    pub(crate) attempted: u64,
    pub(crate) acknowledged: u64,
    pub(crate) refused: Refused,
    /// Neither acknowledged nor refused: they may be stored or not.
    pub(crate) failed: u64,
    pub(crate) requests: u64,
    /// Attempts at requests after their first.
    pub(crate) retried: u64,
    /// From the first request to the last answer.
    pub(crate) seconds: f64,
    /// Acknowledged a second, in that time.
    pub(crate) events_per_second: f64,
    pub(crate) latency_ms: Latency,
    /// None if the end of the queue was not waited for.
    pub(crate) end_to_end: Option<EndToEnd>,
    /// None without `--verify`, or if it could not be reached.
    pub(crate) verdict: Option<Verdict>,
    /// With `--file`, if not all was acknowledged: the first line to send again. (What is
    /// sent twice is stored once.)
    pub(crate) resume_from_line: Option<u64>,
    /// What went wrong, the first few of each kind.
    pub(crate) failures: Vec<String>,
}

/// What was answered with 422, or another refusal for good.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Refused {
    pub(crate) expected: u64,
    pub(crate) unexpected: u64,
}

/// From the first attempt at a request to its acknowledgement, in milliseconds.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

/// Until the queue was empty.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct EndToEnd {
    /// From the first request on.
    pub(crate) seconds: f64,
    /// Acknowledged a second, in that time.
    pub(crate) events_per_second: f64,
}

impl Report {
    /// Of what was sent; what is known beyond that is for the caller to add.
    pub(crate) fn of(target: String, tally: Tally, is_complete: bool, took: Duration) -> Self {
        Self {
            passed: false,
            target,
            run: None,
            seed: None,
            complete: is_complete,
            sent: tally.sent,
            attempted: tally.attempted,
            acknowledged: tally.acknowledged,
            refused: Refused {
                expected: tally.refused,
                unexpected: tally.refused_unexpectedly,
            },
            failed: tally.failed,
            requests: tally.requests,
            retried: tally.retries,
            seconds: rounded(took.as_secs_f64()),
            events_per_second: rate(tally.acknowledged, took),
            latency_ms: Latency::of(&tally.latency),
            end_to_end: None,
            verdict: None,
            resume_from_line: None,
            failures: tally.failures,
        }
    }

    /// The queue was empty so long after the first request.
    pub(crate) fn settled(&mut self, after: Duration) {
        self.end_to_end = Some(EndToEnd {
            seconds: rounded(after.as_secs_f64()),
            events_per_second: rate(self.acknowledged, after),
        });
    }

    /// What went wrong apart from the sending.
    pub(crate) fn fail(&mut self, why: &str) {
        self.failures.push(why.chars().take(300).collect());
    }

    /// Decides, once all is entered.
    pub(crate) fn conclude(&mut self) {
        if !self.complete {
            self.fail("it ended before all was sent");
        }
        self.passed = self.failures.is_empty()
            && self.refused.unexpected == 0
            && self.failed == 0
            && self.verdict.as_ref().is_none_or(|verdict| verdict.good);
    }

    /// Writes the words to standard output.
    pub(crate) fn print(&self) {
        // Where nobody reads them, the exit status still tells.
        let _ = writeln!(std::io::stdout(), "{}", self.words());
    }

    /// Writes the JSON to a file.
    pub(crate) fn save(&self, path: &Path) -> anyhow::Result<()> {
        let json = self.json().context("write the report as JSON")?;
        std::fs::write(path, json).with_context(|| format!("write {}", path.display()))
    }

    /// What is told of failures has no bounds in bytes, above all where names need escaping:
    /// of a report that would be cut off, the words are shortened, never the numbers.
    fn json(&self) -> serde_json::Result<String> {
        let mut report = self.clone();
        let mut longest = usize::MAX;
        loop {
            let json = serde_json::to_string(&report)? + "\n";
            if json.len() < MAX_JSON || longest == 0 {
                return Ok(json);
            }
            longest = (longest / 2).min(256);
            report.shorten(longest);
        }
    }

    fn shorten(&mut self, longest: usize) {
        let cut = |text: &mut String| *text = text.chars().take(longest).collect();
        self.failures.iter_mut().for_each(cut);
        if let Some(verdict) = &mut self.verdict {
            verdict.examples.iter_mut().for_each(cut);
            cut(&mut verdict.words);
        }
    }

    fn words(&self) -> String {
        let mut lines = Vec::new();
        if let (Some(run), Some(seed)) = (&self.run, self.seed) {
            lines.push(format!("run {run}, seed {seed}, to {}", self.target));
        } else {
            lines.push(format!("to {}", self.target));
        }
        lines.push(format!(
            "{} events sent in {} requests, {} retried; {} acknowledged, {} refused as they \
             should be, {} refused otherwise, {} failed",
            self.sent,
            self.requests,
            self.retried,
            self.acknowledged,
            self.refused.expected,
            self.refused.unexpected,
            self.failed,
        ));
        let Latency {
            p50,
            p99,
            p999,
            max,
        } = self.latency_ms;
        lines.push(format!(
            "{} s, {:.0} events/s acknowledged; latency p50 {p50} ms, p99 {p99} ms, p99.9 {p999} \
             ms, at most {max} ms",
            self.seconds, self.events_per_second,
        ));
        if let Some(end) = &self.end_to_end {
            lines.push(format!(
                "{} s until the queue was empty, {:.0} events/s end to end",
                end.seconds, end.events_per_second,
            ));
        }
        lines.extend(self.failures.iter().map(|why| format!("failure: {why}")));
        if let Some(line) = self.resume_from_line {
            lines.push(format!(
                "not all was acknowledged: send again from line {line} on"
            ));
        }
        lines.push(match &self.verdict {
            Some(verdict) if verdict.good && !self.passed => {
                format!("FAILED, though what is stored is right. {}", verdict.words)
            }
            Some(verdict) => verdict.words.clone(),
            None if self.passed => "PASSED".into(),
            None => "FAILED".into(),
        });
        lines.join("\n")
    }
}

impl Latency {
    #[expect(
        clippy::cast_precision_loss,
        reason = "microseconds of a day fit a double"
    )]
    fn of(micros: &Histogram<u64>) -> Self {
        let at = |quantile| rounded(micros.value_at_quantile(quantile) as f64 / 1_000.0);
        Self {
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            max: rounded(micros.max() as f64 / 1_000.0),
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a rate is shown to a few digits"
)]
fn rate(events: u64, time: Duration) -> f64 {
    if events == 0 {
        return 0.0;
    }
    rounded(events as f64 / time.as_secs_f64().max(1e-6))
}

/// To three decimals: more would be noise.
fn rounded(number: f64) -> f64 {
    (number * 1_000.0).round() / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(change: impl FnOnce(&mut Tally)) -> Report {
        let mut tally = Tally::new(1);
        tally.sent = 100;
        tally.acknowledged = 100;
        for millis in 1..=100 {
            tally.latency.record(millis * 1_000).unwrap();
        }
        change(&mut tally);
        let target = "http://localhost:8080".into();
        Report::of(target, tally, true, Duration::from_secs(2))
    }

    fn concluded(mut report: Report) -> Report {
        report.conclude();
        report
    }

    #[test]
    fn rates_and_latencies_are_those_of_the_run() {
        let mut report = report(|_| ());
        report.settled(Duration::from_secs(4));
        assert!((report.events_per_second - 50.0).abs() < 0.01);
        assert!((report.end_to_end.unwrap().events_per_second - 25.0).abs() < 0.01);
        assert!((report.latency_ms.p50 - 50.0).abs() < 0.1);
        assert!((report.latency_ms.p99 - 99.0).abs() < 0.1);
        assert!((report.latency_ms.max - 100.0).abs() < 0.2);
    }

    #[test]
    fn it_passes_only_if_nothing_went_wrong() {
        assert!(concluded(report(|_| ())).passed);
        assert!(concluded(report(|tally| tally.refused = 5)).passed);
        assert!(!concluded(report(|tally| tally.refused_unexpectedly = 1)).passed);
        assert!(!concluded(report(|tally| tally.failed = 1)).passed);
        assert!(!concluded(report(|tally| tally.tell("x".into()))).passed);
        let mut stopped = report(|_| ());
        stopped.complete = false;
        assert!(!concluded(stopped).passed);
        for good in [true, false] {
            let mut report = report(|_| ());
            report.verdict = Some(Verdict {
                good,
                ..Verdict::default()
            });
            assert_eq!(concluded(report).passed, good);
        }
    }

    #[test]
    fn the_words_end_with_the_verdict() {
        let mut good = report(|_| ());
        good.run = Some("7".into());
        good.seed = Some(7);
        good.verdict = Some(Verdict {
            good: true,
            words: "GOOD: all of it".into(),
            ..Verdict::default()
        });
        let words = concluded(good).words();
        assert!(words.starts_with("run 7, seed 7, to http"), "{words}");
        assert!(words.ends_with("\nGOOD: all of it"), "{words}");
        let failed = concluded(report(|tally| tally.tell("gave up".into()))).words();
        assert!(failed.ends_with("failure: gave up\nFAILED"), "{failed}");
    }

    #[test]
    fn the_longest_report_fits_a_termination_message() {
        // Of one byte, of two, of four, and of six once they are escaped.
        for letter in ["x", "\"", "🦀", "\u{1}"] {
            let mut report = report(|tally| {
                for n in 0..10 {
                    tally.tell(format!("{n}{}", letter.repeat(300)));
                }
            });
            report.target = "http://".to_owned() + &"x".repeat(250);
            report.verdict = Some(Verdict {
                missing: 7,
                words: letter.repeat(500),
                examples: vec![letter.repeat(200); 5],
                ..Verdict::default()
            });
            let file = tempfile::NamedTempFile::new().unwrap();
            concluded(report).save(file.path()).unwrap();
            let saved = std::fs::read(file.path()).unwrap();
            assert!(saved.len() < 4_096, "{letter:?}: {}", saved.len());
            let saved: serde_json::Value = serde_json::from_slice(&saved).unwrap();
            assert_eq!(saved["verdict"]["missing"], 7);
            let words = saved["verdict"]["words"].as_str().unwrap();
            assert!(words.len() > 30 && words.starts_with(letter), "{words}");
        }
    }
}
