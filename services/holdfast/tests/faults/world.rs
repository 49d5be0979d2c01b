//! Nodes in processes of their own, a real Kafka and a real Postgres, and a proxy on every way between them.
//!
//! Each node reaches the broker through a listener and a proxy of its own, the database through a proxy, and
//! is reached by others (callers and nodes) through a third, whose address it advertises. So each way can be
//! slowed, held and cut by itself, without root. Deliberately absent: when anything is done to it.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use holdfast::{
    compose,
    infrastructure::{Infrastructure, ORDERING},
    people,
    shelves::{self, Shelf},
};
use holdfast_load_tests::{
    checkers::{self, Target},
    faults::{
        diary::Diary,
        load::{Crowd, SKUS},
        node::{Launch, Node},
        proxy::{Mode, Proxy},
    },
    work::regulars,
};
use holdfast_platform::{Config, config::Sources};
use holdfast_stack::{KafkaListener, Stack, StackOptions};
use libtest_mimic::Failed;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Mutex,
};
use tonic::Status;

use crate::sabotage::Sabotage;

/// As `holdfast topics apply` makes them.
pub const PARTITIONS: usize = 12;
/// Where nothing grows it does not matter.
pub const PRODUCERS_MAX_AGE: Duration = Duration::from_mins(7);
/// How long anything that must happen may take.
pub const PATIENCE: Duration = Duration::from_mins(2);

/// How a world is made.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Nodes that always run; one more may be a guest.
    pub nodes: usize,
    /// Which build they are.
    pub how: Sabotage,
    /// The group's session timeout.
    pub session: Duration,
    /// How long an owner may answer without asking the database.
    pub lease: Duration,
    /// Where history and logs go.
    pub dir: PathBuf,
    /// How long producers may go by what they know of a topic, and be under way with what they sent.
    pub producers_max_age: Duration,
}

/// One node's place: its ways to others, and its process while it has one.
pub struct Slot {
    pub name: String,
    pub broker: Proxy,
    pub database: Proxy,
    /// Whose address the node advertises.
    pub calls: Proxy,
    pub node: Mutex<Option<Node>>,
}

impl Slot {
    async fn new(number: usize) -> Result<Self, Failed> {
        let (broker, database) = (Proxy::listen().await?, Proxy::listen().await?);
        let calls = Proxy::listen().await?;
        Ok(Self { name: number.to_string(), broker, database, calls, node: Mutex::default() })
    }

    fn listener(&self) -> String {
        format!("NODE_{}", self.name)
    }

    /// As it stands in the rows of partitions that it owns.
    pub fn address(&self) -> SocketAddr {
        self.calls.address()
    }

    fn heal(&self) {
        for proxy in [&self.broker, &self.database, &self.calls] {
            proxy.set(Mode::Pass);
        }
    }
}

pub struct World {
    pub stack: Stack,
    pub target: Target,
    pub diary: Arc<Diary>,
    settings: Settings,
    /// The last one is the guest's.
    slots: Vec<Slot>,
}

impl World {
    /// Everything up, shelves filled, every node running and every partition owned.
    pub async fn open(settings: Settings) -> Result<Arc<Self>, Failed> {
        let mut slots = Vec::new();
        for number in 1..=settings.nodes + 1 {
            slots.push(Slot::new(number).await?);
        }
        let listener =
            |slot: &Slot| KafkaListener { name: slot.listener(), advertised_port: slot.broker.address().port() };
        let kafka_listeners = slots.iter().map(listener).collect();
        let stack = Stack::start(StackOptions { kafka_listeners, ..StackOptions::default() }).await?;
        let url = stack.postgres_url("postgres");
        let database = host(&url)?;
        for slot in &slots {
            slot.broker.lead_to(stack.kafka_listener(&slot.listener()).ok_or("Kafka lacks a listener")?);
            slot.database.lead_to(database);
        }
        let grown_from = i32::try_from(PARTITIONS).ok();
        let target = Target { grown_from, ..Target::new(stack.brokers(), &url) };
        let diary = Arc::new(Diary::begin(&settings.dir.join("history.jsonl"))?);
        let world = Self { stack, target, diary, settings, slots };
        world.prepare().await?;
        // The first node alone owns every partition, so it can be asked to fill all shelves.
        world.launch(0).await?;
        world.until_owned_by(&[0]).await?;
        world.fill().await?;
        for which in 1..world.settings.nodes {
            world.launch(which).await?;
        }
        world.until_shared().await?;
        Ok(Arc::new(world))
    }

