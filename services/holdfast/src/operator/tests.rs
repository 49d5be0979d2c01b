//! Each check on a fault that was planted, and all of them on none.

use std::{sync::Arc, time::Duration};

use holdfast_core::{
    Headers, KeyHash, PartitionId, Record, Timestamp,
    envelope::header,
    epoch::{Epoch, Generation, Halt, HaltReason, PartitionRow, Token},
    growth::{Counts, Growth, Step},
};
use holdfast_kafka::admin::{TopicSpec, TopicState};
use holdfast_payments::projection::Stopped;
use holdfast_platform::{Context, config::GroupProtocol};
use holdfast_postgres::{
    outbox::StuckRecord,
    survey::{Mail, Stray, Unfiled},
};

use super::{
    doctor::{Brokers, ContextFacts, Facts, Finding, Level, Stored, examine},
    survey::{self, Input, Misrouted, Partition},
};

const NOW: Timestamp = Timestamp::from_unix_ms(1_795_305_600_000);

fn ago(by: Duration) -> Timestamp {
    Timestamp::from_unix_ms(NOW.unix_ms() - i64::try_from(by.as_millis()).unwrap())
}

fn partition(number: u32, address: &str) -> Partition {
    let topic = |topic: &str| Input {
        topic: topic.into(),
        consumed: Some(90),
        start: 10,
        end: 100,
        waiting_since: Some(ago(Duration::from_secs(3))),
    };
    Partition {
        row: PartitionRow {
            partition: PartitionId(number),
            epoch: Epoch(4),
            token: Some(Token::draw()),
            address: address.to_owned(),
            has_begun: true,
            generation: Generation(1),
            released: false,
            batch: 7,
            outbox_head: 50,
            outbox_cursor: 48,
            published: None,
            halted: None,
            consumed: Vec::new(),
        },
        inputs: vec![topic("orders.commands"), topic("inventory.events")],
        mail: vec![mail(number, "retrying", Duration::from_secs(5))],
    }
}

fn mail(number: u32, reason: &str, age: Duration) -> Mail {
    let (partition, reason) = (PartitionId(number), reason.to_owned());
    Mail { partition, reason, messages: 3, aggregates: 2, since: ago(age) }
}

/// Three brokers, orders on two nodes, and nothing wrong.
fn healthy() -> Facts {
    let wanted = TopicSpec::of_context("orders", 2, 3);
    let mut topics: Vec<TopicState> = wanted.iter().map(as_wanted).collect();
    topics.push(as_wanted(&TopicSpec::of_context("inventory", 2, 3)[1]));
    let stored = Stored {
        applied: vec![1, 1001],
        known: vec![1, 1001],
        partitions: vec![partition(0, "node-1:9090"), partition(1, "node-2:9090")],
        ..Stored::default()
    };
    let context = ContextFacts {
        context: Context::Orders,
        inputs: vec!["orders.commands".to_owned(), "inventory.events".to_owned()],
        wanted,
        topics,
        stored: Ok(stored),
    };
    let settings = [("group.min.session.timeout.ms", "6000"), ("group.max.session.timeout.ms", "1800000")];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Facts {
        now: NOW,
        partitions: 2,
        group_protocol: GroupProtocol::Classic,
        session_timeout: Duration::from_secs(10),
        lease: Duration::from_secs(5),
        producers_max_age: Duration::from_mins(7),
        retry_budget: 3,
        brokers: Ok(Brokers { count: 3, settings: settings.into() }),
        contexts: vec![context],
    }
}

fn as_wanted(spec: &TopicSpec) -> TopicState {
    let mut config = spec.config.clone();
    config.entry("retention.ms".to_owned()).or_insert_with(|| "604800000".to_owned());
    TopicState { name: spec.name.clone(), partitions: spec.partitions, replication: spec.replication, config }
}

fn topic<'a>(facts: &'a mut Facts, name: &str) -> &'a mut TopicState {
    facts.contexts[0].topics.iter_mut().find(|topic| topic.name == name).unwrap()
}

/// Inventory is there, too, of which [`healthy`] only has the topic that orders follows.
fn deploy_inventory(facts: &mut Facts) {
    let (inputs, wanted, topics) = (Vec::new(), Vec::new(), Vec::new());
    let stored = facts.contexts[0].stored.clone();
    facts.contexts.push(ContextFacts { context: Context::Inventory, inputs, wanted, topics, stored });
}

