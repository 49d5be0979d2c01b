//! Membership: partitions are shared, handed over, confirmed and given back.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use holdfast_core::{
    partition::PartitionId,
    port::log::{Log, Membership},
};
use holdfast_kafka::{GroupProtocol, KafkaAdmin, KafkaConfig, KafkaLog, KafkaMembership};

use crate::{
    log::committed,
    rig::{broker, context, fill, next, number, open, patiently, until},
};

/// Follows a member's assignment, as the runtime does.
fn follow(member: Arc<KafkaMembership>) -> tokio::sync::watch::Receiver<BTreeSet<PartitionId>> {
    let (tell, assignment) = tokio::sync::watch::channel(BTreeSet::new());
    tokio::spawn(async move {
        while let Ok(now) = member.changed().await {
            if tell.send(now).is_err() {
                return;
            }
        }
    });
    assignment
}

fn partitions(count: u32) -> BTreeSet<PartitionId> {
    (0..count).map(PartitionId).collect()
}

fn member(config: &KafkaConfig) -> Arc<KafkaMembership> {
    Arc::new(KafkaMembership::join(config).expect("join"))
}

async fn two_members_share_and_hand_over(protocol: GroupProtocol) {
    let config = KafkaConfig { group_protocol: protocol, ..context(broker().await.brokers(), 6).await };
    let first = member(&config);
    let a = follow(Arc::clone(&first));
    until("the first has all", async || *a.borrow() == partitions(6)).await;
    assert!(first.joined());
    for partition in partitions(6) {
        assert!(first.confirm(partition).await);
    }
    assert!(!first.confirm(PartitionId(6)).await, "not its own");

    let second = member(&config);
    let b = follow(Arc::clone(&second));
    until("they share", async || {
        let (a, b) = (a.borrow().clone(), b.borrow().clone());
        a.len() == 3 && b.len() == 3 && a.union(&b).count() == 6
    })
    .await;
    let (mine, theirs) = (a.borrow().clone(), b.borrow().clone());
    for partition in partitions(6) {
        assert_eq!(first.confirm(partition).await, mine.contains(&partition), "{partition}");
        assert_eq!(second.confirm(partition).await, theirs.contains(&partition), "{partition}");
    }

    patiently(first.leave()).await;
    assert!(!first.joined());
    assert!(!first.confirm(PartitionId(0)).await);
    until("the second has all", async || *b.borrow() == partitions(6)).await;
    for partition in partitions(6) {
        assert!(second.confirm(partition).await);
    }
    patiently(second.leave()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_classic_members_share_and_hand_over() {
    two_members_share_and_hand_over(GroupProtocol::Classic).await;
}

/// KIP-848: refused by the broker if the client brought its own assignor or session timeout.
#[tokio::test(flavor = "multi_thread")]
async fn two_members_by_the_consumer_protocol_share_and_hand_over() {
    two_members_share_and_hand_over(GroupProtocol::Consumer).await;
}

/// The session outlasts the test's patience: only a member that says that it leaves is replaced in time.
/// Closing a consumer too soon after it unsubscribed kept librdkafka from saying so, about every other time.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_leaves_is_replaced_before_its_session_ends() {
    let quick = [("heartbeat.interval.ms".to_owned(), "200".to_owned())].into();
    let config = context(broker().await.brokers(), 6).await;
    let config = KafkaConfig { session_timeout: Duration::from_mins(4), properties: quick, ..config };
    let stays = member(&config);
    let a = follow(Arc::clone(&stays));
    for round in 0..8 {
        until("the one that stays has all", async || *a.borrow() == partitions(6)).await;
        let leaves = member(&config);
        let b = follow(Arc::clone(&leaves));
        until("they share", async || a.borrow().len() == 3 && b.borrow().len() == 3).await;
        // A commit is on its way when it leaves.
        for partition in b.borrow().iter() {
            leaves.store_offset(*partition, round);
        }
        patiently(leaves.leave()).await;
    }
    until("the one that stays has all", async || *a.borrow() == partitions(6)).await;
    patiently(stays.leave()).await;
}

/// Both protocols: more members than partitions. Having nothing is being joined all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_gets_nothing_has_joined() {
    for group_protocol in [GroupProtocol::Classic, GroupProtocol::Consumer] {
        let config = KafkaConfig { group_protocol, ..context(broker().await.brokers(), 1).await };
        let (first, second) = (member(&config), member(&config));
        until("both have joined", async || first.joined() && second.joined()).await;
        patiently(first.leave()).await;
        patiently(second.leave()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_added_live_reach_the_members() {
    let config = context(broker().await.brokers(), 2).await;
    let first = member(&config);
    let a = follow(Arc::clone(&first));
    until("it has both", async || *a.borrow() == partitions(2)).await;
    KafkaAdmin::new(&config).expect("admin").grow(&config.commands_topic(), 4).await.expect("grown");
    until("it has the new ones", async || *a.borrow() == partitions(4)).await;
    patiently(first.leave()).await;
}

/// The member reads nothing, moves no offset, and its topic is read by the log, at once and while the group
/// rebalances.
#[tokio::test(flavor = "multi_thread")]
async fn data_is_read_by_the_log_while_members_come_and_go() {
    let config = context(broker().await.brokers(), 2).await;
    let topic = config.commands_topic();
    fill(&config, &topic, 0, 0..100).await;
    let first = member(&config);
    let a = follow(Arc::clone(&first));
    until("it has both", async || *a.borrow() == partitions(2)).await;
    let log = KafkaLog::with_member(&config, &first).expect("log");
    let mut stream = open(&log, &topic, 0, Some(0)).await;
    for n in 0..50 {
        assert_eq!(number(&next(&mut stream).await), n);
    }
    let second = member(&config);
    let b = follow(Arc::clone(&second));
    until("they share", async || a.borrow().len() == 1 && b.borrow().len() == 1).await;
    for n in 50..100 {
        assert_eq!(number(&next(&mut stream).await), n, "the stream is the owner's business, not the group's");
    }
    // The member that holds the partition moves the hint; the other member's offset is dropped.
    let holder = if a.borrow().contains(&PartitionId(0)) { &first } else { &second };
    let other = if a.borrow().contains(&PartitionId(0)) { &second } else { &first };
    other.store_offset(PartitionId(0), 13);
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    holder.store_offset(PartitionId(0), 77);
    let group = config.group();
    until("the hint is committed", async || {
        let seen = committed(&config.brokers, &group, &topic).await;
        assert_ne!(seen, Some(13), "a member that does not hold the partition moved its hint");
        seen == Some(77)
    })
    .await;
    assert!(holder.confirm(PartitionId(0)).await);
    assert_eq!(committed(&config.brokers, &group, &topic).await, Some(77), "confirming moves no hint");
    drop(log);
    patiently(first.leave()).await;
    patiently(second.leave()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hints_of_the_commands_topic_go_under_the_groups_own_name() {
    let config = context(broker().await.brokers(), 1).await;
    let topic = config.commands_topic();
    let first = member(&config);
    let a = follow(Arc::clone(&first));
    until("it has it", async || *a.borrow() == partitions(1)).await;
    let log = KafkaLog::with_member(&config, &first).expect("log");
    log.store_offset(&topic, PartitionId(0), 5);
    let group = config.group();
    until("the hint is committed", async || committed(&config.brokers, &group, &topic).await == Some(5)).await;
    assert_eq!(committed(&config.brokers, &config.inputs_group(), &topic).await, None);
    patiently(first.leave()).await;
}

/// A static member that restarts within its session gets the same partitions back, and nobody else's move,
/// not even for a moment.
async fn a_static_member_comes_back_to_its_partitions(group_protocol: GroupProtocol) {
    let config = KafkaConfig { group_protocol, ..context(broker().await.brokers(), 4).await };
    let named = |id: &str| KafkaConfig { group_instance_id: Some(id.to_owned()), ..config.clone() };
    let (first, second) = (member(&named("one")), member(&named("two")));
    let (a, mut b) = (follow(Arc::clone(&first)), follow(Arc::clone(&second)));
    until("they share", async || a.borrow().len() == 2 && b.borrow().len() == 2).await;
    let (mine, theirs) = (a.borrow().clone(), b.borrow_and_update().clone());
    patiently(first.leave()).await;
    drop(first);
    let again = member(&named("one"));
    let c = follow(Arc::clone(&again));
    until("it is back", async || *c.borrow() == mine).await;
    until("it is confirmed", async || again.confirm(*mine.first().expect("two")).await).await;
    assert!(!b.has_changed().expect("it is followed"), "the other's partitions moved");
    assert_eq!(*b.borrow(), theirs);
    patiently(again.leave()).await;
    patiently(second.leave()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_static_classic_member_comes_back_to_its_partitions() {
    a_static_member_comes_back_to_its_partitions(GroupProtocol::Classic).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_static_consumer_member_comes_back_to_its_partitions() {
    a_static_member_comes_back_to_its_partitions(GroupProtocol::Consumer).await;
}

/// Two nodes of one name: one of them has the partitions at any time, and they throw one another out at a
/// walking pace, saying why.
#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_of_one_name_do_not_loop_hot() {
    for group_protocol in [GroupProtocol::Classic, GroupProtocol::Consumer] {
        let config = KafkaConfig {
            group_protocol,
            group_instance_id: Some("same".to_owned()),
            ..context(broker().await.brokers(), 2).await
        };
        let first = member(&config);
        let a = follow(Arc::clone(&first));
        until("it has both", async || *a.borrow() == partitions(2)).await;
        let twin = member(&config);
        let mut b = follow(Arc::clone(&twin));
        let mut a = a;
        let (mut changes, until) = (0, tokio::time::Instant::now() + Duration::from_secs(12));
        while tokio::time::timeout_at(until, async {
            tokio::select! { changed = a.changed() => changed, changed = b.changed() => changed }
        })
        .await
        .is_ok_and(|changed| changed.is_ok())
        {
            changes += 1;
        }
        assert!(changes <= 12, "{changes} changes in 12 s");
        patiently(first.leave()).await;
        let b = b;
        crate::rig::until("the other one has them for good", async || *b.borrow() == partitions(2)).await;
        patiently(twin.leave()).await;
    }
}

/// A fatal error (here: another node took the same static name) replaces the consumer; the member comes back
/// by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_failed_for_good_is_replaced() {
    let config = context(broker().await.brokers(), 2).await;
    let config = KafkaConfig { group_instance_id: Some("same".to_owned()), ..config };
    let first = member(&config);
    let a = follow(Arc::clone(&first));
    until("it has both", async || *a.borrow() == partitions(2)).await;
    let impostor = member(&config);
    until("it is fenced", async || a.borrow().is_empty()).await;
    assert!(!first.confirm(PartitionId(0)).await);
    patiently(impostor.leave()).await;
    until("it is back", async || *a.borrow() == partitions(2)).await;
    until("it is confirmed", async || first.confirm(PartitionId(0)).await).await;
    patiently(first.leave()).await;
}

/// With no broker at all, nothing hangs: neither joining nor confirming nor leaving.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_broker_nothing_hangs() {
    let config = KafkaConfig::new("127.0.0.1:1", "nobody");
    let member = member(&config);
    assert!(!member.joined());
    assert!(!member.confirm(PartitionId(0)).await);
    let started = std::time::Instant::now();
    member.leave().await;
    assert!(started.elapsed() < Duration::from_secs(12), "{:?}", started.elapsed());
    let log = KafkaLog::new(&config).expect("log");
    assert!(patiently(log.partition_count("nobody.commands")).await.is_err());
}
