//! The shop: embedded servers, and `holdfast serve all` before them, once or twice.

use std::{
    io::{BufRead as _, BufReader, Read},
    net::SocketAddr,
    ops::RangeInclusive,
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use holdfast::{
    people,
    shelves::{self, Shelf},
};
use holdfast_load_tests::{
    by_hand::{self, Place, Raw},
    checkers::{self, Schema, Target},
    work::{Mix, regular, regulars},
};
use holdfast_payments::simulator::{self, Simulator};
use holdfast_proto::orders::v1::PlaceOrder;
use holdfast_stack::{Stack, StackOptions};
use libtest_mimic::Failed;
use prost::{Message, Name};
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The contexts that most tests are about.
const ORDERING: &str = "orders,inventory,customers";

/// Everything that the served process wrote.
pub type Log = Arc<Mutex<String>>;

pub struct Shop {
    served: Served,
    pub stack: Stack,
    pub target: Target,
    pub grpc: String,
    pub http: SocketAddr,
}

/// A process that serves everything, which ends with its handle.
pub struct Served {
    process: Child,
    pub grpc: SocketAddr,
    pub http: SocketAddr,
    log: Log,
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Served {
    async fn launch(stack: &Stack, variables: &[(&str, &str)]) -> Result<Self, Failed> {
        Self::launch_serving(stack, ORDERING, variables).await
    }

    /// Serves these contexts.
    pub async fn launch_serving(stack: &Stack, contexts: &str, variables: &[(&str, &str)]) -> Result<Self, Failed> {
        let mut process = holdfast()
            .args(["serve", contexts])
            .envs(environment(stack))
            .envs([("HOLDFAST_GRPC_LISTEN", "127.0.0.1:0"), ("HOLDFAST_HTTP_LISTEN", "127.0.0.1:0")])
            .env("HOLDFAST_LOG_FILTER", "debug,librdkafka=off")
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let log = Log::default();
        collect(process.stdout.take(), &log);
        collect(process.stderr.take(), &log);
        let any = SocketAddr::from(([0; 4], 0));
        let mut served = Self { process, grpc: any, http: any, log };
        (served.grpc, served.http) = addresses(&served.log).await?;
        Ok(served)
    }

    /// Everything logged so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// An address that it has logged beside those.
    pub fn said(&self, name: &str) -> Option<SocketAddr> {
        let log = self.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        lines.filter_map(|line| line.get("fields")?.get(name)?.as_str()?.parse().ok()).next_back()
    }

    /// Shows the end of its log, for who looks into a failure.
    pub fn tell_log(&self) {
        let log = self.log();
        let loud = log.lines().filter(|line| !line.contains("\"level\":\"DEBUG\"")).rev().take(60);
        loud.collect::<Vec<_>>().into_iter().rev().for_each(|line| eprintln!("{line}"));
    }

    /// Asks it to leave in good order, as an orchestrator does, and waits until it has.
    pub async fn leave(&mut self) -> Result<ExitStatus, Failed> {
        let pid = Pid::from_raw(self.process.id().cast_signed()).ok_or("no process")?;
        kill_process(pid, Signal::TERM)?;
        let give_up = Instant::now() + Duration::from_mins(1);
        loop {
            if let Some(status) = self.process.try_wait()? {
                return Ok(status);
            }
            patient(give_up, "the process to leave").await?;
        }
    }
}

pub fn environment(stack: &Stack) -> [(&'static str, String); 4] {
    [
        ("HOLDFAST_KAFKA_BROKERS", stack.brokers().to_owned()),
        ("HOLDFAST_DATABASE_URL", stack.postgres_url("postgres")),
        // So that a killed node is missed soon.
        ("HOLDFAST_KAFKA_SESSION_TIMEOUT", "6s".to_owned()),
        ("HOLDFAST_LEASE", "2s".to_owned()),
    ]
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
        prepare(&stack, ORDERING)?;
        let served = Served::launch(&stack, variables).await?;
        let target = Target::new(stack.brokers(), &stack.postgres_url("postgres"));
        let shop = Self { stack, target, grpc: format!("http://{}", served.grpc), http: served.http, served };
        shop.owned(&served_address(&shop.served), 12..=12).await?;
        let shelf = |sku: String, quantity| Shelf { sku, quantity, price_minor: 1_000 };
        let shelves = (0..100).map(|n| shelf(Mix::sku(n), 1_000_000));
        shelves::fill(&shelves::inventory(&shop.grpc)?, "shop", shelves).await?;
        people::register(&people::customers(&shop.grpc)?, regulars()).await?;
        Ok(shop)
    }

    /// Asks the process to leave, as an orchestrator does, and waits until it has.
    pub async fn leave(&mut self) -> Result<ExitStatus, Failed> {
        self.served.leave().await
    }

    /// Another node beside the one that is always there, once both own something of everything.
    pub async fn second_node(&self) -> Result<Served, Failed> {
        let second = Served::launch(&self.stack, &[("OTEL_TRACES_SAMPLER", "always_on")]).await?;
        for node in [&self.served, &second] {
            self.owned(&served_address(node), 1..=11).await?;
        }
        Ok(second)
    }

    /// Waits until the one node owns everything again.
    pub async fn alone(&self) -> Result<(), Failed> {
        self.owned(&served_address(&self.served), 12..=12).await
    }

    /// Waits until the number of partitions of each context that the node at `address` owns is within
    /// `count`.
    async fn owned(&self, address: &str, count: RangeInclusive<i64>) -> Result<(), Failed> {
        let customers = Schema::new(self.stack.postgres_url("postgres"), "customers");
        let schemas = [Some(&self.target.orders), self.target.inventory.as_ref(), Some(&customers)];
        for schema in schemas.into_iter().flatten() {
            let give_up = Instant::now() + Duration::from_mins(1);
            while !checkers::owners(schema).await?.get(address).is_some_and(|owned| count.contains(owned)) {
                patient(give_up, "the partitions to have an owner").await?;
            }
        }
        Ok(())
    }

    pub fn brokers(&self) -> &str {
        self.stack.brokers()
    }

    /// Everything that the first node has logged so far.
    pub fn log(&self) -> String {
        self.served.log()
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

/// A payment provider that behaves like that, and where it is. It ends with the tests.
pub async fn provider(behaviour: simulator::Config) -> Result<(Simulator, SocketAddr), Failed> {
    let simulator = Simulator::new(behaviour);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let served = simulator.clone();
    tokio::spawn(async move { served.serve(listener, CancellationToken::new()).await });
    Ok((simulator, address))
}

/// Schemas and topics of these contexts.
pub fn prepare(stack: &Stack, contexts: &str) -> Result<(), Failed> {
    for verb in [&["migrate"][..], &["topics", "apply"]] {
        succeeded(&holdfast().args(verb).arg(contexts).envs(environment(stack)).output()?)?;
    }
    Ok(())
}

fn served_address(served: &Served) -> String {
    served.grpc.to_string()
}

/// A command to place that order of the first regular's.
pub fn place(order_id: &str) -> PlaceOrder {
    let (payment_method, address_id) = ("pm_card_visa".to_owned(), regular(0).1.to_string());
    PlaceOrder { order_id: order_id.to_owned(), payment_method, address_id }
}

/// The first regular.
pub fn customer() -> String {
    regular(0).0.to_string()
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

pub fn collect(from: Option<impl Read + Send + 'static>, log: &Log) {
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
