//! Orders and inventory on one in-memory log, each with a store of its own: what they know of one another has
//! travelled as events.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use holdfast_core::{
    Aggregate as _, AggregateId, PartitionId, Record, Timestamp,
    envelope::{EnvelopeOut, header},
    pool::Pool,
};
use holdfast_inventory::codec::decode_reservation;
use holdfast_inventory_domain::{Reservation, StockItem, reservation};
use holdfast_orders::{codec::decode_state, customers::StaticCustomers, prices::PriceSource};
use holdfast_orders_domain::{self as orders_domain, Order};
use holdfast_proto::{inventory::v1 as inventory, orders::v1 as orders};
use holdfast_runtime::{BoundedContext, Config, Node, Ports, telemetry::NoTrace};
use holdfast_testkit::{
    Checker, MemoryGroup, MemoryLog, MemoryMembership, MemoryPublisher, MemoryStore, VirtualClock, checker::Counts,
};
use prost::Name;
use uuid::Uuid;

pub const PARTITIONS: u32 = 4;

/// What outlives the nodes of one context.
pub struct Side {
    name: &'static str,
    kinds: &'static [&'static str],
    /// The other's topic, and what this one handles of it.
    reads: (&'static str, Vec<String>),
    pub store: MemoryStore,
    group: MemoryGroup,
}

/// A node of one context.
pub struct Member {
    pub node: Arc<Node>,
    pub store: MemoryStore,
    pub publisher: MemoryPublisher,
    membership: MemoryMembership,
}

pub struct World {
    pub log: MemoryLog,
    pub clock: VirtualClock,
    pub orders: Side,
    pub inventory: Side,
    hold_for: Duration,
}

