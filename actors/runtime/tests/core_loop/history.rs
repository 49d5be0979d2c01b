//! A database put back, topics made again, offsets gone: noticed before anything is served, never skipped,
//! recovered when asked.

use std::time::Duration;

use holdfast_core::{
    Aggregate as _, PartitionId, codec::Adapter as _, epoch::HaltReason, invariant::Invariant, pool::Pool,
};
use holdfast_runtime::{
    Consistency, RouteError, Router,
    recover::{self, Recovery, Summary},
};
use holdfast_testkit::{Gate, VirtualClock, store::Contents};

use crate::{
    cluster::{Cluster, Member, PARTITIONS, call, eventually, home, text},
    counter::{Counter, CounterAdapter},
};

fn flood(cluster: &Cluster, from: i64, to: i64) {
    for n in from..=to {
        cluster.send(&format!("k{}", n % 7), "add", &n.to_string());
    }
}

fn total(cluster: &Cluster) -> i64 {
    (0..7).filter_map(|k| cluster.sum(&format!("k{k}"))).sum()
}

fn all() -> impl Iterator<Item = PartitionId> {
    (0..PARTITIONS).map(PartitionId)
}

async fn owned(member: &Member) {
    eventually("all partitions owned", || member.node.owned_partitions() == PARTITIONS as usize).await;
}

async fn halted(member: &Member, reason: HaltReason) {
    eventually("halted", || member.node.halt().is_some()).await;
    assert_eq!(member.node.halt().map(|halt| halt.reason), Some(reason));
}

async fn recovery(cluster: &Cluster, accept_topics: bool) -> Recovery {
    let ports = recover::Ports {
        log: std::sync::Arc::new(cluster.log.node()),
        store: std::sync::Arc::new(cluster.store.node()),
        clock: std::sync::Arc::new(VirtualClock::start()),
    };
    let settings = recover::Settings { callers: vec!["grpc".into()], accept_topics, lease: Duration::from_secs(6) };
    Recovery::new(cluster.context(), ports, settings).await.expect("the log is there")
}

async fn recover(cluster: &Cluster) -> Summary {
    let recovery = recovery(cluster, false).await;
    let looked = recovery.look().await.expect("can be recovered");
    let contents = || {
        let mut contents = cluster.store.contents();
        contents.beats.clear(); // nodes live on
        contents.stalled.clear(); // and say what they wait for
        format!("{contents:?}")
    };
    let before = contents();
    assert_eq!(recovery.look().await.expect("looked"), looked);
    assert!(contents() == before, "looking changes nothing: {before} became {}", contents());
    let done = recovery.run().await.expect("recovered");
    assert_eq!(Summary { halted: None, ..done.clone() }, Summary { halted: None, ..looked });
    done
}

/// Some history, a backup, and some more of which the backup knows nothing.
async fn backed_up(cluster: &Cluster) -> Contents {
    let first = cluster.start().await;
    flood(cluster, 1, 50);
    cluster.assert_converged().await;
    let backup = cluster.store.contents();
    flood(cluster, 51, 100);
    cluster.assert_converged().await;
    first.node.stop().await;
    backup
}

#[tokio::test(start_paused = true)]
async fn restored_database_halts_context_and_serves_only_local_reads() {
    let cluster = Cluster::new();
    let backup = backed_up(&cluster).await;
    cluster.store.restore(backup);
    let before = total(&cluster);
    let (first, second) = (cluster.start().await, cluster.start().await);
    halted(&first, HaltReason::HistoryLost).await;
    halted(&second, HaltReason::HistoryLost).await;
    flood(&cluster, 101, 120);
    tokio::time::sleep(Duration::from_mins(2)).await;
    for member in [&first, &second] {
        assert_eq!(member.node.owned_partitions(), 0);
        let command = member.node.command(call("k1", "add", "1")).await;
        assert!(
            matches!(&command, Err(RouteError::Halted(halt)) if halt.detail.contains("counter.events")),
            "{command:?}"
        );
        let strong = member.node.read(Counter::KIND, "k1", Consistency::Strong, 0).await;
        assert!(matches!(strong, Err(RouteError::Halted(_))), "{strong:?}");
        let local = member.node.read(Counter::KIND, "k1", Consistency::Local, 0).await.expect("from the store");
        assert_eq!(Some(local.version), Some(cluster.version("k1")));
    }
    assert_eq!(total(&cluster), before, "something was applied");
    assert_eq!(cluster.log.all_records("counter.events").len(), 100, "something was published");
}

