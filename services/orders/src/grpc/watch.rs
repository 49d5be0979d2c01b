//! `WatchOrder`: one look-out for all watchers of this process.
//!
//! Watched orders are looked up together, one statement for up to a thousand, as long as anybody watches;
//! each watched order has one slot that holds its latest version, so a slow watcher misses versions in
//! between and costs no memory. Invariants: what a watcher sees was committed; versions only grow; after a
//! final state the stream ends. Deliberately absent: a notice from the owning node. It would save the
//! look-ups, and has to come from the runtime.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{Stream, stream};
use holdfast_adapter::{read, status};
use holdfast_platform::errors::Problem;
use holdfast_proto::orders::v1;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, sleep},
};
use tonic::Status;
use uuid::Uuid;

use crate::queries::Queries;

/// Watchers of one process at most; further ones get `RESOURCE_EXHAUSTED`.
const WATCHERS_MAX: usize = 10_000;

/// Orders of one statement.
const ORDERS_MAX: usize = 1_000;

/// Between two look-ups, at least.
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// The pause is also this many times what the last look-up took, so that many watchers wait longer rather
/// than take the database from others.
const PAUSE_FACTOR: u32 = 9;

/// How long look-ups may fail before the watchers' streams end.
const PATIENCE: Duration = Duration::from_secs(10);

/// When to watch again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The stream of one watcher.
pub(super) type Changes = Pin<Box<dyn Stream<Item = Result<v1::WatchOrderResponse, Status>> + Send>>;

/// The latest version of a watched order, as it goes out.
type Slot = watch::Sender<Arc<v1::WatchOrderResponse>>;

/// All watchers of this process.
pub(super) struct Hub {
    queries: Arc<dyn Queries>,
    slots: Mutex<HashMap<Uuid, Slot>>,
    seats: Arc<Semaphore>,
}

/// One watcher.
struct Watcher {
    news: watch::Receiver<Arc<v1::WatchOrderResponse>>,
    /// The latest version that the watcher has received, or that it knew from the start.
    known: u64,
    ended: bool,
    _seat: OwnedSemaphorePermit,
}

impl Hub {
    pub(super) fn new(queries: Arc<dyn Queries>) -> Arc<Self> {
        Arc::new(Self { queries, slots: Mutex::default(), seats: Arc::new(Semaphore::new(WATCHERS_MAX)) })
    }

    /// The order as it is now and as it becomes, from the first version after `known` on.
    pub(super) fn watch(self: &Arc<Self>, order: v1::Order, known: u64) -> Result<Changes, Status> {
        let seat = self.seats.clone().try_acquire_owned().map_err(|_| {
            Problem::exhausted("TOO_MANY_WATCHERS", "too many orders are watched here already", RETRY_AFTER)
                .into_status()
        })?;
        let id = Uuid::try_parse(&order.order_id).map_err(|error| status::internal(&error))?;
        let news = self.join(id, order);
        let watcher = Watcher { news, known, ended: false, _seat: seat };
        Ok(Box::pin(stream::unfold(watcher, Watcher::next)))
    }

    fn join(self: &Arc<Self>, id: Uuid, order: v1::Order) -> watch::Receiver<Arc<v1::WatchOrderResponse>> {
        let mut slots = self.slots();
        if slots.is_empty() {
            // Nobody was looking out; see `next`.
            let (hub, look_out) = (self.clone(), self.clone().look_out());
            tokio::spawn(async move {
                if tokio::spawn(look_out).await.is_err() {
                    hub.slots().clear();
                }
            });
        }
        let seen = seen(order);
        let slot = slots.entry(id).or_insert_with(|| Slot::new(seen.clone()));
        tell(slot, seen);
        slot.subscribe()
    }

    /// Looks for later versions until nobody watches any more.
    async fn look_out(self: Arc<Self>) {
        let mut answered = Instant::now();
        let mut pause = PAUSE_MIN;
        loop {
            sleep(pause).await;
            let known = self.next();
            if known.is_empty() {
                return;
            }
            let began = Instant::now();
            for part in known.chunks(ORDERS_MAX) {
                match self.queries.newer(part).await {
                    Ok(orders) => {
                        answered = Instant::now();
                        self.spread(orders);
                    }
                    Err(error) => {
                        tracing::warn!(%error, "watched orders could not be looked up");
                        if answered.elapsed() > PATIENCE {
                            // The streams end, so that a watcher that asks again gets a clear answer instead
                            // of silence.
                            self.slots().clear();
                            return;
                        }
                        break;
                    }
                }
            }
            pause = PAUSE_MIN.max(began.elapsed() * PAUSE_FACTOR);
        }
    }

    /// What is watched, and its latest version; forgets what nobody watches any more. If it is empty, the
    /// look-out ends, and under the same lock the next watcher finds out that it has to start one.
    fn next(&self) -> Vec<(Uuid, u64)> {
        let mut slots = self.slots();
        slots.retain(|_, slot| slot.receiver_count() > 0);
        slots.iter().map(|(id, slot)| (*id, version(&slot.borrow()))).collect()
    }

    fn spread(&self, orders: Vec<v1::Order>) {
        let slots = self.slots();
        for order in orders {
            let slot = Uuid::try_parse(&order.order_id).ok().and_then(|id| slots.get(&id));
            if let Some(slot) = slot {
                tell(slot, seen(order));
            }
        }
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<Uuid, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watcher {
    async fn next(mut self) -> Option<(Result<v1::WatchOrderResponse, Status>, Self)> {
        while !self.ended {
            let news = self.news.borrow_and_update().clone();
            self.ended = is_final(&news);
            if version(&news) > self.known {
                self.known = version(&news);
                return Some((Ok((*news).clone()), self));
            }
            if !self.ended && self.news.changed().await.is_err() {
                self.ended = true;
                let problem =
                    Problem::unavailable("UNAVAILABLE", "changes can't be followed just now; watch again", RETRY_AFTER);
                return Some((Err(problem.into_status()), self));
            }
        }
        None
    }
}

/// An order as it was read just now.
fn seen(order: v1::Order) -> Arc<v1::WatchOrderResponse> {
    let read = Some(read::info(order.version, false));
    Arc::new(v1::WatchOrderResponse { order: Some(order), read })
}

/// Puts a version into its slot, unless a later one is there.
fn tell(slot: &Slot, news: Arc<v1::WatchOrderResponse>) {
    slot.send_if_modified(|latest| {
        let later = version(&news) > version(latest);
        if later {
            *latest = news;
        }
        later
    });
}

fn version(seen: &v1::WatchOrderResponse) -> u64 {
    seen.order.as_ref().map_or(0, |order| order.version)
}

fn is_final(seen: &v1::WatchOrderResponse) -> bool {
    let status = seen.order.as_ref().map(v1::Order::status);
    matches!(status, Some(v1::OrderStatus::Delivered | v1::OrderStatus::Cancelled))
}
