//! What a publisher can be told.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use lifecycle::{ConfigError, Secret};

use crate::make::{IdForm, MAX_PAYLOAD, MIN_PAYLOAD};

/// Sends events to Sekali and says what became of them.
///
/// By default it makes up a load, one event a request, 30 % of them resends, and goes on
/// until it is stopped. The load is a pure function of the seed and the settings under
/// "Load": started again with the same ones, it sends the same events again. With
/// --verify it reads every event back and compares it with what the seed says was sent.
/// With --file it sends real events instead.
///
/// The report goes to standard output, all else to standard error.
///
/// Exit status: 0 if every event was acknowledged, or refused as it should be, and the
/// verdict (with --verify) is good; 1 if not, or if it was stopped before --events were
/// sent, or if a line of --file was refused; 64 when it can't mean what it was told; 130
/// when a second signal cut it short.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "sekali-publisher", version)]
pub struct Args {
    #[command(flatten)]
    pub(crate) load: Load,
    #[command(flatten)]
    pub(crate) sending: Sending,
    #[command(flatten)]
    pub(crate) outcome: Outcome,

    /// Where /livez, /readyz and /metrics are served; by default nowhere. Port 0 takes a
    /// free one and logs it
    #[arg(long, env, help_heading = "Process")]
    pub(crate) admin_addr: Option<SocketAddr>,
    /// How the process logs and ends.
    #[command(flatten)]
    pub process: lifecycle::Args,
}

/// What is sent.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Load")]
pub(crate) struct Load {
    /// How many events to send, resends and malformed ones counted; by default it goes on
    /// until it is stopped. 0 sends nothing: good with --clean, to remove an earlier run
    #[arg(long, env)]
    pub(crate) events: Option<u64>,

    /// What the load is made from; by default drawn, and reported
    #[arg(long, env)]
    pub(crate) seed: Option<u64>,

    /// What the run is called, by default the seed: its topics are run-NAME-0, run-NAME-1
    /// and so on. Two different loads under one name find each other's events foreign
    #[arg(long, env, value_parser = run_name)]
    pub(crate) run: Option<String>,

    /// The run's name is a new one: nothing of it can be there yet, and none is looked for. The
    /// verdict is the stricter: what an earlier run may have sent explains nothing. A name that
    /// is drawn is new without it
    #[arg(long, env)]
    pub(crate) new: bool,

    /// The share of resends: the bytes of an earlier event again. 0 to 0.99; the nearer to
    /// 1, the longer it takes to find what to resend
    #[arg(long, env, default_value_t = 0.3, value_parser = share)]
    pub(crate) duplicates: f64,

    /// The share of conflicts: the key of an earlier event with other content. Together
    /// with --duplicates at most 0.99
    #[arg(long, env, default_value_t = 0.0, value_parser = share)]
    pub(crate) conflicts: f64,

    /// The share of requests that are malformed, must be refused and never be stored. 0 to
    /// 0.99
    #[arg(long, env, default_value_t = 0.0, value_parser = share)]
    pub(crate) malformed: f64,

    /// How many events (with --file: lines, by default 100) stand in a request. With 1,
    /// HTTP is what is measured; many large ones exceed the gateway's limit for a body, and
    /// get 413
    #[arg(long, env, value_parser = clap::value_parser!(u16).range(1..=event::body::MAX_EVENTS as i64))]
    pub(crate) batch: Option<u16>,

    /// How many topics the events are spread over. With one, all writers meet in its
    /// counters; with more than the gateway allows (--max-topics), events are refused
    #[arg(long, env, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub(crate) topics: u16,

    /// How long the payload of each event is, in bytes. Short ones measure the cost of an
    /// event, long ones that of a byte
    #[arg(long, env, default_value_t = 300, value_parser = clap::value_parser!(u32).range(MIN_PAYLOAD as i64..=MAX_PAYLOAD as i64))]
    pub(crate) payload_bytes: u32,

    /// What event ids look like
    #[arg(long, env, value_enum, default_value_t = IdForm::V4)]
    pub(crate) ids: IdForm,

