//! A payment provider to try things out with: an HTTP server that speaks the part of Stripe's API that is
//! used here.
//!
//! It keeps a ledger of its own (`GET /ledger`), which a checker compares with what others believe; remembers
//! idempotency keys and repeats what it stored for them, failures included; refuses a key with other
//! parameters; and fails in every way that a provider can, by dice that depend on the seed and on what is
//! asked, not on when. It posts signed webhooks, late, twice and out of order. Invariants: what it does to
//! the ledger, it does once per key, whatever the answer was; books that are kept in a directory
//! ([`Simulator::open`]) outlive the process, with keys, counters and webhooks that were not taken, and are
//! written before an answer or a webhook leaves; no id is ever given twice. Deliberately absent: cards, fees,
//! time that passes (an authorization never lapses), and any claim to be Stripe where this project doesn't
//! ask.

mod api;
mod faults;
mod journal;
mod ledger;
mod webhooks;

use std::{
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::Router as Routes;
use holdfast_platform::http::{Limits, serve};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use faults::{Fault, Plan};
pub use journal::{Error as BooksError, FILE as BOOKS_FILE};

use self::{
    faults::Dice,
    journal::{Failed, Journal},
    ledger::{Entry, Fingerprint, Key, Ledger, Notice},
    webhooks::Webhooks,
};

/// A payment method of which the first charge happens, without an answer ([`Fault::TimeoutAfter`]).
pub const SILENT: &str = "pm_simulated_silent";
/// A payment method of which the first charge happens long after the caller has given up ([`Fault::Late`]).
pub const LATE: &str = "pm_simulated_late";

/// How it behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// Of the dice.
    pub seed: u64,
    /// How often it fails, and how.
    pub plan: Plan,
    /// Of 1,000 payment methods, how many are declined (beside those that always are, such as
    /// `pm_card_chargeDeclined`).
    pub declines_per_mille: u32,
    /// How long it does not answer where it is to answer too late; longer than the caller waits.
    pub hang: Duration,
    /// What it says where there were too many requests, in seconds.
    pub retry_after_s: u64,
    /// Where webhooks go.
    pub webhooks: Option<WebhookConfig>,
}

/// Where webhooks go, and how.
#[derive(Clone, Debug)]
pub struct WebhookConfig {
    /// The address.
    pub url: String,
    /// The secret that signs them.
    pub secret: String,
    /// Of 1,000 webhooks, how many come twice.
    pub duplicates_per_mille: u32,
    /// They come up to so much later, and so out of order.
    pub delay_max: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            seed: 1,
            plan: Plan::None,
            declines_per_mille: 0,
            hang: Duration::from_secs(30),
            retry_after_s: 1,
            webhooks: None,
        }
    }
}

/// The provider. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Simulator {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: Config,
    dice: Dice,
    books: Mutex<Books>,
    webhooks: Option<Webhooks>,
}

/// The ledger, and where it is kept.
#[derive(Debug, Default)]
struct Books {
    ledger: Ledger,
    journal: Option<Journal>,
}

impl Books {
    const fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Changes the ledger, here and where it is kept.
    fn note(&mut self, entry: &Entry) {
        self.ledger.apply(entry).expect("an entry is made of the ledger that it is applied to, under one lock");
        if let Some(journal) = &mut self.journal {
            journal.append(&serde_json::to_string(entry).expect("an entry holds text, numbers and JSON"));
        }
    }

    /// Takes a key for as long as what it stands for is under way.
    fn begin(&mut self, key: &str, fingerprint: Fingerprint) {
        self.ledger.keys.insert(key.to_owned(), Key::UnderWay(fingerprint));
    }
}

impl Simulator {
    /// With an empty ledger, which ends with the process.
    pub fn new(config: Config) -> Self {
        Self::with(config, Books::default())
    }

    /// With the ledger that is kept in `dir`; an empty one if there is none. Webhooks that were not taken are
    /// sent again. Has to be called within a tokio runtime.
    ///
    /// # Errors
    /// If the books can't be read as they were written, or another process has them open.
    pub fn open(config: Config, dir: &Path) -> Result<Self, BooksError> {
        let (journal, entries) = journal::open(dir)?;
        let ledger = Ledger::fold(&entries).map_err(|(at, reason)| BooksError::Damaged {
            path: dir.join(BOOKS_FILE),
            line: at + 1,
            reason,
        })?;
        let mut books = Books { ledger, journal: Some(journal) };
        if entries.is_empty() {
            books.note(&Ledger::first());
        }
        let undelivered = books.ledger().undelivered();
        let simulator = Self::with(config, books);
        simulator.report(undelivered);
        Ok(simulator)
    }

    fn with(config: Config, books: Books) -> Self {
        let dice = Dice::new(config.seed);
        let webhooks = config.webhooks.clone().map(|webhooks| Webhooks::new(webhooks, dice));
        Self { inner: Arc::new(Inner { config, dice, books: Mutex::new(books), webhooks }) }
    }

    /// Its API, and `GET /ledger`.
    pub fn routes(&self) -> Routes {
        api::routes(self.clone())
    }

    /// Serves until `stop`.
    pub async fn serve(&self, listener: TcpListener, stop: CancellationToken) -> io::Result<()> {
        serve(listener, self.routes(), Limits::default(), stop).await
    }

    /// What `GET /ledger` says.
    pub fn account(&self) -> Value {
        self.books().ledger().account()
    }

    /// As after a day: keys are forgotten.
    pub fn forget_keys(&self) {
        self.books().note(&Entry::KeysForgotten {});
    }

    /// Waits until everything that was noted so far is kept.
    async fn durable(&self) -> Result<(), Failed> {
        let waiting = self.books().journal.as_ref().map(Journal::durable);
        match waiting {
            Some(waiting) => waiting.done().await,
            None => Ok(()),
        }
    }

    /// Sends webhooks, in their own time, each until it is taken.
    fn report(&self, news: Vec<Notice>) {
        let Some(webhooks) = &self.inner.webhooks else { return };
        for notice in news {
            for delay in webhooks.delays() {
                let (simulator, webhooks, notice) = (self.clone(), webhooks.clone(), notice.clone());
                tokio::spawn(async move {
                    if simulator.durable().await.is_err() {
                        return;
                    }
                    tokio::time::sleep(delay).await;
                    if webhooks.deliver(&notice).await {
                        simulator.books().note(&Entry::Delivered { notice: notice.id });
                    }
                });
            }
        }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.inner.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