fn set(facts: &mut Facts, name: &str, key: &str, value: &str) {
    topic(facts, name).config.insert(key.to_owned(), value.to_owned());
}

fn stored(facts: &mut Facts) -> &mut Stored {
    facts.contexts[0].stored.as_mut().unwrap()
}

/// Grown from 2 to 4 so long ago, and acknowledged by these.
fn grown(context: &str, topic: &str, age: Duration, acknowledged: &[u32]) -> Growth {
    let step = Step { count: 4, age, ..Step::default() };
    let commands = Step { ended: topic != format!("{context}.commands"), ..step.clone() };
    let counts = |step| Counts { first: 2, steps: vec![step] };
    Growth {
        topics: [(format!("{context}.commands"), counts(commands)), (topic.to_owned(), counts(step))].into(),
        generations: [(Generation(1), 2), (Generation(2), 4)].into(),
        acknowledged: acknowledged.iter().map(|partition| ((PartitionId(*partition), Generation(2)), 0)).collect(),
        rows: Vec::new(),
    }
}

/// What the checks say once `fault` is planted: check, finding.
fn after(fault: impl FnOnce(&mut Facts)) -> Vec<(&'static str, Finding)> {
    let mut facts = healthy();
    fault(&mut facts);
    let found = examine(&facts).into_iter();
    found.flat_map(|(check, findings)| findings.into_iter().map(move |finding| (check, finding))).collect()
}

/// Planting `fault` is found by `check` alone, at this level, in words that hold each of `words`.
#[track_caller]
fn expect(check: &str, level: Level, words: &[&str], fault: impl FnOnce(&mut Facts)) {
    let found = after(fault);
    assert!(!found.is_empty() && found.iter().all(|(by, _)| *by == check), "{check}: {found:#?}");
    for word in words {
        assert!(
            found.iter().any(|(_, finding)| finding.what.contains(word) || finding.remedy.contains(word)),
            "`{word}` is not in {found:#?}"
        );
    }
    assert_eq!(found.iter().map(|(_, finding)| finding.level).max(), Some(level));
    assert!(found.iter().all(|(_, finding)| !finding.remedy.is_empty()));
}

#[test]
fn a_healthy_system_has_no_findings() {
    assert_eq!(after(|_| {}), []);
}

#[test]
fn stalled_loop_and_unfiled_record_are_wrong() {
    let text = "lane 0: waits for the database, no progress for 12 s";
    expect("every loop moves", Level::Wrong, &["node-1:9090", "orders", text], |facts| {
        stored(facts).stalled = vec![("node-1:9090".to_owned(), text.to_owned())];
    });
    expect(
        "every record is filed",
        Level::Wrong,
        &["3 records of orders.commands", "22021", "orders.unfiled"],
        |facts| {
            let (topic, error) = ("orders.commands".to_owned(), "22021: NUL".to_owned());
            stored(facts).unfiled = vec![Unfiled { topic, records: 3, since: ago(Duration::from_mins(1)), error }];
        },
    );
}

/// `topics apply` makes what a context follows, and `partitions grow` leaves alone what nobody serves.
#[test]
fn a_topic_of_a_context_that_is_not_deployed_may_be_of_any_size() {
    let grown_beside_it = |facts: &mut Facts| topic(facts, "inventory.events").partitions = 1;
    assert_eq!(after(grown_beside_it), []);
    let found = after(|facts| {
        deploy_inventory(facts);
        grown_beside_it(facts);
    });
    assert_eq!(found.iter().map(|(check, _)| *check).collect::<Vec<_>>(), ["inputs have equal partitions"]);
}

