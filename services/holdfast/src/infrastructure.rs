//! Where Kafka and Postgres are: configured, or embedded.

use std::path::PathBuf;

use holdfast_load_tests::scenarios::cpu::Pids;
use holdfast_platform::{Config, Context};
use holdfast_stack::{Stack, StackOptions};

use crate::failure::Failure;

/// The contexts that this build has.
pub const CONTEXTS: [Context; 5] =
    [Context::Customers, Context::Inventory, Context::Payments, Context::Fulfillment, Context::Orders];

/// Ordering alone, as far as stock held for placed orders: orders, and the contexts that it asks before it
/// takes one.
pub const ORDERING: [Context; 3] = [Context::Customers, Context::Inventory, Context::Orders];

/// Addresses, and the embedded servers behind them if there are any.
pub struct Infrastructure {
    brokers: String,
    /// The embedded Postgres's URL.
    embedded_url: Option<String>,
    stack: Option<Stack>,
    /// Whether Kafka is one of the embedded servers.
    embeds_kafka: bool,
}

impl Infrastructure {
    /// Only what is configured.
    pub fn configured(config: &Config) -> Result<Self, Failure> {
        let brokers = config.require_brokers()?.to_owned();
        Ok(Self { brokers, embedded_url: None, stack: None, embeds_kafka: false })
    }

    /// None of its own: only configured databases, if any.
    pub const fn none() -> Self {
        Self { brokers: String::new(), embedded_url: None, stack: None, embeds_kafka: false }
    }

    /// What is configured, and embedded servers for what is not. `data_dir` is where those keep their data;
    /// `None` is a temporary directory.
    pub async fn embedded(config: &Config, data_dir: Option<PathBuf>) -> Result<Self, Failure> {
        let kafka = config.kafka.brokers.is_none();
        let postgres = CONTEXTS.iter().any(|context| config.database_url(*context).is_none());
        let stack = if kafka || postgres {
            Some(Stack::start(StackOptions { data_dir, kafka, postgres, ..StackOptions::default() }).await?)
        } else {
            None
        };
        let brokers = match (&config.kafka.brokers, &stack) {
            (Some(brokers), _) => brokers.clone(),
            (None, Some(stack)) => stack.brokers().to_owned(),
            (None, None) => unreachable!("no brokers are configured, so a stack was started"),
        };
        let embedded_url = stack.as_ref().filter(|_| postgres).map(|stack| stack.postgres_url("postgres"));
        Ok(Self { brokers, embedded_url, stack, embeds_kafka: kafka })
    }

    /// Bootstrap servers.
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// The database of `context`.
    pub fn database_url(&self, config: &Config, context: Context) -> Result<String, Failure> {
        match (config.database_url(context), &self.embedded_url) {
            (Some(url), _) => Ok(url.expose().to_owned()),
            (None, Some(url)) => Ok(url.clone()),
            (None, None) => Ok(config.require_database_url(context)?.expose().to_owned()),
        }
    }

    /// The role that `context` acts as: its own on the embedded server; on a configured one whatever its URL
    /// says.
    pub fn role(&self, config: &Config, context: Context) -> Option<String> {
        let own = config.database_url(context).is_none() && self.embedded_url.is_some();
        own.then(|| format!("holdfast_{context}"))
    }

    /// The processes of the embedded servers.
    pub async fn pids(&self) -> Pids {
        let mut pids = Pids::default();
        if let Some(stack) = &self.stack {
            if self.embeds_kafka {
                pids.kafka = stack.kafka_pid().await;
            }
            if self.embedded_url.is_some() {
                pids.postgres = stack.postgres_pid().await;
            }
        }
        pids
    }

    /// Stops the embedded servers.
    pub async fn stop(self) -> Result<(), Failure> {
        match self.stack {
            Some(stack) => Ok(stack.stop().await?),
            None => Ok(()),
        }
    }
}
