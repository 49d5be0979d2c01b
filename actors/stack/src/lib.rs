//! The embedded stack: a real Apache Kafka and a real PostgreSQL as child processes, for tests, `dev` and
//! `demo` alike.
//!
//! ```no_run
//! # async fn example() -> Result<(), holdfast_stack::Error> {
//! use holdfast_stack::{Stack, StackOptions};
//!
//! let stack = Stack::start(StackOptions::default()).await?;
//! println!("{} {}", stack.brokers(), stack.postgres_url("postgres"));
//! stack.stop().await
//! # }
//! ```
//!
//! Invariants: the servers listen on loopback only; they never outlive their owner, however that ends; fsync
//! is on, so what a test learns about durability is true; a data directory has one owner at a time. A server
//! that was stopped or killed comes back on the same port.
//!
//! Deliberately absent: clients (topics and databases are made by the crates that may name rdkafka and sqlx),
//! containers, and any knowledge of what runs on the servers.

mod artifacts;
mod data_dir;
mod error;
mod java;
mod kafka;
mod places;
mod ports;
mod postgres;
mod process;
mod server;
mod unpack;
mod watchdog;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::sync::OnceCell;

pub use crate::error::Error;
pub use crate::places::{cache_dir, default_data_dir};

use crate::data_dir::DataDir;
use crate::server::Slot;
use crate::watchdog::Watchdog;

/// A further way into Kafka, on loopback, that tells its clients to come back through another port: that of a
/// proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaListener {
    /// Upper-case letters, digits and `_`; unique, and neither `PLAINTEXT` nor `CONTROLLER`.
    pub name: String,
    /// The loopback port that Kafka names to clients of this listener.
    pub advertised_port: u16,
}

/// What to start, and where.
#[derive(Clone, Debug)]
pub struct StackOptions {
    /// Where the data lives and stays; `None` is a temporary directory that vanishes with the stack.
    pub data_dir: Option<PathBuf>,
    /// Whether to start Kafka.
    pub kafka: bool,
    /// Whether to start Postgres.
    pub postgres: bool,
    /// Kafka's port; `None` is the port of the last time, if that is free, otherwise any free one.
    pub kafka_port: Option<u16>,
    /// Further listeners of Kafka, each on a free port: see [`Stack::kafka_listener`].
    pub kafka_listeners: Vec<KafkaListener>,
    /// Whether Kafka is to run as one does that runs for long: with the optimizing compiler, which costs more
    /// than it gives for a minute or two, and halves what a record costs from then on.
    pub kafka_runs_long: bool,
    /// Postgres's port; `None` as for Kafka.
    pub postgres_port: Option<u16>,
}

impl Default for StackOptions {
    fn default() -> Self {
        Self {
            data_dir: None,
            kafka: true,
            postgres: true,
            kafka_port: None,
            kafka_listeners: Vec::new(),
            kafka_runs_long: false,
            postgres_port: None,
        }
    }
}

/// Running servers. Dropping it kills them at once; [`Stack::stop`] is the orderly way.
#[derive(Debug)]
pub struct Stack {
    // The order matters on drop: servers, then their watchdog, then the directory.
    kafka: Option<Slot<kafka::Home>>,
    postgres: Option<Slot<postgres::Home>>,
    brokers: String,
    _watchdog: Arc<Watchdog>,
    dir: DataDir,
}

