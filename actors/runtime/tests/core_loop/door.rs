//! What may enter: each type from its declared origins alone, whichever way it comes; and nothing that the
//! store can't hold.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use holdfast_core::{
    CallEnvelope, Record,
    call::CallOrigin,
    disposition::{DeadLetterReason, Refused},
    envelope::header,
};
use holdfast_runtime::{Consistency, Local as _, Node, PeerError, RouteError, Routed, Router, peers::Forward};
use uuid::Uuid;

use crate::cluster::{Cluster, Member, call, eventually, headers, text, within};

async fn settled(cluster: &Cluster) -> Member {
    let member = cluster.start().await;
    eventually("all partitions owned", || member.node.owned_partitions() == 4).await;
    member
}

/// The reason and the error of the newest dead letter, of `count` in all.
async fn dead_letter(cluster: &Cluster, count: usize) -> (String, String) {
    cluster.assert_converged().await;
    let letters = cluster.dead_letters();
    assert_eq!(letters.len(), count);
    let newest = letters.iter().max_by_key(|letter| text(letter, "dlt-original-offset").parse::<u64>().ok());
    let newest = newest.expect("there is one");
    (text(newest, "dlt-reason"), text(newest, "dlt-error"))
}

fn sent(cluster: &Cluster) -> Vec<Record> {
    let records = cluster.log.all_records("counter.commands").into_iter();
    records.filter(|record| text(record, header::SOURCE).starts_with("holdfast/")).collect()
}

/// Each type by record, and where it may not come from it changes nothing.
#[tokio::test(start_paused = true)]
async fn record_of_a_type_that_may_not_come_there_is_a_dead_letter() {
    let cluster = Cluster::new();
    let _member = settled(&cluster).await;
    let own = ["other.added", "private", "reported", "told", "fired", "charged"];
    for (n, name) in own.iter().enumerate() {
        cluster.append("counter.commands", "a", headers(Uuid::now_v7(), "a", name, "producer", None), "100");
        let (reason, error) = dead_letter(&cluster, n + 1).await;
        assert_eq!(reason, "UNKNOWN_TYPE", "{name}");
        assert!(error.contains("may not come from an unsealed record of the commands topic"), "{name}: {error}");
    }
    cluster.append("counter.commands", "a", headers(Uuid::now_v7(), "a", "nonsense", "producer", None), "100");
    assert_eq!(dead_letter(&cluster, 7).await.1, "no handler for this ce_type");
    assert_eq!(cluster.sum("a"), None);
}

#[tokio::test(start_paused = true)]
async fn record_of_a_foreign_topic_needs_a_declared_source() {
    let cluster = Cluster::new();
    let _member = settled(&cluster).await;
    let event = |name: &str, source: &str, sequence| headers(Uuid::now_v7(), "a", name, source, Some(sequence));
    for (n, (name, source)) in [
        ("other.added", "stranger"),
        ("other.added", "holdfast/counter/counter"),
        ("add", "other"),
        ("private", "other"),
    ]
    .into_iter()
    .enumerate()
    {
        cluster.append("other.events", "a", event(name, source, 1), "100");
        cluster.assert_converged().await;
        let letters = cluster.dead_letters();
        assert_eq!(letters.len(), n + 1, "{name} from {source}");
        assert!(letters.iter().all(|letter| text(letter, "dlt-reason") == "UNKNOWN_TYPE"));
    }
    cluster.append("other.events", "a", event("nobody's", "stranger", 1), "100");
    cluster.append("other.events", "a", event("other.added", "holdfast/other/kind", 1), "1");
    cluster.assert_converged().await;
    assert_eq!(cluster.dead_letters().len(), 4, "a type that nobody declares is passed over");
    assert_eq!(cluster.sum("a"), Some(1));
}

#[tokio::test(start_paused = true)]
async fn source_of_the_runtime_is_refused_in_an_unsealed_record() {
    let cluster = Cluster::new();
    let _member = settled(&cluster).await;
    let sources = ["grpc", "timer", "effect", "holdfast/counter/counter", "holdfast/load", "bank/webhook"];
    for (n, source) in sources.iter().enumerate() {
        cluster.append("counter.commands", "a", headers(Uuid::now_v7(), "a", "add", source, None), "1");
        let (reason, error) = dead_letter(&cluster, n + 1).await;
        assert_eq!(reason, "UNKNOWN_TYPE", "{source}");
        assert!(error.contains("given by the runtime alone"), "{error}");
    }
    assert_eq!(cluster.sum("a"), None);
}

