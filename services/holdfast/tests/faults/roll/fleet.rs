//! Nodes of two builds, a real Kafka and a real Postgres.
//!
//! A node keeps its addresses when another build takes its place, as in production. Deliberately absent: when
//! anything is replaced.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    io::{Read as _, Seek as _, SeekFrom},
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use holdfast::{
    people,
    shelves::{self, Shelf},
};
use holdfast_load_tests::{
    checkers::{self, Schema, Target, Written},
    faults::{
        load::{Crowd, SKUS},
        node::{Launch, Node},
        proxy::Proxy,
    },
    kafka::Ends,
    work::{Mix, SCARCE_SKU, regulars},
};
use holdfast_stack::{KafkaListener, Stack, StackOptions};
use libtest_mimic::Failed;

use crate::world::{PATIENCE, filled, free, is_ready};

/// Nodes that always run; one more is a guest.
pub const NODES: usize = 3;
pub const GUEST: usize = NODES;
/// As `holdfast topics apply` makes them.
const PARTITIONS: i64 = 12;
/// What the nodes serve: all that an order asks until it is placed and has its stock.
const CONTEXTS: &str = "customers,inventory,orders";
/// The same in two parts.
const ASKED: &str = "customers,inventory";
const ORDERS: &str = "orders";
/// The listener behind [`Fleet::way`].
const WAY: &str = "WAY";
/// What the database says to a build that can't write the schema's format.
const REFUSED: &str = "and this build writes format 1 at most: run a newer build";

/// Which program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Build {
    Old,
    New,
}

impl fmt::Display for Build {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::Old { "old" } else { "new" })
    }
}

/// How a node ends.
#[derive(Clone, Copy, Debug)]
pub enum End {
    /// In good order.
    Term,
    /// SIGKILL.
    Kill,
}

struct Place {
    grpc: SocketAddr,
    http: SocketAddr,
    /// What it serves.
    contexts: &'static str,
    log: PathBuf,
    /// Where its log ended when the node was started.
    log_from: u64,
    /// Partitions that its address owned when the node was started, with their epochs: by schema and number.
    earlier: HashMap<(String, i32), i64>,
    node: Option<(Build, Node)>,
}

pub struct Fleet {
    pub stack: Stack,
    pub target: Target,
    old: PathBuf,
    new: PathBuf,
    places: Vec<Place>,
    /// The way to the broker of a node that serves orders alone.
    pub way: Proxy,
    began: Instant,
}

impl Fleet {
    /// Servers alone.
    pub async fn open(old: PathBuf, new: PathBuf, dir: PathBuf) -> Result<Self, Failed> {
        let way = Proxy::listen().await?;
        let kafka_listeners = vec![KafkaListener { name: WAY.to_owned(), advertised_port: way.address().port() }];
        let stack = Stack::start(StackOptions { kafka_listeners, ..StackOptions::default() }).await?;
        way.lead_to(stack.kafka_listener(WAY).ok_or("Kafka lacks a listener")?);
        let target = Target::new(stack.brokers(), &stack.postgres_url("postgres"));
        let mut places = Vec::new();
        for number in 1..=NODES + 1 {
            let log = dir.join(format!("node-{number}.log"));
            let (grpc, http) = (free().await?, free().await?);
            places.push(Place {
                grpc,
                http,
                contexts: CONTEXTS,
                log,
                log_from: 0,
                earlier: HashMap::new(),
                node: None,
            });
        }
        Ok(Self { stack, target, old, new, places, way, began: Instant::now() })
    }

    /// Prints a line with its time.
    pub fn say(&self, what: impl fmt::Display) {
        eprintln!("{:7.1} s  {what}", self.began.elapsed().as_secs_f64());
    }

    fn program(&self, build: Build) -> &PathBuf {
        if build == Build::Old { &self.old } else { &self.new }
    }

