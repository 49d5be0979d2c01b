//! Taking a partition over.
//!
//! Raise the epoch first, then, unless the last owner released the row, wait until its lease is over: a full lease on one's own clock, less the
//! time for which it is known to have been silent ([`crate::beats`]). Say that one lives, read where the row stands, check its past,
//! acknowledge its generation, and start (I4, I10). The acknowledgement comes last: it is written, and nothing may be written to a row whose
//! past is in doubt. An owner that only now begins has let go of every key that is not at home here. A taker whose assignment has gone gives
//! up at the next step, and never raises an epoch any more: or it would rob the next owner, however late. One that gives up after it raised it
//! leaves the row as it is. Deliberately absent: starting.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use holdfast_core::{
    PartitionId,
    epoch::{Beat, Generation, Halt, PartitionRow, Token},
    port::{
        clock::Clock,
        store::{Store, StoreError, Taken},
    },
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    backoff::Backoff,
    beats::Beats,
    config::Config,
    growth::{self, Homes},
    history::{History, Trouble},
    mutant::Mutant,
    progress::Pulse,
};

/// How often a halted context is looked at again.
const HALTED_PAUSE: Duration = Duration::from_secs(2);
const RELEASE_PAUSE: Duration = Duration::from_millis(50);

/// How it ended.
#[expect(clippy::large_enum_variant, reason = "one at a time, and mostly the large one")]
pub(crate) enum Taking {
    /// It may be served. `known` is the end of what is known of its partition of the events topic.
    Taken { row: PartitionRow, count: u32, token: Token, started: Duration, known: Option<u64> },
    /// Somebody else was quicker.
    Lost,
    /// The assignment has gone.
    GivenUp,
}

pub(crate) struct TakeOver {
    pub store: Arc<dyn Store>,
    pub clock: Arc<dyn Clock>,
    pub config: Arc<Config>,
    pub history: Arc<History>,
    pub context: &'static str,
    pub events_topic: Arc<str>,
    pub homes: Homes,
    pub beats: Arc<Beats>,
    pub partition: PartitionId,
    pub pulse: Pulse,
    /// The last batch that this node committed to it.
    pub remembered: Arc<AtomicU64>,
    /// Cancelled once the assignment has gone.
    pub unwanted: CancellationToken,
}

impl TakeOver {
    pub async fn run(self) -> Taking {
        let mut backoff = Backoff::infrastructure();
        let patience = Instant::now() + self.config.release_grace;
        self.pulse.waits("the database");
        while !self.unwanted.is_cancelled() {
            let row = match self.row().await {
                Ok(Some(row)) => row,
                Ok(None) => {
                    tracing::warn!(partition = self.partition.0, "no row for this partition yet");
                    self.pause(backoff.next()).await;
                    continue;
                }
                Err(error) => {
                    self.held(&error);
                    self.pause(backoff.next()).await;
                    continue;
                }
            };
            if self.is_halted(row.halted.as_ref()).await {
                continue;
            }
            // The last owner may be about to release it: that is quicker than waiting out its lease, but for one that is dead.
            let is_silent = row.has_begun && self.beats.silence(&row.address) >= self.lease();
            if !row.released && !is_silent && Instant::now() < patience {
                self.pause(RELEASE_PAUSE).await;
                continue;
            }
            if self.unwanted.is_cancelled() {
                break;
            }
            let token = Token::draw();
            let waits_first = self.config.is(Mutant::WaitThenBump);
            if waits_first && !row.released {
                self.pause(self.lease()).await;
            }
            match self.store.take(self.partition, row.epoch, token, &self.config.address).await {
                Ok(Some(Taken { row: taken, beat })) => {
                    if self.config.is(Mutant::AcknowledgedAtBump) {
                        let _ = self.store.acknowledge(self.partition, token, taken.generation, None).await;
                    }
                    if !taken.released && !waits_first {
                        // Until every lease that an earlier owner may hold is over.
                        let silence = beat.map_or(Duration::ZERO, |beat| self.silence_since(&row, beat));
                        self.pulse.waits("the last owner's lease");
                        self.pause(self.lease().saturating_sub(silence)).await;
                    }
                    self.pulse.moved();
                    return self.begin(token).await;
                }
                Ok(None) => return Taking::Lost,
                Err(error) => {
                    self.held(&error);
                    self.pause(backoff.next()).await;
                }
            }
        }
        Taking::GivenUp
    }