#[tokio::test(start_paused = true)]
async fn sealed_record_is_taken_and_no_changed_copy_of_it() {
    let cluster = Cluster::new();
    let _member = settled(&cluster).await;
    cluster.send("a", "tell", "5");
    cluster.assert_converged().await;
    assert_eq!(cluster.sum("A"), Some(5), "the message to the other counter is sealed");
    let [record] = sent(&cluster).try_into().expect("one message was sent");
    assert!(record.headers.get(header::SEAL).is_some());
    let copy = |change: &dyn Fn(&mut Record)| {
        let mut copy = record.clone();
        change(&mut copy);
        let Record { key, headers, value, .. } = copy;
        cluster.log.append("counter.commands", None, key, headers, value).expect("the topic exists");
    };
    copy(&|_| {});
    cluster.assert_converged().await;
    assert_eq!((cluster.sum("A"), cluster.dead_letters().len()), (Some(5), 0), "an exact copy is a repeat");
    copy(&|record| record.value = Some(Bytes::from_static(b"500")));
    copy(&|record| record.headers.push(header::ID, Uuid::now_v7().to_string()));
    copy(&|record| record.headers.push(header::TYPE, "told"));
    copy(&|record| record.headers.push(header::SEAL, "00"));
    copy(&|record| {
        record.key = Some(Bytes::from_static(b"B"));
        record.headers.push(header::SUBJECT, "B");
    });
    cluster.assert_converged().await;
    let reasons: Vec<String> = cluster.dead_letters().iter().map(|letter| text(letter, "dlt-reason")).collect();
    assert_eq!(reasons, ["UNKNOWN_TYPE"; 5]);
    assert_eq!((cluster.sum("A"), cluster.sum("B")), (Some(5), None));
}

/// Mail keeps its origin by the topic it came from, and passes the door again.
#[tokio::test(start_paused = true)]
async fn mail_of_a_sealed_record_keeps_its_origin() {
    let cluster = Cluster::new();
    let _member = settled(&cluster).await;
    cluster.oracle.is_away.store(true, std::sync::atomic::Ordering::SeqCst);
    cluster.send("A", "ask", "");
    eventually("it waits", || cluster.store.contents().mailbox.len() == 1).await;
    cluster.send("a", "tell", "5");
    eventually("the message waits behind it", || cluster.store.contents().mailbox.len() == 2).await;
    cluster.oracle.is_away.store(false, std::sync::atomic::Ordering::SeqCst);
    cluster.assert_converged().await;
    assert_eq!((cluster.sum("A"), cluster.dead_letters().len()), (Some(47), 0));
}

#[tokio::test(start_paused = true)]
async fn call_of_a_type_that_may_not_be_called_is_forbidden() {
    let cluster = Cluster::new();
    let member = settled(&cluster).await;
    for name in ["other.added", "reported", "told", "fired", "charged"] {
        let answer = member.node.command(call("a", name, "100")).await;
        assert!(matches!(&answer, Err(RouteError::Forbidden(error)) if error.contains("from a call")), "{answer:?}");
    }
    for (name, source) in [("add", "bank/webhook"), ("reported", "other/webhook"), ("reported", "grpc")] {
        let webhook = CallEnvelope { origin: CallOrigin::Webhook(source.into()), ..call("a", name, "100") };
        let answer = member.node.command(webhook).await;
        assert!(matches!(answer, Err(RouteError::Forbidden(_))), "{name} from {source}: {answer:?}");
    }
    let unknown = member.node.command(call("a", "nonsense", "1")).await;
    assert_eq!(unknown, Err(RouteError::Refused(Refused::unknown_type())));
    member.node.command(call("a", "private", "1")).await.expect("may be called");
    let origin = CallOrigin::Webhook("bank/webhook".into());
    member.node.command(CallEnvelope { origin, ..call("a", "reported", "2") }).await.expect("may be reported");
    assert_eq!(cluster.sum("a"), Some(3));
}

#[tokio::test(start_paused = true)]
async fn call_and_read_with_a_bad_key_reach_no_store() {
    let cluster = Cluster::new();
    let member = settled(&cluster).await;
    for key in ["", "\0x", "a\nb", &"k".repeat(1025), "no counter"] {
        for consistency in [Consistency::Strong, Consistency::Local] {
            let read = member.node.read("counter", key, consistency, 0).await;
            let Err(RouteError::Refused(refused)) = read else { panic!("{key:?}: {read:?}") };
            assert_eq!((refused.reason, refused.field.as_deref()), (DeadLetterReason::Invalid, Some("key")));
        }
    }
    for key in ["", "\0x", &"k".repeat(1025)] {
        let answer = member.node.command(call(key, "add", "1")).await;
        assert!(matches!(answer, Err(RouteError::Refused(_))), "{key:?}: {answer:?}");
    }
    assert!(cluster.store.contents().states.is_empty());
    member.node.command(call("a", "add", "1")).await.expect("the loop goes on");
}

