//! The designs that are measured, each behind the same few questions: start, tell if you fail, stop.
//!
//! Invariant: each runs alone, and all do the same work from topics of their own. Deliberately absent: what
//! is measured.

use async_trait::async_trait;
use holdfast_runtime::Config;

use super::Options;
use crate::{
    baseline::{self, Baseline},
    checkers::{self, Target},
    rivals::{
        Running,
        echo::{self, Echo},
        streams::{self, Settings, Streams},
    },
    scenarios::{
        Error, PATIENCE,
        holdfast::{Contestant, Serving},
    },
};

/// Where servers and programs are.
pub(super) struct Place<'a> {
    pub(super) stack: &'a holdfast_stack::Stack,
    pub(super) url: String,
}

/// What a start is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Rate,
    Latency,
}

/// One of the designs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Design {
    Holdfast,
    Streams(Settings),
    Baseline,
    Echo,
}

pub(super) const COMMANDS: &str = "orders.commands";
pub(super) const EVENTS: &str = "orders.events";

/// Where events go, in the order of [`Design::number`].
pub(super) const EVENT_TOPICS: [&str; 4] = [EVENTS, streams::EVENTS, baseline::EVENTS, echo::EVENTS];

impl Design {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Holdfast => "holdfast",
            Self::Streams(_) => "Kafka Streams, exactly once",
            Self::Baseline => "one transaction per command",
            Self::Echo => "echo",
        }
    }

    pub(super) const fn number(self) -> usize {
        match self {
            Self::Holdfast => 0,
            Self::Streams(_) => 1,
            Self::Baseline => 2,
            Self::Echo => 3,
        }
    }

    pub(super) const fn commands(self) -> &'static str {
        match self {
            Self::Holdfast => COMMANDS,
            Self::Streams(_) => streams::COMMANDS,
            Self::Baseline => baseline::COMMANDS,
            Self::Echo => echo::COMMANDS,
        }
    }

    /// Commands in a measured stretch, and commands a second when latency is measured.
    pub(super) fn load(self, options: &Options) -> (u32, Vec<u32>) {
        match self {
            Self::Baseline => (options.baseline_commands, vec![options.baseline_rate]),
            _ => (options.commands, options.rates.clone()),
        }
    }

    /// Whether each of its turns is to begin without what earlier ones left: an application of Streams reads
    /// all of its state again at every start.
    pub(super) const fn forgets(self) -> bool {
        matches!(self, Self::Streams(_))
    }

    /// Whether it works on Postgres.
    pub(super) const fn stores(self) -> bool {
        matches!(self, Self::Holdfast | Self::Baseline)
    }

    /// Starts it. A turn starts it twice, under one number.
    pub(super) async fn start(
        self,
        place: &Place<'_>,
        turn: u64,
        purpose: Purpose,
        options: &Options,
    ) -> Result<Box<dyn Running>, Error> {
        let Place { stack, url } = place;
        let brokers = stack.brokers();
        Ok(match self {
            Self::Holdfast => {
                let (contestant, config): (Contestant, Config) = ((options.contestant)(), options.config.clone());
                let serving = Serving::start(contestant, config, brokers, url, "orders").await?;
                let target = Target::new(brokers, url).orders_only();
                Box::new(OfHoldfast { serving, target })
            }
            Self::Streams(settings) => {
                let settings = if purpose == Purpose::Latency { settings.prompt() } else { settings };
                Box::new(Streams::start(stack.java(), stack.data_dir(), brokers, turn, settings)?)
            }
            Self::Baseline => {
                baseline::migrate(url).await?;
                Box::new(Baseline::start(brokers, url).await?)
            }
            Self::Echo => Box::new(Echo::start(brokers)?),
        })
    }
}

struct OfHoldfast {
    serving: Serving,
    target: Target,
}

#[async_trait]
impl Running for OfHoldfast {
    async fn stop(self: Box<Self>) -> Result<(), Error> {
        checkers::settled(&self.target, PATIENCE, |_| {}).await?;
        self.serving.stop().await;
        Ok(())
    }
}
