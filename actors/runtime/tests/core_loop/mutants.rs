//! The rules that the model checker has shown to be needed, broken one at a time: the seeded runs must notice (I9).
//!
//! Deliberately absent here: no fence, offsets and events before the commit (see [`crate::simulation`]).

use holdfast_runtime::mutant::Mutant;

use crate::{
    cluster::Cluster,
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

#[test]
fn waiting_before_the_epoch_is_raised_is_caught() {
    plainly(Mutant::WaitThenBump, &["I5"], as_it_is);
}

#[test]
fn a_lease_from_the_answer_is_caught() {
    plainly(Mutant::LeaseFromAnswer, &["I5"], as_it_is);
}

#[test]
fn no_look_at_the_lease_is_caught() {
    plainly(Mutant::NoLeaseCheck, &["I5"], as_it_is);
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
