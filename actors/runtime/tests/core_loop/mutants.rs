//! The rules that the model checker has shown to be needed, broken one at a time: the seeded runs must notice, or a scenario made for it (I9).
//!
//! Deliberately absent here: no fence, offsets and events before the commit (see [`crate::simulation`]).

use std::time::Duration;

use holdfast_runtime::{Config, Consistency, Router as _, mutant::Mutant};
use holdfast_testkit::store::CommitFault;
use tokio::time::Instant;

use crate::{
    cluster::{Cluster, PARTITIONS, call, eventually},
    growth::way,
    simulation::{How, caught},
};

fn as_it_is(_: &Cluster) {}

/// Runs without growth find `mutant`.
fn plainly(mutant: Mutant, by: &[&str], sabotage: impl Fn(&Cluster)) {
    caught(by, |_| How { grows: None, mutant: Some(mutant) }, sabotage);
}

/// Runs with growth find `mutant`.
fn growing(mutant: Option<Mutant>, by: &[&str], sabotage: impl Fn(&Cluster)) {
    caught(by, |seed| How { grows: Some(way(seed)), mutant }, sabotage);
}

/// What is between a node that has lost touch and its successor.
#[derive(Clone, Copy, Default)]
struct Lost {
    mutant: Option<Mutant>,
    /// The first node can't reach the store.
    is_cut_off: bool,
    /// Its questions for tokens are answered so much later than they were read.
    answers_after: Duration,
}

/// A node does not hear that another has taken its place, while somebody writes there and reads here. What is read may not be older than what
/// was written before the read began (I5).
async fn stale_read(lost: Lost) -> Option<String> {
    let cluster = Cluster::new();
    let change = |config: &mut Config| config.mutant = lost.mutant;
    let first = cluster.start_with(change).await;
    eventually("owned", || first.node.owned_partitions() == PARTITIONS as usize).await;
    first.node.command(call("a", "add", "1")).await.expect("applied");
    first.store.set_answer_latency(lost.answers_after);
    tokio::time::sleep(lost.answers_after + Duration::from_millis(1_500)).await;
    first.membership.set_deaf(true);
    first.store.set_unavailable(lost.is_cut_off);
    cluster.group.expel(&first.membership);
    let second = cluster.start_with(change).await;
    let end = Instant::now() + Duration::from_secs(20);
    let mut written = 1;
    while Instant::now() < end {
        if let Ok(answer) = second.node.command(call("a", "add", "1")).await {
            written = answer.version();
        }
        if let Ok(read) = first.node.read("counter", "a", Consistency::Strong, 0).await
            && read.version < written
        {
            return Some(format!("read at {}, written at {written}", read.version));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(written > 1, "the second node never took over");
    None
}

/// Finds `lost.mutant`, and nothing without it.
async fn reads_find(lost: Lost) {
    assert_eq!(stale_read(Lost { mutant: None, ..lost }).await, None);
    assert!(stale_read(lost).await.is_some(), "nobody noticed");
}

#[tokio::test(start_paused = true)]
async fn waiting_before_the_epoch_is_raised_is_caught() {
    reads_find(Lost { mutant: Some(Mutant::WaitThenBump), ..Lost::default() }).await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_from_the_answer_is_caught() {
    let answers_after = Duration::from_secs(4);
    reads_find(Lost { mutant: Some(Mutant::LeaseFromAnswer), answers_after, ..Lost::default() }).await;
}

#[tokio::test(start_paused = true)]
async fn no_look_at_the_lease_is_caught() {
    reads_find(Lost { mutant: Some(Mutant::NoLeaseCheck), is_cut_off: true, ..Lost::default() }).await;
}

/// While the outcome of a commit is being found out, it is visible elsewhere already.
async fn read_behind_a_commit(mutant: Option<Mutant>) -> bool {
    let cluster = Cluster::new();
    let member = cluster.start_with(|config| config.mutant = mutant).await;
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
    assert!(!read_behind_a_commit(None).await);
    assert!(read_behind_a_commit(Some(Mutant::StrongDoesNotWait)).await, "nobody noticed");
}

/// The version check is the second line, and hides this one.
#[test]
fn actors_kept_after_a_lost_fence_are_caught() {
    plainly(Mutant::ActorsKept, &["I2", "I3", "I10"], |cluster| {
        cluster.store.sabotage(|store| store.no_version_check = true)
    });
}

#[test]
fn a_commit_made_again_blindly_is_caught() {
    plainly(Mutant::BlindReexecution, &["I2", "I3"], as_it_is);
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

#[test]
fn a_row_released_before_reads_end_is_caught() {
    plainly(Mutant::ReleaseFirst, &["I5"], as_it_is);
}

#[test]
fn a_look_up_that_ignores_its_batch_is_caught() {
    plainly(Mutant::LookUpIgnoresBatch, &["I2"], as_it_is);
}

#[test]
fn records_that_wait_for_nothing_are_caught() {
    growing(Some(Mutant::NoWait), &["I3"], as_it_is);
}

#[test]
fn ends_read_before_the_fetch_are_caught() {
    growing(Some(Mutant::EndsBeforeFetch), &["I3"], as_it_is);
}

#[test]
fn waiting_for_the_parent_alone_is_caught() {
    growing(Some(Mutant::ParentOnly), &["I3"], as_it_is);
}

#[test]
fn a_transition_that_ends_by_age_alone_is_caught() {
    growing(Some(Mutant::EndedByAge), &["I2", "I3"], as_it_is);
}

#[test]
fn a_mailbox_read_before_the_wait_is_caught() {
    growing(Some(Mutant::MailboxBeforeWait), &["I2", "I3"], as_it_is);
}

#[test]
fn a_mailbox_applied_after_the_batch_is_caught() {
    growing(Some(Mutant::MailboxAfterBatch), &["I2", "I3"], as_it_is);
}

#[test]
fn a_mailbox_in_the_order_of_offsets_is_caught() {
    growing(None, &["I2", "I3"], |cluster| cluster.store.sabotage(|store| store.mailbox_by_offset = true));
}

#[test]
fn a_home_that_serves_without_acknowledgement_is_caught() {
    growing(Some(Mutant::NoAcknowledgement), &["I3", "I5"], as_it_is);
}

#[test]
fn an_acknowledgement_of_the_parent_alone_is_caught() {
    growing(Some(Mutant::AcknowledgedByParent), &["I3", "I5"], as_it_is);
}

#[test]
fn an_acknowledgement_at_the_bump_of_the_epoch_is_caught() {
    growing(Some(Mutant::AcknowledgedAtBump), &["I3", "I5"], as_it_is);
}

#[test]
fn actors_stopped_after_the_acknowledgement_are_caught() {
    growing(Some(Mutant::PassivatedAfterwards), &["I5"], as_it_is);
}
