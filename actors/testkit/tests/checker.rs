//! The checker passes a sound run and finds each unsound one. The run is made by a loop of a few lines that
//! is no runtime.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use bytes::Bytes;
use holdfast_core::{
    AggregateId, Headers, Message, PartitionId, Timestamp,
    batch::{DeadLetter, OutboxRow, StateWrite, Writes},
    dedup::{Answer, Claim, ClaimKey, body_digest},
    disposition::WaitReason,
    envelope::EnvelopeOut,
    epoch::Token,
    invariant::Invariant,
    pool::Pool,
    port::{
        log::{Log, Publisher},
        store::{Cursor, Found, Store, Wanted},
    },
};
use holdfast_testkit::{
    Checker, MemoryLog, MemoryPublisher, MemoryStore, Watch,
    checker::{Counts, Violation},
    sample::{self, KIND, Owner, entry},
    store::{Contents, Mail},
};
use uuid::Uuid;

const PARTITIONS: u32 = 2;

struct World {
    log: MemoryLog,
    store: MemoryStore,
    watch: Watch,
}

fn headers(id: Uuid, key: &str, sequence: Option<u64>, causation: Option<Uuid>) -> Headers {
    EnvelopeOut {
        id,
        source: "test",
        r#type: "t.v1.T",
        time: Timestamp::from_unix_ms(0),
        subject: key,
        sequence,
        correlation: None,
        causation,
        schema: None,
        traceparent: None,
        tracestate: None,
    }
    .headers()
}

impl World {
    async fn new() -> Self {
        let (log, store) = (MemoryLog::new(), MemoryStore::new());
        for topic in ["t.commands", "t.events", "t.dlq"] {
            log.create_topic(topic, PARTITIONS);
        }
        store.register_partitions(PARTITIONS).await.unwrap();
        let watch = Watch::install(&log, &store, &["t.commands"], &["t.events", "t.dlq"]);
        Self { log, store, watch }
    }

    fn send(&self, id: Uuid, key: &'static str) {
        self.append("t.commands", key, headers(id, key, None, None));
    }

    fn send_garbage(&self) {
        let value = Some(Bytes::from_static(b"?"));
        self.log.append("t.commands", None, None, Headers::default(), value).unwrap();
    }

    /// Commits what waits in the commands topic, record by record.
    async fn work(&self) {
        let store: Arc<dyn Store> = Arc::new(self.store.clone());
        for partition in 0..PARTITIONS {
            let mut owner = Owner::take(&store, [partition]).await;
            let p = PartitionId(partition);
            let next = self.store.partition(p).unwrap().next_offset("t.commands").unwrap_or(0);
            for record in self.log.records("t.commands", p).iter().filter(|record| record.offset >= next) {
                let writes = match Message::decode(record) {
                    Ok(message) => self.decide(&message).await,
                    Err(refused) => {
                        let mut draft = sample::draft("t.dlq", "", "?");
                        draft.key.clone_from(&record.key);
                        draft.headers.push("dlt-id", draft.id.to_string());
                        let letter = DeadLetter {
                            id: draft.id,
                            aggregate: None,
                            hash: record.key_hash(),
                            topic: record.topic.clone(),
                            partition: p,
                            offset: record.offset,
                            reason: refused.reason,
                            error: refused.error,
                            attempts: 1,
                        };
                        Writes { outbox: vec![draft], dead_letters: vec![letter], ..Writes::default() }
                    }
                };
                let mut batch = owner.batch(vec![entry(partition, writes)]);
                batch.fences[0].consumed = vec![("t.commands".into(), record.offset + 1)];
                owner.commit_batch(&batch).await.unwrap();
                self.log.store_offset("t.commands", p, record.offset + 1);
            }
        }
    }

    async fn decide(&self, message: &Message) -> Writes {
        let id = AggregateId { kind: KIND, key: message.key.clone() };
        let key = ClaimKey::of(&id, message);
        let wanted = Wanted { claims: vec![key], ..Wanted::state(id) };
        let Found { state, ring, claims, .. } = self.store.find(&[wanted]).await.unwrap().remove(0);
        if claims[0] != Ok(None) || ring.find(&key).is_some() {
            return Writes::default();
        }
        let (version, revision) = state.expect("readable").map_or((0, 0), |row| (row.version, row.revision));
        let mut draft = sample::draft("t.events", &message.key, "happened");
        draft.headers = headers(draft.id, &message.key, Some(version + 1), Some(message.id));
        draft.target = sample::hash(&message.key).home(PARTITIONS);
        let state = StateWrite { revision, ring, ..sample::state(&message.key, version, version + 1) };
        let answer = Answer::Applied { version: version + 1, reply: Bytes::new() };
        let claim = Claim { key, body: body_digest(message), answer };
        Writes { outbox: vec![draft], ..sample::claimed(state, vec![claim], 1) }
    }

