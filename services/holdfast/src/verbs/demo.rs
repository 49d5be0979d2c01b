//! `holdfast demo`: the complete life of orders through a real Kafka and a real Postgres, and then an account
//! of every one of them.
//!
//! Orders come by Kafka, a warehouse and its carrier answer by Kafka, and a simulated provider takes the
//! money, or fails to. Invariant: what the table says comes from the topics, the schemas and the provider's
//! own books, read by checkers that share no code with the runtime. Deliberately absent: anything that a
//! production process does differently.

mod outcome;
mod run;

use std::time::{Duration, Instant};

use anyhow::Context as _;
use holdfast_load_tests::{
    checkers,
    work::{Mix, SCARCE_SKU},
};
use holdfast_payments::simulator::{Config as Behaviour, Plan};
use holdfast_platform::Config;

pub(super) use self::outcome::Outcome;
use self::run::Shop;
use crate::{
    cli::Demo,
    compose::{self, App, Listeners},
    failure::Failure,
    infrastructure::{CONTEXTS, Infrastructure},
    people,
    shelves::{self, Shelf},
    simulated,
    verbs::serve::Process,
};

/// Orders of the second part, in which latency is measured without a crowd.
const CALM_ORDERS: u32 = 500;
/// Units in stock of the sku that is to sell out, per thousand orders.
const SCARCE_PER_MILLE: i64 = 10;
/// How long stock is held for an order that isn't paid. Longer than anything takes here but a charge that
/// comes too late.
const HOLD: Duration = Duration::from_secs(15);
/// How many of 1,000 requests fail at the provider, in all ways alike.
const FAULTS: u32 = 3;
/// How long the provider is silent where it is to answer too late: longer than payments waits. Twice that is
/// longer than [`HOLD`].
const SILENCE: Duration = Duration::from_secs(9);

/// Runs it; 1 if anything was lost, doubled or reordered, or if money or stock doesn't add up.
pub async fn run(config: Config, demo: Demo) -> Result<u8, Failure> {
    let (exit, Some(outcome)) = Box::pin(play(config, &demo)).await? else {
        eprintln!("stopped before the end");
        return Ok(130);
    };
    if demo.json {
        println!("{}", outcome.json());
    } else {
        println!("{}", outcome.table());
    }
    if !outcome.report.is_clean() {
        eprintln!("{}", outcome.report);
        return Ok(1);
    }
    Ok(exit)
}

/// Lets the orders live. Returns the exit code of leaving, and what came of it unless a signal came before.
pub(super) async fn play(mut config: Config, demo: &Demo) -> Result<(u8, Option<Outcome>), Failure> {
    super::quiet(&mut config);
    if super::is_default(&config, "reservation_ttl") {
        config.reservation_ttl = HOLD;
    }
    let process = Process::begin(&config, &CONTEXTS)?;
    let stage = Stage::begin("starting Kafka and Postgres (the first time they are downloaded)");
    let at = Infrastructure::embedded(&config, None).await?;
    stage.done();
    let result = async {
        compose::prepare(&config, &at, &CONTEXTS).await?;
        let listeners = Listeners::ephemeral().await?;
        let behaviour = Behaviour { plan: Plan::Random { per_mille: FAULTS }, hang: SILENCE, ..Behaviour::default() };
        let provider = simulated::provider(&mut config, &listeners.http, behaviour, None).await?;
        let show = async |app: &App| show(&config, &at, app, &provider, demo).await;
        process.run(&config, &at, &CONTEXTS, listeners, show).await
    }
    .await;
    at.stop().await?;
    result
}

async fn show(
    config: &Config,
    at: &Infrastructure,
    app: &App,
    provider: &holdfast_payments::simulator::Simulator,
    demo: &Demo,
) -> Result<Outcome, Failure> {
    let stage = Stage::begin("taking the partitions, filling the shelves, registering customers");
    app.owned().await;
    let mix = Mix::shop(demo.orders, 1);
    let calm_mix = calm(&mix);
    prepare(app, &mix).await?;
    stage.done();

    let mut shop = Shop::open(config, at, &[&mix, &calm_mix]).await?;
    let crowd = shop.crowd(&mix, demo.rate).await?;
    let calm = shop.calm(&calm_mix).await?;
    let (target, done) = shop.close().await?;

    let stage = Stage::begin("accounting for every command, every cent and every unit");
    let mut evidence = checkers::gather(&target).await.map_err(checked)?;
    let account = checkers::Account::read(provider.account());
    evidence.provider = Some(account.context("the provider's books").map_err(Failure::Check)?);
    let outcome = Outcome::of(config.partitions, crowd, calm, done, &evidence);
    stage.done();
    Ok(outcome)
}

/// The orders of the second part: of the same customers, and none for which the provider is silent on
/// purpose.
fn calm(mix: &Mix) -> Mix {
    let life = mix.life.clone().map(|life| holdfast_load_tests::work::life::Life { late: 0, silent: 0, ..life });
    Mix { time_ms: mix.time_ms + 1, life, ..Mix::shop(CALM_ORDERS, 2) }
}

fn checked(error: checkers::Error) -> Failure {
    Failure::Check(error.into())
}

/// Stock without end, but for one sku; and customers.
async fn prepare(app: &App, mix: &Mix) -> Result<(), Failure> {
    let address = format!("http://{}", app.grpc);
    let inventory = shelves::inventory(&address).context("inventory").map_err(Failure::Check)?;
    let scarce = (i64::from(mix.orders) * SCARCE_PER_MILLE / 1_000).max(1);
    let plenty = i64::from(mix.orders.max(1_000)) * 10;
    let shelf = |sku: String, quantity: i64, price_minor: i64| Shelf { sku, quantity, price_minor };
    let ordinary = (0..mix.skus).map(|n| shelf(Mix::sku(n), plenty, 199 + i64::from(n) * 100));
    let shelves = ordinary.chain([shelf(SCARCE_SKU.to_owned(), scarce, 99_900)]);
    let filled = shelves::fill(&inventory, "demo", shelves).await;
    filled.context("inventory did not take the stock").map_err(Failure::Check)?;
    let customers = people::customers(&address).context("customers").map_err(Failure::Check)?;
    let Some(life) = &mix.life else { return Ok(()) };
    let registered = people::register(&customers, life.people()).await;
    registered.context("customers did not take the people").map_err(Failure::Check)
}

/// One line of what is going on.
struct Stage {
    what: &'static str,
    begun: Instant,
}

impl Stage {
    fn begin(what: &'static str) -> Self {
        eprintln!("  {what} ...");
        Self { what, begun: Instant::now() }
    }

    fn done(self) {
        eprintln!("  {}: {:.1} s", self.what, self.begun.elapsed().as_secs_f64());
    }
}
