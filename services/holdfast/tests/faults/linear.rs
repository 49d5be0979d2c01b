//! Whether what callers saw of each order is linearizable (I5), by a known checker: `stateright`'s
//! `LinearizabilityTester`.
//!
//! The model of an order is a register of version, status and lines; every command that is applied raises the
//! version by one. Considered beside it, and not tried: porcupine, which is quicker on long histories but
//! would want Go on every machine that runs the tests. stateright's search keeps no memory of states that it
//! has seen, so a *refusal* takes exponential time in what overlaps: 3 callers with 20 operations each were
//! not refused within 10 s, with 10 each in 10 ms. So each order's history is cut where nothing of it was
//! under way, which the callers see to (their bursts). A window starts with the state in which the one before
//! it ended, which is the same in every order of its operations: each of them has an answer and names its
//! version. Operations whose outcome is unknown stay open; nothing is cut behind one.
//!
//! Invariant: what is not decided in time counts as refused. Deliberately absent: any knowledge of how orders
//! are kept.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::mpsc,
    time::{Duration, Instant},
};

use holdfast_load_tests::faults::calls::{Call, Op, Outcome, Seen};
use stateright::semantics::{ConsistencyTester as _, LinearizabilityTester, SequentialSpec};
use uuid::Uuid;

/// For one window.
const PATIENCE: Duration = Duration::from_secs(20);
/// The search goes one frame deeper with each operation.
const STACK_BYTES: usize = 64 << 20;

/// An order as the model has it; `None` before it is created.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Model(Option<Seen>);

/// What the model answers: the order, or the name of a rejection.
type Answer = Result<Seen, String>;

impl Model {
    fn draft(&mut self) -> Result<&mut Seen, String> {
        match &mut self.0 {
            None => Err("ORDER_NOT_FOUND".into()),
            Some(order) if order.status == "DRAFT" => Ok(order),
            Some(_) => Err("WRONG_STATE".into()),
        }
    }

    fn run(&mut self, op: &Op) -> Answer {
        match op {
            Op::Get => return self.0.clone().ok_or_else(|| "ORDER_NOT_FOUND".into()),
            Op::Create if self.0.is_some() => return Err("ORDER_ALREADY_EXISTS".into()),
            Op::Create => self.0 = Some(Seen { version: 0, status: "DRAFT".into(), lines: BTreeMap::new() }),
            Op::Add { sku, units } => *self.draft()?.lines.entry(sku.clone()).or_default() += units,
            Op::Remove { sku } => {
                self.draft()?.lines.remove(sku).ok_or("ITEM_NOT_IN_ORDER")?;
            }
            Op::Cancel => self.draft()?.status = "CANCELLED".into(),
        }
        let order = self.0.as_mut().ok_or("ORDER_NOT_FOUND")?;
        order.version += 1;
        Ok(order.clone())
    }
}

impl SequentialSpec for Model {
    type Op = Op;
    type Ret = Answer;

    fn invoke(&mut self, op: &Op) -> Answer {
        self.run(op)
    }
}

/// What was checked, and what was found.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Operations.
    pub operations: usize,
    /// Of those, commands whose outcome is unknown.
    pub unknown: usize,
    /// Orders.
    pub orders: usize,
    /// Windows.
    pub windows: usize,
    /// How long it took.
    pub took: Duration,
    /// Windows that no order of their operations explains, each with its operations.
    pub refused: Vec<String>,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { operations, unknown, orders, windows, took, refused } = self;
        write!(
            f,
            "{operations} operations ({unknown} with unknown outcome) on {orders} orders in {windows} windows: "
        )?;
        let took = took.as_secs_f64();
        match refused.len() {
            0 => write!(f, "linearizable, checked in {took:.1} s"),
            count => write!(f, "{count} windows are NOT linearizable, checked in {took:.1} s\n{}", refused.join("\n")),
        }
    }
}

/// Checks every order's history.
pub fn check(calls: &[Call]) -> Verdict {
    let began = Instant::now();
    let mut orders: BTreeMap<Uuid, BTreeMap<u32, Vec<&Call>>> = BTreeMap::new();
    for call in calls {
        orders.entry(call.order).or_default().entry(call.window).or_default().push(call);
    }
    let unknown = calls.iter().filter(|call| matches!(call.outcome, Outcome::Unknown(_))).count();
    let mut verdict = Verdict { operations: calls.len(), unknown, orders: orders.len(), ..Verdict::default() };
    for windows in orders.into_values() {
        let mut state = Model::default();
        for (number, window) in windows {
            verdict.windows += 1;
            match explain(state, &window) {
                Ok(after) => state = after,
                Err(why) => {
                    verdict.refused.push(report(number, &window, why));
                    // What follows can't be judged without a state to start from.
                    break;
                }
            }
        }
    }
    verdict.took = began.elapsed();
    verdict
}

/// The state after `window`, by some order of its operations that explains all answers.
fn explain(state: Model, window: &[&Call]) -> Result<Model, &'static str> {
    let mut moments: Vec<(Duration, bool, &Call)> = Vec::new();
    for call in window {
        moments.push((call.invoked, false, call));
        moments.extend(call.returned.map(|returned| (returned, true, *call)));
    }
    // What happens at one moment overlaps.
    moments.sort_by_key(|(at, is_return, _)| (*at, *is_return));
    let mut tester = LinearizabilityTester::new(state.clone());
    let mut threads: BTreeMap<u32, u32> = BTreeMap::new();
    for (_, is_return, call) in moments {
        // A caller whose operation stays open goes on as another.
        let incarnation = threads.entry(call.caller).or_default();
        let thread = (call.caller, *incarnation);
        let recorded = if is_return {
            tester.on_return(thread, answer(&call.outcome)).map(|_| ())
        } else {
            *incarnation += u32::from(call.returned.is_none());
            tester.on_invoke(thread, call.op.clone()).map(|_| ())
        };
        recorded.map_err(|_| "a caller had two operations under way")?;
    }
    let (done, found) = mpsc::channel();
    let search = move || {
        let _ = done.send(tester.serialized_history());
    };
    let spawned = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(search);
    spawned.map_err(|_| "no thread to search with")?;
    let order = found.recv_timeout(PATIENCE).map_err(|_| "not decided in time")?.ok_or("no order explains it")?;
    Ok(order.into_iter().fold(state, |mut state, (op, _)| {
        let _ = state.run(&op);
        state
    }))
}

