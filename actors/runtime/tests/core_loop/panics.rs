//! A panic of the adapter outside `decide` is one message's failure: it stops no task, and its text reaches
//! no caller.

use std::time::Duration;

use holdfast_runtime::{Consistency, RouteError, Router as _};

use crate::{
    cluster::{Cluster, Member, call, eventually, text, within},
    counter::CURSED,
};

async fn cursed(steps: &[&'static str]) -> (Cluster, Member) {
    let cluster = Cluster::new();
    cluster.oracle.panics.lock().expect("sound").extend(steps);
    let member = cluster.start_with(|config| config.lanes = 1).await;
    eventually("all partitions owned", || member.node.owned_partitions() == 4).await;
    (cluster, member)
}

#[tokio::test(start_paused = true)]
async fn panic_at_any_step_is_poison_of_its_record_alone() {
    for step in ["decode", "looks_up", "prepare", "encode_event", "encode_state", "view"] {
        let (cluster, member) = cursed(&[step]).await;
        for n in 0..10 {
            cluster.send("a", "add", "1");
            cluster.send("b", "ask", "");
            if n == 5 {
                cluster.send("c", "curse", "");
            }
            cluster.send("c", "add", "1");
        }
        cluster.assert_converged().await;
        let letters = cluster.dead_letters();
        assert_eq!(letters.len(), 1, "{step}");
        assert_eq!(
            (text(&letters[0], "dlt-reason").as_str(), text(&letters[0], "dlt-attempts").as_str()),
            ("POISON", "3"),
            "{step}"
        );
        let sums = ["a", "b", "c"].map(|key| cluster.sum(key));
        assert_eq!(sums, [Some(10), Some(420), Some(10)], "{step}");
        assert!(member.node.is_live(), "{step}: {:?}", member.node.stalled());
        let called = within("an answer", member.node.command(call("c", "curse", ""))).await;
        assert_eq!(called, Err(RouteError::Failed), "{step}");
    }
}

#[tokio::test(start_paused = true)]
async fn panic_while_state_is_decoded_fails_its_aggregate_alone() {
    let (cluster, first) = cursed(&[]).await;
    cluster.send("a", "add", &CURSED.to_string());
    cluster.assert_converged().await;
    first.node.stop().await;
    cluster.oracle.panics.lock().expect("sound").insert("decode_state");
    let member = cluster.start().await;
    eventually("all partitions owned", || member.node.owned_partitions() == 4).await;
    let before = member.node.owned_partitions();
    for consistency in [Consistency::Strong, Consistency::Local] {
        let read = within("an answer", member.node.read("counter", "a", consistency, 0)).await;
        assert_eq!(read, Err(RouteError::Failed));
    }
    assert_eq!(within("an answer", member.node.command(call("a", "add", "1"))).await, Err(RouteError::Failed));
    cluster.send("a", "add", "1");
    eventually("the letter is written", || cluster.dead_letters().len() == 1).await;
    within("an answer", member.node.command(call("b", "add", "1"))).await.expect("applied");
    assert_eq!(member.node.owned_partitions(), before, "no supervisor died");
    assert!(member.node.is_live());
}

#[tokio::test(start_paused = true)]
async fn panic_while_reply_is_encoded_fails_its_reader_alone() {
    let (cluster, member) = cursed(&["encode_reply"]).await;
    cluster.send("a", "add", &CURSED.to_string());
    cluster.assert_converged().await;
    for consistency in [Consistency::Strong, Consistency::Local] {
        let read = within("an answer", member.node.read("counter", "a", consistency, 0)).await;
        assert_eq!(read, Err(RouteError::Failed));
    }
    member.node.command(call("b", "add", "1")).await.expect("applied");
    assert!(member.node.is_live());
}

#[tokio::test(start_paused = true)]
async fn panic_of_timer_or_effect_is_tried_again() {
    // A context asks each kind for its declared timers once, when it is put together.
    let (cluster, member) = cursed(&[]).await;
    cluster.oracle.panics.lock().expect("sound").extend(["timer", "perform"]);
    cluster.send("a", "later", "");
    cluster.send("b", "charge", "7");
    tokio::time::sleep(Duration::from_mins(3)).await;
    assert!(member.node.is_live());
    member.node.command(call("c", "add", "1")).await.expect("applied");
    cluster.oracle.panics.lock().expect("sound").clear();
    cluster.assert_converged().await;
    eventually("the timer fires", || cluster.sum("a") == Some(1000)).await;
    assert_eq!(cluster.sum("b"), Some(7));
}