    /// Sends the events of this file instead, one JSON object a line; - is standard input.
    /// It ends when all are acknowledged. Lines that are no events are refused, told of,
    /// and hold up no others. Requests overtake each other: of two lines with one key,
    /// either may be the one that is stored. The other settings of a load, but for --batch,
    /// mean nothing then, and are refused
    #[arg(long, env, conflicts_with_all = MADE_UP)]
    pub(crate) file: Option<PathBuf>,
}

/// What says how a load is made up.
const MADE_UP: [&str; 9] = [
    "seed",
    "run",
    "new",
    "duplicates",
    "conflicts",
    "malformed",
    "topics",
    "payload_bytes",
    "ids",
];

/// See `--ack`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Ack {
    /// As soon as the events are on disk in the queue.
    Queued,
    /// When what became of each event is committed.
    Stored,
}

/// How it is sent.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Sending")]
pub(crate) struct Sending {
    /// The address of a gateway, http or https; one that ends in /publish is taken too
    #[arg(long, env, default_value = "http://localhost:8080")]
    pub(crate) target_url: Secret,

    /// A file that holds nothing but the API key. Without one, a gateway with keys answers
    /// 401. A key of the scope `write` is enough without --verify and --clean
    #[arg(long, env)]
    pub(crate) api_key_file: Option<PathBuf>,

    /// When the gateway is to answer
    #[arg(long, env, value_enum, default_value_t = Ack::Queued)]
    pub(crate) ack: Ack,

    /// How many connections send at once, each one request at a time. With few, the line
    /// and the disk are waited for; with many, requests wait for each other in the gateway
    #[arg(long, env, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub(crate) concurrency: u16,

    /// How many events a second to send at most; 0 is without a limit. What a slow answer
    /// held up is caught up on. More than the gateway takes is no limit either
    #[arg(long, env, default_value_t = 0.0, value_parser = rate)]
    pub(crate) rate: f64,

    /// How long to wait for a connection, and for an answer, in milliseconds. Too short,
    /// and requests that were taken are sent again; long, and a dead gateway is noticed
    /// late. Less than --drain-deadline-ms, or a stop could not wait for answers
    #[arg(long, env, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(10..=600_000))]
    pub(crate) timeout_ms: u64,

    /// How long to send a request again and again before the run is given up, in seconds;
    /// 0 never gives up. Short, and a restart of what is behind the gateway ends the run
    #[arg(long, env, default_value_t = 300)]
    pub(crate) max_retry_seconds: u64,
}

/// What is said about it, and what is left.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Outcome")]
pub(crate) struct Outcome {
    /// Writes the report to this file too, as JSON of less than 4 KiB (a Kubernetes
    /// termination message takes no more)
    #[arg(long, env)]
    pub(crate) report: Option<PathBuf>,

    /// Reads every event back afterwards and says whether all that was acknowledged is
    /// there, once, and as it was sent. It takes two bits of memory an event
    #[arg(long, env)]
    pub(crate) verify: bool,

    /// Deletes the run's topics at the end, whatever the verdict. If the queue is not empty by
    /// then the run fails: what is in it could make them anew
    #[arg(long, env)]
    pub(crate) clean: bool,

    /// How long to wait until the queue is empty, after --events were sent, in seconds. Too
    /// short for what was queued, and there is no verdict; 0 does not wait, and then there
    /// is no end-to-end rate. Other senders' events are waited for too
    #[arg(long, env, default_value_t = 300)]
    pub(crate) queue_wait_seconds: u64,
}

/// From a file, one line a request would be slow for no gain.
const FILE_BATCH: u16 = 100;

