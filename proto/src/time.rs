//! Between `google.protobuf.Timestamp` and milliseconds since the Unix epoch, in which the domains count.
//!
//! Every representable millisecond survives the way there and back; finer fractions are cut towards the past.
//! Deliberately absent: clocks.

use crate::Timestamp;

/// From milliseconds since the Unix epoch.
#[expect(clippy::cast_possible_truncation, reason = "below a billion")]
pub const fn from_unix_ms(ms: i64) -> Timestamp {
    Timestamp { seconds: ms.div_euclid(1_000), nanos: (ms.rem_euclid(1_000) * 1_000_000) as i32 }
}

/// To milliseconds since the Unix epoch; `None` if the value is no valid timestamp or out of range.
pub fn to_unix_ms(timestamp: &Timestamp) -> Option<i64> {
    if !(0..1_000_000_000).contains(&timestamp.nanos) {
        return None;
    }
    timestamp.seconds.checked_mul(1_000)?.checked_add(i64::from(timestamp.nanos / 1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_survive_the_way_there_and_back() {
        for ms in [0, 1, -1, 999, -999, -1_000, 1_795_305_599_999, i64::MAX / 1_000 * 1_000] {
            assert_eq!(to_unix_ms(&from_unix_ms(ms)), Some(ms));
        }
    }

    #[test]
    fn what_is_no_timestamp_is_refused() {
        assert_eq!(to_unix_ms(&Timestamp { seconds: 0, nanos: -1 }), None);
        assert_eq!(to_unix_ms(&Timestamp { seconds: 0, nanos: 1_000_000_000 }), None);
        assert_eq!(to_unix_ms(&Timestamp { seconds: i64::MAX, nanos: 0 }), None);
    }
}
