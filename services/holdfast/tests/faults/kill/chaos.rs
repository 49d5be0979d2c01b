//! Two nodes, a producer outside of them, and a hand that kills and pauses.
//!
//! Deliberately absent: any knowledge of the runtime; the account is the checkers'.

use std::time::{Duration, Instant};

use holdfast::{
    compose,
    infrastructure::{Infrastructure, ORDERING},
    people,
    shelves::{self, Shelf},
};
use holdfast_load_tests::{
    checkers::{self, Breach, Report, Target},
    faults::node::{Launch, Node},
    kafka::Ends,
    producer::{self, Ledger, Options},
    work::{Mix, SCARCE_SKU, regulars},
};
use holdfast_platform::{Config, config::Sources};
use holdfast_stack::{Stack, StackOptions};
use holdfast_testkit::Dice;
use libtest_mimic::Failed;

use super::Sabotage;
use crate::world::text;

/// How often a process is killed.
const KILLS: u32 = 10;
/// Commands a second while that goes on.
const RATE: u32 = 2_000;
/// Orders sent at a time; the hand strikes until they are sent.
const ORDERS: u32 = 4_000;
/// Rounds of load and kills in which a sabotaged build must be found out.
const ROUNDS: u64 = 6;
/// As `holdfast topics apply` makes them.
const PARTITIONS: i64 = 12;
const PATIENCE: Duration = Duration::from_secs(150);
const PATIENCE_WITH_BROKEN: Duration = Duration::from_secs(45);

/// The product as it is: ten kills and two pauses, and nothing is lost, doubled or reordered.
pub async fn survives() -> Result<(), Failed> {
    let mut world = World::start(Sabotage::None).await?;
    let mut ledger = both(world.burst_and_pause().await?, world.burst_and_pause().await?);
    let mut strikes = 0;
    while strikes < KILLS {
        let (sent, struck) = world.trickle_and_kill(KILLS - strikes).await?;
        ledger = both(ledger, sent);
        strikes += struck;
    }
    world.settle(PATIENCE).await?;
    let report = world.account(&ledger).await?;
    eprintln!("{strikes} kills: {report}");
    if report.is_clean() { Ok(()) } else { Err(report.to_string().into()) }
}

/// A broken build: some round of kills or pauses must show it.
pub async fn is_found_out(how: Sabotage) -> Result<(), Failed> {
    let mut world = World::start(how).await?;
    let mut ledger = Ledger::default();
    for round in 1..=ROUNDS {
        let sent = match how {
            // Only an owner that wakes up too late misses its fence.
            Sabotage::NoFence => world.burst_and_pause().await,
            _ => world.trickle_and_kill(3).await.map(|(sent, _)| sent),
        };
        // The runtime itself may have seen events that the database knows nothing of; a sound build gives it
        // no reason.
        if let Some(halt) = checkers::halted(&world.target.orders).await? {
            eprintln!("{how}, round {round}: {halt}");
            return Ok(());
        }
        ledger = both(ledger, sent?);
        // It may never come to rest: that alone proves nothing, a slow machine may not either.
        let rest = world.settle(PATIENCE_WITH_BROKEN).await;
        let report = world.account(&ledger).await?;
        eprintln!("{how}, round {round}: {report}");
        if report.violations().any(|(breach, _)| rest.is_ok() || is_proof(breach)) {
            return Ok(());
        }
        rest?;
    }
    Err(format!("{how} was not found out in {ROUNDS} rounds: the test proves nothing").into())
}

/// Whether a breach, seen before the system came to rest, speaks against the build and not only against its
/// speed.
fn is_proof(breach: Breach) -> bool {
    !matches!(
        breach,
        Breach::Lost
            | Breach::Unpublished
            | Breach::Undrained
            | Breach::Unconsumed
            | Breach::Waiting
            | Breach::Disagreement
    )
}

struct World {
    stack: Stack,
    target: Target,
    how: Sabotage,
    nodes: [Option<Node>; 2],
    dice: Dice,
    loads: u64,
}

impl World {
    async fn start(how: Sabotage) -> Result<Self, Failed> {
        let stack = Stack::start(StackOptions::default()).await?;
        let url = stack.postgres_url("postgres");
        let config = Config::load(&Sources {
            environment: environment(&stack).into_iter().map(|(key, value)| (key.into(), value.into())).collect(),
            ..Sources::default()
        })?;
        let at = Infrastructure::configured(&config).map_err(text)?;
        compose::prepare(&config, &at, &ORDERING).await.map_err(text)?;
        let target = Target::new(stack.brokers(), &url);
        let seed = std::time::UNIX_EPOCH.elapsed()?.subsec_nanos();
        eprintln!("seed {seed}");
        let mut world = Self { stack, target, how, nodes: [None, None], dice: Dice::new(u64::from(seed)), loads: 0 };
        // The first node alone owns every partition: it is asked to fill the shelves.
        world.launch(0).await?;
        world.fill().await?;
        world.launch(1).await?;
        Ok(world)
    }

    async fn launch(&mut self, which: usize) -> Result<(), Failed> {
        let launch = Launch {
            name: (which + 1).to_string(),
            program: std::env::current_exe()?,
            arguments: vec!["victim".to_owned(), self.how.to_string()],
            environment: environment(&self.stack),
            log: None,
        };
        self.nodes[which] = Some(Node::start(launch).await?);
        Ok(())
    }

