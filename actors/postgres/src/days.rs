//! The day a claim is filed under.
//!
//! Claims are cut by day, and a look-up in every day of a week costs one index descent per id and day. A version 7 id says when it was
//! made, so the rule is: *a claim's day is never before the day inside its id*. Whoever looks an id up may then leave out all earlier
//! days, and that holds whatever the clocks of producers say: an id from the future is filed under its future day (or under
//! `infinity`, in the default table, if that day has no table yet). No clock of a node is involved. Ids of
//! other versions say nothing and are looked up in all days.

use uuid::Uuid;

const DAY_MS: u64 = 86_400_000;

/// Days since 1970-01-01 in the id itself; `None` for other versions than 7.
pub(crate) fn made_on(id: &Uuid) -> Option<i32> {
    if id.get_version_num() != 7 {
        return None;
    }
    let bytes = id.as_bytes();
    let ms = bytes[..6].iter().fold(0_u64, |ms, byte| ms << 8 | u64::from(*byte));
    // 48 bits of milliseconds are 3.3 million days.
    i32::try_from(ms / DAY_MS).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_version_7_tells_its_day() {
        assert_eq!(made_on(&Uuid::nil()), None);
        assert_eq!(made_on(&Uuid::new_v4()), None);
        // 2026-11-22T21:30:00Z is day 20,779.
        let id = Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, 1_795_383_000, 0));
        assert_eq!(made_on(&id), Some(20_779));
        assert_eq!(made_on(&Uuid::from_u128(0xffff_ffff_ffff_7000_8000_0000_0000_0000)), Some(3_257_812));
    }
}
