//! What holds of an entry, whatever stands in it: for the tests, and for the fuzz target
//! that looks for an entry of which it does not.

use event::EncodedEvents;
use redis::Value;

use super::{Read, read};

/// What divides names and values in the bytes: no name and no number contains it.
pub(super) const BETWEEN: u8 = 0xff;

/// An entry with these names and values in turn.
pub(super) fn entry(bytes: &[u8]) -> Value {
    let fields = bytes.split(|byte| *byte == BETWEEN);
    let fields = fields.map(|field| Value::BulkString(field.to_vec()));
    let id = Value::BulkString(b"1700000000000-3".to_vec());
    Value::Array(vec![id, Value::Array(fields.collect())])
}

/// Panics if something does not hold of such an entry.
pub fn hold_of(bytes: &[u8]) {
    let Some(Read::Delivery(delivery)) = read(entry(bytes)) else {
        return;
    };
    let Some(Read::Delivery(again)) = read(entry(bytes)) else {
        panic!("the second reading finds something else");
    };
    assert_eq!(delivery.batch.id, again.batch.id, "it would count twice");
    let batch = delivery.batch;
    assert_eq!(delivery.entry.events, u64::from(batch.events.count()));
    if let Ok(events) = batch.events.decode() {
        let encoded = EncodedEvents::of(&events);
        assert_eq!(encoded, batch.events, "an event is not what it was");
    }
}
