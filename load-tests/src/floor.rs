//! A warehouse, its carrier, and customers who think better of it: everybody who acts on what becomes of an
//! order.
//!
//! Reads orders' and fulfillment's events as they come and sends commands through Kafka, which it keeps in
//! ledgers of their own, so that each is accounted for. What comes twice is acted on once. Deliberately
//! absent: customers who place orders ([`crate::work`]), and any judgement.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use holdfast_proto::{
    fulfillment::v1::{
        DispatchShipment, PackShipment, RecordTracking, ShipmentDispatched, StartPicking, TrackingStatus,
    },
    orders::v1::CancelOrder,
    time,
};
use prost::{Message, Name};
use rdkafka::{
    Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    message::{BorrowedMessage, Headers as _},
};
use uuid::Uuid;

use crate::{
    kafka::{self, failed},
    producer::{Error, Ledger, Sender},
    random::Random,
    work::{Expect, Form, Mix, Planned, life::Regret, now_ms},
};

const ORDERS: &str = "orders.commands";
const FULFILLMENT: &str = "fulfillment.commands";
/// What is read.
const READ: [&str; 2] = ["orders.events", "fulfillment.events"];
/// How many of 1,000 dispatches are sent twice.
const REPEATED: u64 = 20;
/// For how many of 1,000 parcels the carrier reports an old status in the end.
const STALE: u64 = 50;

/// How far everything is.
#[derive(Debug, Default)]
pub struct Tally {
    ended: AtomicU64,
    delivered: AtomicU64,
}

impl Tally {
    /// Orders that were delivered or cancelled.
    pub fn ended(&self) -> u64 {
        self.ended.load(Ordering::Relaxed)
    }

    /// Orders that were delivered.
    pub fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }
}

/// What was sent.
#[derive(Debug, Default)]
pub struct Done {
    /// To orders.
    pub orders: Ledger,
    /// To fulfillment.
    pub warehouse: Ledger,
}

/// The warehouse, its carrier and the customers at work, until the floor is closed or dropped.
pub struct Floor {
    tally: Arc<Tally>,
    closing: Arc<AtomicBool>,
    work: tokio::task::JoinHandle<Result<Done, Error>>,
}

impl Drop for Floor {
    /// Nobody stays behind when something else has failed.
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Relaxed);
    }
}

impl Floor {
    /// They begin. `mixes` are the orders that will be placed.
    pub fn open(brokers: &str, mixes: &[Mix]) -> Self {
        let (tally, closing) = (Arc::new(Tally::default()), Arc::new(AtomicBool::new(false)));
        let regrets = mixes.iter().flat_map(Mix::regrets).collect();
        let (brokers, seen, until) = (brokers.to_owned(), Arc::clone(&tally), Arc::clone(&closing));
        let work = tokio::task::spawn_blocking(move || People::begin(&brokers, regrets, seen)?.work(&until));
        Self { tally, closing, work }
    }

    /// How far everything is.
    pub fn tally(&self) -> Arc<Tally> {
        Arc::clone(&self.tally)
    }

    /// Whether they have gone home by themselves: something is wrong.
    pub fn is_closed(&self) -> bool {
        self.work.is_finished()
    }

    /// Sends them home; what they sent.
    ///
    /// # Errors
    /// If something that was sent is not acknowledged, or Kafka failed them before.
    pub async fn close(mut self) -> Result<Done, Error> {
        self.closing.store(true, Ordering::Relaxed);
        (&mut self.work).await?
    }
}

/// What is known of an order.
#[derive(Debug, Default)]
struct Known {
    requested: bool,
    confirmed: bool,
    picked: bool,
    sent: bool,
    regretted: bool,
    ended: bool,
}

struct People {
    consumer: BaseConsumer,
    sender: Sender,
    tally: Arc<Tally>,
    regrets: HashMap<Uuid, Regret>,
    known: HashMap<Uuid, Known>,
    random: Random,
    done: Done,
}

impl People {
    fn begin(brokers: &str, regrets: HashMap<Uuid, Regret>, tally: Arc<Tally>) -> Result<Self, Error> {
        let consumer = kafka::reader(brokers)?;
        let mut assignment = TopicPartitionList::new();
        for topic in READ {
            for partition in kafka::partitions(&consumer, topic)? {
                let at = assignment.add_partition_offset(topic, partition, Offset::Beginning);
                at.map_err(failed("assignment"))?;
            }
        }
        consumer.assign(&assignment).map_err(failed("assignment"))?;
        let sender = Sender::connect(brokers, FULFILLMENT)?;
        let (known, done) = (HashMap::new(), Done::default());
        Ok(Self { consumer, sender, tally, regrets, known, random: Random(1), done })
    }

    fn work(mut self, closing: &AtomicBool) -> Result<Done, Error> {
        while !closing.load(Ordering::Relaxed) {
            let polled = self.consumer.poll(Duration::from_millis(20));
            match polled.map(|polled| polled.map(|message| news(&message))) {
                None | Some(Ok(None)) => {}
                Some(Ok(Some((order, news)))) => self.hear(order, news)?,
                // The client goes on by itself when the broker is back.
                Some(Err(error)) => tracing::warn!(%error, "the floor hears nothing"),
            }
        }
        self.sender.finish()?;
        Ok(self.done)
    }

