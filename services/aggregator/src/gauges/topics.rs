//! The books of the largest topics.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lifecycle::{CancellationToken, Ticks};
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, Opts};
use store::{Counts, Store, TopicBooks};

use super::books::by_name;

/// How old what is told may be: longer than of the rest, since there may be thousands.
const PERIOD: Duration = Duration::from_secs(15);

/// The label of all topics that are not told by name. One that is called so is told in it.
const OTHER: &str = "other";

pub(super) async fn tell(topics: Topics, most: usize, store: Store, shutdown: CancellationToken) {
    let mut ticks = Ticks::every(PERIOD, &shutdown);
    while ticks.next().await {
        topics.tell(store.topics().await.unwrap_or_default(), most);
    }
}

/// The books of the largest topics. A scrape sees all of one reading or all of the next.
#[derive(Clone)]
pub(super) struct Topics {
    desc: Desc,
    events: Arc<Mutex<GaugeVec>>,
}

impl Topics {
    pub(super) fn new() -> prometheus::Result<Self> {
        let events = topic_events()?;
        let desc = events.desc().into_iter().next().cloned();
        Ok(Self {
            desc: desc.ok_or(prometheus::Error::Msg("a vector describes itself".into()))?,
            events: Arc::new(Mutex::new(events)),
        })
    }

    fn tell(&self, topics: Vec<TopicBooks>, most: usize) {
        let events = topic_events().expect("it was made before");
        for (topic, counts) in largest(topics, most) {
            for (name, value) in by_name(Some(counts)) {
                events.with_label_values(&[&topic, name]).set(value);
            }
        }
        *self.events.lock().unwrap_or_else(PoisonError::into_inner) = events;
    }
}

impl Collector for Topics {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.collect()
    }
}

fn topic_events() -> prometheus::Result<GaugeVec> {
    let opts = Opts::new(
        "sekali_topic_events",
        "The books of the largest topics, all others together as `other`.",
    );
    GaugeVec::new(opts, &["topic", "count"])
}

/// The topics with the most events, and the sum of the rest.
fn largest(mut topics: Vec<TopicBooks>, most: usize) -> Vec<(String, Counts)> {
    topics.sort_by_key(|topic| std::cmp::Reverse(topic.counts.received));
    let (named, rest): (Vec<_>, Vec<_>) = topics
        .into_iter()
        .enumerate()
        .partition(|(rank, topic)| *rank < most && topic.topic != OTHER);
    let mut told: Vec<_> = named
        .into_iter()
        .map(|(_, topic)| (topic.topic, topic.counts))
        .collect();
    if let Some(sum) = rest.into_iter().map(|(_, topic)| topic.counts).reduce(add) {
        told.push((OTHER.into(), sum));
    }
    told
}

fn add(mut sum: Counts, counts: Counts) -> Counts {
    sum += counts;
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn books(topic: &str, received: i64) -> TopicBooks {
        TopicBooks {
            topic: topic.into(),
            counts: Counts {
                received,
                ..Counts::default()
            },
            first_timestamp: None,
            last_timestamp: None,
        }
    }

    #[test]
    fn the_largest_topics_are_told_and_the_rest_as_one() {
        let topics = ["a", "other", "b", "c"];
        let topics: Vec<_> = topics
            .iter()
            .zip([1, 50, 30, 20])
            .map(|(topic, received)| books(topic, received))
            .collect();
        let told: Vec<_> = largest(topics, 2)
            .into_iter()
            .map(|(topic, counts)| (topic, counts.received))
            .collect();
        assert_eq!(told, [("b".into(), 30), ("other".into(), 71)]);
        assert!(largest(Vec::new(), 2).is_empty());
    }
}
