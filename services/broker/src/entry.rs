//! What stands in an entry of the stream.
//!
//! Fields: `v` the version of the format, `id` the batch's identity (16 bytes), `n` how many
//! events it holds, `t` when a gateway took them (microseconds since 1970), `e` the events
//! as [`event::batch`] encodes them, `p` the partition that all of them are of, and `tp`, if
//! there are any, W3C `traceparent`s, separated by commas. A rolling upgrade has entries of
//! two versions in the stream: one of a later version is left to the workers that know it.

#[cfg(any(test, feature = "fuzz"))]
#[cfg_attr(
    not(feature = "fuzz"),
    expect(unreachable_pub, reason = "only the fuzz target is outside")
)]
pub mod properties;

use event::batch::FORMAT;
use event::{Batch, BatchId, EncodedEvents, Partition, Timestamp};
use redis::{Cmd, Value};
use uuid::Uuid;

use crate::append::Outgoing;
use crate::consumer::{Delivery, EntryId};

/// The most traces that an entry is told to be of. With more, most of them are of a load test.
const MAX_TRACEPARENTS: usize = 16;

/// What an entry turned out to be.
#[derive(Debug)]
pub(crate) enum Read {
    Delivery(Delivery),
    /// Of a version that this release does not know.
    Later(String),
    /// Deleted since it was delivered: there is nothing left to do but to say so.
    Gone(EntryId),
}

/// Adds the fields to an XADD.
pub(crate) fn write(command: &mut Cmd, outgoing: &Outgoing) {
    let Outgoing {
        batch,
        partition,
        traceparents,
    } = outgoing;
    command
        .arg("v")
        .arg(FORMAT)
        .arg("id")
        .arg(&batch.id.0.as_bytes()[..])
        .arg("n")
        .arg(batch.events.count())
        .arg("t")
        .arg(batch.received_at.as_micros())
        .arg("p")
        .arg(partition.number())
        .arg("e")
        .arg(&batch.events.as_bytes()[..]);
    if !traceparents.is_empty() {
        let traceparents = traceparents[..traceparents.len().min(MAX_TRACEPARENTS)].join(",");
        command.arg("tp").arg(traceparents);
    }
}

/// Reads `[id, [field, value, ...]]`. None if it is not even that.
pub(crate) fn read(entry: Value) -> Option<Read> {
    let Value::Array(parts) = entry else {
        return None;
    };
    let mut parts = parts.into_iter();
    let id = text(parts.next()?)?;
    let fields = match parts.next()? {
        Value::Array(fields) => Fields(fields),
        Value::Nil => return Some(Read::Gone(EntryId { id, events: 0 })),
        _ => return None,
    };
    Some(fields.read(id))
}

struct Fields(Vec<Value>);

impl Fields {
    fn read(mut self, id: String) -> Read {
        let version: Option<u32> = self.number("v");
        if version.is_some_and(|version| version > u32::from(FORMAT)) {
            return Read::Later(id);
        }
        // What counts is what the append added to `in`.
        let count = self.number("n").unwrap_or(1);
        let batch_id = self
            .take("id")
            .and_then(|id| Uuid::from_slice(&id).ok().map(BatchId))
            // The same for every delivery, so that it is buried once.
            .unwrap_or_else(|| BatchId::derived(id.as_bytes()));
        let received_at = self
            .number("t")
            .and_then(Timestamp::from_micros)
            .or_else(|| added_at(&id))
            .unwrap_or(Timestamp::MIN);
        let partition = Partition::from_number(self.number("p").unwrap_or_default());
        // Without its events it can't be decoded, and the store buries it as it is.
        let events = self.take("e").unwrap_or_default();
        let traceparents = self.take("tp").and_then(|tp| String::from_utf8(tp).ok());
        let traceparents = traceparents.unwrap_or_default();
        let traceparents = traceparents.split(',').filter(|one| !one.is_empty());
        Read::Delivery(Delivery {
            entry: EntryId {
                id,
                events: u64::from(count),
            },
            batch: Batch {
                id: batch_id,
                received_at,
                events: EncodedEvents::from_parts(events.into(), count),
            },
            partition,
            traceparents: traceparents
                .take(MAX_TRACEPARENTS)
                .map(str::to_owned)
                .collect(),
        })
    }

    /// The value of a field, without a copy.
    fn take(&mut self, name: &str) -> Option<Vec<u8>> {
        let is_name =
            |value: &Value| matches!(value, Value::BulkString(text) if text == name.as_bytes());
        let at = self.0.iter().step_by(2).position(is_name)? * 2 + 1;
        match std::mem::take(self.0.get_mut(at)?) {
            Value::BulkString(value) => Some(value),
            _ => None,
        }
    }

    fn number<T: std::str::FromStr>(&mut self, name: &str) -> Option<T> {
        String::from_utf8(self.take(name)?).ok()?.parse().ok()
    }
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes).ok(),
        _ => None,
    }
}

