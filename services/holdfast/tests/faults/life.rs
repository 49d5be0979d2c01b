//! The complete life of orders with every context in a process of its own, each killed in turn, and a
//! provider outside that fails one call in five in every way: and then the same books as the demo's.
//!
//! Upholds that money and stock are conserved to the last unit (I2) across crashes: by the provider's own
//! ledger one charge per delivered order, what was taken from others given back, no unit lost; and I1, I3,
//! I7, I8 and I10 by the same checkers. The processes are the product's own, `holdfast serve <context>`. I9:
//! a provider that forgets what it was asked before charges twice, and the books must say so. Deliberately
//! absent: pauses and cut ways ([`crate::scenario`]).

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::{Duration, Instant},
};

use holdfast::{
    compose,
    infrastructure::{CONTEXTS, Infrastructure},
    people,
    shelves::{self, Shelf},
};
use holdfast_load_tests::{
    checkers::{self, Account, Breach, Money, Report, Target},
    faults::node::{Launch, Node},
    floor::Floor,
    kafka::Ends,
    producer::{self, Ledger, Options},
    work::{Mix, SCARCE_SKU},
};
use holdfast_payments::{
    simulator::{Config as Behaviour, Plan, Simulator, WebhookConfig},
    webhook,
};
use holdfast_platform::{Config, Context, config::Sources};
use holdfast_stack::{Stack, StackOptions};
use libtest_mimic::Failed;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::world::{filled, free, is_ready, text};

/// How long anything that must happen may take.
const PATIENCE: Duration = Duration::from_mins(5);
/// How long stock is held for an order that isn't paid: so long that most orders outlive a crash of payments,
/// so short that some don't.
const HOLD: &str = "30s";
const SECRET: &str = "whsec_of_the_tests";

/// What to do.
#[derive(Clone, Debug)]
pub struct Life {
    /// The load and the provider's dice follow from it.
    pub seed: u64,
    /// How many orders.
    pub orders: u32,
    /// Commands to orders a second.
    pub rate: u32,
    /// How many of 1,000 requests to the provider fail.
    pub faults: u32,
    /// Whether contexts are killed.
    pub kills: bool,
    /// Whether the provider forgets its idempotency keys as it goes, which no provider may.
    pub forgets: bool,
    /// Where logs go.
    pub dir: PathBuf,
}

impl Life {
    /// Every context once, under a few hundred orders.
    pub fn short(seed: u64, dir: PathBuf) -> Self {
        Self { seed, orders: 400, rate: 60, faults: 200, kills: true, forgets: false, dir }
    }

    /// Nothing but a provider that charges again what it was asked twice.
    pub fn forgetful(seed: u64, dir: PathBuf) -> Self {
        Self { orders: 200, rate: 200, faults: 400, kills: false, forgets: true, ..Self::short(seed, dir) }
    }

    fn mix(&self) -> Mix {
        let mix = Mix::shop(self.orders, self.seed);
        let life = mix.life.clone().map(|life| holdfast_load_tests::work::life::Life { late: 0, ..life });
        Mix { window: 50, life, ..mix }
    }
}

/// The product as it is: whatever fails, the books balance.
pub async fn balances(life: Life) -> Result<(), Failed> {
    eprintln!("seed {}; logs in {}", life.seed, life.dir.display());
    let (world, report) = World::live(&life).await?;
    let (delivered, money) = figures(&report)?;
    eprintln!("{:?}, cancelled: {:?}, {money:?}, {:?}", report.orders, report.cancelled, report.stock);
    eprintln!("{report}");
    if !report.is_clean() {
        return Err(report.to_string().into());
    }
    world.reconciled().await?;
    if delivered < u64::from(life.orders) / 3 || money.faults == 0 || money.refunded == 0 {
        return Err(format!("too tame: {delivered} delivered, {money:?}").into());
    }
    Ok(())
}

/// A provider that forgets charges twice, and the books refuse. Which order it charges twice is chance: a
/// webhook may always be quicker than the second attempt, so more than one life is looked at.
pub async fn a_second_charge_is_found_out(life: Life) -> Result<(), Failed> {
    let mut seen = Vec::new();
    for round in 0..3 {
        let life = Life { seed: life.seed.wrapping_add(round), dir: life.dir.clone(), ..life };
        let (_world, report) = World::live(&life).await?;
        let (_, money) = figures(&report)?;
        eprintln!("{money:?}\n{report}");
        if report.count(Breach::MoneyAdrift) > 0 {
            return Ok(());
        }
        seen.push(money);
    }
    Err(format!("nobody was charged twice, or nobody noticed: {seen:?}").into())
}

fn figures(report: &Report) -> Result<(u64, Money), Failed> {
    let delivered = report.orders.get("DELIVERED").copied().unwrap_or(0);
    Ok((delivered, report.money.clone().ok_or("the provider's books were not looked at")?))
}

/// One context's process, and where it is.
struct Place {
    context: Context,
    grpc: SocketAddr,
    http: SocketAddr,
    node: Option<Node>,
}

