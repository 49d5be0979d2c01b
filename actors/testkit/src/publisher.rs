//! The publisher in memory: appends outbox rows to a [`MemoryLog`], in call order, as a gapless producer
//! does.
//!
//! Rows are handed to a task, as they are to librdkafka's thread: a caller that goes away doesn't call them
//! back, and a client that was replaced may still publish late if the test leaves it as a zombie. After an
//! error nothing goes out until the reset. Deliberately absent: batching and retries; an outage of the log
//! only makes it wait.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use holdfast_core::{
    batch::OutboxRow,
    port::log::{Landed, Landing, LogError, PublishError, Publisher, Publishers},
    size,
};
use tokio::sync::{mpsc, oneshot, watch};

use crate::{gate::Gate, log::MemoryLog};

/// A producer. Clones are the same one.
#[derive(Clone, Debug)]
pub struct MemoryPublisher {
    log: MemoryLog,
    faults: Arc<Mutex<Faults>>,
    client: Arc<Mutex<Option<Client>>>,
}

type Refusal = Arc<dyn Fn(&OutboxRow) -> bool + Send + Sync>;

#[derive(Default)]
struct Faults {
    refusal: Option<Refusal>,
    /// What was called behind a refused row goes out all the same.
    sends_behind: bool,
    rows_left: Option<u64>,
    acks_lost: u32,
    ack_latency: Duration,
    acks: Option<Gate>,
    sends: Option<Gate>,
    zombie: Option<Gate>,
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults").finish_non_exhaustive()
    }
}

/// One incarnation of the underlying client.
#[derive(Debug)]
struct Client {
    jobs: mpsc::UnboundedSender<Job>,
    replaced: watch::Sender<Option<Fate>>,
}

/// What becomes of a client that was replaced.
#[derive(Clone, Debug)]
enum Fate {
    Purged,
    Zombie(Gate),
}

struct Job {
    rows: Arc<[OutboxRow]>,
    answer: oneshot::Sender<Result<Landed, PublishError>>,
}

type Answer = oneshot::Receiver<Result<Landed, PublishError>>;

fn failure(why: impl Into<String>) -> PublishError {
    PublishError::Stopped(why.into())
}

impl MemoryPublisher {
    /// A producer to `log`. Give each node its own, on its own [`MemoryLog::node`].
    pub fn new(log: MemoryLog) -> Self {
        Self { log, faults: Arc::default(), client: Arc::default() }
    }

    /// Fails for good (until the reset) after `n` more rows.
    pub fn fail_after(&self, n: u64) {
        self.faults().rows_left = Some(n);
    }

    /// Refuses the rows for which `bad` is true, for their own sake.
    pub fn refuse(&self, bad: impl Fn(&OutboxRow) -> bool + Send + Sync + 'static) {
        self.faults().refusal = Some(Arc::new(bad));
    }

    /// Ends [`Self::refuse`].
    pub fn refuse_nothing(&self) {
        self.faults().refusal = None;
    }

    /// Lets what is called behind a refused row out: the mutant of an adapter that has more in flight than a
    /// record that may be refused (I9).
    pub fn send_behind_refused(&self) {
        self.faults().sends_behind = true;
    }

    /// Lets the rows of the next `n` calls out, but answers with an error.
    pub fn lose_acks(&self, n: u32) {
        self.faults().acks_lost = n;
    }

    /// Lets rows out at once, but answers only when the gate lets it; `None` ends that.
    pub fn hold_acks(&self, gate: Option<Gate>) {
        self.faults().acks = gate;
    }

    /// Answers this much later, in tokio's time.
    pub fn set_ack_latency(&self, latency: Duration) {
        self.faults().ack_latency = latency;
    }

    /// Holds each row back until the gate lets it out; `None` ends that.
    pub fn hold_sends(&self, gate: Option<Gate>) {
        self.faults().sends = gate;
    }

