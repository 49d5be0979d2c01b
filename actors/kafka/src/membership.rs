//! This node's membership in a context's group: the [`Membership`] port.
//!
//! Invariant: a thread of its own polls the consumer for as long as this lives, so a stalled loop does not
//! cost the node its partitions (whether it still owns them is Postgres's to say). The consumer reads nothing
//! (see the crate's documentation). After a fatal error it is replaced. Closing one can block for ever or
//! crash while the coordinator is away (rust-rdkafka#509, librdkafka#5327), so nobody waits for it beyond a
//! deadline, and then it is left to the end of the process. Deliberately absent: fencing; any record.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use holdfast_core::{
    partition::PartitionId,
    port::log::{LogError, Membership},
};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    config::FromClientConfigAndContext,
    consumer::{BaseConsumer, CommitMode, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
};
use tokio::sync::watch;

use crate::{
    client::blocking,
    config::{GroupProtocol, KafkaConfig},
    error::{ConfigError, unavailable},
    hints::{self, Hints, Pace},
    rebalance::{MemberContext, Standing},
};

const POLL: Duration = Duration::from_millis(100);
/// How long leaving may take before the consumer is abandoned.
const LEAVE: Duration = Duration::from_secs(5);
/// Between two consumers, after a fatal error.
const REPLACE_PAUSE_MIN: Duration = Duration::from_millis(500);
const REPLACE_PAUSE_MAX: Duration = Duration::from_secs(30);
/// The same where another process has the same group instance id.
const TWIN_PAUSE_MIN: Duration = Duration::from_secs(3);

type Member = BaseConsumer<MemberContext>;

/// What the handle and the thread share.
struct Shared {
    config: ClientConfig,
    protocol: GroupProtocol,
    context: String,
    standing: Arc<Standing>,
    hints: Arc<Hints>,
    /// The consumer of the moment.
    consumer: Mutex<Option<Arc<Member>>>,
    leaving: AtomicBool,
    left: watch::Sender<bool>,
}

impl Shared {
    fn current(&self) -> Option<Arc<Member>> {
        self.consumer.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn join(&self) -> Result<Arc<Member>, KafkaError> {
        let context = MemberContext {
            standing: Arc::clone(&self.standing),
            protocol: self.protocol,
            abandoned: AtomicBool::new(false),
            outside: AtomicBool::new(false),
        };
        let consumer = Arc::new(Member::from_config_and_context(&self.config, context)?);
        consumer.subscribe(&[self.standing.topic()])?;
        *self.consumer.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&consumer));
        Ok(consumer)
    }
}

/// The [`Membership`] port on Kafka: joins on creation, stays until [`Membership::leave`] or until it is
/// dropped.
pub struct KafkaMembership {
    shared: Arc<Shared>,
    /// What [`Membership::changed`] last returned.
    returned: Mutex<BTreeSet<PartitionId>>,
    /// One confirmation at a time; one that hangs is left behind at its deadline.
    confirming: tokio::sync::Mutex<()>,
    timeout: Duration,
}

impl KafkaMembership {
    /// Joins the group of `config`'s context. Does not wait for a broker.
    pub fn join(config: &KafkaConfig) -> Result<Self, ConfigError> {
        config.validate()?;
        let shared = Arc::new(Shared {
            config: config.member(),
            protocol: config.group_protocol,
            context: config.context.clone(),
            standing: Arc::new(Standing::new(config.commands_topic())),
            hints: Arc::default(),
            consumer: Mutex::default(),
            leaving: AtomicBool::new(false),
            left: watch::Sender::default(),
        });
        let consumer = shared.join()?;
        let thread = Arc::clone(&shared);
        std::thread::Builder::new()
            .name(format!("kafka-group-{}", config.context))
            .spawn(move || serve(&thread, consumer))
            .map_err(|error| ConfigError::Invalid(format!("no thread for the Kafka group: {error}")))?;
        Ok(Self {
            shared,
            returned: Mutex::default(),
            confirming: tokio::sync::Mutex::default(),
            timeout: config.request_timeout,
        })
    }