#[test]
fn every_fault_of_topics_is_found_by_its_check() {
    use Level::{Hint, Wrong};
    expect("topics exist", Wrong, &["orders.dlq", "topics apply"], |facts| {
        facts.contexts[0].topics.retain(|topic| topic.name != "orders.dlq");
    });
    let unequal = "a context's topics have equal partitions";
    expect(unequal, Wrong, &["orders.dlq has 3", "orders.events has 2"], |facts| {
        topic(facts, "orders.dlq").partitions = 3;
    });
    expect(unequal, Hint, &["2 partitions", "set to 12", "HOLDFAST_PARTITIONS=2"], |facts| facts.partitions = 12);
    expect("inputs have equal partitions", Wrong, &["orders.commands has 2", "inventory.events has 4"], |facts| {
        deploy_inventory(facts);
        topic(facts, "inventory.events").partitions = 4;
    });
    let kept = "topics keep records long enough";
    expect(kept, Wrong, &["orders.events keeps records for 1 h", "7 days"], |facts| {
        set(facts, "orders.events", "retention.ms", "3600000");
    });
    expect(kept, Wrong, &["orders.commands", "3 days"], |facts| set(facts, "orders.commands", "retention.ms", "60000"));
    expect(kept, Wrong, &["orders.dlq", "1000 bytes"], |facts| set(facts, "orders.dlq", "retention.bytes", "1000"));
    expect(kept, Wrong, &["cleanup.policy=compact"], |facts| set(facts, "orders.events", "cleanup.policy", "compact"));
    let copies = "copies outlive a broker";
    expect(copies, Wrong, &["every write is refused"], |facts| set(facts, "orders.events", "min.insync.replicas", "4"));
    expect(copies, Wrong, &["one broker away"], |facts| set(facts, "orders.events", "min.insync.replicas", "3"));
    expect(copies, Wrong, &["losing that one"], |facts| set(facts, "orders.events", "min.insync.replicas", "1"));
    expect(copies, Wrong, &["orders.events has 1 copies"], |facts| {
        topic(facts, "orders.events").replication = 1;
        set(facts, "orders.events", "min.insync.replicas", "1");
    });
    expect("large records fit", Wrong, &["orders.commands", "max.message.bytes=8388608"], |facts| {
        set(facts, "orders.commands", "max.message.bytes", "1048588");
    });
    let forever = after(|facts| set(facts, "orders.events", "retention.ms", "-1"));
    assert_eq!(forever, [], "kept for ever is long enough");
}

#[test]
fn every_fault_of_the_group_is_found_by_its_check() {
    use Level::{Hint, Unreachable, Wrong};
    expect("brokers answer", Unreachable, &["timed out", "HOLDFAST_KAFKA_BROKERS"], |facts| {
        facts.brokers = Err("timed out".to_owned());
    });
    let group = "group settings fit the brokers";
    expect(group, Wrong, &["3000 ms", "6000 to 1800000"], |facts| {
        facts.session_timeout = Duration::from_secs(3);
        facts.lease = Duration::from_secs(1);
    });
    expect(group, Hint, &["60 s"], |facts| facts.session_timeout = Duration::from_mins(1));
    expect(group, Hint, &["lease of 20 s", "HOLDFAST_LEASE"], |facts| facts.lease = Duration::from_secs(20));
    expect(group, Hint, &["45 s", "group.consumer.session.timeout.ms"], |facts| {
        facts.group_protocol = GroupProtocol::Consumer;
    });
    expect("failures are retried", Hint, &["HOLDFAST_RETRY_BUDGET"], |facts| facts.retry_budget = 1);
    expect("clocks agree", Hint, &["database of orders", "-90000 ms"], |facts| {
        stored(facts).database_ahead_ms = -90_000;
    });
    expect("clocks agree", Hint, &["future"], |facts| stored(facts).records_ahead_ms = 5_000);
}

#[test]
fn growth_is_shown_while_it_lasts_and_wrong_if_it_does_not_end() {
    use Level::{Hint, Wrong};
    let check = "growth comes to its end";
    let (minute, all) = (Duration::from_mins(1), [0, 1, 2, 3]);
    let own = |age, acknowledged: &[u32]| grown("orders", "orders.commands", age, acknowledged);
    expect(check, Hint, &["orders.commands grew from 2 to 4", "another 360 s"], |facts| {
        stored(facts).growth = own(minute, &all);
    });
    expect(check, Hint, &["everything sent before is consumed"], |facts| stored(facts).growth = own(minute * 8, &all));
    expect(check, Wrong, &["partitions show"], |facts| stored(facts).growth = own(minute * 18, &all));
    expect(check, Wrong, &["partition 1 and 3 has not let go"], |facts| {
        stored(facts).growth = own(minute * 2, &[0, 2]);
    });
    let foreign = |age| grown("orders", "inventory.events", age, &all);
    expect(check, Hint, &["inventory.events", "another 360 s"], |facts| stored(facts).growth = foreign(minute));
    expect(check, Wrong, &["the nodes of inventory"], |facts| stored(facts).growth = foreign(minute * 8));
}

