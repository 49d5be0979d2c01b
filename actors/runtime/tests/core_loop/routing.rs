//! Calls at any node: forwarded, redirected, bounded in hops and in looking for an owner, answered once.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use holdfast_core::{CallEnvelope, PartitionId, dedup::Answer, epoch::Epoch};
use holdfast_runtime::{
    Consistency, Local, PeerError, Peers, ReadAnswer, RouteError, Routed, Router,
    peers::{Answers, Forward, HOPS_MAX, Placement, Question},
    routing::Limits,
};
use tokio::time::Instant;

use crate::cluster::{Cluster, Member, PARTITIONS, TOPICS, call, eventually, home, within};

/// The network between the nodes of a test.
#[derive(Clone, Default)]
struct Network {
    nodes: Arc<Mutex<HashMap<String, Arc<dyn Local>>>>,
    faults: Arc<Faults>,
    /// Forwards so far: address and hop.
    forwards: Arc<Mutex<Vec<(String, u32)>>>,
    kept: Arc<Mutex<BTreeSet<Arc<str>>>>,
}

#[derive(Default)]
struct Faults {
    /// Addresses that can't be reached.
    gone: Mutex<BTreeSet<String>>,
    /// Addresses of nodes that take a call and never answer.
    paused: Mutex<BTreeSet<String>>,
    /// How many commands are to arrive and be done while their answers are lost.
    lose: AtomicU32,
    lost: AtomicU32,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Network {
    fn cut(&self, address: &str) {
        lock(&self.faults.gone).insert(address.to_owned());
    }

    fn forwards(&self) -> Vec<(String, u32)> {
        lock(&self.forwards).clone()
    }

    async fn reach(&self, address: &str, hop: u32) -> Result<Arc<dyn Local>, PeerError> {
        lock(&self.forwards).push((address.to_owned(), hop));
        assert!((1..=HOPS_MAX).contains(&hop), "hop {hop}");
        if lock(&self.faults.paused).contains(address) {
            std::future::pending::<()>().await;
        }
        if lock(&self.faults.gone).contains(address) {
            return Err(PeerError::Unreached("cut".into()));
        }
        let node = lock(&self.nodes).get(address).cloned();
        node.ok_or_else(|| PeerError::Unreached("no such node".into()))
    }
}

#[async_trait]
impl Peers for Network {
    async fn command(&self, address: &str, hop: u32, forward: &Forward) -> Result<Answer, PeerError> {
        let answer = self.reach(address, hop).await?.command_here(forward.clone()).await;
        let losing = |n: u32| n.checked_sub(1);
        if answer.is_ok() && self.faults.lose.fetch_update(Ordering::SeqCst, Ordering::SeqCst, losing).is_ok() {
            self.faults.lost.fetch_add(1, Ordering::SeqCst);
            return Err(PeerError::Lost("the answer is lost".into()));
        }
        answer
    }

    async fn read(&self, address: &str, hop: u32, question: Question<'_>) -> Result<Answers, PeerError> {
        Ok(self.reach(address, hop).await?.read_here(question).await)
    }

    fn keep(&self, addresses: &BTreeSet<Arc<str>>) {
        lock(&self.kept).clone_from(addresses);
    }

    fn time_left(&self) -> Option<Duration> {
        None
    }
}

/// A node that routes.
struct Routing {
    member: Member,
    routed: Arc<Routed>,
}

struct World {
    cluster: Cluster,
    network: Network,
}

impl World {
    fn new() -> Self {
        Self { cluster: Cluster::new(), network: Network::default() }
    }

    async fn start(&self, address: &str) -> Routing {
        self.start_with(address, Limits::default()).await
    }

    async fn start_with(&self, address: &str, limits: Limits) -> Routing {
        let member = self.cluster.start_with(|config| address.clone_into(&mut config.address)).await;
        let routed = Routed::new(member.node.clone(), Arc::new(self.network.clone()), address, limits);
        lock(&self.network.nodes).insert(address.to_owned(), routed.clone());
        Routing { member, routed }
    }

    /// A node `owner` that owns everything, and `other` that owns nothing.
    async fn pair(&self) -> (Routing, Routing) {
        let (owner, other) = (self.start("owner").await, self.start("other").await);
        self.give_all(&owner).await;
        (owner, other)
    }