fn answer(outcome: &Outcome) -> Answer {
    match outcome {
        Outcome::Seen(seen) => Ok(seen.clone()),
        Outcome::Rejected(reason) | Outcome::Unknown(reason) | Outcome::Wrong(reason) => Err(reason.clone()),
    }
}

/// A report of a window that no order of its operations explains, for people.
fn report(number: u32, window: &[&Call], why: &str) -> String {
    let order = window.first().map(|call| call.order).unwrap_or_default();
    let mut text = format!("order {order}, window {number}: {why}");
    let mut calls: Vec<&&Call> = window.iter().collect();
    calls.sort_by_key(|call| call.invoked);
    for call in calls {
        let until = call.returned.map_or("...".to_owned(), |at| format!("{:.3}", at.as_secs_f64()));
        let answered = match &call.outcome {
            Outcome::Seen(Seen { version, status, lines }) => format!("version {version} {status} {lines:?}"),
            other => format!("{other:?}"),
        };
        let _ = write!(
            text,
            "\n    {:.3} to {until} caller {} at node {}, {} attempts: {:?} -> {answered}",
            call.invoked.as_secs_f64(),
            call.caller,
            call.node + 1,
            call.attempts,
            call.op,
        );
    }
    text
}

pub mod laws {
    //! Histories made up by hand. Run by `main`, as this binary has no harness.

    use libtest_mimic::Failed;

    #[allow(clippy::wildcard_imports)]
    use super::*;

    struct History(Vec<Call>);

    impl History {
        fn with(mut self, caller: u32, (from, to): (u64, u64), op: Op, outcome: Outcome) -> Self {
            let is_open = matches!(outcome, Outcome::Unknown(_));
            self.0.push(Call {
                order: Uuid::nil(),
                window: 0,
                caller,
                request: Uuid::nil(),
                op,
                invoked: Duration::from_millis(from),
                returned: (!is_open).then(|| Duration::from_millis(to)),
                outcome,
                node: 0,
                attempts: 1,
            });
            self
        }

        fn is_accepted(&self) -> bool {
            check(&self.0).refused.is_empty()
        }
    }

    fn created() -> History {
        History(Vec::new()).with(0, (0, 1), Op::Create, seen(1, 0))
    }

    fn seen(version: u64, units: i64) -> Outcome {
        let lines = if units > 0 { [("a".to_owned(), units)].into() } else { BTreeMap::new() };
        Outcome::Seen(Seen { version, status: "DRAFT".into(), lines })
    }

    fn add(units: i64) -> Op {
        Op::Add { sku: "a".into(), units }
    }

    fn require(holds: bool, what: &str) -> Result<(), Failed> {
        if holds { Ok(()) } else { Err(what.into()) }
    }

    pub fn a_stale_read_is_refused_and_an_overlapping_one_is_not() -> Result<(), Failed> {
        let read = |from, to| created().with(0, (2, 5), add(7), seen(2, 7)).with(1, (from, to), Op::Get, seen(1, 0));
        require(read(4, 9).is_accepted(), "a read that began before the command's answer may see the state before it")?;
        require(!read(6, 9).is_accepted(), "a read that began after the command's answer saw the state before it")
    }

    pub fn a_lost_or_doubled_command_is_refused() -> Result<(), Failed> {
        let then = |version, units| {
            created().with(0, (2, 3), add(7), seen(2, 7)).with(0, (4, 5), Op::Get, seen(version, units))
        };
        require(then(2, 7).is_accepted(), "the state right after a command")?;
        require(!then(1, 0).is_accepted(), "an answered command was lost")?;
        require(!then(3, 14).is_accepted(), "a command happened twice")
    }

    pub fn what_is_unknown_may_happen_late_or_never_but_not_twice() -> Result<(), Failed> {
        let open = || created().with(0, (2, 0), add(7), Outcome::Unknown("?".into()));
        let late =
            |history: History| history.with(0, (10, 11), Op::Get, seen(1, 0)).with(0, (12, 13), Op::Get, seen(2, 7));
        require(open().with(1, (10, 11), Op::Get, seen(1, 0)).is_accepted(), "never")?;
        require(late(open()).is_accepted(), "late")?;
        require(!late(open()).with(1, (14, 15), Op::Get, seen(3, 14)).is_accepted(), "twice")?;
        require(!late(open()).with(1, (14, 15), Op::Get, seen(1, 0)).is_accepted(), "and back")
    }

    pub fn a_window_starts_where_the_one_before_it_ended() -> Result<(), Failed> {
        let next = |version, units| {
            let mut history = created().with(0, (2, 3), add(7), seen(2, 7));
            history = history.with(1, (10, 11), Op::Get, seen(version, units));
            if let Some(last) = history.0.last_mut() {
                last.window = 1;
            }
            history
        };
        require(next(2, 7).is_accepted(), "the state of the window before")?;
        require(!next(1, 0).is_accepted(), "an older state")
    }
}