#[test]
fn every_fault_of_the_tables_is_found_by_its_check() {
    use Level::{Hint, Unreachable, Wrong};
    let answer = "databases answer";
    expect(answer, Unreachable, &["orders", "refused"], |facts| {
        facts.contexts[0].stored = Err("store unavailable: connection refused".to_owned());
    });
    expect(answer, Wrong, &["holdfast migrate orders"], |facts| {
        facts.contexts[0].stored = Err("the schema is not migrated; run `holdfast migrate`".to_owned());
    });
    expect("schemas are current", Wrong, &["1001", "holdfast migrate orders"], |facts| stored(facts).applied = vec![1]);
    expect("schemas are current", Hint, &["1002"], |facts| stored(facts).applied.push(1002));
    expect("schemas are current", Hint, &["format 1", "holdfast migrate orders --finish"], |facts| {
        stored(facts).format = 1;
    });
    let owners = "partitions have owners";
    expect(owners, Wrong, &["1 of 2 partitions of orders: 1"], |facts| {
        stored(facts).partitions[1].row.released = true;
    });
    expect(owners, Wrong, &["orders: 0"], |facts| stored(facts).partitions[0].row.token = None);
    expect(owners, Wrong, &["ever served orders"], |facts| stored(facts).partitions.clear());
    expect(
        "no context is halted",
        Wrong,
        &["HISTORY_LOST: version 3", "holdfast recover orders", "history-lost.md"],
        |facts| {
            for partition in &mut stored(facts).partitions {
                partition.row.token = None;
                partition.row.halted =
                    Some(Halt { reason: HaltReason::HistoryLost, detail: "version 3 of order/a".into() });
            }
        },
    );
    let called = "owners can be called";
    for nowhere in ["", "0.0.0.0:9090", "[::]:9090", "node-1:0", "node-1"] {
        expect(called, Wrong, &["HOLDFAST_ADVERTISED_ADDR"], |facts| {
            stored(facts).partitions[0].row.address = nowhere.to_owned();
        });
    }
    expect(called, Wrong, &["127.0.0.1:9090"], |facts| {
        stored(facts).partitions[0].row.address = "127.0.0.1:9090".to_owned();
    });
    let alone = after(|facts| {
        for partition in &mut stored(facts).partitions {
            partition.row.address = "127.0.0.1:9090".to_owned();
        }
    });
    assert_eq!(alone, [], "on one machine its own address is enough");
    let log = "offsets are in the log";
    expect(log, Wrong, &["orders.commands-0", "offset 5 is next", "starts at 10"], |facts| {
        stored(facts).partitions[0].inputs[0].consumed = Some(5);
    });
    expect(log, Wrong, &["inventory.events-1", "offset 101 is next", "ends at 100"], |facts| {
        stored(facts).partitions[1].inputs[1].consumed = Some(101);
    });
    let words = ["orders.events refuses 1 records of orders", "1 of the same keys", "outbox stuck discard orders"];
    expect("topics take what is published", Wrong, &words, |facts| {
        let record = |attempts: u32| StuckRecord {
            id: uuid::Uuid::nil(),
            topic: "orders.events".into(),
            key: Some("a".to_owned()),
            r#type: "holdfast.orders.v1.OrderPlaced".to_owned(),
            partition: PartitionId(0),
            sequence: 7,
            home: PartitionId(0),
            place: 1,
            attempts,
            error: "too large".to_owned(),
            bytes: 2_000_000,
            since: ago(Duration::from_mins(2)),
            ordered: None,
        };
        stored(facts).refused = vec![record(1), record(0)];
    });
    expect("outboxes drain", Wrong, &["2 events and dead letters of orders", "partition 1"], |facts| {
        stored(facts).stuck = vec![PartitionId(1)];
    });
}

