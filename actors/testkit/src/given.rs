//! Given events, when a command, then what follows: tests of an aggregate's decisions, pure and without a
//! runtime.
//!
//! ```ignore
//! Given::<Order>::nothing()
//!     .event(Event::Created { .. })
//!     .when(Command::AddItem { .. })
//!     .then_events([Event::ItemAdded { .. }]);
//! ```
//!
//! A `then_*` that does not hold panics with a line-by-line difference. Each also applies the events, so that
//! `evolve` is exercised, and gives back the history for a next step. Deliberately absent: storage, clocks
//! (time is set by [`Given::at`]).

use std::fmt::{Debug, Write as _};

use holdfast_core::{Aggregate, Context, Decision, Effects, TimerChange, Timestamp, pool::PoolChange};

/// An aggregate with a history.
#[derive(Clone, Debug)]
pub struct Given<A> {
    state: A,
    version: u64,
    key: String,
    now: Timestamp,
}

impl<A: Aggregate> Given<A> {
    /// Nothing has happened to it.
    pub fn nothing() -> Self {
        let now = Timestamp::from_unix_ms(1_767_225_600_000);
        Self { state: A::default(), version: 0, key: "00000000-0000-7000-8000-000000000001".into(), now }
    }

    /// Under this key.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = key.into();
        self
    }

    /// At this time, from here on.
    #[must_use]
    pub fn at(mut self, now: Timestamp) -> Self {
        self.now = now;
        self
    }

    /// This has happened.
    #[must_use]
    pub fn event(mut self, event: A::Event) -> Self {
        self.state.evolve(&event);
        self.version += 1;
        self
    }

    /// These have happened, in this order.
    #[must_use]
    pub fn events(self, events: impl IntoIterator<Item = A::Event>) -> Self {
        events.into_iter().fold(self, Self::event)
    }

    /// The state that all this has led to.
    pub fn state(&self) -> &A {
        &self.state
    }

    /// The number of events so far.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// It is asked to.
    #[must_use = "say what follows with a `then_*`"]
    pub fn when(self, command: A::Command) -> When<A> {
        let context = Context { key: &self.key, version: self.version, now: self.now };
        let outcome = self.state.decide(&command, &context);
        When { given: self, outcome }
    }
}

/// What was decided.
pub struct When<A: Aggregate> {
    given: Given<A>,
    outcome: Result<Decision<A>, A::Rejection>,
}

