//! The table of every configuration key.
//!
//! Invariant: a key has one dotted name, and its variable and flag follow from it by rule (`kafka.brokers`,
//! `HOLDFAST_KAFKA_BROKERS`, `--kafka-brokers`), so that no source can know a key that another lacks.
//!
//! Deliberately absent: types; `config.rs` parses each key where it builds [`super::Config`].

/// One key.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Dotted name, as in the TOML file.
    pub name: &'static str,
    /// Text of the default, in the same syntax as a given value; none means unset.
    pub default: Option<&'static str>,
    /// How its value is shown.
    pub shown: Shown,
    /// One line for `holdfast config` and `--help`.
    pub help: &'static str,
}

/// How a value may be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// As it is.
    Plain,
    /// A URL whose password is masked.
    Url,
    /// librdkafka properties, of which those that hold secrets are masked.
    Properties,
    /// Never.
    Secret,
}

impl Key {
    /// The environment variable.
    pub fn variable(&self) -> String {
        format!("HOLDFAST_{}", self.name.replace('.', "_").to_uppercase())
    }

    /// The flag.
    pub fn flag(&self) -> String {
        format!("--{}", self.name.replace(['.', '_'], "-"))
    }
}

const fn key(name: &'static str, default: Option<&'static str>, help: &'static str) -> Key {
    Key { name, default, shown: Shown::Plain, help }
}

const fn url(name: &'static str, help: &'static str) -> Key {
    Key { name, default: None, shown: Shown::Url, help }
}

/// Every key there is.
pub const KEYS: &[Key] = &[
    key("kafka.brokers", None, "host:port[,host:port…]; unset: the embedded broker"),
    Key {
        name: "kafka.properties",
        default: None,
        shown: Shown::Properties,
        help: "librdkafka properties, `k=v` separated by newlines or commas",
    },
    key("kafka.group_protocol", Some("classic"), "classic or consumer (KIP-848)"),
    key("kafka.session_timeout", Some("10s"), "how long a silent member stays in the group (classic)"),
    key(
        "kafka.producers_max_age",
        Some("7m"),
        "how long producers may send by an outdated partition count: metadata.max.age.ms plus delivery.timeout.ms of the slowest",
    ),
    key(
        "kafka.group_instance_id",
        None,
        "static membership: a name of this node's own; a restart within the session moves nothing",
    ),
    url("database_url", "Postgres for every context without its own"),
    url("orders.database_url", "Postgres of orders"),
    url("inventory.database_url", "Postgres of inventory"),
    url("payments.database_url", "Postgres of payments"),
    url("fulfillment.database_url", "Postgres of fulfillment"),
    url("customers.database_url", "Postgres of customers"),
    key("advertised_addr", None, "host:port for other nodes; unset: where gRPC listens, or its address towards Kafka"),
    key("shutdown_delay", Some("0s"), "between unready and stopping work"),
    Key {
        name: "admin.token",
        default: None,
        shown: Shown::Secret,
        help: "what operators show to holdfast.admin.v1; unset: nobody is let in",
    },
    key("grpc.listen", Some("0.0.0.0:9090"), "gRPC address"),
    key("http.listen", Some("0.0.0.0:8080"), "health and metrics address"),
    key("gateway.listen", Some("0.0.0.0:8000"), "REST and pages address"),
    key("gateway.jwks_url", None, "where the issuer of tokens publishes its keys; needed where gateway is served"),
    key("gateway.issuer", None, "`iss` of its tokens; needed where gateway is served"),
    key("gateway.audience", Some("holdfast"), "what `aud` of a token has to hold"),
    key("gateway.rate_per_s", Some("50"), "requests a second for each caller; twice as many at once"),
    key("tls.cert", None, "PEM file: this process's certificate chain"),
    key("tls.key", None, "PEM file: its private key"),
    key("tls.ca", None, "PEM file: whom to trust; with it, clients must show a certificate"),
    key("orders.addr", None, "http(s)://host:port of orders' gRPC, for gateway; unset: in this process"),
    key(
        "inventory.addr",
        None,
        "http(s)://host:port of inventory's gRPC, for orders and gateway; unset: in this process",
    ),
    key("payments.addr", None, "http(s)://host:port of payments' gRPC, for gateway; unset: in this process"),
    key("fulfillment.addr", None, "http(s)://host:port of fulfillment's gRPC, for gateway; unset: in this process"),
    key(
        "customers.addr",
        None,
        "http(s)://host:port of customers' gRPC, for fulfillment and gateway; unset: in this process",
    ),
    key("payments.provider_url", Some("https://api.stripe.com"), "Stripe, or what speaks its API"),
    Key {
        name: "payments.api_key",
        default: None,
        shown: Shown::Secret,
        help: "the provider's secret key; needed where payments is served (`dev` simulates a provider without it)",
    },
    Key {
        name: "payments.webhook_secrets",
        default: None,
        shown: Shown::Secret,
        help: "secrets of the provider's webhooks, comma-separated; unset: /webhooks/stripe is not there",
    },
    key("payments.authorize_first", Some("false"), "true: authorize, then capture by a call of its own"),
    key("payments.books_currency", Some("EUR"), "ISO 4217 code of the currency of the books"),
    key("payments.rates", None, "what others are worth in it, `USD=93/100,JPY=6/1000`; unset: none are taken"),
    key("payments.rates_url", None, "asked for rates instead: GET ?from=USD&to=EUR answers numerator and denominator"),
    key("partitions", Some("12"), "partitions of topics that `topics apply` creates"),
    key("memory_budget", Some("256MiB"), "bytes of records in flight in this process"),
    key("batch_max", Some("512"), "commands in a batch at most"),
    key("lanes", Some("2"), "committers per context"),
    key("passivation.idle", Some("5m"), "an actor without messages for so long leaves memory"),
    key("passivation.actors_max", Some("20000"), "live actors per context at most; about 13 KB each"),
    key("lease", Some("5s"), "how long an owner may answer without asking Postgres"),
    key("reservation_ttl", Some("15m"), "a reservation that is not confirmed expires"),
    key("retry_budget", Some("3"), "attempts at a failing message before it is dead-lettered"),
    key("price_cache_ttl", Some("5s"), "how long a price may be reused"),
    key("log.format", Some("json"), "json or pretty"),
    key("log.filter", Some("info,librdkafka=error"), "tracing filter, e.g. `info,holdfast_runtime=debug`"),
    key("trace.sample_ratio", Some("0.05"), "share of root traces kept, 0 to 1; OTEL_TRACES_SAMPLER wins"),
];

/// The key of that name.
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// The candidate most like `word`, if any is near enough to be what was meant.
pub(super) fn nearest(word: &str, candidates: impl Iterator<Item = String>) -> Option<String> {
    candidates
        .map(|candidate| (strsim::damerau_levenshtein(word, &candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 3.max(candidate.len() / 4))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
