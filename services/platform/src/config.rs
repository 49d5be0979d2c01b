//! Configuration: flags, over `HOLDFAST_*` variables, over a TOML file, over defaults.
//!
//! Invariant: every given name is known and every value fits, or [`Config::load`] returns an [`Error`] that
//! names key, value, source and what is allowed; an unknown `HOLDFAST_*` variable is an error like any other.
//! An empty variable counts as unset. Secrets show nowhere: not in errors, `Debug`, or [`Config::render`].
//!
//! Own code over `toml` rather than figment (its last release is old) or config (its errors don't name the
//! variable). `OTEL_*` variables are read where they are used, under their standard names: see
//! [`crate::telemetry`].

use std::{
    collections::BTreeMap,
    ffi::OsString,
    net::SocketAddr,
    num::NonZeroU32,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{context::Context, grpc::tls::TlsFiles};

mod error;
mod file;
mod keys;
mod parse;
mod render;

pub use error::{EXIT_CODE, Error, Source};
pub use keys::{KEYS, Key, find};
pub use parse::{DatabaseUrl, MASK, Properties, Secret};
pub use render::Rendered;

/// The protocol of the consumer group: it decides by whom partitions are assigned, and which session timeout
/// finds a dead member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupProtocol {
    /// Assignment by the clients, session timeout ours.
    Classic,
    /// KIP-848: assignment and session timeout by the broker.
    Consumer,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Pretty,
}

/// Kafka.
#[derive(Debug, Clone)]
pub struct Kafka {
    /// `host:port[,host:port…]`; none means the embedded broker.
    pub brokers: Option<String>,
    /// Passed through to librdkafka.
    pub properties: Properties,
    /// Who assigns partitions.
    pub group_protocol: GroupProtocol,
    /// Classic protocol only.
    pub session_timeout: Duration,
    /// How long a producer may go on sending by a partition count that has changed.
    pub producers_max_age: Duration,
    /// Static membership: unique to the node, the same after a restart.
    pub group_instance_id: Option<String>,
}

/// When actors leave memory.
#[derive(Debug, Clone, Copy)]
pub struct Passivation {
    /// How long an actor stays without a message.
    pub idle: Duration,
    /// The largest number of live actors per context.
    pub actors_max: usize,
}

/// How payments reaches its provider, and in which currency the books are kept.
#[derive(Debug, Clone)]
pub struct Payments {
    /// Stripe, or what speaks its API.
    pub provider_url: String,
    /// The provider's secret key. Needed where payments is served.
    pub api_key: Option<Secret>,
    /// The secrets that the provider signs its reports with, separated by commas; none means that reports are
    /// not taken.
    pub webhook_secrets: Option<Secret>,
    /// Whether an amount is authorized first and captured by a call of its own.
    pub authorize_first: bool,
    /// The code of the currency of the books.
    pub books_currency: String,
    /// Rates as a table, `USD=93/100,JPY=6/1000`.
    pub rates: Option<String>,
    /// Where rates are asked for instead.
    pub rates_url: Option<String>,
}

/// The edge.
#[derive(Debug, Clone)]
pub struct Gateway {
    /// Where REST and pages listen.
    pub listen: SocketAddr,
    /// Where the issuer of tokens publishes its keys. Needed where the gateway is served.
    pub jwks_url: Option<String>,
    /// Who issues tokens. Needed where the gateway is served.
    pub issuer: Option<String>,
    /// For whom tokens have to be.
    pub audience: String,
    /// Requests a second for each caller.
    pub rate_per_s: NonZeroU32,
}

/// Where contexts find one another; none means in this process.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// For the gateway.
    pub orders: Option<String>,
    /// For orders and the gateway.
    pub inventory: Option<String>,
    /// For the gateway.
    pub payments: Option<String>,
    /// For the gateway.
    pub fulfillment: Option<String>,
    /// For fulfillment and the gateway.
    pub customers: Option<String>,
}

/// A complete, checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Kafka.
    pub kafka: Kafka,
    /// Address under which other nodes reach this one's gRPC, `host:port`.
    pub advertised_addr: Option<String>,
    /// What operators must show; none means that nobody is let in.
    pub admin_token: Option<Secret>,
    /// Between unready and stopping work.
    pub shutdown_delay: Duration,
    /// Where gRPC listens.
    pub grpc_listen: SocketAddr,
    /// Where health and metrics listen.
    pub http_listen: SocketAddr,
    /// Certificates, if TLS is on.
    pub tls: Option<TlsFiles>,
    /// REST and pages.
    pub gateway: Gateway,
    /// Where contexts find one another.
    pub addresses: Addresses,
    /// Where money comes from.
    pub payments: Payments,
    /// Partitions of topics that are created.
    pub partitions: u32,
    /// Bytes of records in flight in this process.
    pub memory_budget_bytes: u64,
    /// Commands in a batch at most.
    pub batch_max: usize,
    /// Committers per context.
    pub lanes: usize,
    /// When actors leave memory.
    pub passivation: Passivation,
    /// How long an owner may answer without asking Postgres.
    pub lease: Duration,
    /// When an unconfirmed reservation expires.
    pub reservation_ttl: Duration,
    /// Attempts at a failing message.
    pub retry_budget: u32,
    /// How long a price may be reused.
    pub price_cache_ttl: Duration,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Which log lines there are, in `EnvFilter`'s syntax.
    pub log_filter: String,
    /// Share of root traces kept, 0 to 1, unless `OTEL_TRACES_SAMPLER` says otherwise.
    pub sample_ratio: f64,
    database_url: Option<DatabaseUrl>,
    own_database_urls: BTreeMap<Context, DatabaseUrl>,
    layers: Layers,
}