    /// Publishes what waits in the outbox, and remembers it.
    async fn relay(&self) {
        let publisher = MemoryPublisher::new(self.log.node());
        for p in (0..PARTITIONS).map(PartitionId) {
            let row = self.store.partition(p).unwrap();
            let rows = self.store.outbox(p, row.outbox_cursor, 1_000, usize::MAX).await.unwrap();
            publisher.publish(rows.into()).await.unwrap();
            self.store.advance(&[Cursor::new(p, row.token.unwrap(), row.outbox_head)]).await.unwrap();
        }
    }

    async fn run() -> (Self, Vec<Uuid>) {
        let world = Self::new().await;
        let ids: Vec<Uuid> = (0..20).map(|_| Uuid::now_v7()).collect();
        for (id, key) in ids.iter().zip(["a", "b", "c", "a"].into_iter().cycle()) {
            world.send(*id, key);
        }
        world.send(ids[0], "a");
        world.send_garbage();
        world.work().await;
        world.relay().await;
        (world, ids)
    }

    fn checker(&self) -> Checker<'_> {
        Checker::new(&self.log, &self.store, "t", &[KIND]).settled().watched(&self.watch)
    }

    fn append(&self, topic: &str, key: &'static str, headers: Headers) {
        let key = Some(Bytes::from_static(key.as_bytes()));
        self.log.append(topic, None, key, headers, Some(Bytes::new())).unwrap();
    }

    fn violated(&self) -> Vec<&'static str> {
        let mut ids: Vec<_> = self.checker().check().1.iter().map(|violation| violation.invariant.id()).collect();
        ids.dedup();
        ids
    }

    /// The test plants `change`, and expects the checker to report it.
    #[track_caller]
    fn plant(&self, expected: Invariant, detail: &str, change: impl FnOnce(&mut Contents)) {
        self.tamper(change);
        let (_, found) = self.checker().check();
        let hit = |violation: &&Violation| violation.invariant == expected && violation.detail.contains(detail);
        assert!(found.iter().any(|violation| hit(&violation)), "{expected} ({detail}) is not among {found:?}");
    }

    fn tamper(&self, change: impl FnOnce(&mut Contents)) {
        let mut contents = self.store.contents();
        change(&mut contents);
        self.store.restore(contents);
    }
}

#[tokio::test]
async fn a_sound_run_passes_and_is_counted() {
    let (world, ids) = World::run().await;
    let counts = world.checker().acknowledged(ids).assert();
    assert_eq!(counts, Counts { consumed: 22, claims: 20, events: 20, repeats: 0, dead_letters: 1, waiting: 0 });
}

#[tokio::test]
async fn published_again_is_no_violation() {
    let (world, _) = World::run().await;
    for record in world.log.all_records("t.events") {
        world.log.append("t.events", Some(record.partition), record.key, record.headers, record.value).unwrap();
    }
    assert_eq!(world.checker().assert().repeats, 20);
}

#[tokio::test]
async fn i1_published_before_stored_or_answered_without_being_stored() {
    let (world, _) = World::run().await;
    world.append("t.events", "z", headers(Uuid::now_v7(), "z", Some(1), None));
    assert_eq!(world.violated(), ["I1"]);
    let (world, _) = World::run().await;
    let (_, found) = world.checker().acknowledged([Uuid::nil()]).check();
    assert_eq!(found.len(), 1);
    world.log.store_offset("t.commands", PartitionId(0), 1_000);
    assert_eq!(world.violated(), ["I1"], "by the watch and at the end");
}

#[tokio::test]
async fn i1_a_store_that_publishes_before_it_commits_is_found_out() {
    let world = World::new().await;
    world.store.publish_first(world.log.clone());
    world.send(Uuid::now_v7(), "a");
    world.work().await;
    world.relay().await;
    assert_eq!(world.violated(), ["I1"]);
}

