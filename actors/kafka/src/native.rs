//! The four things that rust-rdkafka's safe interface does not give.
//!
//! *Watermarks known locally*: its `fetch_watermarks` asks the broker and blocks. *The position of one
//! partition*: its `position` lists all that are assigned. *Where a batch that can't be decompressed begins*:
//! its errors carry no offset. *Headers of foreign records*: its iterator panics on a name that isn't UTF-8,
//! so that any producer could bring a reader down (I6). Invariant: nothing here outlives the call it is made
//! in. Deliberately absent: anything that changes state, but for what [`take_head`] throws away.
#![allow(unsafe_code)]

use std::{
    ffi::{CStr, CString, c_void},
    ptr,
};

use rdkafka::{
    Offset, TopicPartitionList,
    bindings::{
        RD_KAFKA_EVENT_ERROR, RD_KAFKA_EVENT_FETCH, rd_kafka_event_destroy, rd_kafka_event_error,
        rd_kafka_event_message_next, rd_kafka_event_topic_partition, rd_kafka_event_type,
        rd_kafka_get_watermark_offsets, rd_kafka_header_cnt, rd_kafka_header_get_all, rd_kafka_headers_t,
        rd_kafka_message_headers, rd_kafka_position, rd_kafka_queue_destroy, rd_kafka_queue_get_partition,
        rd_kafka_queue_poll, rd_kafka_topic_partition_destroy,
    },
    client::{Client, ClientContext},
    message::BorrowedMessage,
    types::RDKafkaRespErr,
};

/// The start and end offset of a partition as last heard in a fetch response. Does not block.
pub(crate) fn cached_watermarks<C: ClientContext>(
    client: &Client<C>,
    topic: &CStr,
    partition: i32,
) -> Option<(Option<u64>, Option<u64>)> {
    let (mut low, mut high) = (-1, -1);
    // SAFETY: the client lives as long as the borrow, the topic is a C string, and the results are written
    // before the call returns.
    let answer = unsafe {
        rd_kafka_get_watermark_offsets(client.native_ptr(), topic.as_ptr(), partition, &raw mut low, &raw mut high)
    };
    // Negative offsets are librdkafka's "unknown".
    (answer == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR).then(|| (u64::try_from(low).ok(), u64::try_from(high).ok()))
}

/// The offset behind the last record or transaction marker that was taken off the partition's queue; `None`
/// if there was none since its fetching began. Does not block.
pub(crate) fn position<C: ClientContext>(client: &Client<C>, topic: &str, partition: i32) -> Option<u64> {
    let mut list = TopicPartitionList::with_capacity(1);
    list.add_partition(topic, partition);
    // SAFETY: the client and the list live as long as the borrows, and nobody else has the list.
    let answer = unsafe { rd_kafka_position(client.native_ptr(), list.ptr()) };
    if answer != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
        return None;
    }
    match list.find_partition(topic, partition)?.offset() {
        Offset::Offset(offset) => u64::try_from(offset).ok(),
        _ => None,
    }
}

/// What lies first in a partition's queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Head {
    /// A record, at this offset.
    Record(u64),
    /// The error of a batch that can't be decompressed, and the batch's first offset.
    Compressed(u64),
    /// Something else.
    Other,
}

/// Takes what lies first in a partition's queue, and throws it away. Does not block.
pub(crate) fn take_head<C: ClientContext>(client: &Client<C>, topic: &CStr, partition: i32) -> Option<Head> {
    // SAFETY: the client lives as long as the borrow, and the topic is a C string. The queue, the event and
    // the place are references of our own, given back below; the message is the event's, and read before
    // that.
    unsafe {
        let queue = rd_kafka_queue_get_partition(client.native_ptr(), topic.as_ptr(), partition);
        if queue.is_null() {
            return None;
        }
        let event = rd_kafka_queue_poll(queue, 0);
        rd_kafka_queue_destroy(queue);
        if event.is_null() {
            return None;
        }
        let offset = |offset: i64| u64::try_from(offset).ok();
        let head = match rd_kafka_event_type(event) {
            RD_KAFKA_EVENT_FETCH => {
                rd_kafka_event_message_next(event).as_ref().and_then(|message| offset(message.offset)).map(Head::Record)
            }
            RD_KAFKA_EVENT_ERROR
                if rd_kafka_event_error(event) == RDKafkaRespErr::RD_KAFKA_RESP_ERR__BAD_COMPRESSION =>
            {
                let place = rd_kafka_event_topic_partition(event);
                let first = place.as_ref().and_then(|place| offset(place.offset)).map(Head::Compressed);
                if !place.is_null() {
                    rd_kafka_topic_partition_destroy(place);
                }
                first
            }
            _ => None,
        };
        rd_kafka_event_destroy(event);
        Some(head.unwrap_or(Head::Other))
    }
}

/// Raises a fatal error in `client`, as librdkafka's own tests do.
#[cfg(test)]
pub(crate) fn fail_for_good<C: ClientContext>(client: &Client<C>) {
    let code = RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
    // SAFETY: the client lives as long as the borrow, the reason is a C string and is copied.
    let raised = unsafe {
        rdkafka::bindings::rd_kafka_test_fatal_error(client.native_ptr(), code, c"raised by a test".as_ptr())
    };
    assert_eq!(raised, RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR);
}

/// A topic's name for C.
pub(crate) fn c_name(topic: &str) -> CString {
    CString::new(topic.replace('\0', "")).unwrap_or_default()
}

/// Calls `visit` with each header of `message`, in order: name and value as bytes.
pub(crate) fn each_header<'a>(message: &'a BorrowedMessage<'_>, mut visit: impl FnMut(&'a [u8], Option<&'a [u8]>)) {
    let mut headers: *mut rd_kafka_headers_t = ptr::null_mut();
    // SAFETY: the message is alive for 'a; librdkafka parses its headers once and owns the result, which
    // lives as long as the message. Anything but success (no headers, or bytes that don't parse) leaves
    // nothing to visit.
    if unsafe { rd_kafka_message_headers(message.ptr(), &raw mut headers) }
        != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR
        || headers.is_null()
    {
        return;
    }
    // SAFETY: `headers` was just returned for a message that is alive.
    let count = unsafe { rd_kafka_header_cnt(headers) };
    for index in 0..count {
        let (mut name, mut value, mut size) = (ptr::null(), ptr::null::<c_void>(), 0_usize);
        // SAFETY: as above; the index is in range, and the three results are written before the call returns.
        let answer = unsafe { rd_kafka_header_get_all(headers, index, &raw mut name, &raw mut value, &raw mut size) };
        if answer != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return;
        }
        // SAFETY: names are terminated by librdkafka; a value that isn't null has `size` bytes; both live as
        // long as the message.
        let (name, value) = unsafe {
            (
                CStr::from_ptr(name).to_bytes(),
                (!value.is_null()).then(|| std::slice::from_raw_parts(value.cast::<u8>(), size)),
            )
        };
        visit(name, value);
    }
}
