//! The rules that the model checker has shown to be needed, broken one at a time: the seeded runs must
//! notice, or a scenario made for it (I9).
//!
//! Deliberately absent here: no fence, offsets and events before the commit (see [`crate::simulation`]).

use std::time::Duration;

use bytes::Bytes;
use holdfast_core::{KeyHash, PartitionId};
use holdfast_runtime::{Config, Consistency, Router as _, Rules};
use holdfast_testkit::{
    Gate,
    store::{CommitFault, Stage},
};
use tokio::time::Instant;
use uuid::Uuid;

use crate::{
    cluster::{Cluster, Member, PARTITIONS, TOPICS, call, eventually, headers, home, within},
    growth::way,
    simulation::{How, caught},
};

fn as_it_is(_: &Cluster) {}

/// Runs without growth find `rules`.
fn plainly(rules: Rules, by: &[&str], sabotage: impl Fn(&Cluster)) {
    caught(by, |_| How { grows: None, rules }, sabotage);
}

/// Runs with growth find `rules`.
fn growing(rules: Rules, by: &[&str], sabotage: impl Fn(&Cluster)) {
    caught(by, |seed| How { grows: Some(way(seed)), rules }, sabotage);
}

/// What is between a node that has lost touch and its successor.
#[derive(Clone, Copy, Default)]
struct Lost {
    rules: Rules,
    /// It hears of its successor, and hands over.
    is_notified: bool,
    /// The first node can't reach the store.
    is_cut_off: bool,
    /// Its questions for tokens are answered so much later than they were read.
    answers_after: Duration,
}

/// A second node takes the place of the first, which may not hear of it, while a caller writes through the
/// second and reads through the first. A read may not return less than what was written before it began (I5).
async fn stale_read(lost: Lost) -> Option<String> {
    let cluster = Cluster::new();
    let change = |config: &mut Config| config.rules = lost.rules;
    let first = cluster.start_with(change).await;
    eventually("owned", || first.node.owned_partitions() == PARTITIONS as usize).await;
    first.node.command(call("a", "add", "1")).await.expect("applied");
    first.store.set_answer_latency(lost.answers_after);
    tokio::time::sleep(lost.answers_after + Duration::from_millis(1_500)).await;
    first.membership.set_deaf(!lost.is_notified);
    first.store.set_unavailable(lost.is_cut_off);
    if !lost.is_notified {
        cluster.group.expel(&first.membership);
    }
    let second = cluster.start_with(change).await;
    cluster.group.assign(home("a"), &second.membership);
    lag(&first, &second).await
}