    /// How long after its renewal an owner may still answer, by this node's clock.
    fn lease(&self) -> Duration {
        self.config.lease + self.config.drift
    }

    /// For how long the owner of `row` has said nothing after `beat`, its last.
    fn silence_since(&self, row: &PartitionRow, beat: Beat) -> Duration {
        let trusted = self.beats.last(&row.address).filter(|_| self.config.is(Mutant::OldBeatTrusted));
        self.beats.silence_since(&row.address, trusted.unwrap_or(beat))
    }

    /// Reads the row as it stands now that nobody else writes it, checks its past and acknowledges its generation.
    async fn begin(&self, token: Token) -> Taking {
        let mut backoff = Backoff::infrastructure();
        self.pulse.waits("the partition's history");
        while !self.unwanted.is_cancelled() {
            let started = self.clock.boot();
            let row = match self.row_after_beat().await {
                Ok(Some(row)) if row.token == Some(token) => row,
                Ok(_) => return Taking::Lost,
                Err(error) => {
                    self.held(&error);
                    self.pause(backoff.next()).await;
                    continue;
                }
            };
            let known = match self.history.verify(&row, self.remembered.load(Ordering::Acquire)).await {
                Ok(known) => known,
                Err(trouble) => {
                    if let Trouble::Halt(halt) = &trouble
                        && self.history.halt_all(halt).await.is_ok()
                    {
                        return Taking::Lost; // our own token is gone with all others
                    }
                    self.held(&trouble);
                    self.pause(backoff.next()).await;
                    continue;
                }
            };
            let generation = row.generation;
            let mut homes = self.homes.clone();
            let growth = tokio::select! {
                growth = homes.until(|growth| growth.count_of(generation).is_some()) => growth,
                () = self.unwanted.cancelled() => break,
            };
            let count = growth.count_of(generation).unwrap_or(1);
            // The first generation has left nothing behind.
            let mark = (generation > Generation(1))
                .then(|| growth::mark(self.context, &self.events_topic, self.partition, count, self.clock.now()))
                .flatten();
            match self.store.acknowledge(self.partition, token, generation, mark).await {
                Ok(Some(row)) => {
                    self.history.saw(None);
                    return Taking::Taken { row, count, token, started, known };
                }
                // Another generation meanwhile, or another owner: the row says which.
                Ok(None) => {}
                Err(error) => {
                    self.held(&error);
                    self.pause(backoff.next()).await;
                }
            }
        }
        Taking::GivenUp
    }

    /// Waits a while if the context is halted.
    async fn is_halted(&self, halt: Option<&Halt>) -> bool {
        if let Some(halt) = halt {
            self.history.saw(Some(halt));
            self.pulse.waits("an operator: the context is halted");
            // What an operator puts right is right, whatever this node remembers.
            self.remembered.store(0, Ordering::Release);
            self.pause(HALTED_PAUSE).await;
        }
        halt.is_some()
    }

    /// In this order: who has not heard of the beat yet finds the row taken, and who comes later knows that this node lives.
    async fn row_after_beat(&self) -> Result<Option<PartitionRow>, StoreError> {
        if !self.config.is(Mutant::BeginWithoutBeat) {
            self.beats.say(&*self.store).await?;
        }
        self.row().await
    }

    async fn row(&self) -> Result<Option<PartitionRow>, StoreError> {
        Ok(self.store.partitions().await?.into_iter().find(|row| row.partition == self.partition))
    }

    fn held(&self, error: &dyn std::fmt::Display) {
        tracing::warn!(partition = self.partition.0, %error, "take-over waits");
    }

    /// Waits, at most until the assignment has gone.
    async fn pause(&self, pause: Duration) {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = self.unwanted.cancelled() => {}
        }
    }
}
