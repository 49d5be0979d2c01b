//! The largest record batch that each topic takes, as the publisher knows it.
//!
//! Invariant: what is not known is taken for Kafka's default, and never for more than a client of ours sends.
//! Topics are asked about before the first row goes to them, and again now and then; a limit that was lowered
//! in between is found out by a refusal. Deliberately absent: changing a limit.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use holdfast_core::{port::log::LogError, size};

use crate::{admin::KafkaAdmin, config::KafkaConfig, error::ConfigError};

/// A limit is believed this long.
const BELIEVED: Duration = Duration::from_secs(10);
/// How long a row may wait for the limit of its topic to be known.
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) struct TopicLimits {
    admin: KafkaAdmin,
    known: Mutex<HashMap<Arc<str>, (usize, Instant)>>,
    is_reading: AtomicBool,
}

impl TopicLimits {
    pub(crate) fn new(config: &KafkaConfig) -> Result<Arc<Self>, ConfigError> {
        let admin = KafkaAdmin::new(config)?;
        Ok(Arc::new(Self { admin, known: Mutex::default(), is_reading: AtomicBool::new(false) }))
    }

    /// The limit of `topic`. The first time, it is asked for; later, an old one is asked for again in the
    /// background.
    pub(crate) async fn of(self: &Arc<Self>, topic: &Arc<str>) -> usize {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(topic).copied();
        match known {
            Some((max, at)) => {
                if at.elapsed() > BELIEVED && !self.is_reading.swap(true, Ordering::AcqRel) {
                    let limits = Arc::clone(self);
                    tokio::spawn(async move {
                        limits.read_all().await;
                        limits.is_reading.store(false, Ordering::Release);
                    });
                }
                max
            }
            None => self.read(topic).await,
        }
    }

    /// Asks for all limits known so far.
    pub(crate) async fn read_all(&self) {
        let topics: Vec<Arc<str>> = self.known.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect();
        for topic in topics {
            self.read(&topic).await;
        }
    }

    /// Asks for one limit. Where there is no answer, the one known so far stands.
    async fn read(&self, topic: &Arc<str>) -> usize {
        let answer = tokio::time::timeout(PATIENCE, self.admin.bytes_max(topic)).await;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = known.entry(Arc::clone(topic)).or_insert((size::TOPIC_BYTES_DEFAULT, Instant::now()));
        entry.1 = Instant::now();
        match answer.unwrap_or_else(|_| Err(LogError::Unavailable("no answer in time".to_owned()))) {
            Ok(Some(bytes)) => entry.0 = usize::try_from(bytes).unwrap_or(usize::MAX).min(size::CLIENT_BYTES_MAX),
            Ok(None) => {}
            Err(error) => tracing::debug!(%topic, %error, "the limit of a topic could not be read"),
        }
        entry.0
    }
}