    /// Where callers ask.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.places[..NODES].iter().map(|place| place.grpc).collect()
    }

    /// From now on the first node serves what orders ask, and the second one orders, over a way of its own.
    pub fn part(&mut self) {
        self.places[0].contexts = ASKED;
        self.places[1].contexts = ORDERS;
    }

    /// Schemas and topics as `build` makes them, filled shelves, and every node of it.
    pub async fn begin(&mut self, build: Build) -> Result<(), Failed> {
        self.must(build, &["migrate", CONTEXTS]).await?;
        self.must(build, &["topics", "apply", CONTEXTS]).await?;
        // The first node alone owns every partition, so it can be asked to fill all shelves.
        self.launch(0, build).await?;
        self.until_shared().await?;
        self.fill().await?;
        for which in 1..NODES {
            self.launch(which, build).await?;
        }
        self.until_shared().await
    }

    fn environment(&self) -> Vec<(String, String)> {
        let pairs = [
            ("HOLDFAST_KAFKA_BROKERS", self.stack.brokers().to_owned()),
            ("HOLDFAST_DATABASE_URL", self.stack.postgres_url("postgres")),
            // So that a killed process is missed soon.
            ("HOLDFAST_KAFKA_SESSION_TIMEOUT", "6s".to_owned()),
            ("HOLDFAST_LEASE", "2s".to_owned()),
            ("HOLDFAST_LOG_FILTER", "info,librdkafka=off".to_owned()),
        ];
        pairs.map(|(key, value)| (key.to_owned(), value)).into()
    }

    /// Runs a verb of a build; what it said, if it succeeds.
    pub async fn verb(&self, build: Build, arguments: &[&str]) -> Result<Result<String, String>, Failed> {
        let output = tokio::process::Command::new(self.program(build))
            .args(arguments)
            .envs(self.environment())
            .kill_on_drop(true)
            .output()
            .await?;
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let said = said.trim().to_owned();
        Ok(if output.status.success() { Ok(said) } else { Err(said) })
    }

    pub async fn must(&self, build: Build, arguments: &[&str]) -> Result<(), Failed> {
        match self.verb(build, arguments).await? {
            Ok(_) => {
                self.say(format_args!("{build} build: {}", arguments.join(" ")));
                Ok(())
            }
            Err(said) => Err(format!("{build} build: {}: {said}", arguments.join(" ")).into()),
        }
    }

    /// The contexts that are migrated and finished.
    pub const fn contexts() -> &'static str {
        CONTEXTS
    }

    /// Starts a node, whatever its state will be.
    pub async fn launch(&mut self, which: usize, build: Build) -> Result<(), Failed> {
        let mut environment = self.environment();
        let program = self.program(build).to_string_lossy().into_owned();
        let earlier = self.homes(self.places[which].grpc).await?;
        let asked = format!("http://{}", self.places[0].grpc);
        let place = &mut self.places[which];
        environment.push(("HOLDFAST_GRPC_LISTEN".to_owned(), place.grpc.to_string()));
        environment.push(("HOLDFAST_HTTP_LISTEN".to_owned(), place.http.to_string()));
        if place.contexts == ORDERS {
            environment.push(("HOLDFAST_KAFKA_BROKERS".to_owned(), self.way.address().to_string()));
            environment.push(("HOLDFAST_INVENTORY_ADDR".to_owned(), asked.clone()));
            environment.push(("HOLDFAST_CUSTOMERS_ADDR".to_owned(), asked));
        }
        place.earlier = earlier;
        place.log_from = std::fs::metadata(&place.log).map_or(0, |log| log.len());
        // The product's own binary does not begin with its address; the shell does, and then becomes it.
        let script = r#"echo "$1"; exec "$2" serve "$3" >&2"#;
        let arguments = ["-c", script, "node", &place.grpc.to_string(), &program, place.contexts];
        let launch = Launch {
            name: (which + 1).to_string(),
            program: "sh".into(),
            arguments: arguments.map(str::to_owned).to_vec(),
            environment,
            log: Some(place.log.clone()),
        };
        place.node = Some((build, Node::start(launch).await?));
        Ok(())
    }

    /// Ends a node.
    pub async fn end(&mut self, which: usize, end: End) -> Result<(), Failed> {
        match (self.places[which].node.take(), end) {
            (Some((build, node)), End::Term) => {
                let status = node.leave(PATIENCE).await?;
                if !status.success() {
                    return Err(format!("node {} ({build}) left with {status}", which + 1).into());
                }
            }
            // Dropping it is what kills it.
            (node, _) => drop(node),
        }
        Ok(())
    }

    /// Puts another build in a node's place, and waits until all share the partitions and orders get on.
    pub async fn replace(&mut self, which: usize, build: Build, end: End) -> Result<(), Failed> {
        let began = Instant::now();
        self.end(which, end).await?;
        self.launch(which, build).await?;
        self.until_shared().await?;
        self.moving(300).await?;
        let builds: Vec<String> =
            self.places.iter().filter_map(|place| Some(place.node.as_ref()?.0.to_string())).collect();
        let took = began.elapsed().as_secs_f64();
        self.say(format_args!(
            "node {} replaced by the {build} build ({end:?}); now {}; all serve and orders get on after {took:.1} s",
            which + 1,
            builds.join(", "),
        ));
        Ok(())
    }

    /// The log of a node since it was started.
    pub fn log(&self, which: usize) -> Result<String, Failed> {
        let place = &self.places[which];
        let mut log = std::fs::File::open(&place.log)?;
        log.seek(SeekFrom::Start(place.log_from))?;
        let mut text = Vec::new();
        log.read_to_end(&mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// Lines by which a node says that it can't write the schema's format.
    pub fn refusals(&self, which: usize) -> Result<Vec<String>, Failed> {
        let said = |line: &&str| line.contains(REFUSED);
        Ok(self.log(which)?.lines().filter(said).map(str::to_owned).collect())
    }

    /// The schemas that the nodes serve.
    pub fn schemas(&self) -> Vec<Schema> {
        let customers = Schema::new(self.stack.postgres_url("postgres"), "customers");
        self.target.schemas().cloned().chain([customers]).collect()
    }

    /// How the schemas of orders and inventory are written.
    pub async fn written(&self) -> Result<Vec<Written>, Failed> {
        let mut all = Vec::new();
        for schema in self.target.schemas() {
            all.push(checkers::written(schema).await?);
        }
        Ok(all)
    }

    /// The partitions of all contexts that an address owns.
    async fn homes(&self, address: SocketAddr) -> Result<HashMap<(String, i32), i64>, Failed> {
        let (mut all, address) = (HashMap::new(), address.to_string());
        for schema in self.schemas() {
            for (partition, (owner, epoch)) in checkers::homes(&schema).await? {
                if owner == address {
                    all.insert((schema.name.clone(), partition), epoch);
                }
            }
        }
        Ok(all)
    }

    /// How many partitions a node has taken; what a killed node in its place has left is not counted.
    pub async fn owned_by(&self, which: usize) -> Result<i64, Failed> {
        let place = &self.places[which];
        let homes = self.homes(place.grpc).await?;
        let taken = homes.iter().filter(|(home, epoch)| place.earlier.get(home) != Some(*epoch));
        Ok(i64::try_from(taken.count())?)
    }

    /// Waits until each node that runs is ready and owns some partitions, and all partitions are owned by
    /// them.
    pub async fn until_shared(&mut self) -> Result<(), Failed> {
        let give_up = Instant::now() + PATIENCE;
        loop {
            let mut is_shared = true;
            let mut owners = BTreeMap::new();
            for which in 0..self.places.len() {
                if self.places[which].node.is_none() {
                    continue;
                }
                let owned = self.owned_by(which).await?;
                owners.insert(which + 1, owned);
                let place = &mut self.places[which];
                let Some((build, node)) = &mut place.node else { continue };
                if node.has_ended() {
                    return Err(format!("node {} ({build}) has ended; see {}", which + 1, place.log.display()).into());
                }
                is_shared &= owned > 0 && is_ready(place.http).await;
                let build = *build;
                if let Some(line) = self.refusals(which)?.first() {
                    return Err(
                        format!("node {} of the {build} build can't take a partition: {line}", which + 1).into()
                    );
                }
            }
            if is_shared && owners.values().sum::<i64>() == PARTITIONS * 3 {
                return Ok(());
            }
            if Instant::now() > give_up {
                return Err(format!("not within {PATIENCE:?}: each node owns its share; they own {owners:?}").into());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until this number of further events is published.
    pub async fn moving(&self, events: u64) -> Result<(), Failed> {
        let topic = "orders.events";
        let ends = Ends::new(self.stack.brokers())?;
        let before = ends.total(topic).await?;
        let give_up = Instant::now() + PATIENCE;
        while ends.total(topic).await? < before + events {
            if Instant::now() > give_up {
                return Err(format!("orders don't get on: fewer than {events} events in {PATIENCE:?}").into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    pub async fn fill(&self) -> Result<(), Failed> {
        let address = format!("http://{}", self.places[0].grpc);
        let (inventory, customers) = (shelves::inventory(&address)?, people::customers(&address)?);
        let shelf = |sku, quantity| Shelf { sku, quantity, price_minor: 1_000 };
        let ordinary = (0..Mix::demo(1, 1).skus).map(|n| shelf(Mix::sku(n), 100_000_000));
        let crowd = (0..SKUS).map(|n| shelf(Crowd::sku(n), 100_000_000));
        let all: Vec<Shelf> = ordinary.chain(crowd).chain([shelf(SCARCE_SKU.to_owned(), 40)]).collect();
        filled(PATIENCE, async || {
            shelves::fill(&inventory, "roll", all.iter().cloned()).await?;
            people::register(&customers, regulars()).await
        })
        .await
    }
}
