//! The deployment files agree with the program, with the toolchain, and with themselves.
//!
//! No container engine is needed: what `deploy/compose.yaml` sets goes through the real configuration, what
//! it runs through the real command line. That the file is what the Compose specification allows is checked
//! by `deploy/dev.sh conformance`.

use std::{collections::BTreeSet, time::Duration};

use clap::Parser as _;
use holdfast::{
    cli::{Arguments, Verb},
    infrastructure::CONTEXTS,
};
use holdfast_platform::{Config, Context, config::Sources, shutdown::Plan};
use serde_json::{Map, Value};

fn file(name: &str) -> String {
    std::fs::read_to_string(format!("{}/../../{name}", env!("CARGO_MANIFEST_DIR"))).expect(name)
}

fn compose() -> Value {
    serde_saphyr::from_str(&file("deploy/compose.yaml")).expect("YAML")
}

fn services(compose: &Value) -> &Map<String, Value> {
    compose["services"].as_object().unwrap()
}

/// Services of our image.
fn ours(compose: &Value) -> Vec<(&String, &Value)> {
    services(compose).iter().filter(|(_, service)| service["image"] == "holdfast:local").collect()
}

fn nodes(compose: &Value) -> Vec<(&String, &Value)> {
    ours(compose).into_iter().filter(|(_, service)| service["command"][0] == "serve").collect()
}

fn words(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect()
}

/// `${NAME:-default}` becomes its default.
fn interpolated(text: &str) -> String {
    let Some((before, rest)) = text.split_once("${") else { return text.to_owned() };
    let (variable, after) = rest.split_once('}').unwrap();
    let (_, default) = variable.split_once(":-").expect("every variable has a default");
    format!("{before}{default}{}", interpolated(after))
}

fn environment(service: &Value) -> Vec<(String, String)> {
    let pairs = service["environment"].as_object().unwrap();
    pairs.iter().map(|(name, value)| (name.clone(), interpolated(value.as_str().unwrap()))).collect()
}

/// The configuration of a service, as its process reads it.
fn config(service: &Value) -> Config {
    let environment = environment(service).into_iter().map(|(name, value)| (name.into(), value.into())).collect();
    Config::load(&Sources { environment, ..Sources::default() }).unwrap()
}

/// Whether `host:port` is a service and a port on which that listens.
fn is_there(compose: &Value, address: &str) -> bool {
    let (host, port) = address.rsplit_once(':').unwrap();
    let Some(service) = services(compose).get(host) else { return false };
    match service["image"].as_str().unwrap() {
        image if image.starts_with("apache/kafka:") => {
            let listeners = service["environment"]["KAFKA_LISTENERS"].as_str().unwrap();
            listeners.split(',').any(|listener| listener.ends_with(&format!("://:{port}")))
        }
        image if image.starts_with("postgres:") => port == "5432",
        image if image.starts_with("otel/") => {
            file("deploy/collector.yaml").contains(&format!("endpoint: 0.0.0.0:{port}"))
        }
        _ => config(service).grpc_listen.port().to_string() == port,
    }
}

#[test]
fn every_variable_is_a_configuration_key_with_a_good_value() {
    let compose = compose();
    assert_eq!(ours(&compose).len(), 5, "three nodes and two jobs");
    for (name, service) in ours(&compose) {
        let config = config(service);
        assert!(config.require_brokers().is_ok(), "{name}");
        // Every context is served, so what any of them can't do without is there.
        assert!(CONTEXTS.iter().all(|context| config.require_database_url(*context).is_ok()), "{name}");
        assert!(config.require_payments_api_key().is_ok(), "{name}");
        for (variable, _) in environment(service) {
            let is_known = variable.starts_with("HOLDFAST_") || variable.starts_with("OTEL_");
            assert!(is_known, "{name}: {variable} is read by nobody");
        }
    }
    // The loader refuses what it does not know; it must not be asked in vain.
    let strange = serde_json::json!({ "environment": { "HOLDFAST_LANE": "2" } });
    assert!(std::panic::catch_unwind(|| config(&strange)).is_err());
}

/// All that own data. The gateway needs an issuer, which is not a part of this.
const CONTEXTS_SERVED: &str = "customers,inventory,payments,fulfillment,orders";

