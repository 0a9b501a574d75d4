//! The vocabulary of Sekali: what an event is, and why an input is not one.
//!
//! Everything that enters becomes one of these types at the door and cannot be
//! invalid afterwards; nothing behind the door takes a raw string or a JSON
//! value. The crate has no I/O, no clock, no randomness and no environment, and
//! it never panics, whatever bytes it is given.
//!
//! Read it in this order:
//!
//! 1. [`text`]: the three bounded names, [`Topic`], [`EventId`] and [`Source`].
//! 2. [`timestamp`] and [`payload`]: the two other fields.
//! 3. [`event`](mod@event): an [`Event`], its [`Key`] (what makes it the same event)
//!    and its [`Digest`] (what makes it a resend rather than a conflict).
//! 4. [`body`]: from the bytes of a request to events, or to [`Refusal`]s.
//! 5. [`batch`]: the one encoded form in which events travel and wait, and [`partition`]:
//!    which of them may meet.

pub mod batch;
pub mod body;
pub mod event;
pub mod partition;
pub mod payload;
pub mod text;
pub mod timestamp;

pub use batch::{Batch, BatchId, EncodedEvents};
pub use body::{Form, Parsed, Refusal};
pub use event::{Digest, Event, Key};
pub use partition::Partition;
pub use payload::Payload;
pub use text::{EventId, Source, Topic};
pub use timestamp::Timestamp;
