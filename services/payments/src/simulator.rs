//! A payment provider to try things out with: an HTTP server that speaks the part of Stripe's API that is used here.
//!
//! It keeps a ledger of its own (`GET /ledger`), which a checker compares with what others believe; remembers idempotency keys and repeats
//! what it stored for them, failures included; refuses a key with other parameters; and fails in every way that a provider can, by
//! dice that depend on the seed and on what is asked, not on when. It posts signed webhooks, late, twice and out of order.
//! Invariant: what it does to the ledger, it does once per key, whatever the answer was. Deliberately absent: cards, fees, time that passes
//! (an authorization never lapses), and any claim to be Stripe where this project doesn't ask.

mod api;
mod faults;
mod ledger;
mod webhooks;

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::Router as Routes;
use holdfast_platform::http::{Limits, serve};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use faults::{Fault, Plan};

use self::{faults::Dice, ledger::Ledger, webhooks::Webhooks};

/// A payment method of which the first charge happens, without an answer ([`Fault::TimeoutAfter`]).
pub const SILENT: &str = "pm_simulated_silent";
/// A payment method of which the first charge happens long after whoever asked has given up ([`Fault::Late`]).
pub const LATE: &str = "pm_simulated_late";

/// How it behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// Of the dice.
    pub seed: u64,
    /// How often it fails, and how.
    pub plan: Plan,
    /// Of 1,000 payment methods, how many are declined (beside those that always are, such as `pm_card_chargeDeclined`).
    pub declines_per_mille: u32,
    /// How long it does not answer where it is to answer too late; longer than whoever asks waits.
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
    ledger: Mutex<Ledger>,
    webhooks: Option<Webhooks>,
}

impl Simulator {
    /// With an empty ledger.
    pub fn new(config: Config) -> Self {
        let dice = Dice::new(config.seed);
        let webhooks = config.webhooks.clone().map(|webhooks| Webhooks::new(webhooks, dice));
        Self { inner: Arc::new(Inner { config, dice, ledger: Mutex::default(), webhooks }) }
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
        self.ledger().account()
    }

    /// As after a day: keys are forgotten.
    pub fn forget_keys(&self) {
        self.ledger().keys.clear();
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.inner.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
