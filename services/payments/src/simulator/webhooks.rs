//! Webhooks: signed, late, sometimes twice, and again until they are taken.
//!
//! Deliberately absent: which were taken, which the ledger knows.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use holdfast_platform::http_client::HttpClient;
use http::{Request, header};
use http_body_util::Full;
use serde_json::json;

use super::{WebhookConfig, faults::Dice, ledger::Notice};
use crate::webhook::{SIGNATURE, sign};

/// Attempts after which a webhook that is not taken is put off to the next start.
const ATTEMPTS_MAX: u32 = 30;

#[derive(Clone, Debug)]
pub(super) struct Webhooks {
    config: Arc<WebhookConfig>,
    client: HttpClient,
    dice: Dice,
    sent: Arc<AtomicU64>,
}

impl Webhooks {
    pub(super) fn new(config: WebhookConfig, dice: Dice) -> Self {
        let client = HttpClient::new(Duration::from_secs(5));
        Self { config: Arc::new(config), client, dice, sent: Arc::default() }
    }

    /// How much later each copy of the next webhook is to come.
    pub(super) fn delays(&self) -> Vec<Duration> {
        let number = self.sent.fetch_add(1, Ordering::Relaxed);
        let twice = self.dice.strikes(&("twice", number), self.config.duplicates_per_mille);
        let most_ms = u64::try_from(self.config.delay_max.as_millis()).unwrap_or(u64::MAX).saturating_add(1);
        let delay = |copy: u64| Duration::from_millis(self.dice.roll(&("delay", number, copy), most_ms));
        (0..=u64::from(twice)).map(delay).collect()
    }

    /// Sends it until it is taken; whether it was.
    pub(super) async fn deliver(&self, notice: &Notice) -> bool {
        let event = json!({"id": notice.id, "type": notice.kind, "data": {"object": notice.object}});
        let body = Bytes::from(event.to_string());
        for attempt in 1..=ATTEMPTS_MAX {
            if self.attempt(&body).await {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(100) * attempt).await;
        }
        tracing::warn!(webhook = notice.id, "a webhook was not taken");
        false
    }

    async fn attempt(&self, body: &Bytes) -> bool {
        let now_s = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
        let signature = sign(&self.config.secret, body, i64::try_from(now_s).unwrap_or(i64::MAX)).unwrap_or_default();
        let request = Request::post(&self.config.url)
            .header(header::CONTENT_TYPE, "application/json")
            .header(SIGNATURE, signature)
            .body(Full::new(body.clone()));
        match request {
            Ok(request) => self.client.send(request).await.is_ok_and(|answer| answer.status.is_success()),
            Err(_) => false,
        }
    }
}
