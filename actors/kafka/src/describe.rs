//! A topic's id (KIP-516), which rust-rdkafka's admin interface does not give.
//!
//! Invariant: every object that librdkafka makes here is destroyed here, on every path, by the guard that
//! holds it; nothing outlives the call but the text of the id. Deliberately absent: everything else that a
//! description holds.
#![allow(unsafe_code)]

use std::{
    ffi::{CStr, c_char},
    time::{Duration, Instant},
};

use holdfast_core::port::log::LogError;
use rdkafka::{
    bindings::{self as native, rd_kafka_admin_op_t},
    client::{Client, ClientContext},
    types::RDKafkaRespErr,
};

use crate::native::c_name;

/// Destroys what it holds.
struct Guard<T>(*mut T, unsafe extern "C" fn(*mut T));

impl<T> Guard<T> {
    fn of(made: *mut T, destroy: unsafe extern "C" fn(*mut T)) -> Option<Self> {
        (!made.is_null()).then_some(Self(made, destroy))
    }
}

impl<T> Drop for Guard<T> {
    fn drop(&mut self) {
        // SAFETY: made by librdkafka, not null, and given to nobody else.
        unsafe { (self.1)(self.0) };
    }
}

/// The id of `topic`, asked of a broker now; `None` from brokers that have none (before 2.8). Blocks.
pub(crate) fn topic_id<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    timeout: Duration,
) -> Result<Option<String>, LogError> {
    let away = |why: &str| LogError::Unavailable(format!("the id of topic {topic}: {why}"));
    let none = || away("librdkafka made nothing to ask with");
    let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    let name = c_name(topic);
    let mut names = [name.as_ptr()];
    // SAFETY: the client lives as long as the borrow. Names are copied. What is made here is destroyed by its
    // guard, in reverse order, so that the event goes before its queue.
    let (queue, _topics, _options) = unsafe {
        let rk = client.native_ptr();
        let queue = Guard::of(native::rd_kafka_queue_new(rk), native::rd_kafka_queue_destroy).ok_or_else(none)?;
        let topics = native::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
        let topics = Guard::of(topics, native::rd_kafka_TopicCollection_destroy).ok_or_else(none)?;
        let options = native::rd_kafka_AdminOptions_new(rk, rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
        let options = Guard::of(options, native::rd_kafka_AdminOptions_destroy).ok_or_else(none)?;
        let mut words = [0 as c_char; 256];
        let set =
            native::rd_kafka_AdminOptions_set_request_timeout(options.0, timeout_ms, words.as_mut_ptr(), words.len());
        if set != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(none());
        }
        native::rd_kafka_DescribeTopics(rk, topics.0, options.0, queue.0);
        (queue, topics, options)
    };
    let until = Instant::now() + timeout;
    loop {
        let left = i32::try_from(until.saturating_duration_since(Instant::now()).as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the queue is alive; the event is destroyed by its guard.
        let event = unsafe { native::rd_kafka_queue_poll(queue.0, left.max(1)) };
        let Some(event) = Guard::of(event, native::rd_kafka_event_destroy) else {
            return Err(away("no answer in time"));
        };
        // SAFETY: the event is alive.
        if unsafe { native::rd_kafka_event_type(event.0) } == native::RD_KAFKA_EVENT_DESCRIBETOPICS_RESULT {
            return read(&event, topic);
        }
    }
}

fn read(event: &Guard<native::rd_kafka_event_t>, topic: &str) -> Result<Option<String>, LogError> {
    let away = |why: String| LogError::Unavailable(format!("the id of topic {topic}: {why}"));
    // SAFETY: the event is alive and is a result of DescribeTopics; all that is read from it lives as long as
    // it does, and texts are copied.
    unsafe {
        if native::rd_kafka_event_error(event.0) != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(away(text(native::rd_kafka_event_error_string(event.0))));
        }
        let result = native::rd_kafka_event_DescribeTopics_result(event.0);
        if result.is_null() {
            return Err(away("no result".to_owned()));
        }
        let mut count = 0;
        let topics = native::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        if topics.is_null() || count == 0 {
            return Err(LogError::NoSuchTopic(topic.to_owned()));
        }
        let described = *topics;
        let error = native::rd_kafka_TopicDescription_error(described);
        if !error.is_null() {
            return match native::rd_kafka_error_code(error) {
                RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(id(described)),
                RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART
                | RDKafkaRespErr::RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC
                | RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION => Err(LogError::NoSuchTopic(topic.to_owned())),
                _ => Err(away(text(native::rd_kafka_error_string(error)))),
            };
        }
        Ok(id(described))
    }
}

/// # Safety
/// `described` must be alive.
unsafe fn id(described: *const native::rd_kafka_TopicDescription_t) -> Option<String> {
    // SAFETY: the id lives as long as its description; its text is copied.
    unsafe {
        let id = native::rd_kafka_TopicDescription_topic_id(described);
        let is_none = id.is_null()
            || (native::rd_kafka_Uuid_most_significant_bits(id) == 0
                && native::rd_kafka_Uuid_least_significant_bits(id) == 0);
        if is_none { None } else { Some(text(native::rd_kafka_Uuid_base64str(id))) }
    }
}

/// # Safety
/// `words` must be null or a C string that is alive.
unsafe fn text(words: *const c_char) -> String {
    if words.is_null() {
        return "unknown".to_owned();
    }
    // SAFETY: as the caller promises.
    unsafe { CStr::from_ptr(words) }.to_string_lossy().into_owned()
}