struct World {
    stack: Stack,
    target: Target,
    provider: Simulator,
    provider_url: String,
    places: Vec<Place>,
    dir: PathBuf,
}

impl World {
    /// Opens, lets all orders live, and accounts for them.
    async fn live(life: &Life) -> Result<(Self, Report), Failed> {
        let mut world = Self::open(life).await?;
        let mix = life.mix();
        world.fill(&mix).await?;
        let floor = Floor::open(world.stack.brokers(), std::slice::from_ref(&mix));
        let sending = world.send(&mix, life.rate);
        let forgetting = life.forgets.then(|| forget(world.provider.clone()));
        let mut kills = 0;
        while life.kills && (kills == 0 || !sending.is_finished()) {
            kills += world.kill_each(kills == 0, &sending).await?;
        }
        let ledger = sending.await??;
        let ending = u64::from(mix.ending());
        let tally = floor.tally();
        let (mut ended, mut give_up) = (0, Instant::now() + PATIENCE);
        while tally.ended() < ending {
            if tally.ended() > ended {
                (ended, give_up) = (tally.ended(), Instant::now() + PATIENCE);
            }
            if Instant::now() > give_up || floor.is_closed() {
                return Err(format!("{ended} of {ending} orders ended, and then none for {PATIENCE:?}").into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let done = floor.close().await?;
        checkers::settled(&world.target, PATIENCE, |_| {}).await?;
        if let Some(forgetting) = forgetting {
            forgetting.cancel();
        }
        let report = world.account(ledger, done.orders, &done.warehouse).await?;
        eprintln!("{kills} contexts killed under {} records", report.records);
        Ok((world, report))
    }

    async fn open(life: &Life) -> Result<Self, Failed> {
        let stack = Stack::start(StackOptions::default()).await?;
        let target = Target::shop(stack.brokers(), &stack.postgres_url("postgres"));
        let mut places = Vec::new();
        for context in CONTEXTS {
            places.push(Place { context, grpc: free().await?, http: free().await?, node: None });
        }
        let webhooks = places.iter().find(|place| place.context == Context::Payments).map(|place| WebhookConfig {
            url: format!("http://{}{}", place.http, webhook::PATH),
            secret: SECRET.to_owned(),
            duplicates_per_mille: 200,
            // A charge that was made and is asked for again is made twice only if no webhook tells of it
            // first.
            delay_max: Duration::from_secs(if life.forgets { 5 } else { 1 }),
        });
        let plan = Plan::Random { per_mille: life.faults };
        // What hangs does so until payments has lost its patience.
        let behaviour =
            Behaviour { seed: life.seed, plan, hang: Duration::from_secs(9), webhooks, ..Behaviour::default() };
        let provider = Simulator::new(behaviour);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let provider_url = format!("http://{}", listener.local_addr()?);
        let served = provider.clone();
        tokio::spawn(async move { served.serve(listener, CancellationToken::new()).await });
        let mut world = Self { stack, target, provider, provider_url, places, dir: life.dir.clone() };
        world.prepare().await?;
        for which in 0..world.places.len() {
            world.launch(which).await?;
        }
        for which in 0..world.places.len() {
            world.ready(which).await?;
        }
        Ok(world)
    }

    async fn prepare(&self) -> Result<(), Failed> {
        let environment = self.environment().into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        let config = Config::load(&Sources { environment, ..Sources::default() })?;
        let at = Infrastructure::configured(&config).map_err(text)?;
        compose::prepare(&config, &at, &CONTEXTS).await.map_err(text)
    }

    /// The environment of every process.
    fn environment(&self) -> Vec<(String, String)> {
        let address = |context: Context| {
            let place = self.places.iter().find(|place| place.context == context);
            format!("http://{}", place.map_or(SocketAddr::from(([0; 4], 0)), |place| place.grpc))
        };
        let pairs = [
            ("HOLDFAST_KAFKA_BROKERS", self.stack.brokers().to_owned()),
            ("HOLDFAST_DATABASE_URL", self.stack.postgres_url("postgres")),
            // So that a killed process is missed soon.
            ("HOLDFAST_KAFKA_SESSION_TIMEOUT", "6s".to_owned()),
            ("HOLDFAST_LEASE", "2s".to_owned()),
            ("HOLDFAST_RESERVATION_TTL", HOLD.to_owned()),
            ("HOLDFAST_INVENTORY_ADDR", address(Context::Inventory)),
            ("HOLDFAST_CUSTOMERS_ADDR", address(Context::Customers)),
            ("HOLDFAST_PAYMENTS_PROVIDER_URL", self.provider_url.clone()),
            ("HOLDFAST_PAYMENTS_API_KEY", "sk_of_the_tests".to_owned()),
            ("HOLDFAST_PAYMENTS_WEBHOOK_SECRETS", SECRET.to_owned()),
            ("HOLDFAST_LOG_FILTER", "warn,librdkafka=off".to_owned()),
        ];
        pairs.map(|(key, value)| (key.to_owned(), value)).into()
    }

    async fn launch(&mut self, which: usize) -> Result<(), Failed> {
        let mut environment = self.environment();
        let place = &mut self.places[which];
        environment.push(("HOLDFAST_GRPC_LISTEN".to_owned(), place.grpc.to_string()));
        environment.push(("HOLDFAST_HTTP_LISTEN".to_owned(), place.http.to_string()));
        let name = place.context.to_string();
        // The product's own binary does not begin with its address; the shell does, and then becomes it.
        let script = r#"echo "$1"; exec "$2" serve "$3" >&2"#;
        let arguments = ["-c", script, "node", &place.grpc.to_string(), env!("CARGO_BIN_EXE_holdfast"), &name];
        let launch = Launch {
            program: "sh".into(),
            arguments: arguments.map(str::to_owned).to_vec(),
            environment,
            log: Some(self.dir.join(format!("{name}.log"))),
            name,
        };
        place.node = Some(Node::start(launch).await?);
        Ok(())
    }

    /// Waits until the process says that it is ready: it has joined its group and reaches its database.
    async fn ready(&self, which: usize) -> Result<(), Failed> {
        let place = &self.places[which];
        let give_up = Instant::now() + PATIENCE;
        while !is_ready(place.http).await {
            if Instant::now() > give_up {
                return Err(format!("{} is not ready; its log is in {}", place.context, self.dir.display()).into());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    async fn fill(&self, mix: &Mix) -> Result<(), Failed> {
        let address = |context: Context| {
            let place = self.places.iter().find(|place| place.context == context).ok_or("no such context")?;
            Ok::<_, Failed>(format!("http://{}", place.grpc))
        };
        let inventory = shelves::inventory(&address(Context::Inventory)?)?;
        let shelf = |sku: String, quantity| Shelf { sku, quantity, price_minor: 1_250 };
        let scarce = i64::from(mix.orders) / 100;
        let shelves =
            || (0..mix.skus).map(|n| shelf(Mix::sku(n), 100_000)).chain([shelf(SCARCE_SKU.to_owned(), scarce)]);
        let customers = people::customers(&address(Context::Customers)?)?;
        let life = mix.life.as_ref().ok_or("nobody lives here")?;
        filled(PATIENCE, async || {
            shelves::fill(&inventory, "life", shelves()).await?;
            people::register(&customers, life.people()).await
        })
        .await
    }

    fn send(&self, mix: &Mix, rate: u32) -> JoinHandle<Result<Ledger, producer::Error>> {
        let (brokers, mix) = (self.stack.brokers().to_owned(), mix.clone());
        let options = Options { rate, ..Options::to("orders.commands") };
        tokio::spawn(async move { producer::produce(&brokers, &mix, options, |_| {}).await })
    }

    /// Kills each context in the midst of its work, starts it again and waits until it is back at it; all of
    /// them, or until everything is sent. Returns how many.
    async fn kill_each<T>(&mut self, all: bool, sending: &JoinHandle<T>) -> Result<u32, Failed> {
        let mut kills = 0;
        for which in 0..self.places.len() {
            self.moving(sending).await?;
            if sending.is_finished() && !all {
                break;
            }
            let context = self.places[which].context;
            eprintln!("kills {context}");
            // Dropping it is what kills it.
            self.places[which].node = None;
            self.launch(which).await?;
            self.ready(which).await?;
            kills += 1;
        }
        Ok(kills)
    }

    /// Waits until orders get on, or everything is sent.
    async fn moving<T>(&self, sending: &JoinHandle<T>) -> Result<(), Failed> {
        let topic = "orders.events";
        let ends = Ends::new(self.stack.brokers())?;
        // A broker that is slow to answer says nothing about orders.
        let before = ends.total(topic).await.unwrap_or(0);
        let give_up = Instant::now() + PATIENCE;
        while !sending.is_finished() && ends.total(topic).await.unwrap_or(before) < before + 20 {
            if Instant::now() > give_up {
                return Err(format!("nothing moved for {PATIENCE:?}").into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    async fn account(&self, mut ledger: Ledger, late: Ledger, warehouse: &Ledger) -> Result<Report, Failed> {
        let mut evidence = checkers::gather(&self.target).await?;
        evidence.provider = Some(Account::read(self.provider.account())?);
        ledger.absorb(late);
        Ok(checkers::audit_shop(&ledger, warehouse, &evidence))
    }

    /// By the contexts' own word.
    async fn reconciled(&self) -> Result<(), Failed> {
        let mut reconcile = std::process::Command::new(env!("CARGO_BIN_EXE_holdfast"));
        reconcile.args(["reconcile", "--settled", "0s"]).envs(self.environment());
        let output = tokio::task::spawn_blocking(move || reconcile.output()).await??;
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        eprintln!("reconcile: {}", said.trim());
        if output.status.success() && output.stdout.is_empty() { Ok(()) } else { Err(said.into()) }
    }
}

/// Makes the provider forget all keys, over and over.
fn forget(provider: Simulator) -> CancellationToken {
    let until = CancellationToken::new();
    let stopped = until.clone();
    tokio::spawn(async move {
        while !stopped.is_cancelled() {
            provider.forget_keys();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    until
}