#[tokio::test(start_paused = true)]
async fn record_with_a_nul_or_too_large_is_a_dead_letter() {
    let cluster = Cluster::new();
    let _member = settled(&cluster).await;
    let with = |name: &'static str, value: &str| {
        let mut headers = headers(Uuid::now_v7(), "a", "add", "producer", None);
        headers.push(name, value);
        headers
    };
    let rows = [
        (with(header::CORRELATION, "a\0"), "INVALID"),
        (with(header::SOURCE, "a\0"), "INVALID"),
        (with(header::TIME, "yesterday"), "INVALID"),
        (with(header::SEQUENCE, "0"), "INVALID"),
        (with(header::TRACESTATE, &"a".repeat(1025)), "TOO_LARGE"),
        (with("x-large", &"a".repeat(64 * 1024)), "TOO_LARGE"),
    ];
    for (n, (headers, expected)) in rows.into_iter().enumerate() {
        cluster.append("counter.commands", "a", headers, "100");
        assert_eq!(dead_letter(&cluster, n + 1).await.0, expected, "row {n}");
    }
    cluster.append("counter.commands", "\0x", headers(Uuid::now_v7(), "\0x", "add", "producer", None), "100");
    cluster.assert_converged().await;
    assert_eq!(cluster.dead_letters().len(), 7);
    cluster.send("a", "add", "1");
    cluster.assert_converged().await;
    assert_eq!(cluster.sum("a"), Some(1));
}

/// An event without a sequence has one effect: it is claimed like a command.
#[tokio::test(start_paused = true)]
async fn event_without_a_sequence_is_claimed_by_its_id() {
    let cluster = Cluster::new();
    let _member = settled(&cluster).await;
    let id = Uuid::now_v7();
    let event = |id| headers(id, "a", "other.added", "other", None);
    cluster.append("other.events", "a", event(id), "1");
    cluster.append("other.events", "a", event(id), "1");
    cluster.assert_converged().await;
    cluster.append("other.events", "a", event(id), "1");
    cluster.append("other.events", "a", event(Uuid::now_v7()), "10");
    cluster.assert_converged().await;
    assert_eq!((cluster.sum("a"), cluster.dead_letters().len()), (Some(11), 0));
    cluster.append("other.events", "a", event(id), "2");
    assert_eq!(dead_letter(&cluster, 1).await.0, "INVALID", "another body under the same id");
    cluster.send_event("a", "other.added", 1, "100");
    cluster.assert_converged().await;
    assert_eq!(cluster.sum("a"), Some(111), "those with a sequence are counted apart");
}

#[tokio::test(start_paused = true)]
async fn forward_without_the_seal_runs_nothing() {
    let cluster = Cluster::new();
    let member = settled(&cluster).await;
    let routed = routed(&member.node);
    let origin = CallOrigin::Webhook("bank/webhook".into());
    for call in [call("a", "add", "1"), CallEnvelope { origin, ..call("a", "reported", "1") }] {
        for seal in [Bytes::new(), Bytes::from_static(&[0; 32])] {
            let answer = routed.command_here(Forward { call: call.clone(), seal }).await;
            assert_eq!(answer, Err(PeerError::Unsealed), "{call:?}");
        }
    }
    assert_eq!(cluster.sum("a"), None);
}

/// Bytes of callers in flight are bounded: while look-ups hang, the budget is spent, and the next call hears
/// of it at once.
#[tokio::test(start_paused = true)]
async fn calls_beyond_the_byte_budget_are_overloaded() {
    let cluster = Cluster::new();
    let member = cluster.start_with(|config| config.calls_bytes_max = 3 * 1024 * 1024).await;
    eventually("all partitions owned", || member.node.owned_partitions() == 4).await;
    cluster.oracle.takes_ms.store(10_000, std::sync::atomic::Ordering::SeqCst);
    let large = |key: &str| CallEnvelope { payload: vec![b'x'; 1024 * 1024 - 1024].into(), ..call(key, "ask", "") };
    let waiting: Vec<_> = ["a", "b"]
        .into_iter()
        .map(|key| {
            let (node, call) = (member.node.clone(), large(key));
            tokio::spawn(async move { node.command(call).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(10)).await;
    let third = {
        let (node, call) = (member.node.clone(), large("c"));
        tokio::spawn(async move { node.command(call).await })
    };
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(member.node.command(large("d")).await, Err(RouteError::Overloaded));
    for call in waiting.into_iter().chain([third]) {
        call.await.expect("runs").expect("answered");
    }
    cluster.oracle.takes_ms.store(0, std::sync::atomic::Ordering::SeqCst);
    let given_back = async {
        while member.node.command(large("d")).await == Err(RouteError::Overloaded) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within("the bytes are given back", given_back).await;
}

fn routed(node: &Arc<Node>) -> Arc<Routed> {
    Routed::new(node.clone(), Arc::new(NoPeers), "memory-0", holdfast_runtime::routing::Limits::default())
}

/// A network with nobody in it.
struct NoPeers;

#[async_trait::async_trait]
impl holdfast_runtime::Peers for NoPeers {
    async fn command(&self, _: &str, _: u32, _: &Forward) -> Result<holdfast_core::dedup::Answer, PeerError> {
        Err(PeerError::Unreached("nobody".into()))
    }

    async fn read(
        &self,
        _: &str,
        _: u32,
        _: holdfast_runtime::peers::Question<'_>,
    ) -> Result<holdfast_runtime::peers::Answers, PeerError> {
        Err(PeerError::Unreached("nobody".into()))
    }

    fn keep(&self, _: &std::collections::BTreeSet<Arc<str>>) {}

    fn time_left(&self) -> Option<Duration> {
        None
    }
}