    async fn fill(&self) -> Result<(), Failed> {
        let grpc = self.nodes[0].as_ref().ok_or("no node")?.grpc();
        let schema = self.target.inventory.as_ref().ok_or("no inventory")?;
        let give_up = Instant::now() + Duration::from_mins(1);
        while checkers::owners(schema).await?.get(&grpc.to_string()) != Some(&PARTITIONS) {
            if Instant::now() > give_up {
                return Err("the first node did not take every partition within a minute".into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let inventory = shelves::inventory(&format!("http://{grpc}"))?;
        let shelf = |sku: String, quantity| Shelf { sku, quantity, price_minor: 1_000 };
        let mix = Mix::demo(1, 1);
        let ordinary = (0..mix.skus).map(|n| shelf(Mix::sku(n), 1_000_000));
        let shelves = ordinary.chain([shelf(SCARCE_SKU.to_owned(), i64::from(ORDERS) / 40)]);
        shelves::fill(&inventory, "kill", shelves).await?;
        Ok(people::register(&people::customers(&format!("http://{grpc}"))?, regulars()).await?)
    }

    /// The next load. Many rejections and dead letters: effects without a version, which only the fence keeps
    /// from happening twice.
    fn load(&mut self, rate: u32) -> tokio::task::JoinHandle<Result<Ledger, producer::Error>> {
        self.loads += 1;
        let mix =
            Mix { unknown_sku: 150, empty: 100, bad: 200, repeated: 50, window: 500, ..Mix::demo(ORDERS, self.loads) };
        let (brokers, options) = (self.stack.brokers().to_owned(), Options { rate, ..Options::to("orders.commands") });
        tokio::spawn(async move { producer::produce(&brokers, &mix, options, |_| {}).await })
    }

    /// Sends as fast as it goes, so that nodes have their hands full, and pauses one of them then.
    async fn burst_and_pause(&mut self) -> Result<Ledger, Failed> {
        let sending = self.load(0);
        self.moving().await?;
        self.doze(20, 400).await;
        self.pause().await?;
        Ok(sending.await??)
    }

    /// Sends at a pace, and kills at random moments while that lasts, at most so often. Returns what was
    /// sent, and how many died.
    async fn trickle_and_kill(&mut self, kills: u32) -> Result<(Ledger, u32), Failed> {
        let sending = self.load(RATE);
        let mut struck = 0;
        while !sending.is_finished() && struck < kills {
            self.moving().await?;
            self.doze(20, 600).await;
            let which = usize::from(self.dice.below(2) == 1);
            // Dropping it is what kills it.
            self.nodes[which] = None;
            self.launch(which).await?;
            struck += 1;
        }
        Ok((sending.await??, struck))
    }

    /// Stops the process that owns most, for longer than its session and its lease last, so that the other
    /// takes all of its partitions; then lets it go on, in the middle of whatever it did.
    async fn pause(&mut self) -> Result<(), Failed> {
        let owners = checkers::owners(&self.target.orders).await?;
        let owned = |node: &Node| owners.get(&node.grpc().to_string()).copied().unwrap_or(0);
        let node = self.nodes.iter().flatten().max_by_key(|node| owned(node)).ok_or("no node")?;
        let address = node.grpc().to_string();
        node.pause()?;
        let give_up = Instant::now() + Duration::from_mins(1);
        while checkers::owners(&self.target.orders).await?.contains_key(&address) {
            if Instant::now() > give_up {
                return Err("a paused node's partitions were not taken over within a minute".into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // The taker waits for one lease before it begins; then it is well under way.
        self.moving().await?;
        node.wake()?;
        Ok(())
    }

    /// Waits until something happens.
    async fn moving(&self) -> Result<(), Failed> {
        let ends = Ends::new(self.stack.brokers())?;
        let before = ends.total("orders.events").await?;
        let give_up = Instant::now() + Duration::from_mins(1);
        while ends.total("orders.events").await? == before {
            if Instant::now() > give_up {
                return Err("nothing moved for a minute".into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    async fn doze(&mut self, least_ms: u64, most_ms: u64) {
        let ms = least_ms + self.dice.below(most_ms - least_ms);
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }

    async fn settle(&self, patience: Duration) -> Result<(), Failed> {
        checkers::settled(&self.target, patience, |_| {}).await?;
        Ok(())
    }

    async fn account(&self, ledger: &Ledger) -> Result<Report, Failed> {
        Ok(checkers::account(&self.target, ledger).await?)
    }
}

fn environment(stack: &Stack) -> Vec<(String, String)> {
    let pairs = [
        ("HOLDFAST_KAFKA_BROKERS", stack.brokers().to_owned()),
        ("HOLDFAST_DATABASE_URL", stack.postgres_url("postgres")),
        ("HOLDFAST_KAFKA_SESSION_TIMEOUT", "6s".to_owned()),
        ("HOLDFAST_LEASE", "2s".to_owned()),
        ("HOLDFAST_LOG_FILTER", "error,librdkafka=off".to_owned()),
    ];
    pairs.map(|(key, value)| (key.to_owned(), value)).into()
}

fn both(mut first: Ledger, second: Ledger) -> Ledger {
    first.records += second.records;
    first.commands.extend(second.commands);
    first.bad.extend(second.bad);
    first
}
