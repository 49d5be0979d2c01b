//! What a context declares of its types' origins, compared with what its test says: each type by each way in
//! which a message may come.
//!
//! Invariant: a type passes if every arrival that the test lists for it is admitted, and every other one
//! refused. Deliberately absent: decoding.

use std::collections::BTreeSet;

use holdfast_core::{
    disposition::DeadLetterReason,
    origin::{Arrival, Handled},
};

/// Ways that no context may declare.
const STRANGE: [Arrival<'static>; 5] = [
    Arrival::Webhook("strange/webhook"),
    Arrival::Events { topic: "strange.events", source: "holdfast/strange/kind" },
    Arrival::Events { topic: "orders.events", source: "stranger" },
    Arrival::Timer("strange"),
    Arrival::Effect("strange"),
];

/// Checks that `handled` are exactly the types of `expected`, each taken by the arrivals beside it and by no
/// other of all those named here.
///
/// # Panics
/// If that is not so.
#[track_caller]
pub fn assert_origins(handled: &[Handled], expected: &[(&str, &[Arrival<'_>])]) {
    let declared: BTreeSet<&str> = handled.iter().map(|handled| handled.r#type).collect();
    let wanted: BTreeSet<&str> = expected.iter().map(|(name, _)| *name).collect();
    assert_eq!(declared, wanted, "the declared types");
    let named = expected.iter().flat_map(|(_, arrivals)| arrivals.iter());
    let always = [Arrival::Commands, Arrival::Sent, Arrival::Call];
    let all: Vec<Arrival<'_>> = named.chain(&always).chain(&STRANGE).copied().collect();
    for (name, arrivals) in expected {
        let handled = handled.iter().find(|handled| handled.r#type == *name).expect("compared above");
        for arrival in &all {
            let answer = handled.check(arrival).map_err(|refused| refused.reason);
            let right = if arrivals.contains(arrival) { Ok(()) } else { Err(DeadLetterReason::UnknownType) };
            assert_eq!(answer, right, "{name} by {arrival:?}");
        }
    }
}
