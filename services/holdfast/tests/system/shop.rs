//! The shop: embedded servers, and `holdfast serve all` before them.

use std::{
    io::{BufRead as _, BufReader, Read},
    net::SocketAddr,
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use holdfast::shelves::{self, Shelf};
use holdfast_load_tests::{
    by_hand::{self, Place, Raw},
    checkers::{self, Target},
    work::Mix,
};
use holdfast_stack::{Stack, StackOptions};
use libtest_mimic::Failed;
use prost::{Message, Name};
use rustix::process::{Pid, Signal, kill_process};
use uuid::Uuid;

/// Everything that the served process wrote.
pub type Log = Arc<Mutex<String>>;

pub struct Shop {
    process: Served,
    pub stack: Stack,
    pub target: Target,
    pub grpc: String,
    pub http: SocketAddr,
    log: Log,
}

/// The process, which ends with its handle.
struct Served(Child);

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The binary under test, with nothing of this process's own `HOLDFAST_*` settings.
pub fn holdfast() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("HOLDFAST_")) {
        command.env_remove(name);
    }
    command
}

impl Shop {
    pub async fn open() -> Result<Self, Failed> {
        Self::open_with(&[("OTEL_TRACES_SAMPLER", "always_on")]).await
    }

    /// Servers of its own, and variables beyond those it needs.
    pub async fn open_with(variables: &[(&str, &str)]) -> Result<Self, Failed> {
        let stack = Stack::start(StackOptions::default()).await?;
        let url = stack.postgres_url("postgres");
        let environment = [("HOLDFAST_KAFKA_BROKERS", stack.brokers()), ("HOLDFAST_DATABASE_URL", &url)];
        for verb in [["migrate", "all"], ["topics", "apply"]] {
            succeeded(&holdfast().args(verb).envs(environment).output()?)?;
        }
        let process = holdfast()
            .args(["serve", "orders,inventory"])
            .envs(environment)
            .envs([("HOLDFAST_GRPC_LISTEN", "127.0.0.1:0"), ("HOLDFAST_HTTP_LISTEN", "127.0.0.1:0")])
            .env("HOLDFAST_LOG_FILTER", "debug,librdkafka=off")
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut process = Served(process);
        let log = Log::default();
        collect(process.0.stdout.take(), &log);
        collect(process.0.stderr.take(), &log);
        let (grpc, http) = addresses(&log).await?;
        let target = Target::new(stack.brokers(), &url);
        let shop = Self { process, stack, target, grpc: format!("http://{grpc}"), http, log };
        shop.owned(&grpc.to_string()).await?;
        let shelf = |sku: String, quantity| Shelf { sku, quantity, price_minor: 1_000 };
        let shelves = (0..100).map(|n| shelf(Mix::sku(n), 1_000_000));
        shelves::fill(&shelves::inventory(&shop.grpc)?, "shop", shelves).await?;
        Ok(shop)
    }

    /// Asks the process to leave, as an orchestrator does, and waits until it has.
    pub async fn leave(&mut self) -> Result<ExitStatus, Failed> {
        let pid = Pid::from_raw(self.process.0.id().cast_signed()).ok_or("no process")?;
        kill_process(pid, Signal::TERM)?;
        let give_up = Instant::now() + Duration::from_mins(1);
        loop {
            if let Some(status) = self.process.0.try_wait()? {
                return Ok(status);
            }
            patient(give_up, "the process to leave").await?;
        }
    }

    async fn owned(&self, address: &str) -> Result<(), Failed> {
        let schemas = [Some(&self.target.orders), self.target.inventory.as_ref()];
        for schema in schemas.into_iter().flatten() {
            let give_up = Instant::now() + Duration::from_mins(1);
            while checkers::owners(schema).await?.get(address) != Some(&12) {
                patient(give_up, "the partitions to have an owner").await?;
            }
        }
        Ok(())
    }

    pub fn brokers(&self) -> &str {
        self.stack.brokers()
    }

    /// Everything logged so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sends records to orders, and waits until nothing is left to do.
    pub async fn order(&self, records: &[Raw]) -> Result<Vec<Place>, Failed> {
        let places = by_hand::send(self.brokers(), "orders.commands", records).await?;
        checkers::settled(&self.target, Duration::from_mins(1), |_| {}).await?;
        Ok(places)
    }

    /// What lies in `topic`.
    pub async fn read(&self, topic: &str) -> Result<Vec<(Place, Raw)>, Failed> {
        Ok(by_hand::read(self.brokers(), topic).await?)
    }
}

/// A good record for the aggregate `key`.
pub fn record<M: Message + Name>(key: &str, body: &M) -> Raw {
    let headers = [
        ("ce_specversion", "1.0"),
        ("ce_id", &Uuid::now_v7().to_string()),
        ("ce_source", "tests/system"),
        ("ce_type", &M::full_name()),
        ("ce_time", "2026-11-23T00:00:00Z"),
        ("ce_subject", key),
        ("content-type", "application/protobuf"),
    ];
    Raw {
        key: Some(key.as_bytes().to_vec()),
        headers: headers.iter().map(|(name, value)| ((*name).to_owned(), Some(value.as_bytes().to_vec()))).collect(),
        value: Some(body.encode_to_vec()),
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn succeeded(output: &Output) -> Result<(), Failed> {
    if output.status.success() { Ok(()) } else { Err(text(&output.stderr).into()) }
}

/// Waits a moment, or fails once it is too late.
pub async fn patient(give_up: Instant, what: &str) -> Result<(), Failed> {
    if Instant::now() > give_up {
        return Err(format!("gave up waiting for {what}").into());
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    Ok(())
}

fn collect(from: Option<impl Read + Send + 'static>, log: &Log) {
    let Some(from) = from else { return };
    let log = log.clone();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
            log.push_str(&line);
            log.push('\n');
        }
    });
}

/// Where the process says that it serves.
async fn addresses(log: &Log) -> Result<(SocketAddr, SocketAddr), Failed> {
    let give_up = Instant::now() + Duration::from_mins(1);
    loop {
        let so_far = log.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for line in so_far.lines() {
            let Ok(line) = serde_json::from_str::<serde_json::Value>(line) else { continue };
            let address = |name: &str| line.get("fields")?.get(name)?.as_str()?.parse().ok();
            if let (Some(grpc), Some(http)) = (address("grpc"), address("http")) {
                return Ok((grpc, http));
            }
        }
        if Instant::now() > give_up {
            return Err(format!("it never said that it serves:\n{so_far}").into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
