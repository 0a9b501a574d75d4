//! Whether each event that is there is one that was sent.

use std::borrow::Cow;
use std::collections::HashMap;

use bytes::BytesMut;
use event::{Payload, Timestamp};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::Verdict;
use super::bits::Bits;
use crate::make::Maker;
use crate::plan::{Item, Plan};

/// Takes one event after another, in any order.
pub(super) struct Judge<'a> {
    maker: &'a Maker,
    run: Run<'a>,
    seen: Bits,
    /// The version that is stored under a key, unless it is the key's own.
    versions: HashMap<u64, u64>,
    topics: Vec<Found>,
    verdict: Verdict,
    scratch: BytesMut,
}

/// What was found in one topic. Counts are of events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// There.
    pub(super) rows: u64,
    /// Acknowledged, with other content than what is there under their key.
    pub(super) conflicts: u64,
}

/// What was sent.
#[derive(Clone, Copy)]
struct Run<'a> {
    plan: &'a Plan,
    /// The positions below this.
    end: u64,
    /// Whether the same seed was sent before, perhaps further than this time.
    ran_before: bool,
}

/// An event as the gateway tells it.
#[derive(Deserialize)]
struct Stored<'a> {
    #[serde(borrow)]
    topic: Cow<'a, str>,
    #[serde(borrow)]
    event_id: Cow<'a, str>,
    #[serde(borrow)]
    timestamp: Cow<'a, str>,
    #[serde(borrow)]
    source: Cow<'a, str>,
    #[serde(borrow)]
    payload: &'a RawValue,
}

/// What one event is found to be.
#[derive(Clone, Copy)]
enum Finding {
    Sent,
    Earlier,
    Doubled,
    Foreign(&'static str),
    Altered(&'static str),
}

impl<'a> Judge<'a> {
    pub(super) fn new(plan: &'a Plan, maker: &'a Maker, end: u64, ran_before: bool) -> Self {
        Self {
            seen: Bits::below(end),
            versions: HashMap::new(),
            topics: vec![Found::default(); maker.topics().len()],
            maker,
            run: Run {
                plan,
                end,
                ran_before,
            },
            verdict: Verdict::default(),
            scratch: BytesMut::new(),
        }
    }

    /// An event that was found in a topic.
    pub(super) fn take(&mut self, topic: usize, line: &[u8]) {
        self.topics[topic].rows += 1;
        let Ok(stored) = serde_json::from_slice::<Stored<'_>>(line) else {
            self.verdict.altered += 1;
            let line = String::from_utf8_lossy(line);
            self.verdict.tell(|| format!("no event: {line}"));
            return;
        };
        let finding = self.find(topic, &stored);
        let verdict = &mut self.verdict;
        let (count, why) = match finding {
            Finding::Sent => {
                verdict.stored += 1;
                return;
            }
            Finding::Earlier => {
                verdict.earlier += 1;
                return;
            }
            Finding::Doubled => (&mut verdict.doubled, "is there twice"),
            Finding::Foreign(why) => (&mut verdict.foreign, why),
            Finding::Altered(why) => (&mut verdict.altered, why),
        };
        *count += 1;
        verdict.tell(|| format!("{} of {}: {why}", stored.event_id, stored.topic));
    }

    /// Looks for what is not there, and for what must have been a conflict. Requests that were
    /// not acknowledged owe nothing.
    pub(super) fn finish(mut self, not_acknowledged: &[u64]) -> (Verdict, Vec<Found>) {
        let Run { plan, end, .. } = self.run;
        let mut owed = Bits::below(end);
        for request in 0..end.div_ceil(plan.batch) {
            if plan.is_malformed(request) || not_acknowledged.binary_search(&request).is_ok() {
                continue;
            }
            for position in plan.positions(request) {
                let Item { key, version } = plan.item(position);
                self.verdict.expected += u64::from(owed.insert(key));
                if version != self.versions.get(&key).copied().unwrap_or(key) {
                    self.topics[self.maker.topic_of(key)].conflicts += 1;
                }
            }
        }
        for key in owed.without(&self.seen) {
            self.verdict.missing += 1;
            let (maker, scratch) = (self.maker, &mut self.scratch);
            self.verdict.tell(|| {
                let item = Item { key, version: key };
                let expected = maker.expected(item, scratch);
                let topic = &maker.topics()[expected.topic];
                format!(
                    "{} of {topic}: acknowledged, and not there",
                    expected.event_id
                )
            });
        }
        (self.verdict, self.topics)
    }

    fn find(&mut self, topic: usize, stored: &Stored<'_>) -> Finding {
        let Some(key) = self.maker.key_of(&stored.event_id) else {
            return Finding::Foreign("is no event id of this run");
        };
        let payload = Payload::from_json(stored.payload).ok();
        let payload = payload.as_ref().map_or("", |payload| payload.as_str());
        let version = Maker::version_of(payload).unwrap_or(key);
        let expected = self
            .maker
            .expected(Item { key, version }, &mut self.scratch);
        if expected.event_id != stored.event_id {
            return Finding::Foreign("is no event id of this run");
        }
        if expected.topic != topic || stored.topic != self.maker.topics()[topic] {
            return Finding::Foreign("was sent to another topic");
        }
        let standing = self.run.standing(key, version);
        let is_new = key >= self.run.end || self.seen.insert(key);
        if !matches!(standing, Finding::Sent | Finding::Earlier) {
            return standing;
        }
        let micros = Timestamp::parse(&stored.timestamp).map(Timestamp::as_micros);
        if !is_new {
            Finding::Doubled
        } else if micros != Ok(expected.micros) {
            Finding::Altered("has another timestamp than was sent")
        } else if stored.source != expected.source {
            Finding::Altered("has another source than was sent")
        } else if payload != expected.payload {
            Finding::Altered("has another payload than was sent")
        } else {
            if version != key {
                self.versions.insert(key, version);
            }
            standing
        }
    }
}

impl Run<'_> {
    /// Whether a key was sent with this content. Of two versions, either may have been
    /// stored first.
    fn standing(self, key: u64, version: u64) -> Finding {
        if !self.plan.is_first_of_its_key(key) {
            return Finding::Foreign("stood only in a request that was refused");
        }
        let is_version = version == key || self.plan.item(version) == Item { key, version };
        let is_sent = key < self.end;
        if is_version && is_sent && (version < self.end || self.ran_before) {
            Finding::Sent
        } else if is_version && self.ran_before {
            Finding::Earlier
        } else if is_sent {
            Finding::Altered("was never sent with this content")
        } else {
            Finding::Foreign("was not sent")
        }
    }
}

#[cfg(test)]
mod tests;