impl Stack {
    /// Starts the servers and waits until they serve. The first time on a machine this downloads them.
    pub fn start(options: StackOptions) -> BoxFuture<'static, Result<Self, Error>> {
        Box::pin(async move {
            let artifacts = artifacts::prepare().await?;
            let dir = DataDir::open(options.data_dir.as_deref()).await?;
            let watchdog = Arc::new(Watchdog::start(dir.lock())?);
            if dir.is_scratch() {
                watchdog.scratch(dir.path())?;
            }
            let mut state = dir.load_state()?;
            dir.save_state(&state)?;
            let (kafka, postgres) = tokio::try_join!(
                kafka::launch(&options, artifacts, &dir, &state, &watchdog),
                postgres::launch(&options, artifacts, &dir, &state, &watchdog),
            )?;
            if let Some(slot) = &kafka {
                (state.kafka_port, state.controller_port) = (slot.home.port, slot.home.controller_port);
            }
            if let Some(slot) = &postgres {
                state.postgres_port = slot.home.port;
            }
            dir.save_state(&state)?;
            let brokers = format!("127.0.0.1:{}", state.kafka_port);
            Ok(Self { kafka, postgres, brokers, _watchdog: watchdog, dir })
        })
    }

    /// One stack for all tests of this process, started by the first caller, on temporary data; it ends with
    /// the process. Each test makes a database and topics of its own in it.
    pub async fn shared_for_tests() -> &'static Self {
        static SHARED: OnceCell<Stack> = OnceCell::const_new();
        match SHARED.get_or_try_init(|| Self::start(StackOptions::default())).await {
            Ok(stack) => stack,
            Err(error) => panic!("the tests' embedded stack doesn't start: {error}"),
        }
    }

    /// Kafka's bootstrap servers, as `host:port`.
    ///
    /// # Panics
    /// If the stack was started without Kafka.
    pub fn brokers(&self) -> &str {
        assert!(self.kafka.is_some(), "this stack was started without Kafka");
        &self.brokers
    }

    /// Where the further listener of that name really is, on loopback; `None` if the options named none such.
    ///
    /// # Panics
    /// If the stack was started without Kafka.
    pub fn kafka_listener(&self, name: &str) -> Option<SocketAddr> {
        self.kafka_slot().home.listener(name).map(|port| (Ipv4Addr::LOCALHOST, port).into())
    }

    /// A URL for `database`, as the superuser; `postgres` always exists. The URL holds a password.
    ///
    /// # Panics
    /// If the stack was started without Postgres.
    pub fn postgres_url(&self, database: &str) -> String {
        let home = &self.postgres_slot().home;
        format!("postgres://{}:{}@127.0.0.1:{}/{database}", postgres::SUPERUSER, home.password, home.port)
    }

    /// A Java that has Kafka's classes on its class path, and so Kafka's own client. The rest of its command
    /// line is the caller's.
    ///
    /// # Panics
    /// If the stack was started without Kafka.
    pub fn java(&self) -> std::process::Command {
        self.kafka_slot().home.client_java()
    }

    /// Where data and logs (`kafka.log`, `postgres.log`) lie.
    pub fn data_dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// Stops the servers in good order. Data stays, unless the directory is a temporary one.
    pub fn stop(self) -> BoxFuture<'static, Result<(), Error>> {
        Box::pin(async move {
            let kafka = async {
                match &self.kafka {
                    Some(slot) => slot.stop().await,
                    None => Ok(()),
                }
            };
            let postgres = async {
                match &self.postgres {
                    Some(slot) => slot.stop().await,
                    None => Ok(()),
                }
            };
            let (kafka, postgres) = tokio::join!(kafka, postgres);
            kafka.and(postgres)
        })
    }

    /// Kills Kafka with SIGKILL, as a crash would.
    pub async fn kill_kafka(&self) {
        self.kafka_slot().kill().await;
    }

    /// Stops Kafka in good order.
    pub fn stop_kafka(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move { self.kafka_slot().stop().await })
    }

    /// Starts Kafka again, on the same port and data; nothing happens if it runs.
    pub fn start_kafka(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move { self.kafka_slot().start().await })
    }

    /// Kafka's process id, while it runs.
    pub async fn kafka_pid(&self) -> Option<u32> {
        self.kafka_slot().pid().await
    }

    /// Kills Postgres and all its backends with SIGKILL, as a crash would.
    pub async fn kill_postgres(&self) {
        self.postgres_slot().kill().await;
    }

    /// Stops Postgres in good order; sessions are ended.
    pub fn stop_postgres(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move { self.postgres_slot().stop().await })
    }

    /// Starts Postgres again, on the same port and data; nothing happens if it runs.
    pub fn start_postgres(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move { self.postgres_slot().start().await })
    }

    /// The postmaster's process id, while it runs.
    pub async fn postgres_pid(&self) -> Option<u32> {
        self.postgres_slot().pid().await
    }

    fn kafka_slot(&self) -> &Slot<kafka::Home> {
        self.kafka.as_ref().expect("this stack was started without Kafka")
    }

    fn postgres_slot(&self) -> &Slot<postgres::Home> {
        self.postgres.as_ref().expect("this stack was started without Postgres")
    }
}
