//! The account of a run: how many of what, and everything that must not be.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

/// How a run can break its promises. Each is one invariant's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Breach {
    /// An acknowledged command without any effect: no event, no rejection, no dead letter.
    Lost,
    /// A message with two effects.
    Doubled,
    /// A message with one effect, but not the one it must have.
    Unexpected,
    /// A command that was applied without leaving a claim: its repeat would double it.
    Unclaimed,
    /// First occurrences of an aggregate's events that aren't in version order without a gap.
    OutOfOrder,
    /// Commands of one order that were applied in another order than they were sent.
    Overtaken,
    /// Two different events at one version of one aggregate.
    TwoHistories,
    /// A record of an events topic that is no event.
    Unreadable,
    /// An outbox row that isn't in its topic.
    Unpublished,
    /// A published record that no outbox row knows.
    Uncommitted,
    /// An outbox whose cursor is not at its head.
    Undrained,
    /// A topic that was not read to its end.
    Unconsumed,
    /// A message that still waits in a mailbox.
    Waiting,
    /// An aggregate whose stored state is not what its events make of it.
    NotTheFold,
    /// Stock that does not add up.
    StockAdrift,
    /// An order that contradicts its reservation or its shipment.
    Disagreement,
    /// Money that does not add up.
    MoneyAdrift,
    /// An order that never came to an end.
    Unended,
}

impl Breach {
    /// All of them.
    pub const ALL: [Self; 18] = [
        Self::Lost,
        Self::Doubled,
        Self::Unexpected,
        Self::Unclaimed,
        Self::OutOfOrder,
        Self::Overtaken,
        Self::TwoHistories,
        Self::Unreadable,
        Self::Unpublished,
        Self::Uncommitted,
        Self::Undrained,
        Self::Unconsumed,
        Self::Waiting,
        Self::NotTheFold,
        Self::StockAdrift,
        Self::Disagreement,
        Self::MoneyAdrift,
        Self::Unended,
    ];

    /// The invariant that it breaks, by its number in the design.
    pub const fn invariant(self) -> &'static str {
        match self {
            Self::Uncommitted => "I1",
            Self::Doubled | Self::Unexpected | Self::Unclaimed | Self::StockAdrift | Self::MoneyAdrift => "I2",
            Self::OutOfOrder | Self::Overtaken => "I3",
            Self::Lost | Self::Unconsumed => "I7",
            Self::Unreadable
            | Self::Unpublished
            | Self::Undrained
            | Self::Waiting
            | Self::NotTheFold
            | Self::Disagreement
            | Self::Unended => "I8",
            Self::TwoHistories => "I10",
        }
    }

    /// In a few words, for a table.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Doubled => "doubled",
            Self::Unexpected => "other effect than expected",
            Self::Unclaimed => "applied without a claim",
            Self::OutOfOrder => "events out of order",
            Self::Overtaken => "commands overtaken",
            Self::TwoHistories => "two events at one version",
            Self::Unreadable => "unreadable events",
            Self::Unpublished => "committed but not published",
            Self::Uncommitted => "published but not committed",
            Self::Undrained => "outbox not drained",
            Self::Unconsumed => "records not consumed",
            Self::Waiting => "still waiting in a mailbox",
            Self::NotTheFold => "database differs from the topic",
            Self::StockAdrift => "stock does not add up",
            Self::Disagreement => "contexts disagree on an order",
            Self::MoneyAdrift => "money does not add up",
            Self::Unended => "orders that never ended",
        }
    }
}

/// One case of a breach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sample {
    /// Of which command, aggregate, partition or sku.
    pub id: String,
    /// What is wrong with it.
    pub what: String,
}

/// The cases of one breach: how many, and the first few.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Found {
    /// The invariant that is broken.
    pub invariant: &'static str,
    /// How many cases.
    pub count: u64,
    /// The first few.
    pub samples: Vec<Sample>,
}

/// All stock together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stock {
    /// How many skus.
    pub skus: u64,
    /// Units received and adjusted, by the events.
    pub received: i64,
    /// Units that have left, by the events.
    pub shipped: i64,
    /// Units on hand.
    pub on_hand: i64,
    /// Units reserved.
    pub reserved: i64,
}