    /// The environment of a program that runs beside the nodes.
    pub fn beside(&self) -> Vec<(String, String)> {
        self.environment(self.stack.brokers(), &self.stack.postgres_url("postgres"))
    }

    async fn prepare(&self) -> Result<(), Failed> {
        let config = Config::load(&Sources {
            environment: self.beside().into_iter().map(|(key, value)| (key.into(), value.into())).collect(),
            ..Sources::default()
        })?;
        let at = Infrastructure::configured(&config).map_err(text)?;
        compose::prepare(&config, &at, &ORDERING).await.map_err(text)
    }

    fn environment(&self, brokers: &str, url: &str) -> Vec<(String, String)> {
        let ms = |duration: Duration| format!("{}ms", duration.as_millis());
        let pairs = [
            ("HOLDFAST_KAFKA_BROKERS", brokers.to_owned()),
            ("HOLDFAST_DATABASE_URL", url.to_owned()),
            ("HOLDFAST_KAFKA_SESSION_TIMEOUT", ms(self.settings.session)),
            ("HOLDFAST_LEASE", ms(self.settings.lease)),
            ("HOLDFAST_KAFKA_PRODUCERS_MAX_AGE", ms(self.settings.producers_max_age)),
            ("HOLDFAST_LOG_FILTER", "info,librdkafka=off".to_owned()),
        ];
        pairs.map(|(key, value)| (key.to_owned(), value)).into()
    }

    async fn fill(&self) -> Result<(), Failed> {
        let shelf = |n| Shelf { sku: Crowd::sku(n), quantity: 100_000_000, price_minor: 1_000 };
        let address = format!("http://{}", self.slots[0].address());
        let (inventory, customers) = (shelves::inventory(&address)?, people::customers(&address)?);
        filled(PATIENCE, async || {
            shelves::fill(&inventory, "faults", (0..SKUS).map(shelf)).await?;
            people::register(&customers, regulars()).await
        })
        .await
    }

    /// The nodes that always run.
    pub fn nodes(&self) -> usize {
        self.settings.nodes
    }

    /// The place of a node; the guest's is behind the last.
    pub fn slot(&self, which: usize) -> &Slot {
        &self.slots[which]
    }

    /// Which node has this address.
    pub fn slot_at(&self, address: &str) -> Option<usize> {
        self.slots.iter().position(|slot| slot.address().to_string() == address)
    }