    /// Notes that everything of the commands topic's `partition` below `next` is consumed; committed within
    /// about a second under the group's own name, for lag tools, if the partition is still this member's
    /// then. [`crate::KafkaLog::with_member`] calls this.
    pub fn store_offset(&self, partition: PartitionId, next: u64) {
        self.shared.hints.note(self.shared.standing.topic(), partition.0, next);
    }

    pub(crate) fn hints(&self) -> Arc<Hints> {
        Arc::clone(&self.shared.hints)
    }
}

/// The member polls until it is to leave (`Shared::leaving`).
fn serve(shared: &Shared, mut consumer: Arc<Member>) {
    let mut pace = Pace::new();
    let mut pause = REPLACE_PAUSE_MIN;
    let mut since = Instant::now();
    while !shared.leaving.load(Ordering::Acquire) {
        // A record is hardly ever there, for partitions are paused; the data consumer reads them.
        if let Some(Err(error)) = consumer.poll(POLL) {
            tracing::debug!(%error, "kafka group member");
        }
        // Asked of the client: by which queue and as what the news comes differs.
        if let Some((code, reason)) = consumer.client().fatal_error() {
            metrics::counter!("holdfast_kafka_member_replaced_total", "context" => shared.context.clone()).increment(1);
            if since.elapsed() > REPLACE_PAUSE_MAX {
                pause = REPLACE_PAUSE_MIN;
            }
            if is_twin(code) {
                let instance = shared.config.get("group.instance.id");
                metrics::counter!("holdfast_kafka_duplicate_instance_total", "context" => shared.context.clone())
                    .increment(1);
                tracing::error!(
                    context = shared.context,
                    instance,
                    reason,
                    "another process is a member under the same kafka.group_instance_id; each node needs one of its own"
                );
                // Coming back at once would only throw the other one out.
                pause = pause.max(TWIN_PAUSE_MIN);
            } else {
                tracing::error!(context = shared.context, reason, "the group member failed; it is replaced");
            }
            drop(abandon(shared, consumer));
            let Some(next) = replace(shared, &mut pause) else {
                shared.left.send_replace(true);
                return;
            };
            consumer = next;
            since = Instant::now();
        }
        if pace.due() {
            shared.hints.commit(&consumer, |partition| shared.standing.holds(PartitionId(partition)));
        }
    }
    leave(shared, consumer);
}

/// Whether the failure means that another has this consumer's group instance id.
fn is_twin(code: RDKafkaErrorCode) -> bool {
    matches!(code, RDKafkaErrorCode::FencedInstanceId | RDKafkaErrorCode::UnreleasedInstanceId)
}

/// The next consumer, after as many attempts as it takes; `None` if the member is to leave meanwhile.
fn replace(shared: &Shared, pause: &mut Duration) -> Option<Arc<Member>> {
    loop {
        let until = Instant::now() + *pause;
        *pause = (*pause * 2).min(REPLACE_PAUSE_MAX);
        while Instant::now() < until {
            if shared.leaving.load(Ordering::Acquire) {
                return None;
            }
            std::thread::sleep(POLL.min(until.saturating_duration_since(Instant::now())));
        }
        match shared.join() {
            Ok(consumer) => return Some(consumer),
            Err(error) => tracing::error!(%error, context = shared.context, "the group can't be joined; trying again"),
        }
    }
}

/// Forgets a consumer, of which nothing is heard from now on, and closes it on a thread that may hang. The
/// receiver ends when it is closed.
fn abandon(shared: &Shared, consumer: Arc<Member>) -> mpsc::Receiver<()> {
    consumer.context().abandoned.store(true, Ordering::Release);
    *shared.consumer.lock().unwrap_or_else(PoisonError::into_inner) = None;
    shared.standing.clear();
    let (done, closed) = mpsc::channel::<()>();
    let spawned = std::thread::Builder::new().name("kafka-closing".to_owned()).spawn(move || {
        drop(consumer);
        drop(done);
    });
    if let Err(error) = spawned {
        tracing::error!(%error, "no thread to close a Kafka consumer with");
    }
    closed
}

