//! The command line.

use std::{ffi::OsString, path::PathBuf};

use clap::{Parser, Subcommand};

/// Holdfast: an event-driven commerce back end, and the actor runtime under it.
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct Arguments {
    /// A TOML configuration file; environment variables and flags win over it.
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Sets one configuration key, e.g. `--set lanes=4`; wins over the environment. `holdfast config` lists
    /// the keys.
    #[arg(long = "set", global = true, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

impl Arguments {
    /// Those that give another process of this binary the same configuration.
    pub fn of_config(&self) -> Vec<OsString> {
        let file = self.config.iter().flat_map(|file| ["--config".into(), file.into()]);
        file.chain(self.set.iter().flat_map(|set| ["--set".into(), set.into()])).collect()
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Runs everything on this machine: embedded Kafka and Postgres, every context in one process. Ctrl-C
    /// stops it; the data stays.
    Dev(Dev),
    /// Pushes real orders through a fresh stack, checks the invariants and prints a table.
    Demo(Demo),
    /// Kafka and Postgres alone.
    #[command(subcommand)]
    Stack(Stack),
    /// Runs contexts as a production process.
    Serve(Serve),
    /// Brings schemas up to date.
    Migrate {
        /// A context such as `orders`, several separated by commas, or `all`.
        context: String,
        /// Writes from now on what earlier builds can't read, once none of their nodes runs any more. There
        /// is no way back to them.
        #[arg(long)]
        finish: bool,
    },
    /// Shows or makes the topics.
    #[command(subcommand)]
    Topics(Topics),
    /// Who owns which partition, and how far each is; and growing them, live.
    #[command(subcommand)]
    Partitions(Partitions),
    /// What is committed and not published, and what the brokers refuse.
    #[command(subcommand)]
    Outbox(Outbox),
    /// After a database was restored from a backup, or a topic was lost: folds what was published back, and
    /// lets the context go on. Only says what it would do, unless `--yes`.
    Recover(Recover),
    /// Prints the effective configuration, secrets masked.
    Config {
        /// One JSON object per line.
        #[arg(long)]
        json: bool,
    },
    /// Looks for misconfiguration and trouble, and says what helps.
    Doctor(Doctor),
    /// One live actor.
    #[command(subcommand)]
    Actor(Actor),
    /// One order's story across contexts.
    #[command(subcommand)]
    Order(Order),
    /// Compares what four contexts say of every order, and names what disagrees.
    Reconcile(Reconcile),
    /// Benchmarks.
    Load(Load),
}

/// See [`Verb::Order`].
#[derive(Debug, Subcommand)]
pub enum Order {
    /// Everything that happened to it, and what each context says of it now.
    Trace {
        /// The order's id.
        order_id: String,
        /// One JSON object per line.
        #[arg(long)]
        json: bool,
    },
}

/// See [`Verb::Reconcile`].
#[derive(Debug, clap::Args)]
pub struct Reconcile {
    /// An order that changed less than this ago is on its way, and no disagreement yet.
    #[arg(long, default_value = "30s", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub settled: std::time::Duration,
    /// One JSON object per line.
    #[arg(long)]
    pub json: bool,
}

/// See [`Verb::Dev`].
#[derive(Debug, clap::Args)]
pub struct Dev {
    /// Partitions of each topic.
    #[arg(long, value_name = "N")]
    pub partitions: Option<u32>,
    /// Where the data lives.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Deletes the data of earlier runs first.
    #[arg(long)]
    pub reset: bool,
}

/// See [`Verb::Demo`].
#[derive(Debug, Clone, clap::Args)]
pub struct Demo {
    /// How many orders.
    #[arg(long, default_value_t = 20_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub orders: u32,
    /// Commands to orders per second; as fast as orders come to their end if not given.
    #[arg(long, value_name = "R")]
    pub rate: Option<u32>,
    /// Partitions of each topic.
    #[arg(long, value_name = "N")]
    pub partitions: Option<u32>,
    /// The result as one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// See [`Verb::Stack`].
#[derive(Debug, Subcommand)]
pub enum Stack {
    /// Starts both and stays in the foreground until Ctrl-C or `stack down`.
    Up {
        /// Where the data lives.
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
    },
    /// Stops a running `stack up` or `dev`.
    Down {
        /// Where the data lives.
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
    },
    /// Says whether it runs, and where.
    Status {
        /// Where the data lives.
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
        /// One JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Deletes the data. Refused while it runs.
    Reset {
        /// Where the data lives.
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
    },
}

/// See [`Verb::Serve`].
#[derive(Debug, clap::Args)]
pub struct Serve {
    /// Contexts, separated by commas, or `all`.
    pub contexts: String,
}

/// See [`Verb::Recover`].
#[derive(Debug, clap::Args)]
pub struct Recover {
    /// A context such as `orders`, several separated by commas, or `all`.
    pub contexts: String,
    /// Does it.
    #[arg(long)]
    pub yes: bool,
    /// Takes topics as they are now: one that was made again is read from its start, and records that are
    /// gone are passed over.
    #[arg(long)]
    pub accept_topics: bool,
    /// One JSON object per context.
    #[arg(long)]
    pub json: bool,
}

/// See [`Verb::Topics`].
#[derive(Debug, Subcommand)]
pub enum Topics {
    /// What `apply` would do.
    Plan {
        /// `orders,inventory` and so on, or `all`: of these contexts, and what they read of others.
        #[arg(default_value = "all")]
        contexts: String,
        /// One JSON object per line.
        #[arg(long)]
        json: bool,
    },
    /// Makes missing topics. Never shrinks one; growing is `holdfast partitions grow`.
    Apply {
        /// `orders,inventory` and so on, or `all`: of these contexts, and what they read of others.
        #[arg(default_value = "all")]
        contexts: String,
    },
}

/// See [`Verb::Partitions`].
#[derive(Debug, Subcommand)]
pub enum Partitions {
    /// Owners, epochs, lag in records and seconds, unpublished events, waiting messages; the worst first.
    Show {
        /// A context such as `orders`, several separated by commas, or `all`.
        #[arg(default_value = "all")]
        context: String,
        /// One JSON object per line.
        #[arg(long)]
        json: bool,
    },
    /// Grows the topics of all contexts to a multiple of their count, under full load, and shows how the
    /// homes move.
    Grow(Grow),
}

/// See [`Verb::Outbox`].
#[derive(Debug, Subcommand)]
pub enum Outbox {
    /// Unpublished rows, their age and bytes, and stuck records of each partition; the worst first.
    Status {
        /// A context such as `orders`, several separated by commas, or `all`.
        #[arg(default_value = "all")]
        context: String,
        /// One JSON object per line.
        #[arg(long)]
        json: bool,
    },
    /// Records as they were committed, for as long as their day is kept: those that are unpublished, or all
    /// after a sequence.
    Show(OutboxShow),
    /// Records that the brokers refuse for their own sake, and those of their topic and key that queue behind
    /// them.
    #[command(subcommand)]
    Stuck(Stuck),
}

/// See [`Outbox::Show`].
#[derive(Debug, clap::Args)]
pub struct OutboxShow {
    /// A context such as `orders`, several separated by commas, or `all`.
    #[arg(default_value = "all")]
    pub context: String,
    /// The outbox of this partition alone.
    #[arg(long, value_name = "P")]
    pub partition: Option<u32>,
    /// Records after this sequence, published ones too, instead of those that are unpublished.
    #[arg(long, value_name = "N")]
    pub after: Option<u64>,
    /// Records for this topic alone.
    #[arg(long, value_name = "TOPIC")]
    pub topic: Option<String>,
    /// Show at most N records of each partition.
    #[arg(long, default_value_t = 1000, value_name = "N")]
    pub limit: u32,
    /// One JSON object per line, with headers and body.
    #[arg(long)]
    pub json: bool,
}

/// See [`Outbox::Stuck`].
#[derive(Debug, Subcommand)]
pub enum Stuck {
    /// Lists them; the longest stuck first.
    List {
        /// Which.
        #[command(flatten)]
        which: StuckWhich,
        /// List at most N records of each context.
        #[arg(long, default_value_t = 1000, value_name = "N")]
        limit: u32,
        /// One JSON object per line.
        #[arg(long)]
        json: bool,
    },
    /// Publishes refused records once more, and what queues behind them. Only says which, unless `--yes` or
    /// `--id`.
    Retry {
        /// Which.
        #[command(flatten)]
        which: StuckWhich,
        /// Why, for the record.
        #[arg(long, default_value = "")]
        why: String,
        /// Does it without an `--id`.
        #[arg(long)]
        yes: bool,
        /// One JSON object per line.
        #[arg(long)]
        json: bool,
    },
    /// Gives refused records up, and publishes what queues behind them. An event's place is taken by a
    /// placeholder with its id and sequence. Only says which, unless `--yes` or `--id`.
    Discard {
        /// Which.
        #[command(flatten)]
        which: StuckWhich,
        /// Why, for the record and for consumers.
        #[arg(long)]
        why: String,
        /// Does it without an `--id`.
        #[arg(long)]
        yes: bool,
        /// One JSON object per line.
        #[arg(long)]
        json: bool,
    },
}

/// Which stuck records are meant.
#[derive(Debug, Clone, clap::Args)]
pub struct StuckWhich {
    /// A context such as `orders`, several separated by commas, or `all`.
    #[arg(default_value = "all")]
    pub context: String,
    /// The record with this id alone.
    #[arg(long, value_name = "UUID")]
    pub id: Option<uuid::Uuid>,
    /// Records for this topic alone.
    #[arg(long, value_name = "TOPIC")]
    pub topic: Option<String>,
}

/// See [`Partitions::Grow`].
#[derive(Debug, clap::Args)]
pub struct Grow {
    /// The new count of each topic; a multiple of the present one.
    #[arg(long, value_name = "M", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub to: u32,
    /// Only says what would happen: how many keys move, and what is at risk.
    #[arg(long)]
    pub dry_run: bool,
    /// Also waits until the transition is over: until no producer can send by the older count any more.
    #[arg(long)]
    pub wait: bool,
    /// One JSON object per line.
    #[arg(long)]
    pub json: bool,
}

/// See [`Verb::Doctor`].
#[derive(Debug, clap::Args)]
pub struct Doctor {
    /// One JSON object per line.
    #[arg(long)]
    pub json: bool,
}

/// See [`Verb::Actor`].
#[derive(Debug, Subcommand)]
pub enum Actor {
    /// Asks its owner for its state, and the database for what waits for it. Needs `admin.token`.
    Get(GetActor),
}

/// See [`Actor::Get`].
#[derive(Debug, clap::Args)]
pub struct GetActor {
    /// A context such as `orders`.
    pub context: String,
    /// The aggregate's id: an order id, a sku.
    pub id: String,
    /// Its kind, such as `reservation`; unset: the first that there is of this id.
    #[arg(long)]
    pub kind: Option<String>,
    /// Asks this node instead of the owner that the database names.
    #[arg(long, value_name = "HOST:PORT")]
    pub at: Option<String>,
    /// One JSON object.
    #[arg(long)]
    pub json: bool,
}

/// See [`Verb::Load`].
#[derive(Clone, Debug, clap::Args)]
pub struct Load {
    /// Which one, or `all`, one after the other.
    // The list is put here by `verbs::with_scenarios`.
    pub scenario: String,
    /// How many commands in each measured stretch, 100,000 if not given, 20,000 with `--short`; of `catch-up`
    /// ten times as many records; of `query` a tenth as many calls; of `life` a fifth as many orders.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(4_000..=20_000_000))]
    pub commands: Option<u32>,
    /// How often `pipeline`, `hot-order` and `poison` measure each thing; the medians count. 3 if not given,
    /// 1 with `--short`.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=99))]
    pub rounds: Option<u32>,
    /// How many orders are stored when `cold-start` begins: a million if not given, 200,000 with `--short`.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1_000..=20_000_000))]
    pub stored: Option<u32>,
    /// Measures `data` with 10 million stored orders, too.
    #[arg(long, conflicts_with = "short")]
    pub full: bool,
    /// Measures less, for `all` in less than 15 minutes.
    #[arg(long)]
    pub short: bool,
    /// Measures Holdfast without its rivals, for comparing two builds of it.
    #[arg(long)]
    pub alone: bool,
    /// How `pipeline` names orders and commands: by random UUIDs (`v4`), or by such as begin with the time
    /// (`v7`).
    #[arg(long, default_value = "v4", value_name = "VERSION", value_parser = ["v4", "v7"])]
    pub ids: String,
    /// How `pipeline` writes commands: `protobuf`, or its canonical `json`.
    #[arg(long, default_value = "protobuf", value_parser = ["protobuf", "json"])]
    pub form: String,
    /// Partitions of each topic of `pipeline`.
    #[arg(long, default_value_t = 12, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=96))]
    pub partitions: u16,
    /// The result as one JSON object.
    #[arg(long)]
    pub json: bool,
    /// Writes a page (`index.html`) and its figures (`results.json`) into this directory; `all` does so
    /// without being asked, into `load-results/<time>`.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Compares with the `results.json` of an earlier run, on the page. May be given more than once.
    #[arg(long, value_name = "FILE")]
    pub compare: Vec<PathBuf>,
    /// Writes what the scenario found, or why it failed, to this file: for `all`.
    #[arg(long, value_name = "FILE", hide = true)]
    pub entry: Option<PathBuf>,
}

impl Load {
    /// Commands in each measured stretch.
    pub fn commands(&self) -> u32 {
        self.commands.unwrap_or(if self.short { 20_000 } else { 100_000 })
    }

    /// Orders that are stored when `cold-start` begins.
    pub fn stored(&self) -> u32 {
        self.stored.unwrap_or(if self.short { 200_000 } else { 1_000_000 })
    }

    /// How often each thing is measured.
    pub fn rounds(&self) -> u32 {
        self.rounds.unwrap_or(if self.short { 1 } else { 3 })
    }

    /// The arguments with which a process measures `scenario` as asked here, and writes its `entry`.
    pub fn of_one(&self, scenario: &str, entry: &std::path::Path) -> Vec<OsString> {
        // A new option has to be passed on, too.
        let Self {
            scenario: _,
            commands,
            rounds,
            stored,
            full,
            short,
            alone,
            ids,
            form,
            partitions,
            json: _,
            out: _,
            compare: _,
            entry: _,
        } = self;
        let mut arguments: Vec<OsString> =
            ["load", scenario, "--ids", ids, "--form", form, "--entry"].map(OsString::from).to_vec();
        arguments.push(entry.into());
        arguments.extend(["--partitions".into(), partitions.to_string().into()]);
        for (name, value) in [("--commands", commands), ("--rounds", rounds), ("--stored", stored)] {
            arguments.extend(value.iter().flat_map(|value| [name.into(), value.to_string().into()]));
        }
        for (name, is_given) in [("--full", full), ("--short", short), ("--alone", alone)] {
            arguments.extend(is_given.then(|| name.into()));
        }
        arguments
    }
}