/// What a configuration is made from. The binary fills it from `clap` and `std::env`; tests from literals.
#[derive(Debug, Default, Clone)]
pub struct Sources {
    /// Given on the command line: dotted name and value.
    pub flags: Vec<(String, String)>,
    /// The value of `--config`.
    pub file: Option<PathBuf>,
    /// The environment; names without the prefix `HOLDFAST_` are ignored.
    pub environment: Vec<(OsString, OsString)>,
    /// `HOLDFAST_*` variables that something else in the process reads, and which are therefore no mistake.
    pub known_elsewhere: &'static [&'static str],
}

impl Sources {
    /// This process's environment, and nothing else yet.
    pub fn from_process() -> Self {
        Self { environment: std::env::vars_os().collect(), ..Self::default() }
    }
}

/// For each key that was given, its winning text and where that came from.
#[derive(Clone, Default)]
struct Layers(BTreeMap<&'static str, (String, Source)>);

/// Values may hold secrets: only names and sources show.
impl std::fmt::Debug for Layers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.0.iter().map(|(name, (_, source))| (name, source))).finish()
    }
}

impl Layers {
    fn gather(sources: &Sources) -> Result<Self, Error> {
        let mut layers = Self::default();
        let environment = environment(sources)?;
        let named_by_variable = environment.get(CONFIG_VARIABLE).map(PathBuf::from);
        let named = match (&sources.file, named_by_variable) {
            (Some(path), _) => Some((path.clone(), "--config")),
            (None, Some(path)) => Some((path, CONFIG_VARIABLE)),
            (None, None) => None,
        };
        if let Some((path, named_by)) = named {
            layers.read_file(&path, named_by)?;
        }
        for key in KEYS {
            if let Some(value) = environment.get(key.variable().as_str()) {
                layers.0.insert(key.name, (value.clone(), Source::Environment));
            }
        }
        for (name, value) in &sources.flags {
            let Some(key) = find(name) else {
                let nearest = keys::nearest(name, KEYS.iter().map(|key| key.name.to_owned()));
                return Err(Error::UnknownKey { key: name.clone(), origin: Source::Flag, nearest });
            };
            layers.0.insert(key.name, (value.clone(), Source::Flag));
        }
        Ok(layers)
    }

    fn read_file(&mut self, path: &Path, named_by: &'static str) -> Result<(), Error> {
        let text =
            std::fs::read_to_string(path).map_err(|why| Error::Unreadable { path: path.to_owned(), named_by, why })?;
        for (name, value) in file::read(path, &text)? {
            self.0.insert(name, (value, Source::File(path.to_owned())));
        }
        Ok(())
    }

    fn text(&self, key: &'static Key) -> (Option<&str>, Source) {
        self.0.get(key.name).map_or((key.default, Source::Default), |(text, source)| (Some(text), source.clone()))
    }