/// What is said of the outcome: a form of [`Decision`] that can be compared and shown.
#[derive(Debug, PartialEq, Eq)]
enum Outcome<'a, E, R> {
    Done(&'a Effects<E>),
    Conditional { wants: &'a [PoolChange], granted: &'a Effects<E>, refused: Result<&'a Effects<E>, &'a R> },
    Rejected(&'a R),
    Unprepared,
}

/// `Effects` with events and no timers, or with them.
fn effects<E>(events: impl IntoIterator<Item = E>, timers: Vec<TimerChange>) -> Effects<E> {
    Effects { events: events.into_iter().collect(), timers }
}

impl<A> When<A>
where
    A: Aggregate,
    A::Event: Debug + PartialEq,
    A::Rejection: Debug + PartialEq,
{
    /// These events happen, in this order; no timer is touched.
    #[track_caller]
    pub fn then_events(self, events: impl IntoIterator<Item = A::Event>) -> Given<A> {
        self.then(effects(events, Vec::new()))
    }

    /// This happens: events and timers.
    #[track_caller]
    pub fn then(self, expected: Effects<A::Event>) -> Given<A> {
        self.expect(&Outcome::Done(&expected));
        self.given.events(expected.events)
    }

    /// It is accepted and has no effect.
    #[track_caller]
    pub fn then_nothing(self) -> Given<A> {
        self.then(Effects::none())
    }

    /// It is rejected.
    #[track_caller]
    pub fn then_rejected(self, rejection: A::Rejection) -> Given<A> {
        self.expect(&Outcome::Rejected(&rejection));
        self.given
    }

    /// It depends on shared quantities. Goes on with [`Conditional::if_granted`] or
    /// [`Conditional::if_refused`].
    #[track_caller]
    pub fn then_conditional(
        self,
        wants: impl IntoIterator<Item = PoolChange>,
        granted: Effects<A::Event>,
        refused: Result<Effects<A::Event>, A::Rejection>,
    ) -> Conditional<A> {
        let wants: Vec<PoolChange> = wants.into_iter().collect();
        self.expect(&Outcome::Conditional { wants: &wants, granted: &granted, refused: refused.as_ref() });
        Conditional { given: self.given, granted, refused }
    }

    /// It lacks a look-up.
    #[track_caller]
    pub fn then_unprepared(self) {
        self.expect(&Outcome::Unprepared);
    }

    #[track_caller]
    fn expect(&self, expected: &Outcome<'_, A::Event, A::Rejection>) {
        let actual = match &self.outcome {
            Ok(Decision::Done(effects)) => Outcome::Done(effects),
            Ok(Decision::Conditional { wants, granted, refused }) => {
                Outcome::Conditional { wants, granted, refused: refused.as_ref() }
            }
            Ok(Decision::Unprepared(_)) => Outcome::Unprepared,
            Err(rejection) => Outcome::Rejected(rejection),
        };
        assert!(
            *expected == actual,
            "it was decided otherwise (- expected, + decided):\n{}",
            difference(&format!("{expected:#?}"), &format!("{actual:#?}"))
        );
    }
}

/// A decision that was as expected and still depends on a grant.
#[derive(Debug)]
#[must_use = "go on with if_granted or if_refused, or drop it on purpose"]
pub struct Conditional<A: Aggregate> {
    given: Given<A>,
    granted: Effects<A::Event>,
    refused: Result<Effects<A::Event>, A::Rejection>,
}

impl<A: Aggregate> Conditional<A> {
    /// Goes on as if the whole were granted.
    pub fn if_granted(self) -> Given<A> {
        self.given.events(self.granted.events)
    }

    /// Goes on as if it were refused.
    pub fn if_refused(self) -> Given<A> {
        match self.refused {
            Ok(effects) => self.given.events(effects.events),
            Err(_) => self.given,
        }
    }
}

/// The lines of both texts, marked `-` where only in the first and `+` where only in the second (longest
/// common subsequence).
fn difference(first: &str, second: &str) -> String {
    let (a, b): (Vec<&str>, Vec<&str>) = (first.lines().collect(), second.lines().collect());
    let mut common = vec![vec![0_usize; b.len() + 1]; a.len() + 1];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            common[i][j] = if a[i] == b[j] { common[i + 1][j + 1] + 1 } else { common[i + 1][j].max(common[i][j + 1]) };
        }
    }
    let (mut i, mut j, mut out) = (0, 0, String::new());
    while i < a.len() || j < b.len() {
        let (mark, line) = if i < a.len() && j < b.len() && a[i] == b[j] {
            (i, j) = (i + 1, j + 1);
            (' ', a[i - 1])
        } else if j == b.len() || (i < a.len() && common[i + 1][j] >= common[i][j + 1]) {
            i += 1;
            ('-', a[i - 1])
        } else {
            j += 1;
            ('+', b[j - 1])
        };
        // Writing to a string can't fail.
        let _ = writeln!(out, "{mark} {line}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[derive(Clone, Debug, Default, PartialEq)]
    struct Account {
        balance: i64,
    }

    #[derive(Debug, PartialEq)]
    enum Event {
        Paid(i64),
        Refused,
    }

    enum Command {
        Pay(i64),
        Draw(i64),
    }

    #[derive(Debug, PartialEq)]
    struct TooLittle;

    impl Aggregate for Account {
        const KIND: &'static str = "account";
        const SCHEMA: u32 = 1;
        type Command = Command;
        type Event = Event;
        type Rejection = TooLittle;

        fn decide(&self, command: &Command, _: &Context<'_>) -> Result<Decision<Self>, TooLittle> {
            match command {
                Command::Pay(0) => Ok(Decision::nothing()),
                Command::Pay(by) => {
                    let timer = Duration::from_secs(1);
                    Ok(Decision::Done(Effects::event(Event::Paid(*by)).with_timer("interest", timer)))
                }
                Command::Draw(by) if self.balance < *by => Err(TooLittle),
                Command::Draw(by) => Ok(Decision::Conditional {
                    wants: vec![PoolChange::hold("cash", *by)],
                    granted: Effects::event(Event::Paid(-by)),
                    refused: Ok(Effects::event(Event::Refused)),
                }),
            }
        }

        fn evolve(&mut self, event: &Event) {
            if let Event::Paid(by) = event {
                self.balance += by;
            }
        }
    }

    #[test]
    fn story_is_checked_step_by_step() {
        let rich = Given::<Account>::nothing()
            .when(Command::Draw(1))
            .then_rejected(TooLittle)
            .when(Command::Pay(0))
            .then_nothing()
            .when(Command::Pay(5))
            .then(Effects::event(Event::Paid(5)).with_timer("interest", Duration::from_secs(1)));
        let draw = || {
            let wants = [PoolChange::hold("cash", 3)];
            let refused = Ok(Effects::event(Event::Refused));
            rich.clone().when(Command::Draw(3)).then_conditional(wants, Effects::event(Event::Paid(-3)), refused)
        };
        assert_eq!((draw().if_granted().state().balance, draw().if_refused().state().balance), (2, 5));
        assert_eq!(draw().if_refused().version(), 2);
    }

    #[test]
    #[should_panic(expected = "-                 5,\n+                 7,")]
    fn a_difference_is_shown_line_by_line() {
        Given::<Account>::nothing()
            .when(Command::Pay(7))
            .then(Effects::event(Event::Paid(5)).with_timer("interest", Duration::from_secs(1)));
    }

    #[test]
    fn lines_that_both_have_are_not_marked() {
        assert_eq!(difference("a\nb\nc", "a\nx\nc\nd"), "  a\n- b\n+ x\n  c\n+ d\n");
    }
}