/// The member gives everything back and leaves, within the deadline. A static member only goes away: the
/// group keeps its partitions for it until its session runs out; by unsubscribing it would leave for good.
///
/// librdkafka tells the group once it has stopped all partitions. If it is closed before that, it forgets to
/// (an incremental unassign that ends while the client is terminating only unassigns again), and the group
/// waits for the session to run out. An empty assignment is no sign of it: partitions are taken from the list
/// first and stopped then. So the statistics are waited for, which costs only the one who leaves.
fn leave(shared: &Shared, consumer: Arc<Member>) {
    shared.hints.commit(&consumer, |partition| shared.standing.holds(PartitionId(partition)));
    if shared.config.get("group.instance.id").is_none() {
        unsubscribe(&consumer);
    }
    let closed = abandon(shared, consumer);
    let _ = closed.recv_timeout(LEAVE / 2);
    shared.left.send_replace(true);
}

fn unsubscribe(consumer: &Member) {
    consumer.unsubscribe();
    let outside = &consumer.context().outside;
    outside.store(false, Ordering::Release);
    let until = Instant::now() + LEAVE / 2;
    while Instant::now() < until {
        let _ = consumer.poll(Duration::from_millis(20));
        let is_empty = consumer.assignment().is_ok_and(|list| list.count() == 0);
        if is_empty && outside.load(Ordering::Acquire) {
            break;
        }
    }
}

/// Asks the coordinator, as a member, by committing the hint offset of `partition` in the member's
/// generation: a member that the group has moved past is refused.
fn confirm(consumer: &Member, topic: &str, partition: PartitionId, timeout: Duration) -> Result<(), LogError> {
    let failed = |error: KafkaError| unavailable("confirming the assignment", &error);
    let number = i32::try_from(partition.0).unwrap_or(i32::MAX);
    let mut asked = TopicPartitionList::new();
    asked.add_partition(topic, number);
    // What is committed is committed again, so that the hint does not move.
    let committed = consumer.committed_offsets(asked, timeout).map_err(failed)?;
    let offset = match committed.find_partition(topic, number).map(|element| element.offset()) {
        Some(Offset::Offset(offset)) => u64::try_from(offset).unwrap_or(0),
        _ => 0,
    };
    let mut list = TopicPartitionList::new();
    hints::add(&mut list, topic, partition.0, offset);
    consumer.commit(&list, CommitMode::Sync).map_err(failed)
}

#[async_trait]
impl Membership for KafkaMembership {
    async fn changed(&self) -> Result<BTreeSet<PartitionId>, LogError> {
        let mut watch = self.shared.standing.watch();
        loop {
            if self.shared.leaving.load(Ordering::Acquire) {
                return std::future::pending().await;
            }
            let now = watch.borrow_and_update().clone();
            {
                let mut returned = self.returned.lock().unwrap_or_else(PoisonError::into_inner);
                if *returned != now {
                    returned.clone_from(&now);
                    return Ok(now);
                }
            }
            if watch.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    async fn confirm(&self, partition: PartitionId) -> bool {
        let _one = self.confirming.lock().await;
        let standing = &self.shared.standing;
        let before = standing.changes();
        let Some(consumer) = self.shared.current().filter(|_| standing.holds(partition)) else { return false };
        if consumer.assignment_lost() {
            return false;
        }
        let (topic, timeout) = (standing.topic().to_owned(), self.timeout);
        let answer =
            blocking("confirming the assignment", timeout * 2, move || confirm(&consumer, &topic, partition, timeout));
        match answer.await {
            // An answer that spans a change of the group says nothing: the commit may have been accepted
            // before it, or, from an empty group, because nobody was there to refuse it.
            Ok(()) => standing.changes() == before && standing.holds(partition),
            Err(error) => {
                tracing::info!(%error, %partition, "the group does not confirm the assignment");
                false
            }
        }
    }

    fn joined(&self) -> bool {
        self.shared.standing.joined()
    }

    async fn leave(&self) {
        let mut left = self.shared.left.subscribe();
        self.shared.leaving.store(true, Ordering::Release);
        let _ = tokio::time::timeout(LEAVE * 2, left.wait_for(|left| *left)).await;
    }
}

impl Drop for KafkaMembership {
    fn drop(&mut self) {
        self.shared.leaving.store(true, Ordering::Release);
    }
}
