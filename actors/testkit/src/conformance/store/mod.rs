//! The laws of [`Store`].
//!
//! ```ignore
//! holdfast_testkit::store_conformance! {
//!     #[tokio::test(flavor = "multi_thread")]
//!     async || PgHarness::fresh().await
//! }
//! ```

mod commit;
mod effects;
mod growth;
mod history;
mod narrowing;
mod outbox;
mod ownership;
mod pools;
mod seal;
mod stuck;
mod waiting;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use holdfast_core::{
    AggregateId, PartitionId,
    batch::{DeadLetter, Unfiled},
    epoch::{Generation, PartitionRow},
    port::store::{Found, StateRow, Store, Wanted},
};
use serde_json::Value;
use uuid::Uuid;

pub use self::{
    commit::*, effects::*, growth::*, history::*, narrowing::*, outbox::*, ownership::*, pools::*, seal::*, stuck::*,
    waiting::*,
};

/// What an adapter's harness can do beyond the port itself.
#[derive(Clone, Copy, Debug)]
pub struct Features {
    /// [`StoreHarness::view`] answers.
    pub views: bool,
    /// [`StoreHarness::dead_letters`] answers.
    pub dead_letters: bool,
    /// [`StoreHarness::set_generation`] works.
    pub generations: bool,
    /// [`StoreHarness::hold_rows`] works.
    pub row_locks: bool,
}

impl Features {
    /// Everything.
    pub const ALL: Self = Self { views: true, dead_letters: true, generations: true, row_locks: true };
}

/// What a test makes unreadable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// The stored answers of claims with this message id.
    Claim(Uuid),
    /// The stored state of an aggregate.
    State(AggregateId),
    /// The wait reason of all mail of an aggregate.
    MailReason(AggregateId),
    /// The headers of all mail of an aggregate: they become the byte 7.
    MailHeaders(AggregateId),
}

/// One fresh, empty store under test.
#[async_trait]
pub trait StoreHarness: Send + Sync {
    /// A node's own handle on the store; each call is another node.
    async fn connect(&self) -> Arc<dyn Store>;

    /// What the methods below can do.
    fn features(&self) -> Features;

    /// The read model's row of `id` (of kind [`crate::sample::KIND`]).
    async fn view(&self, id: &AggregateId) -> Option<Value>;

    /// The index of dead letters, in order of their offsets.
    async fn dead_letters(&self) -> Vec<DeadLetter>;

    /// The records that could be filed nowhere else.
    async fn unfiled(&self) -> Vec<Unfiled>;

    /// Damages what is stored; `false` if this store can't hold such damage.
    async fn damage(&self, what: Damage) -> bool;

    /// Puts `generation` in force on every partition row.
    async fn set_generation(&self, generation: Generation);

    /// Locks the rows of `partitions` as a hanging transaction would, until the answer is dropped.
    async fn hold_rows(&self, partitions: &[PartitionId]) -> Box<dyn Send>;
}

/// The row of `partition`.
async fn row(store: &Arc<dyn Store>, partition: u32) -> PartitionRow {
    let rows = store.partitions().await.expect("the store is there");
    rows.into_iter().find(|row| row.partition == PartitionId(partition)).expect("the partition is registered")
}

/// A node's handle on a store with `count` partitions.
async fn registered(harness: &dyn StoreHarness, count: u32) -> Arc<dyn Store> {
    let store = harness.connect().await;
    store.register_partitions(count).await.expect("the store is there");
    store
}

async fn found(store: &Arc<dyn Store>, keys: &[&str]) -> Vec<Found> {
    let wanted: Vec<Wanted> = keys.iter().map(|key| Wanted::state(crate::sample::id(key))).collect();
    store.find(&wanted).await.expect("the store is there")
}

/// The state of one sample aggregate.
async fn stored(store: &Arc<dyn Store>, key: &str) -> Option<StateRow> {
    found(store, &[key]).await.remove(0).state.expect("readable")
}

/// The bodies of the outbox rows of `partition`, in order.
async fn published(store: &Arc<dyn Store>, partition: u32) -> Vec<String> {
    let rows = store.outbox(PartitionId(partition), 0, u32::MAX >> 1, usize::MAX).await.expect("the store is there");
    rows.iter()
        .map(|row| String::from_utf8_lossy(row.draft.value.as_deref().unwrap_or_default()).into_owned())
        .collect()
}

/// Asks again until `holds` or ten seconds have passed.
async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    for _ in 0..500 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("did not come true within 10 s: {what}");
}