/// Writes to `new` until it has long been the owner, and reads from `old`: how that was behind, if it was.
async fn lag(old: &Member, new: &Member) -> Option<String> {
    let end = Instant::now() + Duration::from_secs(20);
    let mut written = 0;
    while Instant::now() < end {
        if let Ok(answer) = new.node.command(call("a", "add", "1")).await {
            written = answer.version();
        }
        if let Ok(read) = old.node.read("counter", "a", Consistency::Strong, 0).await
            && read.version < written
        {
            return Some(format!("read at {}, written at {written}", read.version));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(written > 1, "the other node never took over");
    None
}

/// Finds `lost.rules`, and nothing without it.
async fn reads_find(lost: Lost) {
    assert_eq!(stale_read(Lost { rules: Rules::SOUND, ..lost }).await, None);
    assert!(stale_read(lost).await.is_some(), "nobody noticed");
}

#[tokio::test(start_paused = true)]
async fn waiting_before_the_epoch_is_raised_is_caught() {
    reads_find(Lost { rules: Rules { raises_before_waiting: false, ..Rules::SOUND }, ..Lost::default() }).await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_from_the_answer_is_caught() {
    let answers_after = Duration::from_secs(4);
    reads_find(Lost {
        rules: Rules { lease_counts_from_sending: false, ..Rules::SOUND },
        answers_after,
        ..Lost::default()
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn no_look_at_the_lease_is_caught() {
    reads_find(Lost { rules: Rules { checks_lease: false, ..Rules::SOUND }, is_cut_off: true, ..Lost::default() })
        .await;
}

/// A little longer than a lease and its allowance for drift.
const SILENCE: Duration = Duration::from_millis(5_300);
/// Longer than that.
const LATE: Duration = Duration::from_secs(20);

/// Nodes that know each other; the first owns all.
async fn acquainted<const N: usize>(cluster: &Cluster, rules: Rules) -> [Member; N] {
    let mut members = Vec::new();
    for at in 0..N {
        let member = cluster.start_with(|config| config.rules = rules).await;
        if at > 0 {
            cluster.group.expel(&member.membership);
        }
        members.push(member);
    }
    eventually("owned", || members[0].node.owned_partitions() == PARTITIONS as usize).await;
    members[0].node.command(call("a", "add", "1")).await.expect("applied");
    tokio::time::sleep(Duration::from_secs(3)).await;
    members.try_into().unwrap_or_else(|_| panic!("as many as started"))
}

/// The group takes all from `old`, which does not hear of it and can't reach the store, and gives it to
/// `new`.
fn robs(cluster: &Cluster, old: &Member, new: &Member) {
    old.membership.set_deaf(true);
    old.store.set_unavailable(true);
    cluster.group.expel(&old.membership);
    cluster.group.readmit(&new.membership);
}

/// An owner's beats arrive too late to be of use.
async fn read_of_one_whose_beats_are_late(rules: Rules) -> Option<String> {
    let cluster = Cluster::new();
    let [old, new] = acquainted(&cluster, rules).await;
    old.store.set_beat_latency(LATE);
    tokio::time::sleep(SILENCE + Duration::from_secs(1)).await;
    robs(&cluster, &old, &new);
    lag(&old, &new).await
}

#[tokio::test(start_paused = true)]
async fn a_look_before_the_beat_is_caught() {
    assert_eq!(read_of_one_whose_beats_are_late(Rules::SOUND).await, None);
    assert!(
        read_of_one_whose_beats_are_late(Rules { beats_before_looking: false, ..Rules::SOUND }).await.is_some(),
        "nobody noticed"
    );
}

/// A taker has heard nothing for a while, because nothing reached it.
async fn read_after_a_taker_was_out_of_hearing(rules: Rules) -> Option<String> {
    let cluster = Cluster::new();
    let [old, new] = acquainted(&cluster, rules).await;
    new.store.set_beat_latency(LATE);
    tokio::time::sleep(SILENCE + Duration::from_secs(1)).await;
    new.store.set_beat_latency(Duration::ZERO);
    robs(&cluster, &old, &new);
    lag(&old, &new).await
}

#[tokio::test(start_paused = true)]
async fn a_beat_that_is_not_the_last_one_is_caught() {
    assert_eq!(read_after_a_taker_was_out_of_hearing(Rules::SOUND).await, None);
    assert!(
        read_after_a_taker_was_out_of_hearing(Rules { asks_for_last_beat: false, ..Rules::SOUND }).await.is_some(),
        "nobody noticed"
    );
}

/// An owner begins while its beats are late, and is robbed at once.
async fn read_of_one_that_has_just_begun(rules: Rules) -> Option<String> {
    let cluster = Cluster::new();
    let [first, old, new] = acquainted(&cluster, rules).await;
    old.store.set_beat_latency(LATE);
    tokio::time::sleep(SILENCE).await;
    cluster.group.readmit(&old.membership);
    cluster.group.expel(&first.membership);
    tokio::time::sleep(Duration::from_secs(1)).await;
    // So that its actor is in memory, if it has begun.
    let _ = tokio::time::timeout(Duration::from_secs(1), old.node.command(call("a", "add", "1"))).await;
    robs(&cluster, &old, &new);
    lag(&old, &new).await
}

#[tokio::test(start_paused = true)]
async fn a_first_lease_without_a_beat_is_caught() {
    assert_eq!(read_of_one_that_has_just_begun(Rules::SOUND).await, None);
    assert!(
        read_of_one_that_has_just_begun(Rules { beats_before_beginning: false, ..Rules::SOUND }).await.is_some(),
        "nobody noticed"
    );
}

/// While the outcome of a commit is being found out, it is visible elsewhere already.
async fn read_behind_a_commit(rules: Rules) -> bool {
    let cluster = Cluster::new();
    let member = cluster.start_with(|config| config.rules = rules).await;
    eventually("owned", || member.node.owned_partitions() == PARTITIONS as usize).await;
    member.node.command(call("a", "add", "1")).await.expect("applied");
    member.store.next_commit(CommitFault::UnknownCommitted);
    member.store.set_latency(Duration::from_secs(1));
    let node = member.node.clone();
    let command = tokio::spawn(async move { node.command(call("a", "add", "1")).await });
    eventually("it is committed", || cluster.version("a") == 2).await;
    let read = member.node.read("counter", "a", Consistency::Strong, 0);
    let read = tokio::time::timeout(Duration::from_millis(100), read).await;
    command.await.expect("runs").expect("applied");
    matches!(read, Ok(Ok(read)) if read.version < 2)
}

#[tokio::test(start_paused = true)]
async fn a_strong_read_that_waits_for_no_commit_is_caught() {
    assert!(!read_behind_a_commit(Rules::SOUND).await);
    assert!(read_behind_a_commit(Rules { reads_wait_for_commits: false, ..Rules::SOUND }).await, "nobody noticed");
}

/// The version check is the second line, and hides this one.
#[test]
fn actors_kept_after_a_lost_fence_are_caught() {
    plainly(Rules { drops_actors_when_fenced: false, ..Rules::SOUND }, &["I2", "I3", "I10"], |cluster| {
        cluster.store.sabotage(|store| store.no_version_check = true);
    });
}

#[test]
fn a_commit_made_again_blindly_is_caught() {
    plainly(Rules { settles_unknown_commits: false, ..Rules::SOUND }, &["I2", "I3"], as_it_is);
}

#[test]
fn a_read_back_without_the_rows_lock_is_caught() {
    caught(
        &["I2", "I3", "I4", "I10"],
        |_| How::default(),
        |cluster| {
            cluster.store.sabotage(|store| (store.retoken_by_plain_read, store.no_batch_number) = (true, true));
        },
    );
}

#[tokio::test(start_paused = true)]
async fn a_row_released_before_reads_end_is_caught() {
    reads_find(Lost {
        rules: Rules { ends_lease_before_releasing: false, ..Rules::SOUND },
        is_notified: true,
        ..Lost::default()
    })
    .await;
}

#[test]
fn a_look_up_that_ignores_its_batch_is_caught() {
    plainly(Rules { claims_count_within_batch: false, ..Rules::SOUND }, &["I2"], as_it_is);
}

#[test]
fn a_mailbox_applied_after_the_batch_is_caught() {
    growing(Rules { applies_mail_before_records: false, ..Rules::SOUND }, &["I2", "I3"], as_it_is);
}

#[test]
fn a_mailbox_in_the_order_of_offsets_is_caught() {
    growing(Rules::SOUND, &["I2", "I3"], |cluster| cluster.store.sabotage(|store| store.mailbox_by_offset = true));
}

/// How two records of one producer and key come to lie in two partitions.
#[derive(Clone, Copy)]
struct Changed {
    rules: Rules,
    counts: &'static [u32],
    /// The older one's commit takes long.
    is_slow: bool,
    /// So long that the age of a transition passes.
    is_old: bool,
    /// Something else is read from the newer one's partition just before.
    is_busy: bool,
}

impl Changed {
    const SLOWLY: Self = Self { rules: Rules::SOUND, counts: &[2, 4], is_slow: true, is_old: false, is_busy: false };
}

/// Whether the second record took effect before the first.
async fn overtakes(changed: Changed) -> bool {
    let (older, newer) = (changed.counts[0], changed.counts[changed.counts.len() - 1]);
    let homes = |key: &str| -> Vec<PartitionId> {
        changed.counts.iter().map(|count| KeyHash::of(key.as_bytes()).home(*count)).collect()
    };
    let moves = |key: &String| homes(key).windows(2).all(|pair| pair[0] != pair[1]);
    let mut keys = (0..10_000).map(|n| format!("m{n}")).filter(moves);
    let key = keys.next().expect("some key moves each time");
    let other = keys.find(|other| homes(other) == homes(&key)).expect("so does another");
    let cluster = Cluster::with_partitions(older);
    let change = |config: &mut Config| {
        config.rules = changed.rules;
        config.producers_max_age = if changed.is_old { Duration::from_secs(10) } else { Duration::from_mins(7) };
        // The poll is this rare so that mail is found by a look-up of its aggregate, not by the poll.
        config.poll_every = Duration::from_secs(20);
    };
    let first = cluster.start_with(change).await;
    let second = cluster.start_with(change).await;
    cluster.group.assign(homes(&key)[0], &first.membership);
    for (count, home) in changed.counts.iter().zip(homes(&key)).skip(1) {
        cluster.group.assign(home, &second.membership);
        for topic in TOPICS {
            cluster.grow(topic, *count);
        }
        eventually("in force", || cluster.store.contents().growth(Instant::now()).current().1 == *count).await;
    }
    let serves = async {
        while second.node.command(call(&key, "add", "1")).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within("the last home serves", serves).await;
    let gate = Gate::closed();
    if changed.is_slow {
        first.store.next_commit(CommitFault::Slow(Stage::BeforeFence, gate.clone()));
    }
    let send = |key: &str, count: u32, body: &str| {
        let (id, home) = (Uuid::now_v7(), KeyHash::of(key.as_bytes()).home(count));
        let (bytes, value) = (Bytes::from(key.to_owned()), Bytes::from(body.to_owned()));
        let headers = headers(id, key, "add", "producer", None);
        cluster.log.append("counter.commands", Some(home), Some(bytes), headers, Some(value)).expect("it is there");
    };
    if changed.is_busy {
        send(&other, newer, "5");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    send(&key, older, "10");
    if changed.is_slow {
        within("its commit is under way", gate.arrivals(1)).await;
    }
    if changed.is_old {
        tokio::time::sleep(Duration::from_secs(30)).await;
    }
    send(&key, newer, "100");
    tokio::time::sleep(Duration::from_secs(5)).await;
    gate.open();
    eventually("all is done", || cluster.sum(&key) == Some(111)).await;
    eventually("all is published", || cluster.events()[&key].len() == 3).await;
    let bodies: Vec<String> = cluster.events()[&key].iter().map(|(_, body)| body.clone()).collect();
    bodies != ["1", "10", "100"]
}

async fn order_finds(changed: Changed) {
    assert!(!overtakes(Changed { rules: Rules::SOUND, ..changed }).await);
    assert!(overtakes(changed).await, "nobody noticed");
}

#[tokio::test(start_paused = true)]
async fn records_that_wait_for_nothing_are_caught() {
    order_finds(Changed { rules: Rules { waits_for_ancestors: false, ..Rules::SOUND }, ..Changed::SLOWLY }).await;
}

#[tokio::test(start_paused = true)]
async fn ends_read_before_the_fetch_are_caught() {
    order_finds(Changed {
        rules: Rules { measures_ends_after_fetch: false, ..Rules::SOUND },
        is_busy: true,
        ..Changed::SLOWLY
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn waiting_for_the_parent_alone_is_caught() {
    order_finds(Changed {
        rules: Rules { waits_for_all_ancestors: false, ..Rules::SOUND },
        counts: &[1, 2, 4],
        ..Changed::SLOWLY
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_transition_that_ends_by_age_alone_is_caught() {
    order_finds(Changed {
        rules: Rules { transition_ends_when_consumed: false, ..Rules::SOUND },
        is_old: true,
        ..Changed::SLOWLY
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_mailbox_read_before_the_wait_is_caught() {
    order_finds(Changed {
        rules: Rules { reads_mail_after_wait: false, ..Rules::SOUND },
        is_slow: false,
        ..Changed::SLOWLY
    })
    .await;
}

/// What is between the first home of a key and its last.
#[derive(Clone, Copy)]
struct Moved {
    rules: Rules,
    counts: &'static [u32],
    /// The first home's owner can't reach the store.
    is_cut_off: bool,
    /// The first home is taken by another node.
    is_taken: bool,
}

/// A key moves to other homes, while the owner of its first home still has its actor: a caller writes through
/// the second node, which owns the other homes, and reads through the first.
async fn stale_read_of_moved_key(moved: Moved) -> Option<String> {
    let cluster = Cluster::with_partitions(moved.counts[0]);
    let homes = |key: &str| -> Vec<PartitionId> {
        moved.counts.iter().map(|count| KeyHash::of(key.as_bytes()).home(*count)).collect()
    };
    let key = (0..10_000).map(|n| format!("m{n}")).find(|key| homes(key).windows(2).all(|pair| pair[0] != pair[1]));
    let key = key.expect("some key moves each time");
    let change = |config: &mut Config| config.rules = moved.rules;
    let first = cluster.start_with(change).await;
    eventually("owned", || first.node.owned_partitions() == moved.counts[0] as usize).await;
    first.node.command(call(&key, "add", "1")).await.expect("applied");
    cluster.group.assign(homes(&key)[0], &first.membership);
    // Only the first node breaks a rule that is its own.
    let second = cluster
        .start_with(|config| config.rules = Rules { passivates_before_acknowledging: true, ..moved.rules })
        .await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    first.membership.set_deaf(moved.is_cut_off);
    first.store.set_unavailable(moved.is_cut_off);
    for (generation, count) in (2..).zip(moved.counts.iter().skip(1)) {
        // A count comes into force at once only where each home has an owner.
        for other in (0..*count).map(PartitionId).filter(|partition| *partition != homes(&key)[0]) {
            cluster.group.assign(other, &second.membership);
        }
        for topic in TOPICS {
            cluster.grow(topic, *count);
        }
        eventually("in force", || cluster.store.contents().generations.len() == generation).await;
    }
    if moved.is_taken {
        cluster.group.assign(homes(&key)[0], &second.membership);
    }
    let (end, mut written) = (Instant::now() + Duration::from_secs(20), 1);
    while Instant::now() < end {
        if let Ok(answer) = second.node.command(call(&key, "add", "1")).await {
            written = answer.version();
        }
        if let Ok(read) = first.node.read("counter", &key, Consistency::Strong, 0).await
            && read.version < written
        {
            return Some(format!("read at {}, written at {written}", read.version));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    cluster.group.expel(&first.membership);
    let serves = async {
        while second.node.command(call(&key, "add", "1")).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within("the last home serves in the end", serves).await;
    None
}

async fn reads_find_moved(moved: Moved) {
    assert_eq!(stale_read_of_moved_key(Moved { rules: Rules::SOUND, ..moved }).await, None);
    assert!(stale_read_of_moved_key(moved).await.is_some(), "nobody noticed");
}

#[tokio::test(start_paused = true)]
async fn a_home_that_serves_without_acknowledgement_is_caught() {
    let rules = Rules { waits_for_acknowledgement: false, ..Rules::SOUND };
    reads_find_moved(Moved { rules, counts: &[2, 4], is_cut_off: true, is_taken: false }).await;
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_of_the_parent_alone_is_caught() {
    let rules = Rules { waits_for_all_earlier_homes: false, ..Rules::SOUND };
    reads_find_moved(Moved { rules, counts: &[1, 2, 4], is_cut_off: true, is_taken: false }).await;
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_at_the_bump_of_the_epoch_is_caught() {
    let rules = Rules { acknowledges_when_begun: false, ..Rules::SOUND };
    reads_find_moved(Moved { rules, counts: &[2, 4], is_cut_off: true, is_taken: true }).await;
}

#[tokio::test(start_paused = true)]
async fn actors_stopped_after_the_acknowledgement_are_caught() {
    let rules = Rules { passivates_before_acknowledging: false, ..Rules::SOUND };
    reads_find_moved(Moved { rules, counts: &[2, 4], is_cut_off: false, is_taken: false }).await;
}
