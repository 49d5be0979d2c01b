//! Webhooks: signed, late, sometimes twice, and again until they are taken.

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
use serde_json::{Value, json};

use super::{WebhookConfig, faults::Dice};
use crate::webhook::{SIGNATURE, sign};

/// A webhook that nobody takes is given up after so many attempts.
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

    /// Sends it, in its own time.
    pub(super) fn send(&self, kind: &'static str, object: Value) {
        let number = self.sent.fetch_add(1, Ordering::Relaxed);
        let event = json!({"id": format!("evt_sim_{number}"), "type": kind, "data": {"object": object}});
        let body = Bytes::from(event.to_string());
        let twice = self.dice.strikes(&("twice", number), self.config.duplicates_per_mille);
        for copy in 0..=u64::from(twice) {
            let most_ms = u64::try_from(self.config.delay_max.as_millis()).unwrap_or(u64::MAX).saturating_add(1);
            let delay = Duration::from_millis(self.dice.roll(&("delay", number, copy), most_ms));
            let (webhooks, body) = (self.clone(), body.clone());
            tokio::spawn(async move {
                tokio::time::sleep(delay).await;
                webhooks.deliver(&body).await;
            });
        }
    }

    async fn deliver(&self, body: &Bytes) {
        for attempt in 1..=ATTEMPTS_MAX {
            if self.attempt(body).await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100) * attempt).await;
        }
        tracing::warn!("a webhook was not taken");
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
