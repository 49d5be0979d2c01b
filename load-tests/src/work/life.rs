//! Who places the orders of a whole shop, and what is to become of each.
//!
//! Deterministic like the rest of [`super`]: who knows the seed knows each order's fate. Deliberately absent:
//! the fate itself; that is up to the provider, the warehouse and chance.

use uuid::Uuid;

use super::{Expect, Mix, Planned, id, now_ms};
use crate::random::Random;

/// A card that works.
const GOOD_CARD: &str = "pm_card_visa";
/// A card that is always declined.
const DECLINED_CARD: &str = "pm_card_chargeDeclined";
/// A card of which the simulated provider charges the amount and says nothing.
const SILENT_CARD: &str = "pm_simulated_silent";
/// A card that the simulated provider charges long after the caller has given up.
const LATE_CARD: &str = "pm_simulated_late";

/// The people of a shop, and their ways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    /// How many customers there are.
    pub customers: u32,
    /// The time inside their ids, ms since 1970.
    pub time_ms: u64,
    /// How many of 1,000 orders are paid by a card that is declined.
    pub declined: u16,
    /// How many of 1,000 are paid by a card that is charged without an answer.
    pub silent: u16,
    /// How many of 1,000 of the first half are paid by a card that is charged after the reservation has run
    /// out.
    pub late: u16,
    /// How many orders are in the first half.
    pub half: u32,
    /// How many of 1,000 are to go to an address that the customer does not have, and are rejected.
    pub nowhere: u16,
    /// How many of 1,000 are cancelled by the customer once they are paid. About half of these may be on
    /// their way by then.
    pub regretted: u16,
}

/// What an order is placed with, and what its customer will do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fate {
    pub payment_method: &'static str,
    pub address_id: Uuid,
    pub goes_nowhere: bool,
    pub regret: Option<Regret>,
}

/// How a customer thinks better of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Regret {
    /// As soon as it is placed, by the order's own commands.
    Early,
    /// Once it is paid, before anybody has touched it.
    InTime,
    /// Once it is paid, while the warehouse is at it.
    Racing,
}

impl Life {
    /// The id of the n-th customer.
    pub fn customer(&self, n: u32) -> Uuid {
        id(self.time_ms, u64::from(n), Random(u64::from(n)).next())
    }

    /// The id of the only address of the n-th customer.
    pub fn address(&self, n: u32) -> Uuid {
        id(self.time_ms, u64::from(n) + (1 << 20), Random(u64::from(n)).next())
    }

    /// Every customer, with its address.
    pub fn people(&self) -> impl Iterator<Item = (Uuid, Uuid)> {
        (0..self.customers).map(|n| (self.customer(n), self.address(n)))
    }

    /// Whose the n-th order is.
    pub(crate) fn customer_of(&self, n: u32) -> Uuid {
        self.customer(n % self.customers.max(1))
    }

    /// What is to become of the n-th order.
    pub(crate) fn fate(&self, seed: u64, n: u32) -> Fate {
        let mut random = Random(!seed ^ (u64::from(n) << 20));
        let mut roll = |share: u16| random.below(1_000) < u64::from(share);
        let (declined, silent, late) = (roll(self.declined), roll(self.silent), roll(self.late) && n < self.half);
        let (nowhere, regretted, racing) = (roll(self.nowhere), roll(self.regretted), roll(500));
        let payment_method = match (declined, late, silent) {
            (true, ..) => DECLINED_CARD,
            (_, true, _) => LATE_CARD,
            (.., true) => SILENT_CARD,
            _ => GOOD_CARD,
        };
        let address = self.address(n % self.customers.max(1));
        // An address of nobody's, which the customer does not have.
        let address_id = if nowhere { self.customer(n % self.customers.max(1)) } else { address };
        let regret = regretted.then_some(if racing { Regret::Racing } else { Regret::InTime });
        Fate { payment_method, address_id, goes_nowhere: nowhere, regret }
    }
}

impl Mix {
    /// Orders as a shop sees them, all the way: beside what [`Mix::demo`] has, cards are declined or say
    /// nothing, addresses are unknown and refused, customers think better of it.
    pub fn shop(orders: u32, seed: u64) -> Self {
        let life = Life {
            customers: (orders / 40).clamp(1, 500),
            time_ms: now_ms(),
            declined: 30,
            silent: 3,
            late: 4,
            half: orders / 2,
            nowhere: 10,
            regretted: 20,
        };
        Self { window: 250, life: Some(life), ..Self::demo(orders, seed) }
    }

    /// The orders that customers will think better of.
    pub(crate) fn regrets(&self) -> impl Iterator<Item = (Uuid, Regret)> + '_ {
        let cancels = |n| self.order(n).iter().any(|record| record.r#type.ends_with("CancelOrder"));
        (0..self.orders).filter_map(move |n| {
            let later = self.life.as_ref().and_then(|life| life.fate(self.seed, n).regret);
            let regret = later.or_else(|| cancels(n).then_some(Regret::Early))?;
            Some((self.order_id(n).0, regret))
        })
    }

    /// Orders that come to an end: all that are placed.
    pub fn ending(&self) -> u32 {
        let is_placed = |record: &Planned| record.r#type.ends_with("PlaceOrder") && record.expect == Expect::Event;
        let count = (0..self.orders).filter(|n| self.order(*n).iter().any(is_placed)).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use holdfast_proto::orders::v1::PlaceOrder;
    use prost::Message as _;

    use super::*;

    #[test]
    fn shop_has_some_of_every_fate_and_the_seed_determines_them() {
        let mix = Mix::shop(10_000, 3);
        let places =
            mix.windows().flatten().filter(|record| record.r#type.ends_with("PlaceOrder") && !record.is_repeat);
        let mut cards: BTreeMap<String, u32> = BTreeMap::new();
        for place in places {
            let place = PlaceOrder::decode(&place.value[..]).expect("sound");
            assert!(Uuid::try_parse(&place.address_id).is_ok());
            *cards.entry(place.payment_method).or_default() += 1;
        }
        for (card, least) in [(GOOD_CARD, 9_000), (DECLINED_CARD, 200), (SILENT_CARD, 10), (LATE_CARD, 5)] {
            assert!(cards.get(card).is_some_and(|count| *count > least), "{card}: {cards:?}");
        }
        let regrets: Vec<_> = mix.regrets().collect();
        for regret in [Regret::Early, Regret::InTime, Regret::Racing] {
            assert!(regrets.iter().filter(|(_, of)| *of == regret).count() > 50, "{regret:?}");
        }
        assert_eq!(regrets, mix.clone().regrets().collect::<Vec<_>>());
        let nowhere = mix.windows().flatten().filter(|record| record.expect == Expect::Rejection("UNKNOWN_ADDRESS"));
        assert!((50..200).contains(&nowhere.count()));
        assert!((9_700..9_950).contains(&mix.ending()), "{}", mix.ending());
    }

    #[test]
    fn customers_and_addresses_are_all_different() {
        let Some(life) = Mix::shop(10_000, 3).life else { panic!("a shop has customers") };
        let ids = (0..life.customers).flat_map(|n| [life.customer(n), life.address(n)]);
        assert_eq!(ids.collect::<std::collections::HashSet<_>>().len(), 2 * life.customers as usize);
    }
}
