//! Whatever comes in whatever order, however often: the money adds up.

mod given;

use std::collections::{BTreeMap, BTreeSet};

use given::{REFERENCE, handle, rate, reported, reserved, usd};
use holdfast_money::Money;
use holdfast_payments_domain::{Call, Command, EffectChange, Event, News, Outcome, Payment, Quote, Status};
use proptest::prelude::*;

/// A provider that keeps a call from happening twice by its name, as the real ones do by their keys.
#[derive(Default)]
struct Provider {
    answers: BTreeMap<String, Command>,
    held: bool,
    captured: i64,
    refunded: i64,
    declines: bool,
    refuses: BTreeSet<u32>,
}

impl Provider {
    fn perform(&mut self, name: &str, call: &Call) -> (Command, Vec<News>) {
        if let Some(answer) = self.answers.get(name) {
            return (answer.clone(), Vec::new());
        }
        let quote = Quote::Rate(rate());
        let success = |outcome| Command::ChargeSucceeded { reference: REFERENCE.into(), outcome };
        let (answer, news) = match call {
            Call::Charge { .. } if self.declines => {
                let code = "card_declined";
                (Command::ChargeDeclined { code: code.into() }, vec![News::Failed { code: code.into() }])
            }
            Call::Charge { amount, authorize_first: false, .. } => {
                self.captured = amount.minor;
                (success(Outcome::Captured { rate: rate() }), vec![News::Captured { amount: *amount, quote }])
            }
            Call::Charge { amount, .. } => {
                self.held = true;
                (success(Outcome::Authorized), vec![News::Authorized { amount: Some(*amount) }])
            }
            Call::Capture { .. } if self.held => {
                self.held = false;
                self.captured = AMOUNT;
                (
                    Command::CaptureSucceeded { amount: usd(AMOUNT), rate: rate() },
                    vec![News::Captured { amount: usd(AMOUNT), quote }],
                )
            }
            Call::Void { .. } if self.captured > 0 => (success(Outcome::Captured { rate: rate() }), Vec::new()),
            Call::Capture { .. } | Call::Void { .. } => {
                self.held = false;
                (Command::AuthorizationEnded, vec![News::Canceled])
            }
            Call::Refund { number, .. } if self.refuses.remove(number) => {
                (Command::RefundRefused { number: *number, code: "no".into() }, Vec::new())
            }
            Call::Refund { number, amount, .. } => {
                self.refunded += amount.minor;
                (
                    Command::RefundSucceeded { number: *number, reference: "re_1".into() },
                    vec![News::Refunded { total: usd(self.refunded) }],
                )
            }
        };
        self.answers.insert(name.to_owned(), answer.clone());
        (answer, news)
    }
}

const AMOUNT: i64 = 1_003;

#[derive(Default)]
struct World {
    payment: Payment,
    events: Vec<Event>,
    provider: Provider,
    under_way: BTreeMap<String, Call>,
    ever: BTreeSet<String>,
    /// Messages that have not arrived, with the effect that each is the answer of.
    on_their_way: Vec<(Command, Option<String>)>,
}

impl World {
    fn deliver(&mut self, command: &Command, answers: Option<&str>) -> Result<(), TestCaseError> {
        let decided = handle(&mut self.payment, command);
        if !matches!(command, Command::RefundPayment { .. }) {
            prop_assert!(decided.is_ok(), "{command:?}: {decided:?}");
        }
        for event in decided.unwrap_or_default() {
            for change in event.effects() {
                match change {
                    EffectChange::Begin { name, call } => {
                        prop_assert!(self.ever.insert(name.to_string()), "{name} is used again");
                        self.under_way.insert(name.into_owned(), call);
                    }
                    EffectChange::End { name } => {
                        self.under_way.remove(&*name);
                    }
                }
            }
            self.events.push(event);
        }
        if let Some(name) = answers {
            prop_assert!(!self.under_way.contains_key(name), "{name} goes on after its answer {command:?}");
        }
        self.check()
    }

    fn check(&self) -> Result<(), TestCaseError> {
        prop_assert!(self.provider.refunded <= self.provider.captured);
        let Some(details) = self.payment.details() else { return Ok(()) };
        prop_assert!(details.contradiction.is_none(), "a truthful provider never stops a payment");
        let refunded = details.refunded().map_or(0, |money| money.minor);
        let on_its_way: i64 = details.refunds.iter().filter(|r| r.is_pending()).map(|r| r.amount.minor).sum();
        prop_assert!(refunded + on_its_way <= AMOUNT);
        prop_assert!(refunded <= self.provider.refunded);
        Ok(())
    }

    /// Does one of the things that can happen next: a message arrives, arrives and stays (to come again), or
    /// a call is made, whose answer may be lost.
    fn step(&mut self, dice: u32) -> Result<(), TestCaseError> {
        let what = dice as usize / 4 % (self.on_their_way.len() + self.under_way.len()).max(1);
        if what < self.on_their_way.len() {
            let (command, answers) = if dice.is_multiple_of(4) {
                self.on_their_way[what].clone()
            } else {
                self.on_their_way.swap_remove(what)
            };
            self.deliver(&command, answers.as_deref())
        } else {
            let next = self.under_way.iter().nth(what - self.on_their_way.len());
            let Some((name, call)) = next.map(|(name, call)| (name.clone(), call.clone())) else { return Ok(()) };
            let (answer, news) = self.provider.perform(&name, &call);
            if !dice.is_multiple_of(4) {
                self.on_their_way.push((answer, Some(name)));
            }
            self.on_their_way.extend(news.into_iter().map(|news| (reported(news), None)));
            Ok(())
        }
    }