#[tokio::test]
async fn i2_claimed_twice_or_caused_twice() {
    let (world, ids) = World::run().await;
    world.store.sabotage(|store| store.forgetful_claims = true);
    world.send(ids[0], "a");
    world.work().await;
    world.relay().await;
    let (_, found) = world.checker().check();
    assert_eq!(found.len(), 3, "twice, twice, and a ring that was written as if it had been empty: {found:?}");
    assert!(found.iter().all(|violation| violation.invariant == Invariant::Once));
}

#[tokio::test]
async fn i2_claim_neither_in_a_ring_nor_outside_of_it() {
    let (world, _) = World::run().await;
    world.plant(Invariant::Once, "is lost", |contents| _ = contents.rings.pop_first());
    let (world, _) = World::run().await;
    world.plant(Invariant::Once, "is lost", |contents| contents.pushed_out.clear());
}

#[tokio::test]
async fn i3_published_out_of_order() {
    let (world, _) = World::run().await;
    world.send(Uuid::now_v7(), "a");
    world.send(Uuid::now_v7(), "a");
    world.work().await;
    let p = sample::hash("a").home(PARTITIONS);
    let row = world.store.partition(p).unwrap();
    let mut rows = world.store.outbox(p, row.outbox_cursor, 10, usize::MAX).await.unwrap();
    rows.reverse();
    MemoryPublisher::new(world.log.node()).publish(rows.into()).await.unwrap();
    world.store.advance(&[Cursor::new(p, row.token.unwrap(), row.outbox_head)]).await.unwrap();
    assert_eq!(world.violated(), ["I3"]);
}

#[tokio::test]
async fn i4_committed_under_a_lost_fence() {
    let (world, _) = World::run().await;
    world.store.sabotage(|store| store.no_fence = true);
    let store: Arc<dyn Store> = Arc::new(world.store.clone());
    let mut owner = Owner::take(&store, [0]).await;
    owner.set_token(0, Token::draw());
    owner.commit(vec![entry(0, Writes::default())]).await.unwrap();
    assert_eq!(world.violated(), ["I4"]);
}

#[tokio::test]
async fn i7_consumed_without_a_trace() {
    let (world, _) = World::run().await;
    world.tamper(|contents| {
        contents.claims.drain().next();
        contents.dead_letters.clear();
    });
    assert_eq!(world.violated(), ["I7"]);
}

#[tokio::test]
async fn i8_left_over_or_not_in_agreement() {
    let (world, _) = World::run().await;
    world.send(Uuid::now_v7(), "a");
    assert_eq!(world.violated(), ["I8"], "not consumed");
    world.work().await;
    assert_eq!(world.violated(), ["I8"], "not published");
    world.relay().await;
    world.checker().assert();
    world.tamper(|contents| contents.states.values_mut().next().unwrap().version += 1);
    assert_eq!(world.violated(), ["I8"], "another version");
}

#[tokio::test]
async fn i10_two_events_at_one_version() {
    let (world, _) = World::run().await;
    let first = world.log.all_records("t.events").remove(0);
    let value = Some(Bytes::from_static(b"something else"));
    world.log.append("t.events", Some(first.partition), first.key, first.headers, value).unwrap();
    assert_eq!(world.violated(), ["I10"]);
}

/// The outbox rows of one aggregate's events.
fn rows_of<'a>(contents: &'a mut Contents, key: &str) -> Vec<&'a mut OutboxRow> {
    let is_of = |row: &&mut OutboxRow| row.draft.key.as_deref() == Some(key.as_bytes());
    contents.outbox.values_mut().filter(is_of).collect()
}

fn letter_row(contents: &mut Contents) -> &mut OutboxRow {
    let id = contents.dead_letters[0].id;
    contents.outbox.values_mut().find(|row| row.draft.id == id).unwrap()
}

#[tokio::test]
async fn i2_more_held_than_there_is_or_buried_twice() {
    let (world, _) = World::run().await;
    world.plant(Invariant::Once, "2 held of 1", |contents| {
        contents.pools.insert("stock".into(), Pool { total: 1, held: 2 });
    });
    world.plant(Invariant::Once, "is two dead letters", |contents| {
        contents.dead_letters.push(contents.dead_letters[0].clone());
    });
}

