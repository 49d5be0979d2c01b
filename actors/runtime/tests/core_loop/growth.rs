//! Partitions that grow while everything runs (I3, I5, I7), seeded: on top of [`crate::simulation`]'s faults,
//! topics grow twice, one after the other, under producers with other hashes and stale metadata, under
//! another context's relays that move in their own time, and with gaps in the log.
//!
//! What it checks beyond: no record of a producer and key takes effect out of its order, none is lost or
//! doubled; all transitions end, and all homes are where the last count puts them.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use holdfast_core::{KeyHash, PartitionId, envelope::EnvelopeOut};
use holdfast_testkit::Dice;
use tokio::time::Instant;
use uuid::Uuid;

use crate::{
    cluster::{Cluster, PARTITIONS, TOPICS, eventually, headers, text},
    simulation::{How, Run, run},
};

/// The count at the beginning of a run that grows.
pub const FIRST: u32 = 2;
/// As configured on all nodes.
pub const PRODUCERS_MAX_AGE: Duration = Duration::from_secs(5);
/// Producers ask for the count again after this time: their metadata's age. What is sent is acknowledged at
/// once.
const METADATA_MAX_AGE: Duration = Duration::from_secs(4);
const KEYS: u64 = 8;
const RUNS: u64 = 150;

/// Sends one record after the other for each key, by the count it last heard of.
struct Producer {
    hash: fn(&str) -> u32,
    count: u32,
    heard: Instant,
    sent: BTreeMap<String, Vec<Uuid>>,
}