    /// Until nothing is left to happen.
    fn settle(&mut self, mut seed: u32) -> Result<(), TestCaseError> {
        for _ in 0..2_000 {
            if self.on_their_way.is_empty() && self.under_way.is_empty() {
                return Ok(());
            }
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // Never a loss, never a repeat: everything ends.
            self.step((seed >> 8) | 1)?;
        }
        Err(TestCaseError::fail("it never ends"))
    }
}

#[derive(Clone, Debug)]
struct Plan {
    authorize_first: bool,
    declines: bool,
    cancels: bool,
    refunds: Vec<i64>,
    refuses: BTreeSet<u32>,
    dice: Vec<u32>,
    seed: u32,
}

fn plan() -> impl Strategy<Value = Plan> {
    let refuses = proptest::collection::btree_set(1_u32..4, 0..3);
    let dice = proptest::collection::vec(any::<u32>(), 0..60);
    let refunds = proptest::collection::vec(1_i64..600, 0..4);
    (any::<bool>(), proptest::bool::weighted(0.2), any::<bool>(), refunds, refuses, dice, any::<u32>()).prop_map(
        |(authorize_first, declines, cancels, refunds, refuses, dice, seed)| Plan {
            authorize_first,
            declines,
            cancels,
            refunds,
            refuses,
            dice,
            seed,
        },
    )
}

fn run(plan: &Plan) -> Result<World, TestCaseError> {
    let mut world = World::default();
    world.provider.declines = plan.declines;
    world.provider.refuses.clone_from(&plan.refuses);
    let asked = if plan.authorize_first { given::authorize(usd(AMOUNT)) } else { reserved(usd(AMOUNT)) };
    world.on_their_way.push((asked, None));
    if plan.cancels {
        world.on_their_way.push((Command::OrderCancelled, None));
    }
    for (at, minor) in plan.refunds.iter().enumerate() {
        world.on_their_way.push((given::refund(&at.to_string(), usd(*minor)), None));
    }
    for dice in &plan.dice {
        world.step(*dice)?;
    }
    world.settle(plan.seed)?;
    Ok(world)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, ..ProptestConfig::default() })]

    #[test]
    fn cancelled_order_keeps_no_money_and_refunds_nothing_twice(plan in plan()) {
        let world = run(&plan)?;
        let details = world.payment.details().expect("something happened");
        let (captured, refunded) = (world.provider.captured, world.provider.refunded);
        let known = details.refunded().map_or(0, |money| money.minor);
        prop_assert_eq!(known, refunded, "what the provider gave back is known");
        prop_assert_eq!(details.settlement.is_some(), captured > 0, "what the provider took is known");
        prop_assert!(!world.provider.held, "nothing stays on hold");
        // A provider that refuses the cancellation's own refund keeps the money until an operator looks at
        // it.
        let refused = details.refunds.iter().any(|refund| {
            !refund.is_done() && !matches!(refund.cause, holdfast_payments_domain::Cause::Requested { .. })
        });
        if plan.cancels && !refused {
            prop_assert_eq!(captured, refunded);
            if captured > 0 {
                prop_assert_eq!(&details.status, &Status::Refunded);
                prop_assert_eq!(details.settled_refunded(), details.settlement.map(|settlement| settlement.settled));
            }
        }
    }

    #[test]
    fn replay_equals_live(plan in plan()) {
        use holdfast_core::Aggregate as _;
        let world = run(&plan)?;
        let mut replayed = Payment::default();
        world.events.iter().for_each(|event| replayed.evolve(event));
        prop_assert_eq!(replayed, world.payment);
    }

    #[test]
    fn refunds_in_the_books_add_up_whatever_the_rate_and_the_parts(
        amount in 1_i64..=1_000_000, numerator in 1_i64..1_000_000, denominator in 1_i64..1_000_000, cuts in proptest::collection::vec(1_i64..100_000, 0..6),
    ) {
        let rate = given::rate_of(holdfast_money::Currency::USD, numerator, denominator);
        let asked = Command::OrderReserved { amount: usd(amount), payment_method: Some("pm".into()), authorize_first: false, quote: Quote::Rate(rate) };
        let captured = Command::ChargeSucceeded { reference: REFERENCE.into(), outcome: Outcome::Captured { rate } };
        let mut payment = given::given(&[asked, captured]);
        let mut number = 0;
        for cut in cuts {
            if handle(&mut payment, &given::refund(&cut.to_string(), usd(cut))).is_ok_and(|events| !events.is_empty()) {
                number += 1;
                handle(&mut payment, &given::returned(number)).expect("accepted");
            }
        }
        let events = handle(&mut payment, &Command::OrderCancelled).expect("accepted");
        if events.len() == 2 {
            handle(&mut payment, &given::returned(number + 1)).expect("accepted");
        }
        let details = payment.details().expect("exists");
        let zero = |money: Option<Money>| money.is_none_or(|money| !money.is_negative());
        prop_assert!(zero(details.settled_refunded()));
        prop_assert_eq!(details.refunded(), details.amount);
        prop_assert_eq!(details.settled_refunded(), details.settlement.map(|settlement| settlement.settled));
    }
}
