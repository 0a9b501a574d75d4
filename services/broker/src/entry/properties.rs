//! What holds of an entry, whatever stands in it: for the tests, and for the fuzz target
//! that looks for an entry of which it does not.

use event::EncodedEvents;
use redis::Value;

use super::{Read, read};

/// What divides names and values in the bytes: no name and no number contains it.
const BETWEEN: u8 = 0xff;

/// Panics if something does not hold of an entry with these names and values in turn.
pub fn hold_of(bytes: &[u8]) {
    let entry = || {
        let fields = bytes.split(|byte| *byte == BETWEEN);
        let fields = fields.map(|field| Value::BulkString(field.to_vec()));
        let id = Value::BulkString(b"1700000000000-3".to_vec());
        Value::Array(vec![id, Value::Array(fields.collect())])
    };
    let Some(Read::Delivery(delivery)) = read(entry()) else {
        return;
    };
    let Some(Read::Delivery(again)) = read(entry()) else {
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