    fn hear(&mut self, order: Uuid, news: News) -> Result<(), Error> {
        let regret = self.regrets.get(&order).copied();
        let known = self.known.entry(order).or_default();
        match news {
            News::Requested => known.requested = true,
            News::Confirmed => known.confirmed = true,
            News::Paid if matches!(regret, Some(Regret::InTime | Regret::Racing)) && !known.regretted => {
                known.regretted = true;
                return self.cancel(order);
            }
            News::Dispatched(tracking_number) if !known.sent => {
                known.sent = true;
                return self.track(order, &tracking_number);
            }
            News::Ended { delivered } if !known.ended => {
                known.ended = true;
                self.tally.ended.fetch_add(1, Ordering::Relaxed);
                self.tally.delivered.fetch_add(u64::from(delivered), Ordering::Relaxed);
            }
            _ => {}
        }
        if known.requested && known.confirmed && !known.picked && regret != Some(Regret::InTime) {
            known.picked = true;
            return self.ship(order, regret);
        }
        Ok(())
    }

    /// Picks, packs and hands over.
    fn ship(&mut self, order: Uuid, regret: Option<Regret>) -> Result<(), Error> {
        // A command that races with a cancellation may lose at any step.
        let expect = if regret.is_some() { Expect::Whatever } else { Expect::Event };
        let order_id = || order.to_string();
        self.tell_warehouse(order, &StartPicking { order_id: order_id() }, expect)?;
        self.tell_warehouse(order, &PackShipment { order_id: order_id() }, expect)?;
        let dispatch = DispatchShipment { order_id: order_id(), ..DispatchShipment::default() };
        let sent = self.tell_warehouse(order, &dispatch, expect)?;
        if self.random.below(1_000) < REPEATED {
            self.sender.send(FULFILLMENT, &sent)?;
            self.done.warehouse.note(&Planned { is_repeat: true, ..sent });
        }
        Ok(())
    }

    /// The carrier tells where the parcel is, sometimes out of order. It is on its way: no cancellation can
    /// hold it up.
    fn track(&mut self, order: Uuid, number: &str) -> Result<(), Error> {
        let at_ms = now_ms().cast_signed();
        let tracking = |status: TrackingStatus, at_ms: i64| RecordTracking {
            order_id: order.to_string(),
            tracking_number: number.to_owned(),
            status: status.into(),
            occurred_at: Some(time::from_unix_ms(at_ms)),
        };
        self.tell_warehouse(order, &tracking(TrackingStatus::InTransit, at_ms), Expect::Event)?;
        self.tell_warehouse(order, &tracking(TrackingStatus::Delivered, at_ms + 1), Expect::Event)?;
        if self.random.below(1_000) < STALE {
            self.tell_warehouse(order, &tracking(TrackingStatus::Accepted, at_ms - 1), Expect::Nothing)?;
        }
        Ok(())
    }

    fn cancel(&mut self, order: Uuid) -> Result<(), Error> {
        let cancel = CancelOrder { order_id: order.to_string(), reason: "changed my mind".into() };
        let record = record(order, &cancel, Expect::Whatever);
        self.sender.send(ORDERS, &record)?;
        self.done.orders.note(&record);
        Ok(())
    }

    fn tell_warehouse<M: Message + Name>(
        &mut self,
        order: Uuid,
        command: &M,
        expect: Expect,
    ) -> Result<Planned, Error> {
        let record = record(order, command, expect);
        self.sender.send(FULFILLMENT, &record)?;
        self.done.warehouse.note(&record);
        Ok(record)
    }
}

/// What people act on.
enum News {
    Paid,
    Requested,
    Confirmed,
    Dispatched(String),
    Ended { delivered: bool },
}

fn news(message: &BorrowedMessage<'_>) -> Option<(Uuid, News)> {
    let headers = message.headers()?;
    let r#type = headers.iter().find(|header| header.key == "ce_type")?.value?;
    let news = match r#type {
        b"holdfast.orders.v1.OrderPaid" => News::Paid,
        b"holdfast.orders.v1.OrderDelivered" => News::Ended { delivered: true },
        b"holdfast.orders.v1.OrderCancelled" => News::Ended { delivered: false },
        b"holdfast.fulfillment.v1.ShipmentRequested" => News::Requested,
        b"holdfast.fulfillment.v1.ShipmentConfirmed" => News::Confirmed,
        b"holdfast.fulfillment.v1.ShipmentDispatched" => {
            News::Dispatched(ShipmentDispatched::decode(message.payload()?).ok()?.tracking_number)
        }
        _ => return None,
    };
    let key = std::str::from_utf8(message.key()?).ok()?;
    Some((Uuid::try_parse(key).ok()?, news))
}

fn record<M: Message + Name>(order: Uuid, command: &M, expect: Expect) -> Planned {
    Planned {
        id: Uuid::now_v7(),
        order,
        key: order.to_string(),
        r#type: M::full_name(),
        subject: order.to_string(),
        is_complete: true,
        form: Form::Protobuf,
        value: command.encode_to_vec(),
        expect,
        is_repeat: false,
    }
}