/// What grows, and who sends meanwhile.
pub struct Growing {
    producers: Vec<Producer>,
    /// Counts still to come, and for each which topics have it already.
    steps: Vec<(u32, Vec<&'static str>)>,
    /// The count by which the other context addresses its events, and its versions.
    other: u32,
    versions: BTreeMap<String, u64>,
    foreign: Vec<Uuid>,
}

fn murmur2(key: &str) -> u32 {
    KeyHash::of(key.as_bytes()).get()
}

/// Fowler, Noll and Vo's: any hash that is not murmur2 will do.
fn fnv(key: &str) -> u32 {
    key.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

impl Growing {
    pub fn new(steps: &[u32]) -> Self {
        let producer = |hash| Producer { hash, count: FIRST, heard: Instant::now(), sent: BTreeMap::new() };
        Self {
            producers: vec![producer(murmur2), producer(murmur2), producer(fnv)],
            steps: steps.iter().map(|count| (*count, Vec::new())).collect(),
            other: FIRST,
            versions: BTreeMap::new(),
            foreign: Vec::new(),
        }
    }
}

/// Offsets without a record, as a transaction marker takes one.
fn leave_gap(cluster: &Cluster, dice: &mut Dice) {
    let topic = dice.pick(&TOPICS);
    let partition = dice.below(cluster.log.partitions(topic).into());
    let partition = PartitionId(u32::try_from(partition).expect("small"));
    cluster.log.skip_offsets(topic, partition, 1 + dice.below(2));
}

fn any_key(dice: &mut Dice) -> String {
    format!("g{}", dice.below(KEYS))
}

impl Run {
    /// Something that has to do with growth.
    pub fn growth_step(&mut self) {
        let Some(mut growing) = self.growing.take() else { return };
        match self.dice.below(13) {
            0..6 => growing.produce(&self.cluster, &mut self.dice),
            6..9 => growing.relay(&self.cluster, &mut self.dice),
            9 => growing.move_relays(&self.cluster),
            10 => growing.refresh(&self.cluster, &mut self.dice),
            11 => leave_gap(&self.cluster, &mut self.dice),
            _ => growing.grow(&self.cluster, &mut self.dice),
        }
        self.growing = Some(growing);
    }

    /// Grows what has not grown, and lets everybody know of it.
    pub fn finish_growth(&mut self) {
        let Some(mut growing) = self.growing.take() else { return };
        while !growing.steps.is_empty() {
            growing.grow(&self.cluster, &mut self.dice);
        }
        growing.move_relays(&self.cluster);
        // What waits for all that was written must not wait for a record there.
        for topic in TOPICS {
            for partition in 0..self.cluster.log.partitions(topic) {
                self.cluster.log.skip_offsets(topic, PartitionId(partition), 1);
            }
        }
        self.growing = Some(growing);
    }

    /// The ids of all that the producers here have sent.
    pub fn grown(&self) -> BTreeSet<String> {
        let producers = self.growing.iter().flat_map(|growing| &growing.producers);
        producers.flat_map(|producer| producer.sent.values().flatten().map(Uuid::to_string)).collect()
    }

    /// What went wrong with growth.
    pub fn check_growth(&self) -> Vec<String> {
        let Some(growing) = &self.growing else { return Vec::new() };
        let mut wrong = Vec::new();
        let causes = causes(&self.cluster);
        for producer in &growing.producers {
            for (key, sent) in &producer.sent {
                let effects: Vec<Uuid> =
                    causes.get(key).into_iter().flatten().filter(|cause| sent.contains(cause)).copied().collect();
                if effects != *sent {
                    wrong.push(format!("I3: {key}: sent {sent:?}, took effect as {effects:?}"));
                }
            }
        }
        for id in &growing.foreign {
            let n = causes.values().flatten().filter(|cause| *cause == id).count();
            if n != 1 {
                wrong.push(format!("I2: an event of another context had {n} effects"));
            }
        }
        let growth = self.cluster.store.contents().growth(Instant::now());
        for (topic, counts) in &growth.topics {
            if counts.oldest_in_transition().is_some() || counts.count() != self.cluster.log.partitions(topic) {
                wrong.push(format!("I8: the transition of {topic} has not ended: {counts:?}"));
            }
        }
        let (generation, count) = growth.current();
        if count != self.cluster.log.partitions("counter.commands") {
            wrong.push(format!("I8: {count} is in force"));
        }
        if growth.rows.iter().any(|row| row.generation != generation) {
            wrong.push("I8: some row is of an older generation".into());
        }
        wrong
    }
}

/// Which messages had an effect on each key, in order.
fn causes(cluster: &Cluster) -> BTreeMap<String, Vec<Uuid>> {
    let mut causes: BTreeMap<String, BTreeMap<u64, Uuid>> = BTreeMap::new();
    for record in cluster.log.all_records("counter.events").iter().filter(|record| record.key.is_some()) {
        let version = text(record, "ce_sequence").parse().expect("a number");
        let cause = text(record, "ce_causationid").parse().expect("an id");
        causes.entry(text(record, "ce_subject")).or_default().insert(version, cause);
    }
    causes.into_iter().map(|(key, by_version)| (key, by_version.into_values().collect())).collect()
}

impl Growing {
    /// A few records of one producer, one after the other for a key; now and then it hears of another count
    /// on the way.
    fn produce(&mut self, cluster: &Cluster, dice: &mut Dice) {
        let at = dice.index(self.producers.len());
        let producer = &mut self.producers[at];
        if producer.heard.elapsed() >= METADATA_MAX_AGE {
            producer.hear(cluster);
        }
        for _ in 0..=dice.below(3) {
            let key = any_key(dice);
            for _ in 0..=dice.below(3) {
                producer.send(cluster, &key, 1 + dice.below(9));
                if dice.one_in(6) {
                    producer.hear(cluster);
                }
            }
        }
    }

    fn refresh(&mut self, cluster: &Cluster, dice: &mut Dice) {
        let at = dice.index(self.producers.len());
        self.producers[at].hear(cluster);
    }

    /// Events of the other context, each to where its relay has its home by now.
    fn relay(&mut self, cluster: &Cluster, dice: &mut Dice) {
        for _ in 0..=dice.below(4) {
            let key = any_key(dice);
            let version = self.versions.entry(key.clone()).or_default();
            *version += 1;
            let id = Uuid::now_v7();
            let headers = headers(id, &key, "other.added", "holdfast/other/other", Some(*version));
            let partition = PartitionId(murmur2(&key) % self.other);
            let (key, value) = (Bytes::from(key), Bytes::from_static(b"1"));
            let sent = cluster.log.append("other.events", Some(partition), Some(key), headers, Some(value));
            sent.expect("the partition exists");
            self.foreign.push(id);
        }
    }

    /// The other context's homes move, if its topic has grown: each says so in its partition.
    fn move_relays(&mut self, cluster: &Cluster) {
        let count = cluster.log.partitions("other.events");
        if count == self.other {
            return;
        }
        for partition in 0..count {
            let r#type = "holdfast.runtime.v1.PartitionsGrown";
            let time = holdfast_core::Timestamp::from_unix_ms(0);
            let headers = EnvelopeOut::new(Uuid::now_v7(), "holdfast/other", r#type, time, "").headers();
            let value = Bytes::from(vec![0x08, u8::try_from(count).expect("small")]);
            let sent = cluster.log.append("other.events", Some(PartitionId(partition)), None, headers, Some(value));
            sent.expect("the partition exists");
        }
        self.other = count;
    }

    /// The next topic grows.
    fn grow(&mut self, cluster: &Cluster, dice: &mut Dice) {
        let Some((count, grown)) = self.steps.first_mut() else { return };
        let left: Vec<&'static str> = TOPICS.into_iter().filter(|topic| !grown.contains(topic)).collect();
        let topic = dice.pick(&left);
        cluster.grow(topic, *count);
        grown.push(topic);
        if grown.len() == TOPICS.len() {
            self.steps.remove(0);
        }
    }
}

impl Producer {
    fn send(&mut self, cluster: &Cluster, key: &str, n: u64) {
        let (id, partition) = (Uuid::now_v7(), PartitionId((self.hash)(key) % self.count));
        let (bytes, value) = (Bytes::from(key.to_owned()), Bytes::from(n.to_string()));
        let headers = headers(id, key, "add", "grower", None);
        let sent = cluster.log.append("counter.commands", Some(partition), Some(bytes), headers, Some(value));
        sent.expect("the partition exists");
        self.sent.entry(key.to_owned()).or_default().push(id);
    }

    fn hear(&mut self, cluster: &Cluster) {
        (self.count, self.heard) = (cluster.log.partitions("counter.commands"), Instant::now());
    }
}

/// Ways of growing; the seed says which.
const WAYS: [&[u32]; 4] = [&[4], &[4, 8], &[6], &[2 * FIRST, 6 * FIRST]];

pub fn way(seed: u64) -> &'static [u32] {
    WAYS[usize::try_from(seed).expect("small") % WAYS.len()]
}

#[test]
fn growth_under_faults_keeps_order_and_loses_nothing() {
    let only = std::env::var("HOLDFAST_SEED").ok().map(|seed| seed.parse::<u64>().expect("a number"));
    let (first, last) = only.map_or((0, RUNS), |seed| (seed, seed + 1));
    let mut events = 0;
    for seed in first..last {
        let how = How { grows: Some(way(seed)), ..How::default() };
        let counts =
            run(seed, how, |_| {}).unwrap_or_else(|wrong| panic!("seed {seed} (HOLDFAST_SEED={seed}):\n{wrong}"));
        events += counts.events;
    }
    assert!(only.is_some() || events > 10_000, "too tame: {events} events");
}

/// An operator grows topics by Kafka's own tools, one now and the others later: meanwhile everything goes on.
/// Homes that only the grown topic has are owned, so that its records are read; what they say goes nowhere
/// that is not there yet.
#[tokio::test(start_paused = true)]
async fn a_topic_that_has_grown_before_the_others_holds_up_nothing() {
    for early in ["other.events", "counter.commands"] {
        let cluster = Cluster::new();
        let member = cluster.start().await;
        let in_force = || cluster.store.contents().growth(Instant::now()).current().1;
        let grow_all = |to| {
            for topic in TOPICS {
                cluster.grow(topic, to);
            }
        };
        let send = || {
            for n in 0..50 {
                cluster.send(&format!("k{n}"), "add", "1");
            }
        };
        grow_all(2 * PARTITIONS);
        eventually("twice as many homes are in force", || in_force() == 2 * PARTITIONS).await;
        cluster.grow(early, 4 * PARTITIONS);
        eventually("every home is owned", || member.node.owned_partitions() == 4 * PARTITIONS as usize).await;
        send();
        let is_done = || cluster.is_at_rest() && cluster.events().len() == 50;
        eventually(&format!("with {early} grown alone, all that is said is published"), is_done).await;
        assert_eq!(in_force(), 2 * PARTITIONS, "a count is in force of which not all topics are");
        grow_all(4 * PARTITIONS);
        let grown = Instant::now();
        send();
        eventually("what is sent to new partitions is published", || cluster.is_at_rest()).await;
        let took = grown.elapsed();
        assert!(
            took < Duration::from_secs(3),
            "with {early} grown before, what was sent to new partitions took {took:?}"
        );
        eventually("four times as many homes are in force", || in_force() == 4 * PARTITIONS).await;
        cluster.assert_converged().await;
    }
}