impl World {
    /// Without nodes yet. Inventory holds stock for `hold_for`.
    pub fn new(hold_for: Duration) -> Self {
        let log = MemoryLog::new();
        let side = |name: &'static str, kinds, topic, handled: Vec<String>| {
            for part in ["commands", "events", "dlq"] {
                log.create_topic(&format!("{name}.{part}"), PARTITIONS);
            }
            let (store, group) = (MemoryStore::new(), MemoryGroup::new(PARTITIONS));
            Side { name, kinds, reads: (topic, handled), store, group }
        };
        let of_inventory = vec![
            inventory::StockReserved::full_name(),
            inventory::ReservationRefused::full_name(),
            inventory::ReservationExpired::full_name(),
        ];
        let of_orders = vec![orders::OrderPlaced::full_name(), orders::OrderCancelled::full_name()];
        let both = &[Reservation::KIND, StockItem::KIND];
        Self {
            orders: side("orders", &[Order::KIND], "inventory.events", of_inventory),
            inventory: side("inventory", both, "orders.events", of_orders),
            log: log.clone(),
            clock: VirtualClock::start(),
            hold_for,
        }
    }

    pub async fn start_orders(&self, prices: impl PriceSource) -> Member {
        self.start(&self.orders, holdfast_orders::app::context(prices, StaticCustomers::all())).await
    }

    pub async fn start_inventory(&self) -> Member {
        self.start(&self.inventory, holdfast_inventory::app::context(self.hold_for)).await
    }

    async fn start(&self, side: &Side, context: BoundedContext) -> Member {
        let (store, log) = (side.store.node(), self.log.node());
        let publisher = MemoryPublisher::new(log.clone());
        let membership = side.group.join();
        let ports = Ports {
            log: Arc::new(log),
            membership: Arc::new(membership.clone()),
            publishers: Arc::new(publisher.clone()),
            store: Arc::new(store.clone()),
            clock: Arc::new(self.clock.clone()),
            trace: Arc::new(NoTrace),
        };
        let config = Config { address: "memory".into(), ..Config::default() };
        let node = Node::start(context, config, ports).await.unwrap();
        Member { node, store, publisher, membership }
    }

    /// Ends a node as a crash would; its group finds out at once.
    pub fn crash(side: &Side, member: &Member) {
        member.node.kill();
        side.group.expel(&member.membership);
    }

    /// Sends a command through the log.
    pub fn send<C: Name>(&self, context: &str, key: &str, command: &C) {
        let headers =
            EnvelopeOut::new(Uuid::now_v7(), "shop", &C::full_name(), Timestamp::from_unix_ms(0), key).headers();
        let (key, value) = (key.to_owned().into(), command.encode_to_vec().into());
        self.log.append(&format!("{context}.commands"), None, Some(key), headers, Some(value)).unwrap();
    }

    pub fn receive(&self, sku: &str, quantity: i64) {
        self.send("inventory", sku, &inventory::ReceiveStock { sku: sku.to_owned(), quantity });
    }

    /// Creates an order of these lines; `true` places it too.
    pub fn order(&self, order_id: &str, lines: &[(&str, i64)], placed: bool) {
        let (order_id, customer_id, currency) = (order_id.to_owned(), Uuid::nil().to_string(), "EUR".to_owned());
        self.send("orders", &order_id, &orders::CreateOrder { order_id: order_id.clone(), customer_id, currency });
        for (sku, quantity) in lines {
            let (sku, quantity) = ((*sku).to_owned(), *quantity);
            self.send("orders", &order_id, &orders::AddItem { order_id: order_id.clone(), sku, quantity });
        }
        if placed {
            self.place(&order_id);
        }
    }

    pub fn place(&self, order_id: &str) {
        let (payment_method, address_id) = ("pm_card_visa".to_owned(), Uuid::from_u128(1).to_string());
        let command = orders::PlaceOrder { order_id: order_id.to_owned(), payment_method, address_id };
        self.send("orders", order_id, &command);
    }

    pub fn cancel(&self, order_id: &str) {
        let (order_id, reason) = (order_id.to_owned(), "changed my mind".to_owned());
        self.send("orders", &order_id.clone(), &orders::CancelOrder { order_id, reason });
    }

    /// What orders has stored of this order.
    pub fn stored_order(&self, order_id: &str) -> Option<orders_domain::Details> {
        let row = self.orders.store.state(&AggregateId { kind: Order::KIND, key: order_id.into() })?;
        decode_state(row.schema, &row.bytes).unwrap().details().cloned()
    }

    /// What inventory has stored of this order's reservation.
    pub fn stored_reservation(&self, order_id: &str) -> Option<reservation::Details> {
        let row = self.inventory.store.state(&AggregateId { kind: Reservation::KIND, key: order_id.into() })?;
        decode_reservation(row.schema, &row.bytes).unwrap().details().cloned()
    }

    pub fn pools(&self) -> BTreeMap<String, Pool> {
        self.inventory.store.contents().pools
    }

    pub fn pool(&self, sku: &str) -> Pool {
        self.pools().get(sku).copied().unwrap_or_default()
    }

    /// First occurrences of an event in `topic`, with their keys.
    pub fn events<E: Name + Default>(&self, topic: &str) -> Vec<(String, E)> {
        let mut seen = HashSet::new();
        let mut events = Vec::new();
        for record in self.log.all_records(topic) {
            let key = String::from_utf8(record.key.clone().unwrap().to_vec()).unwrap();
            if text(&record, header::TYPE) == E::full_name()
                && seen.insert((key.clone(), text(&record, header::SEQUENCE).to_owned()))
            {
                events.push((key, E::decode(record.value.unwrap()).unwrap()));
            }
        }
        events
    }

    /// Waits until nothing moves any more: all input consumed, all events published, no mail waiting. Timers
    /// may still be set.
    pub async fn settled(&self) {
        let wait = async {
            while !(self.is_at_rest(&self.orders) && self.is_at_rest(&self.inventory)) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_mins(5), wait).await.expect("the contexts come to rest");
    }

    fn is_at_rest(&self, side: &Side) -> bool {
        let contents = side.store.contents();
        let row_rests = |p: PartitionId| {
            let Some(row) = contents.partitions.get(&p) else { return false };
            let consumed = |topic: &str| row.next_offset(topic).unwrap_or(0) == self.log.bounds(topic, p).unwrap().1;
            row.outbox_cursor == row.outbox_head
                && consumed(&format!("{}.commands", side.name))
                && consumed(side.reads.0)
        };
        contents.mailbox.is_empty() && (0..PARTITIONS).map(PartitionId).all(row_rests)
    }

    /// Checks both contexts at rest: I1-I4, I7, I8, I10, and that nothing was a dead letter. Returns what
    /// orders' and inventory's runs came to.
    pub fn check(&self) -> [Counts; 2] {
        [&self.orders, &self.inventory].map(|side| {
            let handled: Vec<&str> = side.reads.1.iter().map(String::as_str).collect();
            let checker = Checker::new(&self.log, &side.store, side.name, side.kinds);
            let counts = checker.reading(side.reads.0, &handled).settled().assert();
            assert_eq!(counts.dead_letters, 0, "{}", side.name);
            counts
        })
    }
}

fn text<'a>(record: &'a Record, header: &str) -> &'a str {
    std::str::from_utf8(record.headers.get(header).unwrap_or_default()).unwrap()
}

/// Waits until `condition` holds.
pub async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(2), wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}