    /// When it is next replaced, the old client keeps what it has not sent, and sends it once the gate is
    /// open.
    pub fn leave_zombie(&self, gate: Gate) {
        self.faults().zombie = Some(gate);
    }

    /// Ends all faults. A client that has failed stays failed until its reset.
    pub fn heal(&self) {
        *self.faults() = Faults::default();
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn client(&self) -> MutexGuard<'_, Option<Client>> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands `rows` to the present client.
    fn enqueue(&self, rows: Arc<[OutboxRow]>) -> (Answer, watch::Receiver<Option<Fate>>) {
        let (answer, answered) = oneshot::channel();
        let mut client = self.client();
        let client = client.get_or_insert_with(|| self.start());
        let job = Job { rows, answer };
        // If the worker is gone the job is dropped, and with it the answer: the caller sees an error.
        let _ = client.jobs.send(job);
        (answered, client.replaced.subscribe())
    }

    fn start(&self) -> Client {
        let (jobs, queue) = mpsc::unbounded_channel();
        let replaced = watch::Sender::new(None);
        let worker = Worker {
            log: self.log.clone(),
            faults: Arc::clone(&self.faults),
            replaced: replaced.subscribe(),
            undead: false,
            failed: None,
        };
        tokio::spawn(worker.run(queue));
        Client { jobs, replaced }
    }
}

#[async_trait]
impl Publisher for MemoryPublisher {
    async fn publish(&self, rows: Arc<[OutboxRow]>) -> Result<Landed, PublishError> {
        let (answered, mut replaced) = self.enqueue(rows);
        let gone = || Err(failure("the client was replaced"));
        tokio::select! {
            biased;
            answer = answered => answer.unwrap_or_else(|_| gone()),
            _ = replaced.wait_for(Option::is_some) => gone(),
        }
    }