/// The time in an entry's id, by Redis's clock.
fn added_at(id: &str) -> Option<Timestamp> {
    let (millis, _) = id.split_once('-')?;
    Timestamp::from_micros(millis.parse::<i64>().ok()?.checked_mul(1_000)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(fields: &[(&str, &str)]) -> Value {
        let bulk = |bytes: &[u8]| Value::BulkString(bytes.to_vec());
        let fields = fields
            .iter()
            .flat_map(|(name, value)| [bulk(name.as_bytes()), bulk(value.as_bytes())])
            .collect();
        Value::Array(vec![bulk(b"1700000000000-3"), Value::Array(fields)])
    }

    fn delivery(value: Value) -> Delivery {
        match read(value) {
            Some(Read::Delivery(delivery)) => delivery,
            other => panic!("{other:?}"),
        }
    }

    /// The names and values in turn.
    fn written(outgoing: &Outgoing) -> Vec<Vec<u8>> {
        let mut command = Cmd::new();
        write(&mut command, outgoing);
        let arguments = command.args_iter().map(|argument| match argument {
            redis::Arg::Simple(bytes) => bytes.to_vec(),
            _ => panic!("an argument of another kind"),
        });
        arguments.collect()
    }

    #[test]
    fn what_is_written_is_read() {
        let outgoing = Outgoing {
            batch: Batch {
                id: BatchId(Uuid::from_u128(7)),
                received_at: Timestamp::from_micros(5).unwrap(),
                events: EncodedEvents::from_parts(vec![1, 2].into(), 3),
            },
            partition: Partition::from_number(3),
            traceparents: vec!["00-1-2-01".into(), "00-3-4-01".into()],
        };
        let values = written(&outgoing).into_iter().map(Value::BulkString);
        let id = Value::BulkString(b"1-1".to_vec());
        let read = delivery(Value::Array(vec![id, Value::Array(values.collect())]));
        assert_eq!(read.batch.id, outgoing.batch.id);
        assert_eq!(read.batch.received_at, outgoing.batch.received_at);
        assert_eq!(read.batch.events, outgoing.batch.events);
        assert_eq!(read.partition, outgoing.partition);
        assert_eq!(read.traceparents, outgoing.traceparents);
        assert_eq!(read.entry.events, 3);
    }

    /// In a roll-out, releases read each other's entries.
    #[test]
    fn an_entry_is_read_and_written_as_by_every_release_before() {
        let two = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/entry/two");
        let two = std::fs::read(two).unwrap();
        let read = delivery(properties::entry(&two));
        let batch = read.batch;
        assert_eq!(
            batch.id.0.as_u128(),
            0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10
        );
        assert_eq!(read.entry.events, 2);
        assert_eq!(batch.received_at.as_micros(), 1_769_860_800_000_000);
        assert_eq!(read.partition.number(), 3);
        let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(read.traceparents, [traceparent]);
        let events = batch.events.decode().unwrap();
        let texts: Vec<_> = events
            .iter()
            .map(|event| (event.event_id.as_str(), event.payload.as_str()))
            .collect();
        assert_eq!(texts, [("a-1", r#"{"n":1}"#), ("a-2", "{}")]);
        let outgoing = Outgoing {
            batch,
            partition: read.partition,
            traceparents: read.traceparents,
        };
        assert_eq!(written(&outgoing).join(&properties::BETWEEN), two);
    }

    #[test]
    fn what_is_to_hold_does_of_what_fuzzing_has_met() {
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/entry");
        let mut met = 0;
        for entry in std::fs::read_dir(corpus).unwrap() {
            properties::hold_of(&std::fs::read(entry.unwrap().path()).unwrap());
            met += 1;
        }
        assert!(met > 0, "the corpus is empty");
    }

    #[test]
    fn an_entry_of_a_later_version_is_not_read() {
        let later = entry(&[("v", "2"), ("whatever", "it holds")]);
        assert!(matches!(read(later), Some(Read::Later(id)) if id == "1700000000000-3"));
    }

    #[test]
    fn a_garbled_entry_is_one_batch_with_one_identity_that_does_not_decode() {
        for fields in [
            &[][..],
            &[("x", "y")],
            &[("v", "1"), ("id", "short"), ("n", "many"), ("t", "-")],
        ] {
            let (one, again) = (delivery(entry(fields)), delivery(entry(fields)));
            assert_eq!(one.batch.id, again.batch.id);
            // Not even to the release before or after is it another.
            let id = one.batch.id.0.as_u128();
            assert_eq!(id, 0xe6ef_8f4d_ee8d_8fee_9522_e2c0_6fa2_e7db);
            assert_eq!(one.entry.events, 1);
            assert_eq!(one.batch.received_at.as_micros(), 1_700_000_000_000_000);
            assert!(one.batch.events.decode().is_err());
        }
        let counted = delivery(entry(&[("v", "1"), ("n", "9")]));
        assert_eq!(counted.entry.events, 9);
        let gone = Value::Array(vec![Value::BulkString(b"1-1".to_vec()), Value::Nil]);
        assert!(matches!(read(gone), Some(Read::Gone(_))));
        assert!(read(Value::Nil).is_none());
    }
}
