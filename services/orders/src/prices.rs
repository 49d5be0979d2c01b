//! What a unit costs, asked in Prepare: for a whole batch at once, remembered for seconds.
//!
//! Invariant: a price is never used later than [`Keep::known`] after it was asked for; with inventory away, a
//! command waits rather than take an old one. Deliberately absent: transport (see [`grpc`]) and any reaction
//! to `PriceSet`.

mod fixed;
pub mod grpc;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use holdfast_core::codec::LookupFailed;
use holdfast_money::Money;
use holdfast_orders_domain::{Command, Quote, Sku};

pub use fixed::StaticPrices;

/// Most skus asked for in one question.
pub const SKUS_MAX: usize = 1000;

/// Knows what a unit costs.
#[async_trait]
pub trait PriceSource: Send + Sync + 'static {
    /// The price of each of `skus` (at most [`SKUS_MAX`], none twice), in their order; `None` for one that is
    /// not known or has no price. One that failed costs no other its answer.
    async fn prices(&self, skus: &[Sku]) -> Result<Vec<Result<Option<Money>, LookupFailed>>, LookupFailed>;
}

#[async_trait]
impl PriceSource for Box<dyn PriceSource> {
    async fn prices(&self, skus: &[Sku]) -> Result<Vec<Result<Option<Money>, LookupFailed>>, LookupFailed> {
        (**self).prices(skus).await
    }
}

/// How long and how many answers are remembered.
#[derive(Clone, Copy, Debug)]
pub struct Keep {
    /// A price, for so long after it was asked for.
    pub known: Duration,
    /// That there is none, for so long.
    pub unknown: Duration,
    /// Answers, at most.
    pub entries_max: usize,
}

impl Default for Keep {
    fn default() -> Self {
        Self { known: Duration::from_secs(5), unknown: Duration::from_secs(1), entries_max: 100_000 }
    }
}

/// Prices with a memory.
pub struct Prices {
    source: Arc<dyn PriceSource>,
    keep: Keep,
    remembered: Mutex<HashMap<Sku, Remembered>>,
}

#[derive(Clone, Copy)]
struct Remembered {
    quote: Quote,
    until: Instant,
}

/// What was asked for, sorted, with the answers in the same order.
#[derive(Default)]
struct Asked {
    skus: Vec<Sku>,
    answers: Vec<Result<Quote, LookupFailed>>,
}

impl Prices {
    /// From `source`, remembered for the usual time.
    pub fn new(source: Arc<dyn PriceSource>) -> Self {
        Self::keeping(source, Keep::default())
    }

    /// From `source`, remembered as `keep` says.
    pub fn keeping(source: Arc<dyn PriceSource>, keep: Keep) -> Self {
        Self { source, keep, remembered: Mutex::default() }
    }

    /// Fills in the quotes that `commands` lack; one result for each command.
    pub async fn quote(&self, commands: &mut [&mut Command]) -> Vec<Result<(), LookupFailed>> {
        self.quote_at(commands, Instant::now()).await
    }

    async fn quote_at(&self, commands: &mut [&mut Command], now: Instant) -> Vec<Result<(), LookupFailed>> {
        let missing = self.recall(commands, now);
        if missing.is_empty() {
            return vec![Ok(()); commands.len()];
        }
        let asked = self.ask(missing).await;
        self.remember(&asked, now);
        commands
            .iter_mut()
            .map(|command| match lacking(command) {
                None => Ok(()),
                Some((sku, quote)) => {
                    *quote = asked.answer(sku)?;
                    Ok(())
                }
            })
            .collect()
    }

    /// Fills in what is remembered; returns the skus that are not, sorted, each once.
    pub(crate) fn recall(&self, commands: &mut [&mut Command], now: Instant) -> Vec<Sku> {
        let mut missing = Vec::new();
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        for command in commands {
            let Some((sku, quote)) = lacking(command) else { continue };
            match remembered.get(sku) {
                Some(known) if now < known.until => *quote = known.quote,
                _ => missing.push(sku.clone()),
            }
        }
        drop(remembered);
        missing.sort_unstable();
        missing.dedup();
        missing
    }

    async fn ask(&self, skus: Vec<Sku>) -> Asked {
        let mut answers = Vec::with_capacity(skus.len());
        for part in skus.chunks(SKUS_MAX) {
            match self.source.prices(part).await {
                Ok(prices) if prices.len() == part.len() => {
                    let quote = |price: Option<Money>| price.map_or(Quote::UnknownSku, Quote::Price);
                    answers.extend(prices.into_iter().map(|price| price.map(quote)));
                }
                Ok(_) => answers.extend(part.iter().map(|_| Err(LookupFailed("not one price for each sku".into())))),
                Err(failed) => answers.extend(part.iter().map(|_| Err(failed.clone()))),
            }
        }
        Asked { skus, answers }
    }

    /// Remembers the answers from when they were asked for, not from when they came.
    fn remember(&self, asked: &Asked, asked_at: Instant) {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() + asked.skus.len() > self.keep.entries_max {
            remembered.retain(|_, known| asked_at < known.until);
        }
        for (sku, answer) in asked.skus.iter().zip(&asked.answers) {
            let Ok(quote) = answer else { continue };
            let keep = if *quote == Quote::UnknownSku { self.keep.unknown } else { self.keep.known };
            if remembered.len() < self.keep.entries_max || remembered.contains_key(sku) {
                remembered.insert(sku.clone(), Remembered { quote: *quote, until: asked_at + keep });
            }
        }
    }
}

impl Asked {
    fn answer(&self, sku: &Sku) -> Result<Quote, LookupFailed> {
        match self.skus.binary_search(sku) {
            Ok(at) => self.answers[at].clone(),
            Err(_) => Err(LookupFailed("the price was not asked for".into())),
        }
    }
}

/// The sku whose quote `command` lacks, and the place for it.
fn lacking(command: &mut Command) -> Option<(&Sku, &mut Quote)> {
    match command {
        Command::AddItem { sku, quote, .. } if *quote == Quote::NotAsked => Some((sku, quote)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
