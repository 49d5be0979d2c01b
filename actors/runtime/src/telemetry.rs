//! The names of the metrics that this crate records, and how a trace crosses it.
//!
//! Labels are bounded: context, partition, reason, outcome; never an aggregate id. Deliberately absent: any
//! exporter, and OpenTelemetry itself: a process hands in a [`TraceLink`].

use std::sync::Arc;

use tracing::Span;

/// Messages done, by `context` and `outcome` (`applied`, `rejected`, `repeat`, `dead_letter`, `deferred`).
pub const MESSAGES_TOTAL: &str = "holdfast_messages_total";
/// Seconds from the broker's append of a record, or what its producer says of it where the topic keeps that,
/// to its admission, by `context`.
pub const ARRIVAL_SECONDS: &str = "holdfast_arrival_seconds";
/// Seconds from a message's admission to the batch that takes it, by `context`.
pub const QUEUE_SECONDS: &str = "holdfast_queue_seconds";
/// Seconds in which states and other contexts are looked up for a batch, by `context`.
pub const LOOK_UP_SECONDS: &str = "holdfast_look_up_seconds";
/// Seconds in which actors decide a batch and the commit before it ends, by `context`.
pub const DECISION_SECONDS: &str = "holdfast_decision_seconds";
/// Seconds from handing records of the outbox to the publisher to the broker's acknowledgement of all of
/// them, by `context`.
pub const PUBLICATION_SECONDS: &str = "holdfast_publication_seconds";
/// Messages in a committed batch, by `context`.
pub const BATCH_RECORDS: &str = "holdfast_batch_size_records";
/// Seconds from the start of a commit to its answer, by `context`.
pub const COMMIT_SECONDS: &str = "holdfast_commit_seconds";
/// Commits that failed, by `context` and `reason`.
pub const COMMIT_FAILURES_TOTAL: &str = "holdfast_commit_failures_total";
/// Aggregate actors in memory, by `context`.
pub const LIVE_ACTORS: &str = "holdfast_live_actors";
/// Aggregate actors restarted after a failure, by `context`.
pub const RESTARTS_TOTAL: &str = "holdfast_restarts_total";
/// Dead letters written, by `context` and `reason`.
pub const DEAD_LETTERS_TOTAL: &str = "holdfast_dead_letters_total";
/// Messages put into the durable mailbox, by `context` and `reason`.
pub const MAILBOX_PUT_TOTAL: &str = "holdfast_mailbox_put_total";
/// Records that lay in a partition that is not their key's home, by `context` and `topic`; `holdfast doctor`
/// names their producers.
pub const MISROUTED_TOTAL: &str = "holdfast_misrouted_total";
/// Partitions owned by this node, by `context`.
pub const OWNED_PARTITIONS: &str = "holdfast_owned_partitions";
/// Times another owner had taken a partition of this node, by `context`.
pub const FENCED_TOTAL: &str = "holdfast_fenced_total";
/// Records between the consumed offset and the end of the log, by `context`, `topic` and `partition`.
pub const LAG_RECORDS: &str = "holdfast_lag_records";
/// Seconds between the timestamp of the record last consumed and now, by `context`, `topic` and `partition`;
/// 0 when there is no lag.
pub const LAG_SECONDS: &str = "holdfast_lag_seconds";
/// Messages in the durable mailbox, by `context` and `partition`.
pub const MAILBOX_WAITING: &str = "holdfast_mailbox_messages";
/// Records that no table would take but the one of last resort, by `context`: raise an alarm, and see
/// `holdfast doctor`.
pub const UNFILED_TOTAL: &str = "holdfast_unfiled_total";
/// Panics of adapters' code outside `decide`, by `step`.
pub const PANICS_TOTAL: &str = "holdfast_panics_total";
/// Timers and effects that fell due and that this build does not know, by `context` and `what` (`timer`,
/// `effect`).
pub const UNKNOWN_DUE_TOTAL: &str = "holdfast_unknown_due_total";
/// Owned partitions given up by this node, by `context` and `cause` (`fenced`, `supervisor_died`,
/// `reader_died`, `acknowledgement_failed`, `outcome_unknown`, `refused`).
pub const LOST_TOTAL: &str = "holdfast_partitions_lost_total";
/// Seconds without progress of a loop that has work, the longest of its class, by `context` and `loop`
/// (`lane`, `relay`, `reader`, `taker`, `watcher`, `ownership`); 0 while all move.
pub const LOOP_STALLED_SECONDS: &str = "holdfast_loop_stalled_seconds";
/// Outbox rows not yet acknowledged by the broker, by `context` and `partition`.
pub const OUTBOX_PENDING: &str = "holdfast_outbox_pending";
/// Outbox records set aside because the broker refuses them, or one before them of their topic and key, by
/// `context`: raise an alarm.
pub const OUTBOX_STUCK: &str = "holdfast_outbox_stuck";
/// Bytes of admission budget in use, by `context`.
pub const MEMORY_BYTES: &str = "holdfast_memory_bytes";
/// 1 while some input topic of this context is in transition to another partition count, by `context`.
pub const IN_TRANSITION: &str = "holdfast_partitions_in_transition";
/// Growths to a count that is no multiple of the one before, by `context`: raise an alarm.
pub const IRREGULAR_GROWTH_TOTAL: &str = "holdfast_irregular_growth_total";
/// 1 while the context is halted, by `context` and `reason`.
pub const HALTED: &str = "holdfast_halted";
/// 1 while an input is halted because its offsets are not in the log, by `context`, `topic` and `partition`.
pub const INPUT_HALTED: &str = "holdfast_input_halted";
/// Inputs opened again because they delivered nothing though the log went on, by `context` and `topic`.
pub const INPUT_REOPENED_TOTAL: &str = "holdfast_input_reopened_total";
/// Calls asked of another node, by `context` and `outcome` (`answered`, `refused`, `not_owner`, `unreached`,
/// `lost`).
pub const FORWARDS_TOTAL: &str = "holdfast_forwards_total";
/// Times the owners' table was read, by `context`.
pub const OWNER_READS_TOTAL: &str = "holdfast_owner_reads_total";
/// Attempts at effects, by `context` and `outcome` (`ended`, `again`).
pub const EFFECT_ATTEMPTS_TOTAL: &str = "holdfast_effect_attempts_total";
/// Violations of an invariant noticed while running, by `invariant`.
pub const INVARIANT_VIOLATIONS_TOTAL: &str = "holdfast_invariant_violations_total";

/// Connects spans with W3C trace context.
pub trait TraceLink: Send + Sync + 'static {
    /// Makes the sender of `traceparent` the parent of `span`.
    fn parent(&self, span: &Span, traceparent: &str, tracestate: Option<&str>);

    /// The `traceparent` (and `tracestate`) under which `span` continues; `None` if it is not recorded.
    fn context(&self, span: &Span) -> Option<(String, Option<String>)>;
}

/// No tracing: contexts pass through as they came.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoTrace;

impl TraceLink for NoTrace {
    fn parent(&self, _: &Span, _: &str, _: Option<&str>) {}

    fn context(&self, _: &Span) -> Option<(String, Option<String>)> {
        None
    }
}

/// Shared handle to a [`TraceLink`].
pub type Trace = Arc<dyn TraceLink>;

/// Whether a `traceparent` carries the sampled flag. Spans are made only then, so that an unsampled message
/// costs nothing.
pub(crate) fn is_sampled(traceparent: &str) -> bool {
    let flags = traceparent.rsplit('-').next().and_then(|flags| u8::from_str_radix(flags, 16).ok());
    flags.is_some_and(|flags| flags & 1 == 1)
}

/// A count, as gauges and histograms take it.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn size(n: usize) -> f64 {
    n as f64
}
