//! The checkers see what is really stored: on a real Kafka and Postgres a sound run is found sound, and each
//! thing that is tampered with is found.

use std::time::Duration;

use holdfast_load_tests::{
    checkers::{self, Breach, Target, account, owners, settled},
    kafka,
    producer::{self, Ledger, Options},
    scenarios::holdfast::{Contestant, Serving},
    work::{Expect, Form, Mix, Planned},
};
use holdfast_runtime::Config;
use holdfast_stack::Stack;
use sqlx::{Connection as _, PgConnection};

const PATIENCE: Duration = Duration::from_mins(1);

/// Runs 50 orders, one of them with a repeated record, and returns their ledger once everything has settled
/// and nobody runs any more.
async fn run(target: &Target) -> Ledger {
    kafka::create_topics(&target.brokers, &["orders.commands", "orders.events", "orders.dlq"], 3).await.unwrap();
    let config = Config { address: "here".into(), ..Config::default() };
    let (url, schema) = (&target.orders.url, &target.orders.name);
    let serving = Serving::start(Contestant::stand_in(), config, &target.brokers, url, schema).await.unwrap();
    serving.ready(PATIENCE).await.unwrap();
    assert_eq!(owners(&target.orders).await.unwrap().into_iter().collect::<Vec<_>>(), [("here".to_owned(), 3)]);
    let mix = Mix { repeated: 200, ..Mix::benchmark(50, 1) };
    let ledger = producer::produce(&target.brokers, &mix, Options::to("orders.commands"), |_| {}).await.unwrap();
    settled(target, PATIENCE, |_| {}).await.unwrap();
    let ends = kafka::Ends::new(&target.brokers).unwrap();
    assert_eq!(ends.total("orders.commands").await.unwrap(), ledger.records);
    serving.stop().await;
    ledger
}

/// What is found after this statement, which is undone.
async fn found_after(target: &Target, ledger: &Ledger, tamper: &'static str, undo: &'static str) -> Vec<(Breach, u64)> {
    let mut connection = PgConnection::connect(&target.orders.url).await.unwrap();
    sqlx::raw_sql(tamper).execute(&mut connection).await.unwrap();
    let report = account(target, ledger).await.unwrap();
    sqlx::raw_sql(undo).execute(&mut connection).await.unwrap();
    report.violations().map(|(breach, found)| (breach, found.count)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sound_run_is_clean_and_every_tampering_is_found() {
    let stack = Stack::shared_for_tests().await;
    let target = Target::new(stack.brokers(), &stack.postgres_url("postgres")).orders_only();
    let mut ledger = run(&target).await;
    let report = account(&target, &ledger).await.unwrap();
    assert!(report.is_clean(), "{report}");
    assert_eq!((report.commands, report.applied), (200, 200));
    assert!(report.repeats_sent > 0 && report.repeats_dropped == report.repeats_sent);

    for (tamper, undo, due) in [
        (
            // The last claim in a ring: an id, half a digest, a byte of kind, and one of the version.
            "create table orders.kept as select key, ring from orders.aggregates;
             update orders.aggregates set ring = substr(ring, 1, octet_length(ring) - 26)
             where key = (select min(key) from orders.aggregates)",
            "update orders.aggregates a set ring = k.ring from orders.kept k where k.key = a.key; drop table orders.kept",
            Breach::Unclaimed,
        ),
        (
            "update orders.aggregates set version = version + 1 where key = (select min(key) from orders.aggregates)",
            "update orders.aggregates set version = version - 1 where key = (select min(key) from orders.aggregates)",
            Breach::NotTheFold,
        ),
        (
            "update orders.partitions set outbox_cursor = outbox_cursor - 1 where partition = 1",
            "update orders.partitions set outbox_cursor = outbox_cursor + 1 where partition = 1",
            Breach::Undrained,
        ),
        (
            "update orders.partitions set consumed = '{}' where partition = 2",
            "update orders.partitions set consumed = consumed where partition = 2",
            Breach::Unconsumed,
        ),
    ] {
        assert_eq!(found_after(&target, &ledger, tamper, undo).await[0], (due, 1), "{tamper}");
        if due == Breach::Unconsumed {
            let restless = settled(&target, Duration::from_millis(300), |_| {}).await;
            assert!(matches!(restless, Err(checkers::Error::Restless { .. })), "{restless:?}");
        }
    }

    // An event that nobody committed, and a command that nobody applied.
    let sent = ledger.commands.keys().next().copied().unwrap();
    let foreign = Planned {
        id: uuid::Uuid::now_v7(),
        order: ledger.commands[&sent].order,
        key: ledger.commands[&sent].order.to_string(),
        r#type: "holdfast.orders.v1.OrderCreated".into(),
        subject: ledger.commands[&sent].order.to_string(),
        is_complete: true,
        form: Form::Protobuf,
        value: Vec::new(),
        expect: Expect::Event,
        is_repeat: false,
    };
    producer::produce_records(&target.brokers, "orders.events", vec![foreign.clone()]).await.unwrap();
    ledger.note(&foreign);
    let report = account(&target, &ledger).await.unwrap();
    assert_eq!((report.count(Breach::Unreadable), report.lost()), (1, 1), "{report}");
}