#[test]
fn long_waiting_or_stray_records_are_found_and_senders_named() {
    use Level::{Hint, Wrong};
    let waits = "records lie at home, and none waits for long";
    for (reason, enough, remedy) in [
        ("retrying", Duration::from_mins(11), "a handler"),
        ("downstream", Duration::from_mins(2), "inventory.addr"),
        ("transferred", Duration::from_mins(2), "owners"),
        ("parked", Duration::from_secs(1), "an operator has to act"),
    ] {
        expect(waits, Wrong, &[reason, "3 messages for 2 aggregates of orders", remedy], |facts| {
            stored(facts).partitions[0].mail = vec![mail(0, reason, enough)];
            stored(facts).partitions[1].mail.clear();
        });
    }
    let since = ago(Duration::from_hours(3));
    expect(
        waits,
        Wrong,
        &["`old-shop`", "17 of the newest records of orders.commands", &since.rfc3339(), "murmur2"],
        |facts| {
            let (topic, source) = (Arc::from("orders.commands"), "old-shop".to_owned());
            stored(facts).misrouted.push(Misrouted { topic, source, records: 17, since: Some(since) });
        },
    );
    expect(waits, Hint, &["2 records that a producer without ce_source misrouted"], |facts| {
        let (topic, source) = (Arc::from("orders.commands"), String::new());
        stored(facts).strays.push(Stray { topic, source, messages: 2, since });
    });
}

fn record(key: &str, partition: u32, source: &str) -> Record {
    let mut headers = Headers::default();
    headers.push(header::SOURCE, source);
    Record {
        topic: "orders.commands".into(),
        partition: PartitionId(partition),
        offset: 0,
        timestamp: Some(NOW),
        key: Some(key.to_owned().into()),
        headers,
        value: None,
    }
}

#[test]
fn record_is_misrouted_if_not_at_its_home_now_or_before_growth() {
    let home = |key: &str, count| KeyHash::of(key.as_bytes()).home(count).0;
    let moved = |key: &String| home(key, 12) != home(key, 24);
    let key = (0..10_000).map(|n| format!("order-{n}")).find(moved).unwrap();
    let keyless = Record { key: None, ..record(&key, home(&key, 12), "x") };
    assert_eq!(survey::misrouted(&[record(&key, home(&key, 24), "a"), keyless], &[24]), []);
    let before = record(&key, home(&key, 12), "a");
    assert_eq!(survey::misrouted(std::slice::from_ref(&before), &[12, 24]), []);
    let records = [before.clone(), before, record(&key, home(&key, 12), "b")];
    let found: Vec<_> = survey::misrouted(&records, &[24])
        .into_iter()
        .map(|found| (found.source, found.records, found.since))
        .collect();
    assert_eq!(found, [("a".to_owned(), 2, Some(NOW)), ("b".to_owned(), 1, Some(NOW))]);
}

#[test]
fn the_worst_partition_comes_first() {
    let base = || partition(0, "node-1:9090");
    let mut halted = base();
    halted.inputs[0].consumed = Some(5);
    let mut unowned = base();
    unowned.row.released = true;
    let mut late = base();
    late.inputs[1].waiting_since = Some(ago(Duration::from_mins(1)));
    let mut long = base();
    long.inputs[1].end = 5_000;
    let mut unpublished = base();
    unpublished.row.outbox_head = 1_000;
    let mut waiting = base();
    waiting.mail[0].messages = 9;
    let order = [halted, unowned, late, long, unpublished, waiting, base()];
    for pair in order.windows(2) {
        assert!(pair[0].badness(NOW) > pair[1].badness(NOW), "{pair:#?}");
    }
    let base = base();
    assert_eq!((base.lag(), base.lag_ms(NOW), base.outbox_pending(), base.waiting()), (20, 3_000, 2, 3));
}

#[test]
fn stopped_payment_is_found_with_its_order_and_its_reason() {
    let stopped = |order_id: &str| Stopped {
        order_id: order_id.to_owned(),
        source: "refund:1".to_owned(),
        subject: "CHARGE".to_owned(),
        asked: "pi_1".to_owned(),
        answered: "pi_2".to_owned(),
        since: ago(Duration::from_mins(5)),
    };
    let check = "the provider agrees with payments";
    let words =
        ["order-a", "the payment is stopped", "`refund:1` for the charge pi_2, asked was pi_1", "order trace order-a"];
    expect(check, Level::Wrong, &words, |facts| {
        (stored(facts).stopped, stored(facts).stopped_in_all) = (vec![stopped("order-a")], 1);
    });
    expect(check, Level::Wrong, &["7 payments are stopped in all", "holdfast reconcile"], |facts| {
        (stored(facts).stopped, stored(facts).stopped_in_all) = (vec![stopped("order-a")], 7);
    });
}