    async fn give_all(&self, to: &Routing) {
        for partition in (0..PARTITIONS).map(PartitionId) {
            self.cluster.group.assign(partition, &to.member.membership);
        }
        self.owned(to, PARTITIONS as usize).await;
    }

    async fn owned(&self, by: &Routing, count: usize) {
        eventually("owned", || by.member.node.owned_partitions() == count).await;
    }

    /// As a crash: nobody hears of it but the group.
    fn crash(&self, node: &Routing, address: &str) {
        node.member.node.kill();
        self.network.cut(address);
        self.cluster.group.expel(&node.member.membership);
    }
}

impl Routing {
    async fn add(&self, key: &str, n: i64) -> Result<Answer, RouteError> {
        self.routed.command(call(key, "add", &n.to_string())).await
    }

    async fn read(&self, key: &str, consistency: Consistency, min_version: u64) -> Result<ReadAnswer, RouteError> {
        self.routed.read("counter", key, consistency, min_version).await
    }

    async fn strong(&self, key: &str) -> Result<ReadAnswer, RouteError> {
        self.read(key, Consistency::Strong, 0).await
    }
}

fn version(answer: &Result<Answer, RouteError>) -> u64 {
    match answer {
        Ok(Answer::Applied { version, .. }) => *version,
        other => panic!("not applied: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_at_any_node_is_answered_by_the_owner() {
    let world = World::new();
    let (owner, other) = world.pair().await;
    for n in 1..=10 {
        assert_eq!(version(&other.add("a", 1).await), n);
        let read = other.strong("a").await.unwrap();
        assert_eq!((read.version, read.strong, &*read.body), (n, true, n.to_string().as_bytes()));
        assert_eq!(owner.strong("a").await.unwrap(), read);
    }
    let rejected = other.add("a", 0).await.unwrap();
    assert!(matches!(&rejected, Answer::Rejected { version: 10, rejection } if rejection.code == "NOTHING_TO_ADD"));
    // What is malformed does not travel.
    let forwards = world.network.forwards().len();
    assert!(matches!(other.add("a", -1).await, Err(RouteError::Refused(_))));
    assert_eq!(world.network.forwards().len(), forwards);
    assert!(world.network.forwards().iter().all(|forward| *forward == ("owner".to_owned(), 1)));
    assert_eq!(forwards, 21, "one hop each, and none from the owner");
    assert_eq!(other.routed.table_reads(), 1);
    assert_eq!(lock(&world.network.kept).iter().map(|address| &**address).collect::<Vec<_>>(), ["owner"]);
    world.cluster.assert_converged().await;
}

#[tokio::test(start_paused = true)]
async fn what_the_owner_says_arrives_and_is_not_asked_again() {
    let world = World::new();
    let (_owner, other) = world.pair().await;
    let first = call("a", "add", "1");
    let answer = other.routed.command(first.clone()).await.unwrap();
    assert_eq!(other.routed.command(first.clone()).await.unwrap(), answer, "the first answer");
    let reused = CallEnvelope { payload: "2".into(), ..first };
    assert_eq!(other.routed.command(reused).await, Err(RouteError::Reused));
    world.cluster.oracle.is_away.store(true, Ordering::SeqCst);
    assert!(matches!(other.routed.command(call("a", "ask", "")).await, Err(RouteError::Downstream(_))));
    assert_eq!(other.routed.command(call("a", "panic", "")).await, Err(RouteError::Failed));
    let stale = other.read("a", Consistency::Strong, 2).await;
    assert_eq!(stale, Err(RouteError::Stale(1)));
    assert_eq!(world.network.forwards().len(), 6, "one forward for each");
}

#[tokio::test(start_paused = true)]
async fn min_version_is_waited_for_at_the_owner() {
    let world = World::new();
    let (owner, other) = world.pair().await;
    owner.add("a", 1).await.unwrap();
    let (routed, later) = (other.routed.clone(), Duration::from_millis(700));
    let reading = tokio::spawn(async move { routed.read("counter", "a", Consistency::Strong, 2).await });
    tokio::time::sleep(later).await;
    assert!(!reading.is_finished());
    owner.add("a", 1).await.unwrap();
    assert_eq!(reading.await.unwrap().unwrap().version, 2);
}

#[tokio::test(start_paused = true)]
async fn refusal_naming_the_new_owner_leads_there_without_table_read() {
    let world = World::new();
    let third = world.start("third").await;
    let (first, second) = world.pair().await;
    third.add("a", 1).await.unwrap();
    let reads = third.routed.table_reads();
    world.give_all(&second).await;
    // The first node looks, as anyone who asks it makes it do.
    first.add("a", 1).await.unwrap();
    lock(&world.network.forwards).clear();
    assert_eq!(version(&third.add("a", 1).await), 3);
    assert_eq!(world.network.forwards(), [("owner".to_owned(), 1), ("other".to_owned(), 2)]);
    assert_eq!(third.routed.table_reads(), reads);
    assert_eq!(world.cluster.sum("a"), Some(3));
}

#[tokio::test(start_paused = true)]
async fn refusal_naming_no_owner_leads_to_it_by_one_table_read() {
    let world = World::new();
    let third = world.start("third").await;
    let (_first, second) = world.pair().await;
    third.add("a", 1).await.unwrap();
    let reads = third.routed.table_reads();
    world.give_all(&second).await;
    lock(&world.network.forwards).clear();
    assert_eq!(version(&third.add("a", 1).await), 2);
    assert_eq!(world.network.forwards(), [("owner".to_owned(), 1), ("other".to_owned(), 2)], "in one attempt");
    assert_eq!(third.routed.table_reads(), reads + 1);
}

#[tokio::test(start_paused = true)]
async fn refusal_naming_an_older_or_foreign_owner_is_not_followed() {
    let world = World::new();
    let (_owner, other) = world.pair().await;
    other.add("a", 1).await.unwrap();
    // Older, or of another partition, whose terms say nothing.
    for (partition, first) in [(home("a"), 0), (PartitionId(home("a").0 + PARTITIONS), 1_000_000)] {
        let liar = Liar { partition, other: "nowhere", first, term: Arc::default() };
        lock(&world.network.nodes).insert("owner".to_owned(), Arc::new(liar));
        assert!(matches!(other.add("a", 1).await, Err(RouteError::NotOwner(_))));
        assert!(world.network.forwards().iter().all(|(to, hop)| to == "owner" && *hop == 1));
    }
}

/// A node that takes another for the owner, and says so with ever higher terms.
struct Liar {
    partition: PartitionId,
    other: &'static str,
    first: u64,
    term: Arc<AtomicU32>,
}

#[async_trait]
impl Local for Liar {
    async fn command_here(&self, _: Forward) -> Result<Answer, PeerError> {
        let epoch = Epoch(self.first + u64::from(self.term.fetch_add(u32::from(self.first > 0), Ordering::SeqCst)));
        let owner = Some(Placement { partition: self.partition, address: self.other.into(), epoch });
        Err(PeerError::NotOwner { reason: "it is the other one".into(), owner })
    }

    async fn read_here(&self, question: Question<'_>) -> Answers {
        let forward = Forward { call: call("a", "add", "1"), seal: Bytes::new() };
        let refusal = self.command_here(forward).await.expect_err("a liar");
        question.keys.iter().map(|_| Err(refusal.clone())).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn nodes_that_point_at_each_other_end_after_two_hops_an_attempt() {
    let world = World::new();
    let (_owner, other) = world.pair().await;
    let term = Arc::new(AtomicU32::new(0));
    for (address, points_at) in [("owner", "liar"), ("liar", "owner")] {
        let liar = Liar { partition: home("a"), other: points_at, first: 1_000_000, term: term.clone() };
        lock(&world.network.nodes).insert(address.to_owned(), Arc::new(liar));
    }
    let begun = Instant::now();
    let answer = within("it ends", other.add("a", 1)).await;
    assert!(matches!(answer, Err(RouteError::NotOwner(_))), "{answer:?}");
    assert!(begun.elapsed() <= Limits::default().patience);
    let forwards = world.network.forwards();
    let attempts = forwards.iter().filter(|(_, hop)| *hop == 1).count();
    assert!(forwards.len() <= 2 * attempts && attempts <= 40, "{forwards:?}");
    let turns = forwards.windows(2).filter(|pair| pair[0].1 == 1 && pair[1].1 == 2);
    assert!(turns.clone().count() > 1, "the redirection is followed: {forwards:?}");
    assert!(turns.clone().all(|pair| pair[0].0 != pair[1].0), "{forwards:?}");
    assert!(matches!(other.strong("a").await, Err(RouteError::NotOwner(_))));
    assert_eq!(world.cluster.sum("a"), None);
}

#[tokio::test(start_paused = true)]
async fn stale_tables_on_both_sides_end_at_the_true_owner() {
    let world = World::new();
    let third = world.start("third").await;
    let (first, second) = world.pair().await;
    // Each of the two believes the other to own everything: what they knew before it went to the third.
    second.add("a", 1).await.unwrap();
    world.give_all(&second).await;
    first.add("a", 1).await.unwrap();
    world.give_all(&third).await;
    lock(&world.network.forwards).clear();
    assert_eq!(version(&first.add("a", 1).await), 3);
    assert_eq!(version(&second.add("a", 1).await), 4);
    let forwards = world.network.forwards();
    assert!(forwards.iter().all(|(_, hop)| *hop <= HOPS_MAX) && forwards.len() <= 4, "{forwards:?}");
    assert_eq!(world.cluster.sum("a"), Some(4));
}

#[tokio::test(start_paused = true)]
async fn command_whose_owner_dies_before_answering_has_one_effect() {
    let world = World::new();
    let patient = Limits { patience: Duration::from_secs(30), ..Limits::default() };
    let (owner, other) = (world.start("owner").await, world.start_with("other", patient).await);
    world.give_all(&owner).await;
    other.add("a", 1).await.unwrap();
    // Done, but nobody hears of it.
    world.network.faults.lose.store(1_000, Ordering::SeqCst);
    let message = call("a", "add", "10");
    let (routed, sent) = (other.routed.clone(), message.clone());
    let waiting = tokio::spawn(async move { routed.command(sent).await });
    eventually("committed there", || world.network.faults.lost.load(Ordering::SeqCst) > 0).await;
    assert_eq!(world.cluster.sum("a"), Some(11));
    world.crash(&owner, "owner");
    let answer = within("answered by the successor", waiting).await.unwrap();
    assert_eq!(version(&answer), 2, "the first answer");
    assert_eq!(other.routed.command(message).await, answer);
    assert_eq!(version(&other.add("a", 100).await), 3);
    world.cluster.assert_converged().await;
    assert_eq!(world.cluster.sum("a"), Some(111));
}

#[tokio::test(start_paused = true)]
async fn ownerless_partition_answers_local_and_refuses_strong_reads() {
    let world = World::new();
    let patience = Duration::from_secs(2);
    let owner = world.start("owner").await;
    let other = world.start_with("other", Limits { patience, ..Limits::default() }).await;
    world.give_all(&owner).await;
    owner.add("a", 1).await.unwrap();
    world.crash(&owner, "owner");
    // The other one is written down as the owner soon, and must wait out what is left of the lease.
    eventually("taken", || world.cluster.store.partition(home("a")).is_some_and(|row| row.address == "other")).await;
    let begun = Instant::now();
    let forwards = world.network.forwards().len();
    while other.member.node.owned_partitions() == 0 {
        let local = other.read("a", Consistency::Local, 1).await.unwrap();
        assert_eq!((local.version, local.strong), (1, false));
        tokio::time::sleep(Duration::from_millis(100)).await;
        if begun.elapsed() < Duration::from_millis(150) {
            let strong = other.strong("a").await;
            assert!(matches!(strong, Err(RouteError::NotOwner(_) | RouteError::Unavailable { .. })), "{strong:?}");
            assert!(begun.elapsed() >= patience, "it did not wait");
        }
    }
    assert!(begun.elapsed() >= Duration::from_secs(3));
    let asked: Vec<_> = world.network.forwards().into_iter().skip(forwards).filter(|(to, _)| to == "other").collect();
    assert_eq!(asked, [], "it does not ask itself over the network");
    let strong = other.strong("a").await.unwrap();
    assert_eq!((strong.version, strong.strong), (1, true));
}

#[tokio::test(start_paused = true)]
async fn owner_with_ended_lease_refuses_forwarded_strong_read() {
    let world = World::new();
    let (owner, other) = world.pair().await;
    owner.add("a", 1).await.unwrap();
    assert_eq!(other.strong("a").await.unwrap().version, 1);
    // It can't renew, and nobody takes over: it is still the owner by the table.
    owner.member.store.set_unavailable(true);
    tokio::time::sleep(Duration::from_secs(6)).await;
    lock(&world.network.forwards).clear();
    let refused = other.strong("a").await;
    assert!(matches!(refused, Err(RouteError::NotOwner(_))), "{refused:?}");
    assert!(world.network.forwards().iter().any(|(to, _)| to == "owner"), "it was asked");
    let many = other.routed.read_many("counter", &["a".into()]).await;
    assert!(matches!(&many[..], [Err(RouteError::NotOwner(_))]), "{many:?}");
    owner.member.store.set_unavailable(false);
    eventually("renewed", || owner.member.node.owned_partitions() == PARTITIONS as usize).await;
    within("answered again", async { while other.strong("a").await.is_err() {} }).await;
}

#[tokio::test(start_paused = true)]
async fn a_hand_over_in_good_order_is_no_error_to_any_caller_anywhere() {
    let world = World::new();
    let (first, second) = world.pair().await;
    let third = world.start("third").await;
    let done = Arc::new(AtomicBool::new(false));
    let mut callers = Vec::new();
    for (n, routed) in
        [&first, &second, &third].map(|node| node.routed.clone()).into_iter().cycle().take(30).enumerate()
    {
        let done = done.clone();
        callers.push(tokio::spawn(async move {
            let mut sent = 0;
            while !done.load(Ordering::SeqCst) {
                let key = format!("k{}", n % 7);
                routed.command(call(&key, "add", "1")).await.unwrap_or_else(|error| panic!("caller {n}: {error}"));
                routed.read("counter", &key, Consistency::Strong, 1).await.expect("read");
                sent += 1;
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
            sent
        }));
    }
    for to in [&second, &third, &first] {
        tokio::time::sleep(Duration::from_millis(200)).await;
        world.give_all(to).await;
    }
    first.member.node.stop().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    done.store(true, Ordering::SeqCst);
    let mut sent = 0;
    for caller in callers {
        sent += within("ends", caller).await.unwrap();
    }
    assert!(sent > 100, "{sent}");
    world.cluster.assert_converged().await;
    assert_eq!((0..7).filter_map(|k| world.cluster.sum(&format!("k{k}"))).sum::<i64>(), sent);
}

#[tokio::test(start_paused = true)]
async fn calls_reach_owners_while_partitions_grow_and_apply_once() {
    let world = World::new();
    let nodes = [world.start("first").await, world.start("second").await, world.start("third").await];
    let owned = || nodes.iter().map(|node| node.member.node.owned_partitions()).sum::<usize>();
    eventually("shared", || owned() == PARTITIONS as usize).await;
    let done = Arc::new(AtomicBool::new(false));
    let callers = nodes.iter().cycle().take(30).enumerate().map(|(n, node)| {
        let (routed, done) = (node.routed.clone(), done.clone());
        tokio::spawn(async move {
            let mut sent = 0;
            while !done.load(Ordering::SeqCst) {
                let message = call(&format!("k{n}"), "add", "1");
                // As a client does: again, with the same id.
                while let Err(error) = routed.command(message.clone()).await {
                    assert!(matches!(error, RouteError::NotOwner(_) | RouteError::Unavailable { .. }), "{error}");
                }
                sent += 1;
                let read = routed.read("counter", &message.key, Consistency::Strong, 0).await;
                assert!(read.is_err() || read.as_ref().is_ok_and(|read| read.version == sent), "{sent}: {read:?}");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            sent
        })
    });
    let callers: Vec<_> = callers.collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    for topic in TOPICS {
        world.cluster.grow(topic, PARTITIONS * 2);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let grown = |node: &Routing| node.member.node.partition_count() == PARTITIONS * 2;
    eventually("grown", || nodes.iter().all(grown) && owned() == PARTITIONS as usize * 2).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    done.store(true, Ordering::SeqCst);
    for (n, caller) in callers.into_iter().enumerate() {
        let sent = within("ends", caller).await.unwrap();
        let key = format!("k{n}");
        assert_eq!((world.cluster.version(&key), world.cluster.sum(&key)), (sent, i64::try_from(sent).ok()), "{key}");
        for node in &nodes {
            assert_eq!(node.strong(&key).await.unwrap().version, sent);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn thousand_ownerless_calls_read_table_a_few_times_a_second() {
    let world = World::new();
    let (owner, other) = world.pair().await;
    other.add("a", 1).await.unwrap();
    world.crash(&owner, "owner");
    let (begun, before) = (Instant::now(), other.routed.table_reads());
    let calls: Vec<_> = (0..1_000)
        .map(|n| {
            let routed = other.routed.clone();
            tokio::spawn(async move { routed.command(call(&format!("k{n}"), "add", "1")).await })
        })
        .collect();
    for call in calls {
        assert!(within("ends", call).await.unwrap().is_err());
    }
    let (took, reads) = (begun.elapsed(), other.routed.table_reads() - before);
    assert!(took <= Limits::default().patience * 2, "{took:?}");
    let most = took.as_millis() / Limits::default().refresh_every.as_millis() + 1;
    assert!(u128::from(reads) <= most, "{reads} reads in {took:?}");
}

#[tokio::test(start_paused = true)]
async fn call_waiting_for_a_paused_node_goes_to_its_successor() {
    let world = World::new();
    let (owner, other) = world.pair().await;
    let third = world.start("third").await;
    third.add("a", 1).await.unwrap();
    lock(&world.network.faults.paused).insert("owner".to_owned());
    let patient = Limits { patience: Duration::from_mins(1), ..Limits::default() };
    let routed = Routed::new(third.member.node.clone(), Arc::new(world.network.clone()), "third", patient);
    assert_eq!(routed.read("counter", "a", Consistency::Local, 0).await.unwrap().version, 1);
    let waiting = tokio::spawn(async move { routed.command(call("a", "add", "10")).await });
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(!waiting.is_finished());
    owner.member.store.set_unavailable(true);
    owner.member.membership.set_deaf(true);
    world.cluster.group.expel(&owner.member.membership);
    world.give_all(&other).await;
    assert_eq!(version(&within("answered", waiting).await.unwrap()), 2);
    assert_eq!(world.cluster.sum("a"), Some(11));
}

#[tokio::test(start_paused = true)]
async fn many_are_read_with_one_question_for_each_owner() {
    let world = World::new();
    let (first, second, third) = (world.start("first").await, world.start("second").await, world.start("third").await);
    for (node, partitions) in [(&first, [0, 1]), (&second, [2, 3])] {
        for partition in partitions {
            world.cluster.group.assign(PartitionId(partition), &node.member.membership);
        }
    }
    world.owned(&first, 2).await;
    world.owned(&second, 2).await;
    let keys: Vec<Arc<str>> = (0..40).map(|n| format!("k{n}").into()).collect();
    assert_eq!(keys.iter().map(|key| home(key)).collect::<BTreeSet<_>>().len(), 4);
    for (key, n) in keys.iter().zip(1_i64..).skip(1) {
        third.add(key, n).await.unwrap();
    }
    lock(&world.network.forwards).clear();
    let answers = third.routed.read_many("counter", &keys).await;
    let mut forwards = world.network.forwards();
    forwards.sort();
    assert_eq!(forwards, [("first".to_owned(), 1), ("second".to_owned(), 1)]);
    let body = |answer: &Result<ReadAnswer, RouteError>| {
        let answer = answer.as_ref().unwrap();
        assert!(answer.strong);
        (answer.exists, String::from_utf8(answer.body.to_vec()).unwrap())
    };
    let expected = (1..=40).map(|n| if n == 1 { (false, "0".to_owned()) } else { (true, n.to_string()) });
    assert_eq!(answers.iter().map(body).collect::<Vec<_>>(), expected.collect::<Vec<_>>());

    // An owner that is gone costs its keys an answer once its partitions are somewhere else, and the others
    // nothing.
    world.crash(&first, "first");
    let answers = third.routed.read_many("counter", &keys).await;
    let by_home: BTreeMap<bool, usize> = keys.iter().zip(&answers).fold(BTreeMap::new(), |mut by, (key, answer)| {
        assert!(home(key).0 < 2 || answer.is_ok(), "{key}: {answer:?}");
        *by.entry(answer.is_ok()).or_default() += 1;
        by
    });
    assert!(by_home[&true] > 0);
    third.member.node.kill();
}