impl Args {
    /// Relations between settings.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let Self {
            load,
            sending,
            outcome,
            ..
        } = self;
        let refuse = |message: &str| Err(ConfigError::new(message));
        if load.duplicates + load.conflicts > MAX_SHARE {
            return refuse("--duplicates and --conflicts together must be at most 0.99");
        }
        if load.file.is_some() && (outcome.verify || outcome.clean || load.events.is_some()) {
            return refuse(
                "--file sends what is in the file: --events, --verify and --clean need a load \
                 that is made up",
            );
        }
        if (outcome.verify || outcome.clean) && outcome.queue_wait_seconds == 0 {
            return refuse(
                "--verify and --clean need --queue-wait-seconds: what is still in the queue can \
                 neither be read nor deleted",
            );
        }
        if sending.timeout_ms >= self.process.drain_deadline_ms {
            return refuse(
                "--timeout-ms must be less than --drain-deadline-ms, or a stop could not wait \
                 for answers",
            );
        }
        Ok(())
    }

    pub(crate) fn batch(&self) -> u16 {
        let default = if self.load.file.is_some() {
            FILE_BATCH
        } else {
            1
        };
        self.load.batch.unwrap_or(default)
    }
}

impl Sending {
    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    /// How long one request is sent again and again.
    pub(crate) fn patience(&self) -> Duration {
        match self.max_retry_seconds {
            0 => Duration::MAX,
            seconds => Duration::from_secs(seconds),
        }
    }
}

const MAX_SHARE: f64 = 0.99;

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=MAX_SHARE).contains(&share) => Ok(share),
        _ => Err("it must be a number from 0 to 0.99".into()),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate >= 0.0 => Ok(rate),
        _ => Err("it must be a number of events a second, or 0".into()),
    }
}

/// Names stand in topics and addresses; these need no escaping in either.
fn run_name(text: &str) -> Result<String, String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if (1..=100).contains(&text.len()) && text.bytes().all(is_plain) {
        Ok(text.into())
    } else {
        Err("it must be 1 to 100 letters, digits, dashes, dots or underscores".into())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn read(words: &str) -> Result<Args, String> {
        let words = ["sekali-publisher"]
            .into_iter()
            .chain(words.split_whitespace());
        let args = Args::try_parse_from(words).map_err(|error| error.to_string())?;
        args.check().map_err(|error| error.to_string())?;
        Ok(args)
    }

    #[test]
    fn the_defaults_are_those_in_the_documentation() {
        let args = read("").unwrap();
        assert_eq!(args.load.events, None);
        assert_eq!((args.load.duplicates, args.batch()), (0.3, 1));
        assert_eq!(read("--file -").unwrap().batch(), 100);
        assert_eq!(read("--file - --batch 7").unwrap().batch(), 7);
        assert_eq!(args.sending.patience(), Duration::from_mins(5));
        let never = read("--max-retry-seconds 0").unwrap();
        assert_eq!(never.sending.patience(), Duration::MAX);
    }

    #[test]
    fn what_can_not_be_meant_is_refused_with_a_reason() {
        for (words, reason) in [
            ("--duplicates 1.5", "from 0 to 0.99"),
            ("--duplicates NaN", "from 0 to 0.99"),
            ("--duplicates 0.6 --conflicts 0.5", "together"),
            ("--rate=-1", "--rate"),
            ("--batch 0", "1..=10000"),
            ("--batch 10001", "1..=10000"),
            ("--payload-bytes 10", "48..=1048576"),
            ("--topics 0", "1..=10000"),
            ("--run a/b", "letters"),
            ("--file - --verify", "made up"),
            ("--file - --events 5", "made up"),
            ("--file - --duplicates 0.5", "--duplicates"),
            ("--file - --ids v7", "cannot be used with"),
            ("--verify --queue-wait-seconds 0", "--queue-wait-seconds"),
            ("--clean --queue-wait-seconds 0", "--queue-wait-seconds"),
            ("--timeout-ms 30000", "--drain-deadline-ms"),
            ("--ids v1", "v4, v7, text"),
        ] {
            let error = read(words).expect_err(words);
            assert!(error.contains(reason), "{words}: {error}");
        }
    }

    #[test]
    fn every_flag_has_a_variable_and_a_word_of_help() {
        use clap::CommandFactory as _;
        for arg in Args::command().get_arguments() {
            let name = arg.get_id().as_str();
            assert!(arg.get_help().is_some(), "{name}");
            assert!(arg.get_env().is_some(), "{name}");
        }
    }
}