    fn maybe<T>(&self, name: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Option<T>, Error> {
        let key = find(name).expect("every field names a key of the table: a test loads them all");
        let (text, origin) = self.text(key);
        let Some(text) = text else { return Ok(None) };
        parse(text.trim()).map(Some).map_err(|allowed| Error::BadValue {
            key: match origin {
                Source::Environment => key.variable(),
                Source::Flag => key.flag(),
                Source::Default | Source::File(_) => key.name.to_owned(),
            },
            value: render::shown(key, text),
            origin,
            allowed,
        })
    }

    fn value<T>(&self, name: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> Result<T, Error> {
        Ok(self.maybe(name, parse)?.expect("keys read through `value` have a default: a test loads them all"))
    }
}

const PREFIX: &str = "HOLDFAST_";
const CONFIG_VARIABLE: &str = "HOLDFAST_CONFIG";

/// The `HOLDFAST_*` variables that are set and not empty, all of them known.
fn environment(sources: &Sources) -> Result<BTreeMap<String, String>, Error> {
    let mut known: Vec<String> = KEYS.iter().map(Key::variable).collect();
    known.push(CONFIG_VARIABLE.to_owned());
    let mut set = BTreeMap::new();
    for (name, value) in &sources.environment {
        let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else { continue };
        if sources.known_elsewhere.contains(&name) {
            continue;
        }
        if !known.iter().any(|known| known == name) {
            let nearest = keys::nearest(name, known.into_iter());
            return Err(Error::UnknownKey { key: name.to_owned(), origin: Source::Environment, nearest });
        }
        let Some(value) = value.to_str() else {
            return Err(Error::BadValue {
                key: name.to_owned(),
                value: MASK.to_owned(),
                origin: Source::Environment,
                allowed: "text in UTF-8".to_owned(),
            });
        };
        if !value.trim().is_empty() {
            set.insert(name.to_owned(), value.to_owned());
        }
    }
    Ok(set)
}

impl Config {
    /// Gathers, checks and types a configuration. The caller prints the error and exits with [`EXIT_CODE`].
    pub fn load(sources: &Sources) -> Result<Self, Error> {
        let layers = Layers::gather(sources)?;
        let seconds = Duration::from_secs;
        let ms = Duration::from_millis;
        let day = Duration::from_hours(24);

        let mut own_database_urls = BTreeMap::new();
        for (context, name) in [
            (Context::Orders, "orders.database_url"),
            (Context::Inventory, "inventory.database_url"),
            (Context::Payments, "payments.database_url"),
            (Context::Fulfillment, "fulfillment.database_url"),
            (Context::Customers, "customers.database_url"),
        ] {
            if let Some(url) = layers.maybe(name, parse::database_url)? {
                own_database_urls.insert(context, url);
            }
        }
        let config = Self {
            kafka: Kafka {
                brokers: layers.maybe("kafka.brokers", parse::brokers)?,
                properties: layers.maybe("kafka.properties", parse::properties)?.unwrap_or_default(),
                group_protocol: layers.value(
                    "kafka.group_protocol",
                    parse::one_of(&[("classic", GroupProtocol::Classic), ("consumer", GroupProtocol::Consumer)]),
                )?,
                producers_max_age: layers
                    .value("kafka.producers_max_age", parse::duration(seconds(1)..=Duration::from_hours(24)))?,
                session_timeout: layers
                    .value("kafka.session_timeout", parse::duration(seconds(1)..=Duration::from_mins(30)))?,
                group_instance_id: layers.maybe("kafka.group_instance_id", parse::instance_id)?,
            },
            database_url: layers.maybe("database_url", parse::database_url)?,
            own_database_urls,
            advertised_addr: layers.maybe("advertised_addr", parse::host_port)?,
            admin_token: layers.maybe("admin.token", parse::token)?,
            shutdown_delay: layers
                .value("shutdown_delay", parse::duration(Duration::ZERO..=Duration::from_mins(10)))?,
            grpc_listen: layers.value("grpc.listen", parse::listen)?,
            http_listen: layers.value("http.listen", parse::listen)?,
            tls: tls(&layers)?,
            gateway: Gateway {
                listen: layers.value("gateway.listen", parse::listen)?,
                jwks_url: layers.maybe("gateway.jwks_url", parse::endpoint)?,
                issuer: layers.maybe("gateway.issuer", |text| Ok(text.to_owned()))?,
                audience: layers.value("gateway.audience", |text| Ok(text.to_owned()))?,
                rate_per_s: layers.value("gateway.rate_per_s", parse::number(NonZeroU32::MIN..=NonZeroU32::MAX))?,
            },
            addresses: Addresses {
                orders: layers.maybe("orders.addr", parse::endpoint)?,
                inventory: layers.maybe("inventory.addr", parse::endpoint)?,
                payments: layers.maybe("payments.addr", parse::endpoint)?,
                fulfillment: layers.maybe("fulfillment.addr", parse::endpoint)?,
                customers: layers.maybe("customers.addr", parse::endpoint)?,
            },
            payments: Payments {
                provider_url: layers.value("payments.provider_url", parse::endpoint)?,
                api_key: layers.maybe("payments.api_key", parse::secret)?,
                webhook_secrets: layers.maybe("payments.webhook_secrets", parse::secret)?,
                authorize_first: layers
                    .value("payments.authorize_first", parse::one_of(&[("false", false), ("true", true)]))?,
                books_currency: layers.value("payments.books_currency", parse::currency_code)?,
                rates: layers.maybe("payments.rates", |text| Ok(text.to_owned()))?,
                rates_url: layers.maybe("payments.rates_url", parse::endpoint)?,
            },
            partitions: layers.value("partitions", parse::number(1..=4096))?,
            memory_budget_bytes: layers.value("memory_budget", parse::bytes(16 << 20..=1 << 40))?,
            batch_max: layers.value("batch_max", parse::number(1..=10_000))?,
            lanes: layers.value("lanes", parse::number(1..=64))?,
            passivation: Passivation {
                idle: layers.value("passivation.idle", parse::duration(ms(100)..=day))?,
                actors_max: layers.value("passivation.actors_max", parse::number(1..=10_000_000))?,
            },
            lease: layers.value("lease", parse::duration(seconds(1)..=Duration::from_mins(1)))?,
            reservation_ttl: layers.value("reservation_ttl", parse::duration(ms(100)..=30 * day))?,
            retry_budget: layers.value("retry_budget", parse::number(1..=100))?,
            price_cache_ttl: layers
                .value("price_cache_ttl", parse::duration(Duration::ZERO..=Duration::from_mins(1)))?,
            log_format: layers
                .value("log.format", parse::one_of(&[("json", LogFormat::Json), ("pretty", LogFormat::Pretty)]))?,
            log_filter: layers.value("log.filter", |text| {
                tracing_subscriber::EnvFilter::try_new(text)
                    .map(|_| text.to_owned())
                    .map_err(|_| "a tracing filter such as `info,holdfast_runtime=debug`".to_owned())
            })?,
            sample_ratio: layers.value("trace.sample_ratio", parse::ratio)?,
            layers,
        };
        Ok(config)
    }

    /// The context's own URL, or the one for all; none means the embedded Postgres.
    pub fn database_url(&self, context: Context) -> Option<&DatabaseUrl> {
        self.own_database_urls.get(&context).or(self.database_url.as_ref())
    }

    /// The context's URL, or the error that says how to give one.
    pub fn require_database_url(&self, context: Context) -> Result<&DatabaseUrl, Error> {
        self.database_url(context).ok_or_else(|| missing("database_url", format!("{context} keeps its state there")))
    }

    /// What operators show, or the error that says how to give it.
    pub fn require_admin_token(&self) -> Result<&Secret, Error> {
        self.admin_token.as_ref().ok_or_else(|| missing("admin.token", "the owning node lets in who shows it".into()))
    }

    /// The payment provider's key, or the error that says how to give it.
    pub fn require_payments_api_key(&self) -> Result<&Secret, Error> {
        let needed_for = || "payments takes no money without its provider's key".to_owned();
        self.payments.api_key.as_ref().ok_or_else(|| missing("payments.api_key", needed_for()))
    }

    /// Where the issuer's keys are, and who it is, or the error that says how to give them.
    pub fn require_issuer(&self) -> Result<(&str, &str), Error> {
        let needed_for = || "the gateway lets in who shows a token of the issuer's".to_owned();
        let Gateway { jwks_url, issuer, .. } = &self.gateway;
        let jwks_url = jwks_url.as_deref().ok_or_else(|| missing("gateway.jwks_url", needed_for()))?;
        let issuer = issuer.as_deref().ok_or_else(|| missing("gateway.issuer", needed_for()))?;
        Ok((jwks_url, issuer))
    }

    /// The brokers, or the error that says how to give them.
    pub fn require_brokers(&self) -> Result<&str, Error> {
        self.kafka
            .brokers
            .as_deref()
            .ok_or_else(|| missing("kafka.brokers", "commands and events go through it".into()))
    }

    /// Every key with its effective value and source, secrets masked: what `holdfast config` prints.
    pub fn render(&self) -> Vec<Rendered> {
        KEYS.iter()
            .map(|key| {
                let (text, source) = self.layers.text(key);
                Rendered {
                    key: key.name,
                    value: text.map(|text| render::shown(key, text)),
                    source: source.to_string(),
                    variable: key.variable(),
                    help: key.help,
                }
            })
            .collect()
    }
}

fn missing(name: &'static str, needed_for: String) -> Error {
    let key = find(name).expect("a key of the table");
    Error::Missing { key: key.name, variable: key.variable(), flag: key.flag(), needed_for }
}

/// A certificate without its key, or the reverse, is a mistake; neither means plain text.
fn tls(layers: &Layers) -> Result<Option<TlsFiles>, Error> {
    let cert = layers.maybe("tls.cert", parse::file)?;
    let private_key = layers.maybe("tls.key", parse::file)?;
    let ca = layers.maybe("tls.ca", parse::file)?;
    match (cert, private_key, ca) {
        (Some(cert), Some(key), ca) => Ok(Some(TlsFiles { cert, key, ca })),
        (Some(_), None, _) => Err(missing("tls.key", "`tls.cert` is set, and TLS needs both".into())),
        (None, Some(_), _) => Err(missing("tls.cert", "`tls.key` is set, and TLS needs both".into())),
        (None, None, Some(_)) => Err(missing("tls.cert", "`tls.ca` is set, which is of use only with TLS".into())),
        (None, None, None) => Ok(None),
    }
}

#[cfg(test)]
mod tests;