    /// The addresses that callers use.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.slots[..self.settings.nodes].iter().map(Slot::address).collect()
    }

    /// Starts a node in its place; whatever ran there is killed.
    pub async fn launch(&self, which: usize) -> Result<(), Failed> {
        let slot = &self.slots[which];
        let mut place = slot.node.lock().await;
        drop(place.take());
        let url = self.stack.postgres_url("postgres");
        let url = url.replace(&host(&url)?.to_string(), &slot.database.address().to_string());
        let mut environment = self.environment(&slot.broker.address().to_string(), &url);
        environment.push(("HOLDFAST_ADVERTISED_ADDR".to_owned(), slot.address().to_string()));
        // One that finds its database or its broker away at start ends with exit code 3; whatever runs it
        // starts it again.
        let mut attempts = 0;
        let node = loop {
            attempts += 1;
            let started = Node::start(Launch {
                name: slot.name.clone(),
                program: std::env::current_exe()?,
                arguments: vec!["victim".to_owned(), self.settings.how.to_string()],
                environment: environment.clone(),
                log: Some(self.settings.dir.join(format!("node-{}.log", slot.name))),
            });
            match started.await {
                Ok(node) => break node,
                Err(_) if attempts < 5 => {}
                Err(error) => return Err(error.into()),
            }
        };
        slot.calls.lead_to(node.grpc());
        *place = Some(node);
        Ok(())
    }

    /// Kills a node, if it runs.
    pub async fn kill(&self, which: usize) {
        drop(self.slots[which].node.lock().await.take());
    }

    /// Asks a node to leave and waits until it has.
    pub async fn leave(&self, which: usize) -> Result<(), Failed> {
        let Some(node) = self.slots[which].node.lock().await.take() else { return Ok(()) };
        let status = node.leave(PATIENCE).await?;
        self.diary.mark("left", &json!({ "node": which + 1, "status": status.code() }));
        Ok(())
    }

    /// An error if a node has ended that nobody ended.
    pub async fn all_alive(&self) -> Result<(), Failed> {
        for slot in &self.slots[..self.settings.nodes] {
            if let Some(node) = slot.node.lock().await.as_mut()
                && node.has_ended()
            {
                return Err(format!("node {} has ended by itself; see its log", slot.name).into());
            }
        }
        Ok(())
    }

    /// Every way open, every node running and awake, no guest.
    pub async fn heal(&self) -> Result<(), Failed> {
        for slot in &self.slots {
            slot.heal();
        }
        self.leave(self.settings.nodes).await?;
        for which in 0..self.settings.nodes {
            let is_away = self.slots[which].node.lock().await.is_none();
            if is_away {
                self.launch(which).await?;
            } else if let Some(node) = self.slots[which].node.lock().await.as_ref() {
                node.wake()?;
            }
        }
        Ok(())
    }

    /// Waits until these nodes alone own all partitions of both contexts.
    pub async fn until_owned_by(&self, whose: &[usize]) -> Result<(), Failed> {
        let addresses: Vec<String> = whose.iter().map(|which| self.slots[*which].address().to_string()).collect();
        self.until("every partition is owned by whom it must be", |owners| {
            owners.iter().all(|(address, _)| addresses.contains(address))
                && owners.iter().map(|(_, count)| count).sum::<i64>() == 2 * i64::try_from(PARTITIONS).expect("few")
        })
        .await
    }

    /// Waits until every partition is owned and every node owns some.
    pub async fn until_shared(&self) -> Result<(), Failed> {
        let addresses: Vec<String> = self.addresses().iter().map(SocketAddr::to_string).collect();
        self.until("every node owns its share", |owners| {
            let of =
                |address: &String| owners.iter().filter(|(of, _)| of == address).map(|(_, count)| count).sum::<i64>();
            addresses.iter().all(|address| of(address) > 0)
                && addresses.iter().map(of).sum::<i64>() == 2 * i64::try_from(PARTITIONS).expect("few")
        })
        .await
    }

    /// Waits until `holds` of the owners of both contexts' partitions.
    pub async fn until(&self, what: &str, holds: impl Fn(&[(String, i64)]) -> bool) -> Result<(), Failed> {
        let give_up = Instant::now() + PATIENCE;
        loop {
            let owners = self.owners().await?;
            if holds(&owners) {
                return Ok(());
            }
            if Instant::now() > give_up {
                return Err(format!("not within {PATIENCE:?}: {what}; owners: {owners:?}").into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn owners(&self) -> Result<Vec<(String, i64)>, Failed> {
        let inventory = self.target.inventory.as_ref().ok_or("no inventory")?;
        let (orders, inventory) = (checkers::owners(&self.target.orders).await?, checkers::owners(inventory).await?);
        Ok(orders.into_iter().chain(inventory).collect())
    }

    /// The node that owns most of the orders' partitions.
    pub async fn richest(&self) -> Result<usize, Failed> {
        let owners = checkers::owners(&self.target.orders).await?;
        let richest = owners.into_iter().max_by_key(|(_, count)| *count).ok_or("nobody owns anything")?;
        self.slot_at(&richest.0).ok_or_else(|| format!("{} is nobody's address", richest.0).into())
    }
}

/// `postgres://user:password@host:port/database` → host:port
fn host(url: &str) -> Result<SocketAddr, Failed> {
    let host = url.rsplit('@').next().and_then(|rest| rest.split('/').next()).unwrap_or_default();
    Ok(host.parse()?)
}

pub fn text(failure: holdfast::failure::Failure) -> Failed {
    failure.to_string().into()
}

/// Filling again what is filled changes nothing, so it is tried until it is done: a process may still be
/// taking its partitions, and a row names its owner a moment before that serves.
pub async fn filled(patience: Duration, fill: impl AsyncFn() -> Result<(), Status>) -> Result<(), Failed> {
    let give_up = Instant::now() + patience;
    loop {
        match fill().await {
            Ok(()) => return Ok(()),
            Err(status) if Instant::now() > give_up => return Err(status.into()),
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}

/// A port that nobody listens on; it is some process's from then on, time and again.
pub async fn free() -> Result<SocketAddr, Failed> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?.local_addr()?)
}

/// Whether the process with this address says that it is ready.
pub async fn is_ready(http: SocketAddr) -> bool {
    let asked = async {
        let mut stream = TcpStream::connect(http).await?;
        let request = format!("GET /health/ready HTTP/1.1\r\nHost: {http}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(answer.starts_with(b"HTTP/1.1 200"))
    };
    tokio::time::timeout(Duration::from_secs(2), asked).await.is_ok_and(|ready| ready.unwrap_or(false))
}
