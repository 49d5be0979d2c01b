//! Holdfast's side of a measurement: one context as a node on real ports, fed from Kafka, timed by what is
//! readable in its events topic.
//!
//! Deliberately absent: knowing which context it is.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::BoxFuture;
use holdfast_kafka::{KafkaConfig, KafkaLog, KafkaMembership, KafkaPublishers};
use holdfast_postgres::{PgStore, View, migrate};
use holdfast_runtime::{BoundedContext, Config, Node, Ports, SystemClock, telemetry::NoTrace};

use super::{Error, failed};

/// What is to be run.
pub struct Contestant {
    /// The context.
    pub context: BoundedContext,
    /// Its read models.
    pub views: Vec<View>,
    /// Its own migrations, as [`holdfast_postgres::migrate`] takes them.
    pub migrations: Vec<(i64, &'static str, &'static str)>,
}

impl Contestant {
    /// The runtime alone, with an aggregate that does as little as an order may.
    pub fn stand_in() -> Self {
        let context = BoundedContext::new("orders").with(super::stand_in::StandInAdapter);
        Self { context, views: Vec::new(), migrations: Vec::new() }
    }
}

/// A node that serves, and its store's address.
pub struct Serving {
    node: Arc<Node>,
    partitions: usize,
}

impl Serving {
    /// Migrates `schema` in the database at `url`, and starts a node. The topics must exist.
    pub fn start<'a>(
        contestant: Contestant,
        config: Config,
        brokers: &'a str,
        url: &'a str,
        schema: &'a str,
    ) -> BoxFuture<'a, Result<Self, Error>> {
        Box::pin(async move {
            migrate(url, schema, None, &contestant.migrations).await.map_err(failed("migrating"))?;
            let kafka = KafkaConfig::new(brokers, contestant.context.name());
            let store = holdfast_postgres::Config::new(url, schema).with_views(contestant.views);
            let member = KafkaMembership::join(&kafka).map_err(failed("joining the group"))?;
            let log = KafkaLog::with_member(&kafka, &member).map_err(failed("reader"))?;
            let ports = Ports {
                log: Arc::new(log),
                membership: Arc::new(member),
                publishers: Arc::new(KafkaPublishers::new(&kafka).map_err(failed("publisher"))?),
                store: Arc::new(PgStore::connect(store).await.map_err(failed("store"))?),
                clock: Arc::new(SystemClock),
                trace: Arc::new(NoTrace),
            };
            let node = Node::start(contestant.context, config, ports).await.map_err(failed("node"))?;
            let partitions = usize::try_from(node.partition_count()).unwrap_or(usize::MAX);
            Ok(Self { node, partitions })
        })
    }

    /// Waits until it owns every partition.
    pub async fn ready(&self, patience: Duration) -> Result<(), Error> {
        let deadline = Instant::now() + patience;
        while self.node.owned_partitions() < self.partitions {
            if Instant::now() > deadline {
                return Err(Error::Timeout(patience, "the node to own all partitions".into()));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Stops it in good order.
    pub async fn stop(self) {
        self.node.stop().await;
    }
}
