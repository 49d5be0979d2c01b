//! Each way to get a configuration wrong, and the message that names it.

use std::{io::Write as _, time::Duration};

use super::*;

fn with_environment(pairs: &[(&str, &str)]) -> Sources {
    let environment = pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    Sources { environment, ..Sources::default() }
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn refused(sources: &Sources) -> String {
    Config::load(sources).unwrap_err().to_string()
}

#[test]
fn defaults_are_whole() {
    let config = Config::load(&Sources::default()).unwrap();
    assert_eq!(config.lease, Duration::from_secs(5));
    assert_eq!(config.reservation_ttl, Duration::from_mins(15));
    assert_eq!(config.partitions, 12);
    assert_eq!(config.grpc_listen.port(), 9090);
    assert_eq!(config.http_listen.port(), 8080);
    assert_eq!(config.shutdown_delay, Duration::ZERO);
    assert_eq!(config.retry_budget, 3);
    assert!(config.kafka.brokers.is_none());
    assert_eq!(config.render().len(), KEYS.len());
}

#[test]
fn flags_override_environment_file_and_defaults_in_that_order() {
    let file = file("lease = \"9s\"\nlanes = 7\n[kafka]\nbrokers = [\"a:1\", \"b:2\"]\n");
    let mut sources = with_environment(&[("HOLDFAST_LANES", "5"), ("HOLDFAST_BATCH_MAX", "33")]);
    sources.file = Some(file.path().to_owned());
    sources.flags = vec![("batch_max".into(), "44".into())];
    let config = Config::load(&sources).unwrap();
    assert_eq!((config.lease, config.lanes, config.batch_max), (Duration::from_secs(9), 5, 44));
    assert_eq!(config.kafka.brokers.as_deref(), Some("a:1,b:2"));

    let source = |key: &str| config.render().into_iter().find(|row| row.key == key).unwrap().source;
    assert_eq!(source("lease"), format!("file {}", file.path().display()));
    assert_eq!(source("lanes"), "environment");
    assert_eq!(source("batch_max"), "flag");
    assert_eq!(source("partitions"), "default");
}

#[test]
fn static_membership_is_named_by_one_variable() {
    let named = with_environment(&[("HOLDFAST_KAFKA_GROUP_INSTANCE_ID", "node-1.eu_west")]);
    assert_eq!(Config::load(&named).unwrap().kafka.group_instance_id.as_deref(), Some("node-1.eu_west"));
    assert_eq!(Config::load(&Sources::default()).unwrap().kafka.group_instance_id, None);
    let message = refused(&with_environment(&[("HOLDFAST_KAFKA_GROUP_INSTANCE_ID", "node 1")]));
    assert!(message.contains("HOLDFAST_KAFKA_GROUP_INSTANCE_ID") && message.contains("node-1"), "{message}");
}

#[test]
fn the_variable_names_the_file_too() {
    let file = file("lanes = 3");
    let sources = with_environment(&[("HOLDFAST_CONFIG", file.path().to_str().unwrap())]);
    assert_eq!(Config::load(&sources).unwrap().lanes, 3);
}

#[test]
fn an_unknown_variable_names_itself_and_its_neighbour() {
    let message = refused(&with_environment(&[("HOLDFAST_KAFKA_BROKER", "a:1")]));
    assert!(message.contains("`HOLDFAST_KAFKA_BROKER` (environment)"), "{message}");
    assert!(message.contains("did you mean `HOLDFAST_KAFKA_BROKERS`?"), "{message}");

    let message = refused(&with_environment(&[("HOLDFAST_ZZZZZZZZZZZZZZ", "1")]));
    assert!(message.contains("`holdfast config` lists them all"), "{message}");
}

#[test]
fn other_programs_variables_are_no_concern_of_ours() {
    let mut sources = with_environment(&[("PATH", "/bin"), ("HOLDFASTER", "1"), ("HOLDFAST_BIN", "x")]);
    sources.known_elsewhere = &["HOLDFAST_BIN"];
    assert!(Config::load(&sources).is_ok());
}

#[test]
fn an_empty_variable_is_unset() {
    let config = Config::load(&with_environment(&[("HOLDFAST_LANES", ""), ("HOLDFAST_DATABASE_URL", " ")])).unwrap();
    assert_eq!(config.lanes, 2);
    assert!(config.database_url(Context::Orders).is_none());
}

#[test]
fn an_unknown_key_in_the_file_names_itself_and_the_file() {
    for (text, key, meant) in [
        ("leese = \"1s\"", "leese", "lease"),
        ("[kafka]\nbroker = \"a:1\"", "kafka.broker", "kafka.brokers"),
        ("[kafca]\nbrokers = \"a:1\"", "kafca", ""),
    ] {
        let file = file(text);
        let message = refused(&Sources { file: Some(file.path().to_owned()), ..Sources::default() });
        assert!(message.contains(&format!("`{key}` (file {})", file.path().display())), "{message}");
        assert!(message.contains(meant), "{message}");
    }
}

#[test]
fn an_unknown_flag_names_itself() {
    let message = refused(&Sources { flags: vec![("lane".into(), "1".into())], ..Sources::default() });
    assert!(message.contains("`lane` (flag); did you mean `lanes`?"), "{message}");
}

#[test]
fn a_bad_value_names_key_value_source_and_what_is_allowed() {
    for (variable, value, allowed) in [
        ("HOLDFAST_KAFKA_BROKERS", "localhost", "`host:port`"),
        ("HOLDFAST_KAFKA_GROUP_PROTOCOL", "classical", "`classic` or `consumer`"),
        ("HOLDFAST_KAFKA_SESSION_TIMEOUT", "10", "a duration such as"),
        ("HOLDFAST_ADVERTISED_ADDR", "node", "`host:port`"),
        ("HOLDFAST_SHUTDOWN_DELAY", "-1s", "a duration such as"),
        ("HOLDFAST_GRPC_LISTEN", "9090", "an IP address and a port"),
        ("HOLDFAST_HTTP_LISTEN", "host:80", "an IP address and a port"),
        ("HOLDFAST_TLS_CERT", "/nowhere/cert.pem", "the path of a readable file"),
        ("HOLDFAST_INVENTORY_ADDR", "inventory", "`http://host:port`"),
        ("HOLDFAST_PARTITIONS", "0", "a whole number from 1 to 4096"),
        ("HOLDFAST_MEMORY_BUDGET", "1KiB", "a size such as"),
        ("HOLDFAST_BATCH_MAX", "many", "a whole number from 1"),
        ("HOLDFAST_LANES", "65", "from 1 to 64"),
        ("HOLDFAST_PASSIVATION_IDLE", "forever", "a duration such as"),
        ("HOLDFAST_PASSIVATION_ACTORS_MAX", "0", "a whole number from 1"),
        ("HOLDFAST_LEASE", "10ms", "from 1s to 1m"),
        ("HOLDFAST_RESERVATION_TTL", "0", "a duration such as"),
        ("HOLDFAST_RETRY_BUDGET", "0", "from 1 to 100"),
        ("HOLDFAST_PRICE_CACHE_TTL", "1d", "from 0s to 1m"),
        ("HOLDFAST_LOG_FORMAT", "xml", "`json` or `pretty`"),
        ("HOLDFAST_LOG_FILTER", "info,,=x=", "a tracing filter"),
        ("HOLDFAST_TRACE_SAMPLE_RATIO", "1.5", "a number from 0 to 1"),
    ] {
        let message = refused(&with_environment(&[(variable, value)]));
        assert!(message.starts_with(&format!("bad value `{value}` for `{variable}` (environment)")), "{message}");
        assert!(message.contains(allowed), "{message}");
    }
}

#[test]
fn a_bad_value_is_spelled_as_its_source_spells_it() {
    let message = refused(&Sources { flags: vec![("log.format".into(), "xml".into())], ..Sources::default() });
    assert!(message.starts_with("bad value `xml` for `--log-format` (flag)"), "{message}");
    let file = file("[log]\nformat = true");
    let message = refused(&Sources { file: Some(file.path().to_owned()), ..Sources::default() });
    assert!(message.starts_with("bad value `true` for `log.format` (file "), "{message}");
}

#[test]
fn a_bad_url_or_property_is_named_without_its_secret() {
    for (variable, value) in [
        ("HOLDFAST_DATABASE_URL", "postgres//me:hunter2@host/db"),
        ("HOLDFAST_DATABASE_URL", "mysql://me:hunter2@host/db"),
        ("HOLDFAST_ORDERS_DATABASE_URL", "hunter2"),
        ("HOLDFAST_KAFKA_PROPERTIES", "hunter2"),
        ("HOLDFAST_ADMIN_TOKEN", "hunter2"),
        ("HOLDFAST_KAFKA_PROPERTIES", "sasl.password=hunter2,enable.auto.commit=true"),
    ] {
        let message = refused(&with_environment(&[(variable, value)]));
        assert!(message.contains(variable) && !message.contains("hunter2"), "{message}");
    }
}

#[test]
fn a_value_that_is_not_utf8_names_its_variable() {
    use std::os::unix::ffi::OsStringExt as _;
    let environment = vec![("HOLDFAST_LANES".into(), OsString::from_vec(vec![0xff]))];
    let message = refused(&Sources { environment, ..Sources::default() });
    assert!(message.contains("HOLDFAST_LANES") && message.contains("UTF-8"), "{message}");
}

#[test]
fn a_file_that_is_away_or_broken_is_named() {
    let message = refused(&with_environment(&[("HOLDFAST_CONFIG", "/nowhere/holdfast.toml")]));
    assert!(message.contains("/nowhere/holdfast.toml (named by HOLDFAST_CONFIG)"), "{message}");

    let broken = file("lanes = 2\ndatabase_url = \"postgres://u:hunter2@h");
    let message = refused(&Sources { file: Some(broken.path().to_owned()), ..Sources::default() });
    assert!(message.contains(&broken.path().display().to_string()) && message.contains("line 2"), "{message}");
    assert!(!message.contains("hunter2"), "{message}");

    let table = file("[lanes]\nx = 1");
    let message = refused(&Sources { file: Some(table.path().to_owned()), ..Sources::default() });
    assert!(message.contains("`lanes`"), "{message}");
}

#[test]
fn properties_may_stand_as_a_table_in_the_file() {
    let file = file("[kafka.properties]\nsasl.password = \"a,b=c\"\nsecurity.protocol = \"SASL_SSL\"\n");
    let config = Config::load(&Sources { file: Some(file.path().to_owned()), ..Sources::default() }).unwrap();
    let mut all: Vec<_> = config.kafka.properties.iter().collect();
    all.sort_unstable();
    assert_eq!(all, [("sasl.password", "a,b=c"), ("security.protocol", "SASL_SSL")]);
}

#[test]
fn a_context_without_its_own_url_uses_the_one_for_all() {
    let config = Config::load(&with_environment(&[
        ("HOLDFAST_DATABASE_URL", "postgres://u:p@all/d"),
        ("HOLDFAST_ORDERS_DATABASE_URL", "postgres://u:p@own/d"),
    ]))
    .unwrap();
    assert_eq!(config.database_url(Context::Orders).unwrap().expose(), "postgres://u:p@own/d");
    assert_eq!(config.require_database_url(Context::Inventory).unwrap().expose(), "postgres://u:p@all/d");
}

#[test]
fn what_is_missing_says_how_to_give_it() {
    let config = Config::load(&Sources::default()).unwrap();
    let message = config.require_brokers().unwrap_err().to_string();
    assert!(message.contains("HOLDFAST_KAFKA_BROKERS") && message.contains("--kafka-brokers"), "{message}");
    assert!(config.require_database_url(Context::Orders).is_err());

    let cert = file("x");
    let message = refused(&with_environment(&[("HOLDFAST_TLS_CERT", cert.path().to_str().unwrap())]));
    assert!(message.contains("`tls.key` is not set"), "{message}");
}

#[test]
fn neither_rendering_nor_debugging_shows_a_secret() {
    let config = Config::load(&with_environment(&[
        ("HOLDFAST_DATABASE_URL", "postgres://u:hunter2@h/d"),
        ("HOLDFAST_KAFKA_PROPERTIES", "sasl.username=me,sasl.password=hunter2"),
        ("HOLDFAST_ADMIN_TOKEN", "hunter2-hunter2-hunter2"),
    ]))
    .unwrap();
    assert_eq!(config.require_admin_token().unwrap().expose(), "hunter2-hunter2-hunter2");
    let shown = serde_json::to_string(&config.render()).unwrap() + &format!("{config:?}");
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(shown.contains("postgres://u:****@h/d") && shown.contains("sasl.username=me"), "{shown}");
}
