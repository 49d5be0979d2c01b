//! Without faults: effects, answers, repeats, rejections, dead letters, conditions, timers, look-ups, the
//! durable mailbox.

use std::{sync::atomic::Ordering, time::Duration};

use holdfast_core::{dedup::Answer, pool::Pool};
use holdfast_runtime::{Consistency, RouteError, Router};

use crate::cluster::{Cluster, call, eventually, headers, home, id, text};

#[tokio::test(start_paused = true)]
async fn every_command_has_one_effect_and_its_event_is_in_order() {
    let cluster = Cluster::new();
    let member = cluster.start().await;
    for n in 1..=300 {
        cluster.send(&format!("k{}", n % 17), "add", &n.to_string());
    }
    cluster.assert_converged().await;
    let sums: i64 = (0..17).filter_map(|k| cluster.sum(&format!("k{k}"))).sum();
    assert_eq!(sums, 300 * 301 / 2);
    assert_eq!(cluster.store.view(&id("k1")).expect("a view")["sum"], cluster.sum("k1").expect("a state"));
    member.node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_repeat_has_no_second_effect_even_within_one_batch() {
    let cluster = Cluster::new();
    let again = cluster.send("a", "add", "1");
    cluster.send_as(again, "a", "add", "1");
    cluster.send("a", "add", "10");
    cluster.send_as(again, "a", "add", "1");
    let _member = cluster.start().await;
    cluster.assert_converged().await;
    assert_eq!(cluster.sum("a"), Some(11));
    cluster.send_as(again, "a", "add", "1");
    cluster.assert_converged().await;
    assert_eq!(cluster.sum("a"), Some(11));
}

#[tokio::test(start_paused = true)]
async fn id_reused_with_another_body_is_a_dead_letter_or_a_conflict() {
    let cluster = Cluster::new();
    let member = cluster.start().await;
    let reused = cluster.send("a", "add", "1");
    cluster.assert_converged().await;
    cluster.send_as(reused, "a", "add", "2");
    cluster.assert_converged().await;
    assert_eq!(cluster.sum("a"), Some(1));
    assert_eq!(text(&cluster.dead_letters()[0], "dlt-reason"), "INVALID");

    let message = call("a", "add", "5");
    let first = member.node.command(message.clone()).await.expect("applied");
    assert_eq!(member.node.command(message.clone()).await.expect("the first answer again"), first);
    let other = holdfast_core::CallEnvelope { payload: "6".into(), ..message };
    assert_eq!(member.node.command(other).await, Err(RouteError::Reused));
    assert_eq!(cluster.sum("a"), Some(6));
}

#[tokio::test(start_paused = true)]
async fn a_caller_reads_what_it_wrote_and_a_rejection_is_an_answer() {
    let cluster = Cluster::new();
    let member = cluster.start().await;
    eventually("all partitions owned", || member.node.owned_partitions() == 4).await;
    for n in 1..=20_i64 {
        let answer = member.node.command(call("a", "add", "1")).await.expect("applied");
        assert_eq!(answer, Answer::Applied { version: n.unsigned_abs(), reply: n.to_string().into() });
        let read = member.node.read("counter", "a", Consistency::Strong, 0).await.expect("owned");
        assert_eq!((read.version, &*read.body, read.strong), (n.unsigned_abs(), n.to_string().as_bytes(), true));
    }
    let answer = member.node.command(call("a", "add", "0")).await.expect("answered");
    assert!(matches!(answer, Answer::Rejected { version: 20, rejection } if rejection.code == "NOTHING_TO_ADD"));
    let local = member.node.read("counter", "a", Consistency::Local, 20).await.expect("stored");
    assert!(!local.strong && local.version == 20);
    let absent = member.node.read("counter", "nobody", Consistency::Strong, 0).await.expect("owned");
    assert!(!absent.exists);
    assert_eq!(member.node.read("counter", "a", Consistency::Strong, 99).await, Err(RouteError::Stale(20)));
}

#[tokio::test(start_paused = true)]
async fn bad_record_is_one_verbatim_dead_letter_and_partition_goes_on() {
    let cluster = Cluster::new();
    let _member = cluster.start().await;
    let mut garbled = headers(uuid::Uuid::now_v7(), "a", "add", "producer", None);
    garbled.push("content-type", "text/plain");
    cluster.append("counter.commands", "a", garbled.clone(), "1");
    cluster.send("a", "nonsense", "1");
    cluster.send("a", "add", "-1");
    cluster.send("a", "add", "x");
    cluster.send("a", "add", &"9".repeat(1024 * 1024 + 1));
    cluster.send("a", "add", "7");
    cluster.assert_converged().await;
    assert_eq!(cluster.sum("a"), Some(7));
    let letters = cluster.dead_letters();
    let reasons: Vec<String> = letters.iter().map(|letter| text(letter, "dlt-reason")).collect();
    assert_eq!(reasons, ["UNDECODABLE", "UNKNOWN_TYPE", "INVALID", "UNDECODABLE", "TOO_LARGE"]);
    assert_eq!(&letters[0].headers.0[..garbled.0.len()], &garbled.0[..], "headers as they came");
    assert_eq!(text(&letters[0], "dlt-original-offset"), "0");
    assert_eq!(text(&letters[0], "dlt-original-partition"), home("a").to_string());
    assert_eq!(cluster.store.contents().dead_letters.len(), 5);
}

#[tokio::test(start_paused = true)]
async fn poisoned_command_is_dead_letter_after_budget_and_order_holds() {
    let cluster = Cluster::new();
    let _member = cluster.start().await;
    for n in 0..200 {
        cluster.send(&format!("k{n}"), "add", "1");
        if n == 100 {
            cluster.send("sick", "add", "1");
            cluster.send("sick", "panic", "");
            cluster.send("sick", "add", "10");
            cluster.send("sick", "add", "100");
        }
    }
    eventually("bystanders are done", || (0..200).all(|n| cluster.sum(&format!("k{n}")) == Some(1))).await;
    cluster.assert_converged().await;
    assert_eq!(cluster.sum("sick"), Some(111));
    let bodies: Vec<String> = cluster.events()["sick"].iter().map(|(_, body)| body.clone()).collect();
    assert_eq!(bodies, ["1", "10", "100"]);
    let letters = cluster.dead_letters();
    assert_eq!(letters.len(), 1);
    assert_eq!(text(&letters[0], "dlt-reason"), "POISON");
    assert_eq!(text(&letters[0], "dlt-attempts"), "3");
    assert!(text(&letters[0], "dlt-error").contains("this command is poison"));
}

#[tokio::test(start_paused = true)]
async fn poisoned_command_fails_its_caller_and_the_actor_lives_on() {
    let cluster = Cluster::new();
    let member = cluster.start().await;
    eventually("all partitions owned", || member.node.owned_partitions() == 4).await;
    member.node.command(call("a", "add", "1")).await.expect("applied");
    assert_eq!(member.node.command(call("a", "panic", "")).await, Err(RouteError::Failed));
    let answer = member.node.command(call("a", "add", "2")).await.expect("applied");
    assert_eq!(answer, Answer::Applied { version: 2, reply: "3".into() });
}

#[tokio::test(start_paused = true)]
async fn shared_quantities_are_granted_exactly() {
    let cluster = Cluster::new();
    cluster.store.set_pool("stock", Pool { total: 100, held: 0 });
    let member = cluster.start().await;
    for n in 0..150 {
        cluster.send(&format!("k{n}"), "take", "1");
        cluster.send(&format!("k{n}"), "add", "1000");
    }
    cluster.assert_converged().await;
    assert_eq!(cluster.store.contents().pools["stock"], Pool { total: 100, held: 100 });
    let sums: Vec<i64> = (0..150).filter_map(|n| cluster.sum(&format!("k{n}"))).collect();
    assert_eq!(sums.iter().filter(|sum| **sum == 1001).count(), 100);
    assert_eq!(sums.iter().filter(|sum| **sum == 1000).count(), 50);
    let refused = member.node.command(call("late", "take", "1")).await.expect("answered");
    assert!(matches!(refused, Answer::Rejected { rejection, .. } if rejection.code == "SOLD_OUT"));
}

#[tokio::test(start_paused = true)]
async fn a_timer_fires_once_by_the_stores_clock_also_after_a_restart() {
    let cluster = Cluster::new();
    let member = cluster.start().await;
    cluster.send("a", "later", "");
    cluster.assert_converged().await;
    member.node.stop().await;
    let _member = cluster.start().await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(cluster.version("a"), 0);
    eventually("the timer has fired", || cluster.sum("a") == Some(1000)).await;
    tokio::time::sleep(Duration::from_mins(2)).await;
    assert_eq!(cluster.version("a"), 1);
    assert!(cluster.store.contents().timers.is_empty());
}

#[tokio::test(start_paused = true)]
async fn failed_look_up_defers_its_aggregate_alone_from_that_message() {
    let cluster = Cluster::new();
    let member = cluster.start().await;
    cluster.oracle.is_away.store(true, Ordering::SeqCst);
    cluster.send("a", "ask", "");
    cluster.send("a", "add", "1");
    cluster.send("b", "add", "5");
    eventually("the bystander is done", || cluster.sum("b") == Some(5)).await;
    eventually("both wait", || cluster.store.contents().mailbox.len() == 2).await;
    cluster.send("a", "add", "2");
    eventually("the third queues behind", || cluster.store.contents().mailbox.len() == 3).await;
    assert!(matches!(member.node.command(call("a", "add", "9")).await, Err(RouteError::Waiting(_))));
    assert!(matches!(member.node.command(call("c", "ask", "")).await, Err(RouteError::Downstream(_))));
    tokio::time::sleep(Duration::from_mins(5)).await;
    assert_eq!(cluster.dead_letters().len(), 0, "an outage of a downstream never counts against a message");
    cluster.oracle.is_away.store(false, Ordering::SeqCst);
    cluster.assert_converged().await;
    let bodies: Vec<String> = cluster.events()["a"].iter().map(|(_, body)| body.clone()).collect();
    assert_eq!(bodies, ["42", "1", "2"]);
    member.node.command(call("a", "add", "9")).await.expect("nothing waits any more");
}

#[tokio::test(start_paused = true)]
async fn a_repeat_gets_its_first_answer_though_mail_waits() {
    let cluster = Cluster::new();
    let member = cluster.start().await;
    eventually("all partitions owned", || member.node.owned_partitions() == 4).await;
    let first = call("a", "add", "9");
    let answer = member.node.command(first.clone()).await.expect("applied");
    cluster.oracle.is_away.store(true, Ordering::SeqCst);
    cluster.send("a", "ask", "");
    eventually("it waits", || cluster.store.contents().mailbox.len() == 1).await;
    assert!(matches!(member.node.command(call("a", "add", "1")).await, Err(RouteError::Waiting(_))));
    assert_eq!(member.node.command(first).await, Ok(answer));
    cluster.oracle.is_away.store(false, Ordering::SeqCst);
    cluster.assert_converged().await;
    assert_eq!(cluster.sum("a"), Some(51), "it had no second effect");
}

#[tokio::test(start_paused = true)]
async fn look_ups_are_made_once_for_a_batch() {
    let cluster = Cluster::new();
    for n in 0..100 {
        cluster.send(&format!("k{n}"), "ask", "");
    }
    let _member = cluster.start_with(|config| config.lanes = 1).await;
    cluster.assert_converged().await;
    assert!(cluster.oracle.calls.load(Ordering::SeqCst) < 20, "{} calls", cluster.oracle.calls.load(Ordering::SeqCst));
}

#[tokio::test(start_paused = true)]
async fn foreign_event_applies_once_by_sequence_or_is_passed_over() {
    let cluster = Cluster::new();
    let _member = cluster.start().await;
    for (sequence, body) in [(1, "1"), (2, "2"), (1, "1"), (5, "5"), (2, "2")] {
        cluster.send_event("a", "other.added", sequence, body);
    }
    cluster.send_event("a", "other.nothing_to_us", 6, "x");
    cluster.assert_converged().await;
    assert_eq!(cluster.sum("a"), Some(8));
    assert_eq!(cluster.dead_letters().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn idle_actors_are_let_go_and_come_back_with_their_state() {
    let cluster = Cluster::new();
    let member = cluster.start_with(|config| (config.live_max, config.lanes) = (8, 1)).await;
    for round in 1..=3_i64 {
        for n in 0..100 {
            cluster.send(&format!("k{n}"), "add", "1");
        }
        cluster.assert_converged().await;
        assert!((0..100).all(|n| cluster.sum(&format!("k{n}")) == Some(round)));
    }
    let read = member.node.read("counter", "k0", Consistency::Strong, 0).await.expect("activated again");
    assert_eq!(&*read.body, b"3");
}

#[tokio::test(start_paused = true)]
async fn a_record_read_from_a_strange_partition_reaches_its_home() {
    let cluster = Cluster::new();
    let _member = cluster.start().await;
    let strange = holdfast_core::PartitionId((home("a").0 + 1) % 4);
    for n in 1..=5 {
        let headers = headers(uuid::Uuid::now_v7(), "a", "add", "producer", None);
        let (key, value) = (bytes::Bytes::from("a"), bytes::Bytes::from(n.to_string()));
        cluster.log.append("counter.commands", Some(strange), Some(key), headers, Some(value)).expect("exists");
    }
    cluster.assert_converged().await;
    let bodies: Vec<String> = cluster.events()["a"].iter().map(|(_, body)| body.clone()).collect();
    assert_eq!(bodies, ["1", "2", "3", "4", "5"]);
}