/// All money together, in minor units of the orders' currency: charges by the provider's own books, costs by
/// the orders.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Money {
    /// Charges that the provider was asked for and ended, declined ones included.
    pub charges: u64,
    /// Those of them that moved money.
    pub taken: u64,
    /// What they moved.
    pub charged: i64,
    /// What was given back of it.
    pub refunded: i64,
    /// What is left of it.
    pub kept: i64,
    /// What the delivered orders cost.
    pub delivered: i64,
    /// Delivered orders for which money was taken exactly once.
    pub charged_once: u64,
    /// How often the provider failed.
    pub faults: u64,
    /// How often it was asked for something.
    pub requests: u64,
}

/// The account.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Records sent, repeats and bad ones included.
    pub records: u64,
    /// Different commands sent.
    pub commands: u64,
    /// Bad records sent.
    pub bad_records: u64,
    /// Commands that ended in an event.
    pub applied: u64,
    /// Commands that were taken and changed nothing, as they may.
    pub idle: u64,
    /// Commands that were rejected, by the rejection's name.
    pub rejected: BTreeMap<String, u64>,
    /// Dead letters, by reason.
    pub dead_letters: BTreeMap<String, u64>,
    /// Copies sent beyond the first.
    pub repeats_sent: u64,
    /// Those of them that had no effect of their own.
    pub repeats_dropped: u64,
    /// Orders by their last state.
    pub orders: BTreeMap<String, u64>,
    /// Cancelled orders by cause.
    pub cancelled: BTreeMap<String, u64>,
    /// Placed orders that know that their stock is held.
    pub reserved: u64,
    /// Different events, in both events topics.
    pub events: u64,
    /// Records of events topics that repeat one before them.
    pub republished: u64,
    /// Events of orders that neither a command of the ledger nor inventory caused.
    pub caused_by_others: u64,
    /// Reservations by state.
    pub reservations: BTreeMap<String, u64>,
    /// Payments by state, where they were looked at.
    pub payments: BTreeMap<String, u64>,
    /// All stock together.
    pub stock: Stock,
    /// All money together, where it was looked at.
    pub money: Option<Money>,
    /// Everything that must not be.
    pub breaches: BTreeMap<Breach, Found>,
}

/// Samples kept of each breach.
const SAMPLES: usize = 5;

impl Report {
    /// Notes one case.
    pub fn breach(&mut self, breach: Breach, id: impl fmt::Display, what: impl Into<String>) {
        let new = || Found { invariant: breach.invariant(), count: 0, samples: Vec::new() };
        let found = self.breaches.entry(breach).or_insert_with(new);
        found.count += 1;
        if found.samples.len() < SAMPLES {
            found.samples.push(Sample { id: id.to_string(), what: what.into() });
        }
    }

    /// How often this happened.
    pub fn count(&self, breach: Breach) -> u64 {
        self.breaches.get(&breach).map_or(0, |found| found.count)
    }

    /// Commands and bad records without an effect.
    pub fn lost(&self) -> u64 {
        self.count(Breach::Lost)
    }

    /// Messages with two effects.
    pub fn doubled(&self) -> u64 {
        self.count(Breach::Doubled) + self.count(Breach::TwoHistories)
    }

    /// Events and commands out of order.
    pub fn out_of_order(&self) -> u64 {
        self.count(Breach::OutOfOrder) + self.count(Breach::Overtaken)
    }

    /// Money or stock that does not add up.
    pub fn unbalanced(&self) -> u64 {
        self.count(Breach::StockAdrift) + self.count(Breach::MoneyAdrift)
    }

    /// Everything that must not be.
    pub fn violations(&self) -> impl Iterator<Item = (Breach, &Found)> {
        self.breaches.iter().map(|(breach, found)| (*breach, found))
    }

    /// Whether there is nothing that must not be.
    pub fn is_clean(&self) -> bool {
        self.breaches.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} commands, {} events", self.commands, self.events)?;
        if self.is_clean() {
            return f.write_str(", nothing lost, doubled or out of order");
        }
        if !self.dead_letters.is_empty() {
            write!(f, ", dead letters: {:?}", self.dead_letters)?;
        }
        for (breach, found) in self.violations() {
            write!(f, "\n{} {}: {}", found.invariant, breach.words(), found.count)?;
            for sample in &found.samples {
                write!(f, "\n    {}: {}", sample.id, sample.what)?;
            }
        }
        Ok(())
    }
}

pub(super) fn count(map: &mut BTreeMap<String, u64>, name: &str) {
    match map.get_mut(name) {
        Some(count) => *count += 1,
        None => {
            map.insert(name.to_owned(), 1);
        }
    }
}
