//! Kills the process again and again under load, and then accounts for every command.
//!
//! Upholds I1–I4, I7, I8 and I10 across crashes and pauses of two nodes on a real Kafka and a real Postgres,
//! and I9: each build that is broken on purpose must be found out.

mod chaos;
mod sabotage;

use libtest_mimic::Trial;

pub use self::sabotage::Sabotage;
use crate::run;

/// The sound build survives, and each broken one does not.
pub fn trials() -> Vec<Trial> {
    let sound = Trial::test("ten_kills_leave_every_command_with_exactly_one_effect", || run(chaos::survives()));
    let broken = Sabotage::BROKEN
        .map(|how| Trial::test(format!("a_build_with_{how}_is_found_out"), move || run(chaos::is_found_out(how))));
    std::iter::once(sound).chain(broken).collect()
}
