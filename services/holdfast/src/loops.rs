//! What the loops of a context mean for the probes.
//!
//! Invariant: a loop that waits for something outside the process never costs it its liveness, or an outage
//! would restart every replica; one that stands still by itself, or has ended, always does. Readiness looks
//! at lanes alone: a broker that is away stalls relays and readers, and must not stop reads. Deliberately
//! absent: finding stalls, which is the runtime's.

use holdfast_platform::health::Verdict;
use holdfast_runtime::Stalled;

/// Liveness by the stalled loops.
pub fn live(stalled: &[Stalled]) -> Verdict {
    verdict(stalled.iter().filter(|stalled| stalled.is_stuck()), "restart the process")
}

/// Readiness by the stalled loops.
pub fn ready(stalled: &[Stalled]) -> Verdict {
    verdict(stalled.iter().filter(|stalled| stalled.class == "lane"), "commands and first reads wait")
}

fn verdict<'a>(stalled: impl Iterator<Item = &'a Stalled>, consequence: &str) -> Verdict {
    let stalls: Vec<String> = stalled.map(ToString::to_string).collect();
    Verdict::when(stalls.is_empty(), format!("{}; {consequence}", stalls.join("; ")))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn stalled(class: &'static str, waits: bool) -> Stalled {
        let (name, since, doing) = ("0".to_owned(), Duration::from_secs(12), "the database".to_owned());
        Stalled { class, name, since, doing, waits }
    }

    #[test]
    fn outside_cause_leaves_process_live() {
        let all = [stalled("lane", true), stalled("relay", true)];
        assert_eq!(live(&all), Verdict::Ok);
        assert_eq!(ready(&all[1..]), Verdict::Ok, "a broker that is away stops no reads");
        let Verdict::Not(reason) = ready(&all) else { panic!("a stalled lane is not ready") };
        assert!(reason.contains("lane 0: waits for the database, no progress for 12 s"), "{reason}");
    }

    #[test]
    fn stuck_loop_ends_liveness_and_is_named() {
        let Verdict::Not(reason) = live(&[stalled("relay", true), stalled("reader", false)]) else {
            panic!("a stuck loop is not live")
        };
        assert!(reason.contains("reader 0") && !reason.contains("relay"), "{reason}");
        assert_eq!(live(&[]), Verdict::Ok);
    }
}
