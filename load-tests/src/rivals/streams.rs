//! Kafka Streams, exactly once: a Java program with the orders' rules in it (`java/StreamsOrders.java`).
//!
//! It promises less: a command that a producer sends twice is applied twice, and no order can be asked for or
//! listed. Deliberately absent: a store on disk (its own is in memory, which is quicker), standby replicas.

use std::{path::Path, process::Command};

use async_trait::async_trait;
use serde::Serialize;

use super::Running;
use crate::{
    java::Program,
    scenarios::{Error, failed},
};

/// Where its commands come from.
pub const COMMANDS: &str = "streams.commands";
/// Where its events go.
pub const EVENTS: &str = "streams.events";

const PROGRAM: (&str, &str) = ("StreamsOrders", include_str!("../../java/StreamsOrders.java"));

/// What a user would tune.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Settings {
    /// `num.stream.threads`.
    pub threads: u32,
    /// `commit.interval.ms`: a transaction each; no event is readable before its end.
    pub commit_ms: u32,
    /// `statestore.cache.max.bytes`, in MiB: what changes twice in a transaction goes to the changelog once.
    /// 0 for no cache.
    pub cache_mib: u32,
    /// `producer.linger.ms`: what an event may wait for others. A commit waits for none.
    pub linger_ms: u32,
}

impl Settings {
    /// Those that are tried: the best of them competes. Commits are frequent beside the seconds that a
    /// measurement takes, for only whole transactions are counted.
    pub const TRIED: [Self; 4] = [
        Self { cache_mib: 0, ..Self::USUAL },
        Self::USUAL,
        Self { threads: 1, ..Self::USUAL },
        Self { commit_ms: 200, ..Self::USUAL },
    ];

    const USUAL: Self = Self { threads: 2, commit_ms: 100, cache_mib: 64, linger_ms: 100 };

    /// For latency: the same, but that it commits every 10 ms, and that no event waits for others.
    #[must_use]
    pub const fn prompt(self) -> Self {
        Self { commit_ms: 10, linger_ms: 0, ..self }
    }
}

impl std::fmt::Display for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { threads, commit_ms, cache_mib, linger_ms } = self;
        let s = if *threads == 1 { "" } else { "s" };
        write!(
            f,
            "{threads} thread{s}, commits every {commit_ms} ms, a cache of {cache_mib} MiB, a linger of {linger_ms} ms"
        )
    }
}

/// A Streams application that runs. Dropping it kills it.
pub struct Streams(Program);

impl Streams {
    /// Starts it; the topics must exist. `java` has Kafka's classes on its path. Each `application` has state
    /// and offsets of its own.
    pub fn start(
        mut java: Command,
        dir: &Path,
        brokers: &str,
        application: u64,
        settings: Settings,
    ) -> Result<Self, Error> {
        java.args(["-Xms1g", "-Xmx1g", "-XX:+UseParallelGC"]);
        let state = dir.join("streams-state").display().to_string();
        let Settings { threads, commit_ms, cache_mib, linger_ms } = settings;
        let [threads, commit_ms, linger_ms] = [threads, commit_ms, linger_ms].map(|number| number.to_string());
        let cache = (u64::from(cache_mib) << 20).to_string();
        let application = format!("streams-orders-{application}");
        let arguments = [brokers, &application, COMMANDS, EVENTS, &state, &threads, &commit_ms, &cache, &linger_ms];
        let (program, _) = Program::start(java, dir, PROGRAM, &arguments).map_err(failed("Kafka Streams"))?;
        Ok(Self(program))
    }
}

#[async_trait]
impl Running for Streams {
    fn pid(&self) -> Option<u32> {
        self.0.pid()
    }

    async fn failed(&mut self) -> Error {
        failed("Kafka Streams")(self.0.ended().await)
    }

    async fn stop(self: Box<Self>) -> Result<(), Error> {
        self.0.stop().await.map_err(failed("Kafka Streams"))
    }
}