#[tokio::test]
async fn i3_gaps_strangers_and_swaps() {
    let (world, _) = World::run().await;
    world.plant(Invariant::Order, "outbox head", |contents| {
        contents.partitions.values_mut().next().unwrap().outbox_head += 1;
    });
    let (world, _) = World::run().await;
    world.plant(Invariant::Order, "row 2 after 0", |contents| {
        contents.outbox.pop_first();
    });
    let (world, _) = World::run().await;
    world.plant(Invariant::Order, "is at version 2, expected 1", |contents| {
        let rows = &mut rows_of(contents, "a")[..2];
        let (first, second) = rows.split_at_mut(1);
        std::mem::swap(&mut first[0].draft, &mut second[0].draft);
    });
    let (world, _) = World::run().await;
    world.append("t.events", "a", Headers::default());
    world.plant(Invariant::Order, "not an event", |_| {});
    world.append("t.events", "a", headers(Uuid::now_v7(), "a", None, None));
    world.plant(Invariant::Order, "no ce_sequence", |_| {});
}

#[tokio::test]
async fn i3_a_command_took_effect_before_one_that_lies_ahead_of_it() {
    let (world, _) = World::run().await;
    world.plant(Invariant::Order, "took effect after a later one", |contents| {
        let mut rows = rows_of(contents, "a");
        let cause = |row: &OutboxRow| Uuid::try_parse_ascii(row.draft.headers.get("ce_causationid").unwrap()).unwrap();
        let causes = (cause(rows[0]), cause(rows[1]));
        rows[0].draft.headers = headers(rows[0].draft.id, "a", Some(1), Some(causes.1));
        rows[1].draft.headers = headers(rows[1].draft.id, "a", Some(2), Some(causes.0));
    });
}

#[tokio::test]
async fn i7_a_dead_letter_without_its_record_or_with_other_bytes() {
    let (world, _) = World::run().await;
    world.plant(Invariant::NothingVanishes, "not the bytes that came", |contents| {
        letter_row(contents).draft.value = Some(Bytes::from_static(b"!"));
    });
    world.plant(Invariant::NothingVanishes, "no row for t.dlq", |contents| {
        letter_row(contents).draft.topic = "t.events".into();
    });
}

#[tokio::test]
async fn i7_known_id_with_other_body_is_no_repeat_and_mail_is_no_loss() {
    let (world, _) = World::run().await;
    let record = world.log.all_records("t.commands").into_iter().find(|record| record.offset == 3).unwrap();
    let id = Message::decode(&record).unwrap().id;
    let (place, lost) = (format!("{}@3 is consumed and left no trace", record.partition), Invariant::NothingVanishes);
    world.plant(lost, &place, |contents| {
        let claims = contents.claims.iter_mut().find(|(key, _)| key.id == id).unwrap().1;
        claims[0].body = Uuid::nil();
    });
    let mail = Mail {
        id: sample::id("a"),
        hash: sample::hash("a"),
        reason: Some(WaitReason::Retrying),
        attempts: 1,
        due: None,
        since: Timestamp::from_unix_ms(0),
        error: String::new(),
        record,
    };
    world.tamper(|contents| _ = contents.mailbox.insert(1, mail));
    assert!(world.checker().check().1.iter().all(|violation| !violation.detail.contains(&place)));
}

#[tokio::test]
async fn i7_foreign_events_count_as_applied_by_their_sequence() {
    let (world, _) = World::run().await;
    world.log.create_topic("other.events", PARTITIONS);
    world.append("other.events", "a", headers(Uuid::now_v7(), "a", Some(7), None));
    let home = sample::hash("a").home(PARTITIONS);
    world.tamper(|contents| {
        contents.partitions.get_mut(&home).unwrap().consumed.push(("other.events".into(), 1));
    });
    let lost = |handled: &[&str]| world.checker().reading("other.events", handled).check().1;
    assert_eq!(lost(&["t.v1.Other"]), [], "of no interest");
    assert_eq!(lost(&["t.v1.T"]).iter().map(|violation| violation.invariant.id()).collect::<Vec<_>>(), ["I7"]);
    world.tamper(|contents| {
        contents.states.get_mut(&sample::id("a")).unwrap().sources.insert("test".into(), 7);
    });
    assert_eq!(lost(&["t.v1.T"]), []);
}

#[tokio::test]
async fn i8_i10_published_elsewhere_or_otherwise_than_stored() {
    let (world, _) = World::run().await;
    world.plant(Invariant::Convergence, "is not in t.events-", |contents| {
        let target = &mut rows_of(contents, "a")[0].draft.target;
        *target = PartitionId(1 - target.0);
    });
    let (world, _) = World::run().await;
    world.plant(Invariant::OneHistory, "is not the event that the outbox has there", |contents| {
        rows_of(contents, "a")[0].draft.value = Some(Bytes::from_static(b"another"));
    });
}