#[test]
fn every_command_line_is_one() {
    let compose = compose();
    let mut verbs = Vec::new();
    for (name, service) in ours(&compose) {
        let line = std::iter::once("holdfast").chain(words(&service["command"]));
        let arguments = Arguments::try_parse_from(line).unwrap_or_else(|error| panic!("{name}: {error}"));
        verbs.push(match arguments.verb {
            Verb::Serve(serve) => serve.contexts,
            Verb::Migrate { context, finish: false } => format!("migrate {context}"),
            Verb::Topics(_) => "topics".to_owned(),
            other => panic!("{name} runs {other:?}"),
        });
    }
    verbs.sort();
    assert_eq!(verbs, [CONTEXTS_SERVED, CONTEXTS_SERVED, CONTEXTS_SERVED, "migrate all", "topics"]);
    assert_eq!(words(&services(&compose)["topics"]["command"]), ["topics", "apply", "all"]);
    let docker = file("deploy/Dockerfile");
    assert!(docker.contains(&format!(r#"CMD ["serve", "{CONTEXTS_SERVED}"]"#)));
    // What the header tells people to type.
    let shown: Vec<String> = file("deploy/compose.yaml")
        .lines()
        .filter_map(|line| Some(line.split_once("exec node-1 ")?.1.to_owned()))
        .collect();
    assert!(!shown.is_empty());
    for line in shown {
        Arguments::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}"));
    }
}

#[test]
fn every_address_is_a_service_that_listens_there() {
    let compose = compose();
    for (name, service) in nodes(&compose) {
        let config = config(service);
        let advertised = config.advertised_addr.clone().unwrap();
        assert_eq!(
            advertised,
            format!("{name}:{}", config.grpc_listen.port()),
            "a node is called by its service's name"
        );
        let published = words(&service["ports"]);
        for port in [config.grpc_listen.port(), config.http_listen.port()] {
            assert!(published.iter().any(|mapping| mapping.ends_with(&format!(":{port}"))), "{name}: {port}");
        }
        assert!(published.iter().all(|mapping| mapping.starts_with("127.0.0.1:")), "{name} is open to the world");
        let probe = words(&service["healthcheck"]["test"]).concat();
        assert!(
            probe.contains(&format!("/127.0.0.1/{} ", config.http_listen.port())) && probe.contains("/health/ready")
        );
    }
    for (name, service) in ours(&compose) {
        let config = config(service);
        for broker in config.require_brokers().unwrap().split(',') {
            assert!(is_there(&compose, broker), "{name}: nobody listens at {broker}");
        }
        let database = config.require_database_url(Context::Orders).unwrap().expose().to_owned();
        let (user, rest) = database.strip_prefix("postgres://").unwrap().split_once(':').unwrap();
        let (password, rest) = rest.split_once('@').unwrap();
        let (address, database) = rest.split_once('/').unwrap();
        assert!(is_there(&compose, address), "{name}: {address}");
        let server = environment(&services(&compose)["postgres"]);
        let said = |variable: &str| server.iter().find(|(name, _)| name == variable).unwrap().1.clone();
        let expected = (said("POSTGRES_USER"), said("POSTGRES_PASSWORD"), said("POSTGRES_DB"));
        assert_eq!((user.to_owned(), password.to_owned(), database.to_owned()), expected);
        let collector = environment(service).into_iter().find(|(name, _)| name.starts_with("OTEL_")).unwrap().1;
        assert!(is_there(&compose, collector.strip_prefix("http://").unwrap()), "{name}: {collector}");
    }
    for (name, service) in services(&compose).iter().filter(|(name, _)| name.starts_with("kafka-")) {
        let environment = &service["environment"];
        let advertised = environment["KAFKA_ADVERTISED_LISTENERS"].as_str().unwrap();
        assert_eq!(advertised, format!("PLAINTEXT://{name}:9092"));
        let id = environment["KAFKA_NODE_ID"].as_str().unwrap();
        let voters = environment["KAFKA_CONTROLLER_QUORUM_VOTERS"].as_str().unwrap();
        assert!(voters.split(',').any(|voter| voter == format!("{id}@{name}:9093")), "{name} does not vote");
        assert!(is_there(&compose, &format!("{name}:9093")));
    }
    assert!(!is_there(&compose, "kafka-1:9094") && !is_there(&compose, "node-9:9090"));
}

#[test]
fn services_run_without_root_with_limits_and_pinned_versions() {
    let compose = compose();
    let mut ports = BTreeSet::new();
    for (name, service) in services(&compose) {
        let limits = &service["deploy"]["resources"]["limits"];
        assert!(limits["memory"].is_string() && limits["cpus"].is_string(), "{name} has no limits");
        assert_eq!(service["cap_drop"][0], "ALL", "{name}");
        let image = service["image"].as_str().unwrap();
        assert!(image.rsplit_once(':').is_some_and(|(_, tag)| tag != "latest"), "{name}: {image}");
        for mapping in service["ports"].as_array().into_iter().flatten() {
            let outside = mapping.as_str().unwrap().rsplit_once(':').unwrap().0.to_owned();
            assert!(ports.insert(outside), "{name}: {mapping} is taken");
        }
    }
    for (name, service) in ours(&compose) {
        assert_eq!((&service["user"], &service["read_only"]), (&"10001:10001".into(), &true.into()), "{name}");
    }
    for (name, service) in nodes(&compose) {
        let grace = service["stop_grace_period"].as_str().unwrap().strip_suffix('s').unwrap();
        let plan = Plan::new(config(service).shutdown_delay);
        let needed = plan.delay + plan.drain + plan.flush;
        assert!(Duration::from_secs(grace.parse().unwrap()) > needed, "{name} is killed while it leaves ({needed:?})");
        for job in ["migrate", "topics"] {
            assert_eq!(service["depends_on"][job]["condition"], "service_completed_successfully", "{name}");
        }
    }
    let docker = file("deploy/Dockerfile");
    assert!(docker.contains("USER 10001:10001"));
}

#[test]
fn image_uses_the_pinned_toolchain_and_brokers_match_the_tests() {
    let channel = file("rust-toolchain.toml");
    let channel = channel.split('"').nth(1).unwrap();
    assert!(file("deploy/Dockerfile").contains(&format!("ARG RUST_VERSION={channel}\n")));
    let stack = file("actors/stack/pom.xml");
    let compose = compose();
    for (service, image, artifact) in
        [("kafka-1", "apache/kafka:", "kafka_2.13"), ("postgres", "postgres:", "embedded-postgres")]
    {
        let version = services(&compose)[service]["image"].as_str().unwrap().strip_prefix(image).unwrap();
        let after = stack.split_once(artifact).unwrap().1;
        let pinned = after.split_once("<version>").unwrap().1.split_once('<').unwrap().0;
        assert!(
            pinned == version || pinned == format!("{version}.0"),
            "{service}: {version}, and tests run on {pinned}"
        );
    }
}
