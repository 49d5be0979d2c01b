//! What the context's own topics take.
//!
//! Upholds I6 and I7 before a commit: a message whose event or sent message would not fit is a dead letter
//! itself, and a dead letter that would not fit is cut. The limits are read from the brokers, now and then.
//! Deliberately absent: a topic whose limit was lowered since; its records are refused by the broker and set
//! aside ([`crate::relay`]).

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use holdfast_core::{batch::OutboxDraft, door::BODY_BYTES_MAX, port::log::Log, size};

const READ_EVERY: Duration = Duration::from_secs(30);
/// While they are not known.
const FIRST_READ_EVERY: Duration = Duration::from_secs(1);

/// The largest record batch of each of the context's own topics.
pub(crate) struct Limits {
    events: Limit,
    commands: Limit,
    dead_letters: Limit,
}

struct Limit {
    topic: Arc<str>,
    bytes_max: AtomicUsize,
}

impl Limits {
    pub fn new(events: Arc<str>, commands: Arc<str>, dead_letters: Arc<str>) -> Self {
        let limit = |topic, bytes| Limit { topic, bytes_max: AtomicUsize::new(bytes) };
        Self {
            events: limit(events, size::TOPIC_BYTES_DEFAULT),
            commands: limit(commands, size::TOPIC_BYTES_DEFAULT),
            // Not cut without need: one that the topic does not take is set aside, whole.
            dead_letters: limit(dead_letters, size::CLIENT_BYTES_MAX),
        }
    }

    /// The largest dead letter that fits.
    pub fn dead_letter_max(&self) -> usize {
        self.dead_letters.bytes_max.load(Ordering::Acquire)
    }

    /// Why `draft`, an event or a sent message, would not be taken where it is sent, if so.
    pub fn oversize(&self, draft: &OutboxDraft) -> Option<String> {
        let limit = if draft.topic == self.events.topic { &self.events } else { &self.commands };
        let (bytes, max) = (size::of_draft(draft), limit.bytes_max.load(Ordering::Acquire));
        if bytes > max {
            return Some(format!("this causes a record of {bytes} bytes for {}, which takes {max}", draft.topic));
        }
        // Its readers refuse a larger body.
        let body = draft.value.as_ref().map_or(0, bytes::Bytes::len);
        (body > BODY_BYTES_MAX).then(|| {
            format!("this causes a body of {body} bytes for {}; at most {BODY_BYTES_MAX} are accepted", draft.topic)
        })
    }

    /// Reads the limits, for as long as it is polled.
    pub async fn watch(self: Arc<Self>, log: Arc<dyn Log>) {
        loop {
            let mut pause = READ_EVERY;
            for Limit { topic, bytes_max } in [&self.events, &self.commands, &self.dead_letters] {
                match log.bytes_max(topic).await {
                    Ok(bytes) => {
                        let bytes = bytes.map_or(usize::MAX, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
                        bytes_max.store(bytes.min(size::CLIENT_BYTES_MAX), Ordering::Release);
                    }
                    Err(error) => {
                        tracing::debug!(%topic, %error, "the limit of a topic could not be read");
                        pause = FIRST_READ_EVERY;
                    }
                }
            }
            tokio::time::sleep(pause).await;
        }
    }
}
