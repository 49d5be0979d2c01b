//! Answers to callers, compared with the published events (I1, I2): an answered command has its one event, at
//! the version that the answer named; a rejected one has none; a command with an unknown outcome has at most
//! one.
//!
//! Pure. Call it when the run has settled. Deliberately absent: the order of operations, which a
//! linearizability checker judges.

use std::collections::{BTreeSet, HashMap};

use uuid::Uuid;

use super::calls::{Call, Op, Outcome};
use crate::checkers::EventRecord;

/// Everything about `calls` that the events contradict, a line each.
pub fn check(calls: &[Call], events: &[EventRecord]) -> Vec<String> {
    let mut effects: HashMap<Uuid, BTreeSet<(&str, u64)>> = HashMap::new();
    for event in events {
        if let Some(cause) = event.causation {
            effects.entry(cause).or_default().insert((&event.key, event.sequence));
        }
    }
    let none = BTreeSet::new();
    let commands = calls.iter().filter(|call| call.op != Op::Get);
    let judged = commands.filter_map(|call| judge(call, effects.get(&call.request).unwrap_or(&none)));
    let wrong = calls.iter().filter_map(|call| match &call.outcome {
        Outcome::Wrong(what) => Some(format!("{:?} of order {}: {what}", call.op, call.order)),
        _ => None,
    });
    wrong.chain(judged).collect()
}

fn judge(call: &Call, effects: &BTreeSet<(&str, u64)>) -> Option<String> {
    let key = call.order.to_string();
    let is_right = match &call.outcome {
        Outcome::Seen(seen) => *effects == [(key.as_str(), seen.version)].into(),
        Outcome::Rejected(_) => effects.is_empty(),
        Outcome::Unknown(_) => effects.len() <= 1 && effects.iter().all(|(of, _)| *of == key),
        Outcome::Wrong(_) => true,
    };
    (!is_right).then(|| {
        format!("request {} of order {key} ended as {:?}, its events: {effects:?}", call.request, call.outcome)
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{checkers::News, faults::calls::Seen};

    fn call(outcome: Outcome) -> Call {
        Call {
            order: Uuid::from_u128(1),
            window: 0,
            caller: 0,
            request: Uuid::from_u128(2),
            op: Op::Cancel,
            invoked: Duration::ZERO,
            returned: None,
            outcome,
            node: 0,
            attempts: 1,
        }
    }

    fn event(key: u128, sequence: u64) -> EventRecord {
        EventRecord {
            partition: 0,
            offset: 0,
            time_ms: 0,
            key: Uuid::from_u128(key).to_string(),
            id: Uuid::from_u128(9),
            sequence,
            causation: Some(Uuid::from_u128(2)),
            digest: 0,
            news: News::Placed(0),
        }
    }

    fn seen(version: u64) -> Outcome {
        Outcome::Seen(Seen { version, status: "DRAFT".into(), lines: [].into() })
    }

    #[test]
    fn an_answer_has_its_one_event_at_its_version() {
        // The same event twice is a repeat of the relay.
        assert!(check(&[call(seen(3))], &[event(1, 3), event(1, 3)]).is_empty());
        for events in [&[][..], &[event(1, 4)], &[event(7, 3)], &[event(1, 3), event(1, 4)]] {
            assert_eq!(check(&[call(seen(3))], events).len(), 1, "{events:?}");
        }
    }

    #[test]
    fn a_rejection_has_none_and_what_is_unknown_at_most_one() {
        let rejected = || call(Outcome::Rejected("WRONG_STATE".into()));
        assert!(check(&[rejected()], &[]).is_empty());
        assert_eq!(check(&[rejected()], &[event(1, 3)]).len(), 1);
        let unknown = || call(Outcome::Unknown("Unavailable".into()));
        assert!(check(&[unknown()], &[]).is_empty() && check(&[unknown()], &[event(1, 3)]).is_empty());
        assert_eq!(check(&[unknown()], &[event(1, 3), event(1, 4)]).len(), 1);
        assert_eq!(check(&[call(Outcome::Wrong("?".into()))], &[]).len(), 1);
    }
}
