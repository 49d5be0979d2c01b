//! The outbox as operators see it, and the orders that they give.

use std::sync::Arc;

use holdfast_core::{
    PartitionId,
    batch::Writes,
    port::store::Store,
    stuck::{Order, Queue, Release, SetAside, hash_of},
};
use holdfast_postgres::{PgStore, outbox::Which};
use holdfast_testkit::sample::{Owner, draft, everything};
use uuid::Uuid;

use crate::fixture::Fresh;

const P: PartitionId = PartitionId(0);

#[tokio::test]
async fn orders_are_given_to_refused_heads_and_are_on_record() {
    let fresh = Fresh::new().await;
    let store = PgStore::connect(fresh.config()).await.expect("connected");
    store.register_partitions(1).await.expect("there");
    let port: Arc<dyn Store> = Arc::new(store.clone());
    let mut owner = Owner::take(&port, [0]).await;
    let texts = [("t.events", "a", "1"), ("t.events", "a", "2"), ("t.dlq", "a", "3"), ("t.events", "b", "4")];
    let outbox = texts.iter().map(|(topic, key, text)| draft(topic, key, text)).collect();
    let rows = owner.write(0, Writes { outbox, ..Writes::default() }).await.outbox;
    let before = store.outbox_pending(1).await.expect("pending").remove(0);
    assert_eq!((before.partition, before.rows, before.stuck), (P, 4, 0));
    let now = store.clock().await.expect("clock").unix_ms();
    let age_ms = now - before.since.expect("UUIDv7s").unix_ms();
    assert!(before.bytes > 4 && (-5_000..60_000).contains(&age_ms), "{before:?}");

    let aside: Vec<SetAside> = rows[..3]
        .iter()
        .map(|row| SetAside {
            sequence: row.sequence,
            queue: Queue::of(&row.draft),
            hash: hash_of(&row.draft),
            attempts: u32::from(row.sequence != 2),
            error: "too\0 large".to_owned(),
        })
        .collect();
    assert_eq!(store.set_aside(P, owner.token(0), &aside).await, Ok(true));
    let pending = store.outbox_pending(1).await.expect("pending").remove(0);
    assert_eq!((pending.rows, pending.stuck), (1, 3));
    let summary = |records: &[holdfast_postgres::outbox::StuckRecord]| {
        records.iter().map(|record| (record.sequence, record.place, record.attempts)).collect::<Vec<_>>()
    };
    let all = store.stuck_records(&Which::default(), 1, 100).await.expect("stuck");
    assert_eq!(summary(&all), [(1, 1, 1), (2, 2, 0), (3, 1, 1)]);
    assert_eq!((all[0].key.as_deref(), all[0].error.as_str()), (Some("a"), "too large"));
    let dlq = Which { topic: Some("t.dlq".to_owned()), ..Which::default() };
    assert_eq!(summary(&store.stuck_records(&dlq, 1, 100).await.expect("stuck")), [(3, 1, 1)]);

    // Not one that only queues, nor one that nobody knows.
    for id in [rows[1].draft.id, Uuid::now_v7()] {
        let which = Which { id: Some(id), ..Which::default() };
        assert_eq!(store.order_stuck(&which, &Order::Retry, "", "me").await, Ok(Vec::new()));
    }
    let order = Order::Discard("too much".to_owned());
    assert_eq!(store.order_stuck(&dlq, &order, "too much", "me@here").await, Ok(vec![rows[2].draft.id]));
    let released = store.released(&everything(1), 10).await.expect("released");
    assert_eq!((released.len(), released[0].row.sequence, released[0].order.clone()), (1, 3, Some(order)));
    let ids = store.order_stuck(&Which::default(), &Order::Retry, "mended", "me@here").await.expect("ordered");
    assert_eq!(ids.len(), 2, "the last word counts");
    let released = store.released(&everything(1), 10).await.expect("released");
    assert!(released.iter().all(|stuck| stuck.order == Some(Order::Retry)), "{released:?}");
    let end = Release::Refused("still\0 too large".to_owned());
    store.end_release(P, owner.token(0), released[0].position, &end).await.expect("there");
    let all = store.stuck_records(&Which::default(), 1, 100).await.expect("stuck");
    assert_eq!((all[0].attempts, all[0].error.as_str(), &all[0].ordered), (2, "still too large", &None));

    let mut admin = fresh.admin().await;
    let on_record: Vec<(String, String, String, i64)> =
        sqlx::query_as("select who, ordered, why, sequence from outbox_stuck_orders order by at, sequence")
            .fetch_all(&mut admin)
            .await
            .expect("there");
    let of = |ordered: &str, why: &str, sequence| ("me@here".to_owned(), ordered.to_owned(), why.to_owned(), sequence);
    assert_eq!(on_record, [of("discard", "too much", 3), of("retry", "mended", 1), of("retry", "mended", 3)]);
}
