//! The day a claim is filed under.
//!
//! Claims are cut by day, and a look-up in every day of a week costs one index descent per id and day. A
//! version 7 id says when it was made, so the rule is: *a claim's day is never before the day inside its id*.
//! A look-up leaves out all days before that one. Ids of other versions say nothing and are looked up in all
//! days.
//!
//! A claim is filed under today by the database's clock, or under tomorrow if its id says so. An id that says
//! a later day, up to the year 10889, must not outlive its time in a table of that day, nor may it be filed
//! under today, where a look-up would leave it out once that day has come. So it is filed under an *early*
//! day: the day of filing, moved behind every day that an id can say (SQL function `early`). Each look-up
//! finds early days, and a table of them goes like any other when the days on which its claims were filed are
//! past their retention.
//!
//! Filing and look-up agree for ever, because only filing reads a clock. Whatever the database's clock says
//! at that moment, before or after midnight, in any time zone, stepped back or ahead, today, tomorrow if the
//! id says tomorrow, and an early day are each no earlier than the id's day; and a look-up reads the id
//! alone. A clock that steps decides only which table a claim is in, hence when it is dropped.

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
        // The last one there is: the early days of 0006_retention.sql begin after it.
        assert_eq!(made_on(&Uuid::from_u128(0xffff_ffff_ffff_7000_8000_0000_0000_0000)), Some(3_257_812));
    }
}