/// Makes one test of each law of [`holdfast_core::port::store::Store`]. Takes the attribute of the tests
/// (`#[tokio::test]` if left out) and something to call without arguments whose future gives a fresh
/// [`StoreHarness`].
#[macro_export]
macro_rules! store_conformance {
    (#[$test:meta] $fresh:expr) => {
        $crate::conformance_laws! { #[$test] $crate::conformance::store, $fresh;
            a_fresh_partition_was_never_owned_and_needs_no_waiting
            registering_again_adds_missing_rows_and_changes_no_others
            take_is_conditional_on_the_epoch
            of_concurrent_takers_exactly_one_wins
            a_take_over_keeps_progress
            release_is_seen_by_the_next_taker_and_by_no_later_one
            release_needs_the_current_token
            taker_gets_the_last_beat_of_an_owner_that_had_begun
            a_beat_is_answered_with_the_last_of_each_node
            owner_with_a_beat_unknown_to_its_taker_finds_the_new_token
            tokens_are_those_of_the_last_takers
            stale_token_commits_nothing
            stale_generation_commits_nothing
            a_batch_number_used_before_commits_nothing
            a_partially_stale_batch_commits_only_the_held_partitions
            retoken_settles_an_unknown_commit_for_good
            retoken_returns_the_number_of_a_commit_that_happened
            retoken_touches_only_rows_that_still_have_the_old_token
            retoken_racing_a_commit_agrees_with_its_outcome
            retoken_waits_for_whoever_holds_the_row
            plain_reads_and_beats_wait_for_no_lock
            a_take_over_amid_commits_loses_and_doubles_nothing

            a_first_count_opens_no_transition_and_each_larger_one_does
            a_count_that_is_not_above_the_newest_changes_nothing
            new_partition_gets_row_with_transition_in_current_generation
            a_generation_is_put_on_all_rows_at_once_and_only_once
            generation_is_acknowledged_once_with_its_mark_as_last_row
            an_acknowledgement_needs_the_current_token_and_generation
            a_mark_counts_for_every_step_up_to_it_noticed_or_not
            ends_noted_first_stand_and_an_ended_transition_stays_ended

            a_committed_state_is_found_as_it_was_written
            answers_come_in_the_order_asked
            state_is_replaced_under_its_expected_version
            version_conflict_writes_nothing
            claims_are_found_with_their_answers
            claims_are_found_whatever_their_ids
            refusals_alone_leave_a_row_with_their_claims
            an_aggregate_that_has_spilled_says_so
            bad_data_refuses_the_whole_batch
            views_are_written_and_replaced
            dead_letters_are_indexed
            a_batch_may_be_large

            outbox_rows_are_numbered_in_batch_order_without_gaps
            outbox_rows_come_back_byte_for_byte
            outbox_is_read_after_a_sequence_up_to_a_limit
            consumed_offsets_are_merged_per_topic
            a_batch_without_entries_moves_number_and_offsets
            a_cursor_never_goes_back
            a_cursor_needs_the_current_token

            outbox_is_read_up_to_so_many_bytes
            rows_are_set_aside_with_the_cursor
            setting_aside_needs_the_current_token
            stuck_queues_are_released_in_order
            ending_a_release_needs_the_current_token
            stuck_records_are_found_by_the_home_of_their_key

            the_known_end_of_the_events_topic_is_stored_with_the_cursor
            a_halt_takes_every_partition_from_its_owner
            first_topic_mark_stays_until_an_operator_accepts_another
            accepted_offsets_replace_those_of_one_topic

            grants_are_made_in_batch_order
            a_condition_is_granted_whole_or_not_at_all
            stale_partitions_take_nothing_from_pools
            pools_that_do_not_exist_are_left_out
            grants_never_oversell
            batches_that_want_the_same_pools_in_another_order_all_end
            seal_is_the_same_for_every_node

            a_timer_is_due_after_its_delay_and_not_before
            timer_set_again_replaces
            a_cancelled_timer_is_gone
            firing_removes_its_own_setting_alone
            firing_puts_off_its_own_setting_alone
            timer_changes_of_one_batch_take_effect_in_order
            due_timers_come_oldest_first_up_to_a_limit
            timers_are_found_by_the_home_of_their_key
            effect_is_due_for_others_after_its_hold_and_counts_attempts
            an_effect_that_is_intended_again_stays_as_it_is
            an_effect_that_has_ended_is_gone_and_stays_so
            an_effect_that_was_put_off_is_due_later_with_its_error
            due_effects_come_by_home_and_limit_to_one_asker_each
            waiting_messages_come_back_as_they_were_put
            waiting_messages_keep_commit_order_and_only_the_head_is_due
            removing_the_head_makes_the_next_due
            a_message_put_while_its_head_is_removed_is_due
            a_message_deferred_while_its_head_is_removed_stays_deferred
            a_deferred_head_holds_its_aggregate_back_and_nobody_else
            found_counts_waiting_messages
            due_mail_keeps_its_limits
            mail_is_found_by_the_home_of_its_key

            key_that_cannot_be_asked_is_named_as_data
            unreadable_claim_is_an_error_in_its_place
            unreadable_state_is_an_error_in_its_place
            unreadable_mail_is_an_error_in_its_place
            due_mail_keeps_its_bytes
            timers_put_off_are_due_later
            unfiled_record_is_kept_whatever_it_holds
        }
    };
    ($fresh:expr) => {
        $crate::store_conformance! { #[tokio::test] $fresh }
    };
}

/// One test per law: the common part of the suites' macros.
#[doc(hidden)]
#[macro_export]
macro_rules! conformance_laws {
    (#[$test:meta] $module:path, $fresh:expr; $($law:ident)*) => {
        $(
            #[$test]
            async fn $law() {
                use $module as laws;
                let harness = ($fresh)().await;
                laws::$law(&harness).await;
            }
        )*
    };
}
