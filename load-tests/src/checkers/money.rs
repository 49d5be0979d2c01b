//! Money is conserved to the last unit (I2): what the provider has charged and kept is what delivered orders
//! cost, order by order and in all.
//!
//! Three sources that know nothing of one another are compared: orders' events (and its stored lines),
//! payments' events, and the provider's own books. Deliberately absent: exchange rates; the books' currency
//! is the orders' here.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use holdfast_proto::orders::v1::OrderState;
use prost::Message as _;

use super::{
    Account, Breach, ContextEvidence, News, Report, Till,
    history::History,
    provider::Charge,
    report::{Money, count},
    state::{Order, payment},
};

/// What the provider has of one order.
#[derive(Default)]
struct Drawer<'a> {
    taken: Vec<&'a Charge>,
    open: usize,
    back: i64,
}

/// What payments' events say of one order.
#[derive(Clone, Copy, Default)]
struct Booked {
    captured: i64,
    refunded: i64,
    contradicted: bool,
}

pub(super) fn check(
    account: &Account,
    stored: &ContextEvidence,
    orders: &History<'_>,
    payments: &History<'_>,
    report: &mut Report,
) {
    refunds(account, report);
    let mut drawers: HashMap<&str, Drawer<'_>> = HashMap::new();
    let mut money = Money { faults: account.faults.values().sum(), requests: account.requests, ..Money::default() };
    for charge in &account.charges {
        let drawer = drawers.entry(&charge.order_id).or_default();
        money.charges += 1;
        if charge.is_taken() {
            money.taken += 1;
            money.charged += charge.amount;
            money.refunded += charge.refunded;
            drawer.taken.push(charge);
            drawer.back += charge.refunded;
        }
        drawer.open += usize::from(charge.is_open());
    }
    money.kept = money.charged - money.refunded;
    let costs = costs(stored);
    let nothing = Drawer::default();
    let keys: BTreeSet<&str> =
        orders.keys("order").chain(payments.keys("payment")).chain(drawers.keys().copied()).collect();
    for key in keys {
        let drawer = drawers.get(key).unwrap_or(&nothing);
        let order = orders.get("order", key).map(Order::fold);
        let booked = payments.get("payment", key).map(|events| booked(events.values().map(|event| &event.news)));
        if let Some(events) = payments.get("payment", key) {
            count(&mut report.payments, payment(events));
        }
        for what in wrong(order.as_ref(), costs.get(key).copied(), drawer, booked.unwrap_or_default()) {
            report.breach(Breach::MoneyAdrift, key, what);
        }
        if let Some(order) = order.filter(|order| order.status == "DELIVERED") {
            money.delivered += order.total;
            money.charged_once += u64::from(drawer.taken.len() == 1);
        }
    }
    if money.kept != money.delivered {
        let what = format!("the provider keeps {}, delivered orders cost {}", money.kept, money.delivered);
        report.breach(Breach::MoneyAdrift, "in all", what);
    }
    report.money = Some(money);
}

/// Everything that is wrong about the money of one order.
fn wrong(order: Option<&Order<'_>>, cost: Option<i64>, drawer: &Drawer<'_>, booked: Booked) -> Vec<String> {
    let Some(order) = order else { return vec!["money for an order that is none".to_owned()] };
    let taken: i64 = drawer.taken.iter().map(|charge| charge.amount).sum();
    let (status, total, back) = (order.status, order.total, drawer.back);
    let mut wrong = Vec::new();
    let mut check = |is_right: bool, what: String| {
        if !is_right {
            wrong.push(format!("{status}: {what}"));
        }
    };
    let is_paid = matches!(status, "PAID" | "SHIPPED" | "DELIVERED");
    check(drawer.taken.len() <= 1, format!("charged {} times", drawer.taken.len()));
    check(drawer.open == 0, format!("{} authorizations neither taken nor let go", drawer.open));
    check(!is_paid || !drawer.taken.is_empty() || total == 0, "nothing was charged".to_owned());
    check(!is_paid || taken - back == total, format!("it costs {total}, the provider keeps {}", taken - back));
    check(is_paid || status == "PLACED" || taken == back, format!("{taken} taken, {back} given back"));
    check(status != "DRAFT" || drawer.taken.is_empty(), "a draft was charged".to_owned());
    check(!is_paid || order.paid == Some(total), format!("it costs {total}, it says that {:?} was paid", order.paid));
    check(booked.captured == taken, format!("payments tells of {} taken, the provider of {taken}", booked.captured));
    check(booked.refunded == back, format!("payments tells of {} given back, the provider of {back}", booked.refunded));
    check(!booked.contradicted, "the provider contradicted what was asked of it".to_owned());
    check(!is_paid || cost == Some(total), format!("its lines cost {cost:?}, {total} was to pay"));
    wrong
}

/// A charge's refunds add up to what it says.
fn refunds(account: &Account, report: &mut Report) {
    let mut back: BTreeMap<&str, i64> = BTreeMap::new();
    for refund in &account.refunds {
        *back.entry(&refund.charge).or_default() += refund.amount;
    }
    for charge in &account.charges {
        let sum = back.remove(charge.id.as_str()).unwrap_or(0);
        if sum != charge.refunded || sum > charge.amount {
            let what = format!("{}: {sum} in refunds, {} of {} given back", charge.id, charge.refunded, charge.amount);
            report.breach(Breach::MoneyAdrift, &charge.order_id, what);
        }
    }
    for (charge, sum) in back {
        report.breach(Breach::MoneyAdrift, charge, format!("{sum} given back of a charge that is none"));
    }
}

fn booked<'a>(news: impl Iterator<Item = &'a News>) -> Booked {
    news.fold(Booked::default(), |mut booked, news| {
        match news {
            News::Payment(Till::Captured(amount)) => booked.captured += amount,
            News::Payment(Till::Refunded(amount)) => booked.refunded += amount,
            News::Payment(Till::Contradicted) => booked.contradicted = true,
            _ => {}
        }
        booked
    })
}

/// What each order's stored lines cost.
fn costs(stored: &ContextEvidence) -> HashMap<&str, i64> {
    let rows = stored.aggregates.iter().filter(|row| row.kind == "order");
    let cost = |state: OrderState| state.lines.iter().map(|line| line.quantity * line.unit_price_minor).sum();
    rows.filter_map(|row| Some((row.key.as_str(), cost(OrderState::decode(&row.state[..]).ok()?)))).collect()
}