    async fn reset(&self) {
        let fate = self.faults().zombie.take().map_or(Fate::Purged, Fate::Zombie);
        if let Some(old) = self.client().take() {
            old.replaced.send_replace(Some(fate));
        }
    }
}

/// Each publisher has a client of its own, and the faults of the one it was made of.
impl Publishers for MemoryPublisher {
    fn publisher(&self) -> Result<Arc<dyn Publisher>, LogError> {
        Ok(Arc::new(Self { log: self.log.clone(), faults: Arc::clone(&self.faults), client: Arc::default() }))
    }
}

/// Sends the rows of one incarnation.
struct Worker {
    log: MemoryLog,
    faults: Arc<Mutex<Faults>>,
    replaced: watch::Receiver<Option<Fate>>,
    undead: bool,
    failed: Option<PublishError>,
}

/// The client was replaced, and is no zombie.
struct Gone;

impl Worker {
    async fn run(mut self, mut queue: mpsc::UnboundedReceiver<Job>) {
        while let Some(job) = queue.recv().await {
            let Ok(result) = self.send(&job.rows).await else { return };
            match result {
                Err(error) => {
                    let is_refused = matches!(error, PublishError::Refused { .. });
                    if !(is_refused && self.faults().sends_behind) {
                        self.failed = Some(failure(error.to_string()));
                    }
                    let _ = job.answer.send(Err(error));
                }
                Ok(landed) => self.acknowledge(job, landed),
            }
        }
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn send(&mut self, rows: &[OutboxRow]) -> Result<Result<Landed, PublishError>, Gone> {
        let mut landed = Landed::default();
        if let Some(error) = &self.failed {
            return Ok(Err(error.clone()));
        }
        let mut refused = None;
        for row in rows {
            if refused.is_none() {
                refused = self.refused(row);
            }
            if let Some(error) = &refused
                && (!self.faults().sends_behind || self.is_refused(row))
            {
                if self.faults().sends_behind {
                    continue;
                }
                return Ok(Err(error.clone()));
            }
            let gate = self.faults().sends.clone().filter(|_| !self.undead);
            let log = self.log.clone();
            self.unless_replaced(async move {
                if let Some(gate) = gate {
                    gate.pass().await;
                }
                log.reachable().await;
            })
            .await?;
            if !self.undead && !self.may_send() {
                return Ok(Err(failure("failed, as the test asked")));
            }
            let draft = &row.draft;
            let (key, headers, value) = (draft.key.clone(), draft.headers.clone(), draft.value.clone());
            let (partition, offset) = match self.log.append(&draft.topic, Some(draft.target), key, headers, value) {
                Ok(place) => place,
                Err(error) => return Ok(Err(failure(error.to_string()))),
            };
            let is_same = |landing: &&mut Landing| (&landing.topic, landing.partition) == (&draft.topic, partition);
            match landed.0.iter_mut().find(is_same) {
                Some(landing) => landing.offset = offset,
                None => landed.0.push(Landing { topic: draft.topic.clone(), partition, offset }),
            }
        }
        Ok(refused.map_or(Ok(landed), Err))
    }

    /// Whether the log does not take `row`.
    fn is_refused(&self, row: &OutboxRow) -> bool {
        let refusal = self.faults().refusal.clone();
        let is_too_large = |max| size::of_draft(&row.draft) as u64 > max;
        refusal.is_some_and(|refusal| refusal(row)) || self.log.takes(&row.draft.topic).is_some_and(is_too_large)
    }

    fn refused(&self, row: &OutboxRow) -> Option<PublishError> {
        let (partition, sequence, error) = (row.partition, row.sequence, "too large for its topic".to_owned());
        self.is_refused(row).then_some(PublishError::Refused { partition, sequence, error })
    }

    /// Counts down to the failure that the test asked for.
    fn may_send(&self) -> bool {
        let mut faults = self.faults();
        match &mut faults.rows_left {
            Some(0) => {
                faults.rows_left = None;
                false
            }
            Some(left) => {
                *left -= 1;
                true
            }
            None => true,
        }
    }

    /// Waits for `what`; a client that is replaced meanwhile ends, or first waits for its zombie's gate.
    async fn unless_replaced(&mut self, what: impl Future<Output = ()>) -> Result<(), Gone> {
        tokio::pin!(what);
        while !self.undead {
            let fate = self.replaced.borrow_and_update().clone();
            match fate {
                Some(Fate::Purged) => return Err(Gone),
                Some(Fate::Zombie(gate)) => {
                    gate.pass().await;
                    self.undead = true;
                    // From here on gates and failures that are meant for the living don't touch it.
                    return Ok(());
                }
                None => {}
            }
            tokio::select! {
                biased;
                changed = self.replaced.changed() => {
                    // The publisher itself is gone, as in a crash: what was handed over may still go out.
                    if changed.is_err() {
                        self.undead = true;
                    }
                }
                () = &mut what => return Ok(()),
            }
        }
        what.await;
        Ok(())
    }

    fn acknowledge(&mut self, job: Job, landed: Landed) {
        let (gate, latency, lost) = {
            let mut faults = self.faults();
            let lost = faults.acks_lost > 0;
            faults.acks_lost -= u32::from(lost);
            (faults.acks.clone(), faults.ack_latency, lost)
        };
        if lost {
            let error = failure("the acknowledgement was lost");
            self.failed = Some(error.clone());
            let _ = job.answer.send(Err(error));
            return;
        }
        if gate.is_none() && latency.is_zero() {
            let _ = job.answer.send(Ok(landed));
            return;
        }
        let mut replaced = self.replaced.clone();
        tokio::spawn(async move {
            let wait = async {
                tokio::time::sleep(latency).await;
                if let Some(gate) = gate {
                    gate.pass().await;
                }
            };
            tokio::select! {
                biased;
                _ = replaced.wait_for(Option::is_some) => {}
                () = wait => {
                    let _ = job.answer.send(Ok(landed));
                }
            }
        });
    }
}