/// A commit without an event leaves no trace in the topic; only the node that made it remembers its batch
/// number.
#[tokio::test(start_paused = true)]
async fn running_node_notices_a_restore_by_its_batch_numbers() {
    let cluster = Cluster::new();
    let member = cluster.start().await;
    flood(&cluster, 1, 20);
    cluster.assert_converged().await;
    let backup = cluster.store.contents();
    cluster.send("k1", "add", "0"); // rejected
    cluster.assert_converged().await;
    cluster.store.restore(backup);
    cluster.send("k1", "add", "5");
    halted(&member, HaltReason::HistoryLost).await;
    let halt = member.node.halt().expect("halted");
    assert!(halt.detail.contains("batch"), "{halt}");
    // An operator has nothing to fold back; the node goes on, whatever it remembers.
    assert_eq!(recover(&cluster).await.events, 0);
    cluster.assert_converged().await;
    assert_eq!(total(&cluster), 210 + 5);
    assert_eq!(member.node.halt(), None);
}

#[tokio::test(start_paused = true)]
async fn an_empty_database_on_a_used_topic_is_a_lost_history() {
    let cluster = Cluster::new();
    backed_up(&cluster).await;
    cluster.store.restore(Contents::default());
    let member = cluster.start().await;
    halted(&member, HaltReason::HistoryLost).await;
    recover(&cluster).await;
    cluster.assert_converged().await;
    assert_eq!(total(&cluster), 5050);
}

/// Its rows are of versions that the store has, however late they come.
#[tokio::test(start_paused = true)]
async fn what_a_fenced_producer_repeats_late_is_no_lost_history() {
    let cluster = Cluster::new();
    let first = cluster.start().await;
    let gate = Gate::closed();
    first.publisher.hold_sends(Some(gate.clone()));
    flood(&cluster, 1, 50);
    eventually("committed", || total(&cluster) == 50 * 51 / 2).await;
    first.node.kill();
    cluster.group.expel(&first.membership);
    let second = cluster.start().await;
    owned(&second).await;
    flood(&cluster, 51, 100);
    eventually("published", || cluster.events().values().map(Vec::len).sum::<usize>() == 100).await;
    second.node.stop().await;
    gate.open();
    eventually("repeated", || cluster.log.all_records("counter.events").len() > 100).await;
    let third = cluster.start().await;
    owned(&third).await;
    assert_eq!(third.node.halt(), None);
    cluster.assert_converged().await;
}

#[tokio::test(start_paused = true)]
async fn the_known_end_is_stored_and_no_more_than_the_tail_is_read() {
    let cluster = Cluster::new();
    let first = cluster.start().await;
    flood(&cluster, 1, 100);
    cluster.assert_converged().await;
    let known = || {
        all().all(|p| {
            let end = cluster.log.bounds("counter.events", p).map(|(_, end)| end);
            cluster.store.partition(p).is_some_and(|row| row.published.unwrap_or(0) == end.unwrap_or(0))
        })
    };
    eventually("the end is known", known).await;
    first.node.stop().await;
    let second = cluster.start().await;
    owned(&second).await;
    flood(&cluster, 101, 110);
    cluster.assert_converged().await;
    assert_eq!(second.log.opened(), 2 * PARTITIONS as usize, "the inputs, and no tail");
}

