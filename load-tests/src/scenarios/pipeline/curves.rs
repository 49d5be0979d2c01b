//! What one turn looks like over time, and over the share of slower commands.
//!
//! Invariant: a step holds each event that was read within it, by the counter's own times. Deliberately
//! absent: the events themselves, of which a run has millions.

use crate::counter::Counted;

/// The shortest step that is kept; plots add some of them up.
const STEP_MS: u32 = 50;

/// Events in each step of [`STEP_MS`], from the first event on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steps(Vec<u32>);

impl Steps {
    /// Of events in the order in which they were read.
    pub(super) fn of(events: &[Counted]) -> Self {
        let Some(first) = events.first() else { return Self::default() };
        let mut steps = Vec::new();
        for event in events {
            let step = event.at_us.saturating_sub(first.at_us) / (u64::from(STEP_MS) * 1_000);
            let step = usize::try_from(step).unwrap_or(usize::MAX);
            // A clock that was set forward by an hour is no reason to run out of memory.
            if step < 72_000 {
                steps.resize(steps.len().max(step + 1), 0);
                steps[step] += 1;
            }
        }
        Self(steps)
    }

    /// How long it took, in seconds.
    pub(super) fn seconds(&self) -> f64 {
        f64::from(u32::try_from(self.0.len()).unwrap_or(u32::MAX)) * f64::from(STEP_MS) / 1e3
    }

    /// Events a second, in the middle of each `width_ms`; without the last, which is not full.
    pub(super) fn rates(&self, width_ms: u32) -> Vec<(f64, f64)> {
        let width = (width_ms / STEP_MS).max(1);
        let seconds = f64::from(width * STEP_MS) / 1e3;
        let whole = self.0.chunks_exact(usize::try_from(width).unwrap_or(1));
        let rate = |(at, steps): (u32, &[u32])| {
            ((f64::from(at) + 0.5) * seconds, f64::from(steps.iter().sum::<u32>()) / seconds)
        };
        (0..).zip(whole).map(rate).collect()
    }
}

/// The curves of one turn.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curves {
    /// While the two loads that lay in the topic were drained.
    pub(super) drain: Steps,
    /// While the producer ran.
    pub(super) live: Steps,
    /// At each of the fixed rates: how many are there to one that is slower, and its time in ms.
    pub(super) latencies: Vec<Vec<(f64, f64)>>,
}

/// The median, point by point, of curves over the same x; as long as the shortest.
pub(super) fn between(curves: &[&[(f64, f64)]], median: impl Fn(Vec<f64>) -> f64) -> Vec<(f64, f64)> {
    let shortest = curves.iter().map(|curve| curve.len()).min().unwrap_or(0);
    (0..shortest).map(|at| (curves[0][at].0, median(curves.iter().map(|curve| curve[at].1).collect()))).collect()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn events(ms: &[u64]) -> Vec<Counted> {
        ms.iter().map(|ms| Counted { cause: Uuid::nil(), at_us: 7_000_000 + ms * 1_000 }).collect()
    }

    #[test]
    fn rates_are_counted_from_the_first_event() {
        let steps = Steps::of(&events(&[0, 49, 50, 99, 100, 149, 150, 199, 260, 7_200_000]));
        let rates = |width_ms| -> Vec<(f64, f64)> {
            steps.rates(width_ms).into_iter().map(|(at, rate)| ((at * 1e3).round(), rate.round())).collect()
        };
        let fine = [(25.0, 40.0), (75.0, 40.0), (125.0, 40.0), (175.0, 40.0), (225.0, 0.0), (275.0, 20.0)];
        assert_eq!(rates(50), fine);
        assert_eq!(rates(100), [(50.0, 40.0), (150.0, 40.0), (250.0, 10.0)]);
        assert_eq!(steps.rates(250).len(), 1, "the last is not full");
        assert_eq!((Steps::of(&[]).rates(50), Steps::of(&[]).seconds()), (vec![], 0.0));
    }

    #[test]
    fn curve_between_others_is_as_long_as_the_shortest() {
        let (a, b) = ([(1.0, 3.0), (10.0, 5.0)], [(1.0, 4.0)]);
        let max = |values: Vec<f64>| values.into_iter().fold(0.0, f64::max);
        assert_eq!(between(&[&a, &b], max), [(1.0, 4.0)]);
        assert_eq!(between(&[], max), []);
    }
}
