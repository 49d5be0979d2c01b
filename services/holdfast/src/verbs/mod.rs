//! The verbs, one file each.

mod actor;
mod config;
mod demo;
mod dev;
mod doctor;
mod grow;
mod load;
mod migrate;
mod order;
mod outbox;
mod partitions;
mod reconcile;
mod recover;
pub mod serve;
mod stack;
mod topics;

use holdfast_platform::{Config, config::Sources};

pub use load::with_scenarios;

use crate::{
    cli::{Arguments, Partitions, Verb},
    failure::Failure,
};

/// Variables that `deploy/dev.sh` reads, which are therefore no mistake here.
const KNOWN_ELSEWHERE: &[&str] = &["HOLDFAST_NO_INSTALL", "HOLDFAST_BREAKING_BASE"];

fn is_default(config: &Config, key: &str) -> bool {
    config.render().iter().any(|line| line.key == key && line.source == "default")
}

/// Logs errors alone, for a verb whose result is what it prints, and nothing of clients that outlive its
/// brokers; unless a filter was asked for.
fn quiet(config: &mut Config) {
    if is_default(config, "log.filter") {
        "error,librdkafka=off,rdkafka=off".clone_into(&mut config.log_filter);
    }
}

/// Runs the verb; returns the exit code.
pub async fn run(arguments: Arguments) -> Result<u8, Failure> {
    let mut flags = Vec::new();
    for given in &arguments.set {
        let (key, value) = given
            .split_once('=')
            .ok_or_else(|| Failure::usage(anyhow::anyhow!("--set {given}: expected KEY=VALUE, e.g. --set lanes=4")))?;
        flags.push((key.to_owned(), value.to_owned()));
    }
    let partitions = match &arguments.verb {
        Verb::Dev(dev) => dev.partitions,
        Verb::Demo(demo) => demo.partitions,
        _ => None,
    };
    flags.extend(partitions.map(|count| ("partitions".to_owned(), count.to_string())));
    let again = arguments.of_config();
    let mut sources = Sources::from_process();
    sources.flags = flags;
    sources.file = arguments.config;
    sources.known_elsewhere = KNOWN_ELSEWHERE;
    let config = Config::load(&sources)?;
    match arguments.verb {
        Verb::Dev(dev) => Box::pin(dev::run(config, dev)).await,
        Verb::Demo(demo) => Box::pin(demo::run(config, demo)).await,
        Verb::Stack(stack) => stack::run(stack).await,
        Verb::Serve(serve) => Box::pin(serve::run(config, serve)).await,
        Verb::Migrate { context, finish } => migrate::run(&config, &context, finish).await,
        Verb::Recover(recover) => recover::run(&config, recover).await,
        Verb::Topics(topics) => topics::run(&config, topics).await,
        Verb::Partitions(Partitions::Grow(grow)) => grow::run(&config, grow).await,
        Verb::Config { json } => Ok(config::run(&config, json)),
        Verb::Partitions(Partitions::Show { context, json }) => partitions::show(&config, &context, json).await,
        Verb::Outbox(verb) => outbox::run(&config, verb).await,
        Verb::Doctor(doctor) => doctor::run(&config, doctor).await,
        Verb::Actor(verb) => actor::run(&config, verb).await,
        Verb::Order(verb) => Box::pin(order::run(&config, verb)).await,
        Verb::Reconcile(verb) => Box::pin(reconcile::run(&config, verb)).await,
        Verb::Load(load) => Box::pin(load::run(config, load, again)).await,
    }
}