#[tokio::test(start_paused = true)]
async fn recreated_commands_topic_halts_inputs_even_if_offsets_fit() {
    let cluster = Cluster::new();
    let first = cluster.start().await;
    flood(&cluster, 1, 50);
    cluster.assert_converged().await;
    first.node.stop().await;
    cluster.log.recreate_topic("counter.commands");
    flood(&cluster, 51, 250); // more than were consumed
    let before: Vec<_> = all().map(|p| cluster.store.partition(p)).map(|row| row.map(|row| row.consumed)).collect();
    let second = cluster.start().await;
    owned(&second).await;
    tokio::time::sleep(Duration::from_mins(1)).await;
    let after: Vec<_> = all().map(|p| cluster.store.partition(p)).map(|row| row.map(|row| row.consumed)).collect();
    assert_eq!((total(&cluster), after), (1275, before), "nothing is applied, nothing skipped");
    // Calls and other inputs go on.
    second.node.command(call("k1", "add", "1000")).await.expect("applied");
    cluster.send_event("k2", "other.added", 1, "2000");
    eventually("the other input goes on", || total(&cluster) == 4275).await;

    let refused = recovery(&cluster, false).await.run().await;
    assert!(
        matches!(&refused, Err(recover::Error::Topics(words)) if words.contains("counter.commands")),
        "{refused:?}"
    );
    recovery(&cluster, true).await.run().await.expect("accepted");
    cluster.assert_converged().await;
    assert_eq!(total(&cluster), 250 * 251 / 2 + 3000, "the new topic is read from its start");
    second.node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_topic_made_again_under_a_running_node_halts_too() {
    let cluster = Cluster::new();
    let member = cluster.start().await;
    flood(&cluster, 1, 50);
    cluster.assert_converged().await;
    cluster.log.recreate_topic("counter.commands");
    flood(&cluster, 51, 60);
    tokio::time::sleep(Duration::from_mins(2)).await;
    flood(&cluster, 61, 400);
    tokio::time::sleep(Duration::from_mins(2)).await;
    assert_eq!(total(&cluster), 1275);
    assert_eq!(member.node.halt(), None);
    recovery(&cluster, true).await.run().await.expect("accepted");
    cluster.assert_converged().await;
    assert_eq!(total(&cluster), 400 * 401 / 2);
}

#[tokio::test(start_paused = true)]
async fn an_events_topic_made_again_halts_the_context() {
    for running in [true, false] {
        let cluster = Cluster::new();
        let mut member = cluster.start().await;
        flood(&cluster, 1, 50);
        cluster.assert_converged().await;
        if !running {
            member.node.stop().await;
        }
        cluster.log.recreate_topic("counter.events");
        if !running {
            member = cluster.start().await;
        }
        halted(&member, HaltReason::TopicLost).await;
        recovery(&cluster, true).await.run().await.expect("accepted");
        flood(&cluster, 51, 100);
        owned(&member).await;
        eventually("applied", || total(&cluster) == 5050).await;
        eventually("published", || cluster.log.all_records("counter.events").len() == 50).await;
        assert_eq!(member.node.halt(), None, "running: {running}");
        member.node.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn deleted_records_halt_the_input_until_accepted() {
    let cluster = Cluster::new();
    let first = cluster.start().await;
    flood(&cluster, 1, 50);
    cluster.assert_converged().await;
    first.node.stop().await;
    flood(&cluster, 51, 100);
    let p = home("k1");
    let (_, end) = cluster.log.bounds("counter.commands", p).expect("it is there");
    cluster.log.delete_before("counter.commands", p, end);
    let second = cluster.start().await;
    owned(&second).await;
    tokio::time::sleep(Duration::from_mins(1)).await;
    let behind = cluster.store.partition(p).and_then(|row| row.next_offset("counter.commands"));
    assert!(behind < Some(end), "the lost records were skipped");
    flood(&cluster, 1001, 1007);
    recovery(&cluster, true).await.run().await.expect("accepted");
    cluster.assert_converged().await;
    assert!(total(&cluster) < 5050 + 7028 && total(&cluster) > 7028);
}

#[tokio::test(start_paused = true)]
async fn recovery_folds_events_back_and_each_command_has_one_effect() {
    let cluster = Cluster::new();
    let backup = backed_up(&cluster).await;
    let published = cluster.log.all_records("counter.events").len();
    cluster.store.restore(backup);
    let member = cluster.start().await;
    halted(&member, HaltReason::HistoryLost).await;
    let done = recover(&cluster).await;
    assert_eq!((done.events, done.claims_of_commands, done.claims_of_calls), (50, 50, 0));
    flood(&cluster, 101, 150);
    cluster.assert_converged().await;
    assert_eq!(total(&cluster), 150 * 151 / 2, "commands that come again are recognised");
    let ids = |n: usize| {
        let records = cluster.log.all_records("counter.events");
        records.iter().map(|record| text(record, "ce_id")).collect::<std::collections::BTreeSet<_>>().len() == n
    };
    assert!(ids(published + 50), "an event was published under a second id (I10)");
    assert_eq!(cluster.store.contents().outbox.len(), published + 50);
    assert_eq!(Invariant::OneHistory.violations() + Invariant::Order.violations(), 0);
    member.node.stop().await;
}

/// A call is known by its event alone: its body is not, nor what came before it without an event.
#[tokio::test(start_paused = true)]
async fn recovered_calls_answer_again_and_decided_commands_do_nothing() {
    let cluster = Cluster::new();
    let member = cluster.start().await;
    owned(&member).await;
    cluster.store.set_pool("stock", Pool { total: 10, held: 0 });
    cluster.send("a", "add", "1");
    cluster.assert_converged().await;
    let backup = cluster.store.contents();
    let applied = call("a", "add", "10");
    let first = member.node.command(applied.clone()).await.expect("applied");
    // Rejected while the shelf is empty, which it will not be when it comes again.
    cluster.send("a", "take", "11");
    cluster.assert_converged().await;
    cluster.store.set_pool("stock", Pool { total: 100, held: 0 });
    cluster.send("a", "add", "100");
    cluster.send("a", "later", "");
    cluster.send_event("a", "other.added", 1, "1000");
    cluster.assert_converged().await;
    member.node.stop().await;
    let mut backup = backup;
    backup.pools.insert("stock".into(), Pool { total: 100, held: 0 });
    cluster.store.restore(backup);

    let done = recover(&cluster).await;
    assert_eq!((done.events, done.claims_of_commands, done.claims_of_calls, done.decided_without_event), (3, 1, 1, 1));
    let member = cluster.start().await;
    cluster.assert_converged().await;
    assert_eq!(cluster.sum("a"), Some(1111));
    let again = member.node.command(applied.clone()).await.expect("known");
    assert_eq!(again, first, "the same answer, reply and all");
    let other =
        member.node.command(holdfast_core::CallEnvelope { payload: "77".into(), ..applied }).await.expect("known");
    assert_eq!(other, first, "its body is not known any more, so any is taken for it");
    // What had no event and came last is done again, as it was: the timer.
    eventually("the timer fires", || cluster.sum("a") == Some(2111)).await;
}

/// Pools and timers belong to the effect of an event as its state does.
#[tokio::test(start_paused = true)]
async fn pools_are_recovered_or_recovery_of_the_context_is_refused() {
    let cluster = Cluster::new();
    cluster.store.set_pool("stock", Pool { total: 10, held: 0 });
    let member = cluster.start().await;
    cluster.send("a", "take", "3");
    cluster.assert_converged().await;
    let backup = cluster.store.contents();
    cluster.send("b", "take", "4");
    cluster.send("a", "take", "2");
    cluster.assert_converged().await;
    cluster.send("c", "take", "5"); // refused
    cluster.assert_converged().await;
    member.node.stop().await;

    let mut poorer = backup.clone();
    poorer.pools.insert("stock".into(), Pool { total: 5, held: 3 });
    cluster.store.restore(poorer);
    let refused = recovery(&cluster, false).await.run().await;
    assert!(matches!(&refused, Err(recover::Error::Pools(names)) if names == "stock"), "{refused:?}");
    let contents = cluster.store.contents();
    assert!(contents.partitions.values().all(|row| row.halted.is_some()), "it stays halted");
    assert_eq!(contents.states.len(), backup.states.len(), "and nothing was written");

    cluster.store.restore(backup);
    assert_eq!(recover(&cluster).await.pools, 1);
    let member = cluster.start().await;
    cluster.assert_converged().await;
    assert_eq!(cluster.store.contents().pools["stock"], Pool { total: 10, held: 9 });
    assert_eq!(cluster.sum("c"), None);
    member.node.stop().await;
}

/// A recovery that is cut off anywhere is run again.
#[tokio::test(start_paused = true)]
async fn a_recovery_cut_off_is_repeated() {
    for cut in 0..14 {
        let cluster = Cluster::new();
        let backup = backed_up(&cluster).await;
        cluster.store.restore(backup);
        let broken = cluster.store.node();
        let ports = recover::Ports {
            log: std::sync::Arc::new(cluster.log.node()),
            store: std::sync::Arc::new(broken.clone()),
            clock: std::sync::Arc::new(VirtualClock::start()),
        };
        let settings = recover::Settings { callers: Vec::new(), accept_topics: false, lease: Duration::from_secs(6) };
        let recovery = Recovery::new(cluster.context(), ports, settings).await.expect("the log is there");
        broken.fail_after(cut);
        let ended = recovery.run().await;
        broken.heal();
        let member = cluster.start().await;
        if ended.is_err() {
            tokio::time::sleep(Duration::from_mins(1)).await;
            assert_eq!(member.node.owned_partitions(), 0, "cut off at call {cut}: half recovered is halted");
            recover(&cluster).await;
        }
        cluster.assert_converged().await;
        assert_eq!(total(&cluster), 5050, "cut off at call {cut}");
        member.node.stop().await;
    }
}

/// Two histories in one topic can't be folded.
#[tokio::test(start_paused = true)]
async fn two_histories_are_refused() {
    let cluster = Cluster::new();
    let backup = backed_up(&cluster).await;
    let last = cluster.log.all_records("counter.events").pop().expect("an event");
    let mut headers = last.headers.clone();
    headers.0.retain(|(name, _)| name != "ce_id");
    headers.push("ce_id", uuid::Uuid::now_v7().to_string());
    cluster.log.append("counter.events", Some(last.partition), last.key, headers, last.value).expect("appended");
    cluster.store.restore(backup);
    let refused = recovery(&cluster, false).await.look().await;
    assert!(
        matches!(&refused, Err(recover::Error::Broken { place, .. }) if place.contains("counter.events")),
        "{refused:?}"
    );
}

#[test]
fn the_counters_events_are_read_as_they_were_written() {
    let adapter = CounterAdapter::default();
    let context = holdfast_core::Context { key: "a", version: 1, now: holdfast_core::Timestamp::default() };
    for event in [crate::counter::Event::Added(7), crate::counter::Event::Taken(8)] {
        let encoded = adapter.encode_event(&event, &context);
        let mut message = call("a", encoded.r#type, "").into_message().expect("sound");
        message.payload = encoded.payload;
        assert_eq!(adapter.decode_event(&message).expect("an event"), event);
    }
}

/// A call that was intended, and a message to another aggregate: neither is lost with the database, nor made
/// twice.
#[tokio::test(start_paused = true)]
async fn recovery_restores_calls_and_messages_of_lost_events_once() {
    let cluster = Cluster::new();
    let member = cluster.start().await;
    owned(&member).await;
    cluster.send("abc", "add", "1");
    cluster.assert_converged().await;
    let backup = cluster.store.contents();
    cluster.oracle.is_away.store(true, std::sync::atomic::Ordering::SeqCst);
    cluster.send("abc", "charge", "10");
    cluster.send("abc", "tell", "100");
    eventually("the message arrived", || cluster.sum("ABC") == Some(100)).await;
    eventually("published", || cluster.log.all_records("counter.events").len() == 4).await;
    member.node.stop().await;
    cluster.store.restore(backup);
    let member = cluster.start().await;
    halted(&member, HaltReason::HistoryLost).await;
    recover(&cluster).await;
    cluster.oracle.is_away.store(false, std::sync::atomic::Ordering::SeqCst);
    cluster.assert_converged().await;
    assert_eq!((cluster.sum("abc"), cluster.sum("ABC")), (Some(11), Some(100)));
}
