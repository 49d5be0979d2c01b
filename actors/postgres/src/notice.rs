//! Hears the warnings that Postgres sends with an answer.
//!
//! A COMMIT whose wait for the synchronous standby was cancelled succeeds locally and says so only in a
//! WARNING; taken for a success it would break I1. sqlx 0.9 hands notices to nobody: it turns them into
//! `tracing` events of target `sqlx::postgres::notice`, and that is where they are caught: while a watched
//! future is polled, a subscriber of ours stands before the one that was current, notes the warning and
//! passes everything on. Deliberately absent: reading the text, which is translated.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    pin::pin,
    sync::LazyLock,
};

use tracing::level_filters::LevelFilter;
use tracing::{
    Dispatch, Event, Level, Metadata, Subscriber, dispatcher,
    span::{Attributes, Id, Record},
    subscriber::Interest,
};

const TARGET: &str = "sqlx::postgres::notice";

thread_local! {
    static WARNED: Cell<bool> = const { Cell::new(false) };
    static BEHIND: RefCell<Option<Dispatch>> = const { RefCell::new(None) };
}

static WATCHER: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(Watcher));

/// Runs `future`, and tells whether the server warned meanwhile.
pub(crate) async fn watch<F: Future>(future: F) -> (F::Output, bool) {
    let mut future = pin!(future);
    let mut warned = false;
    let output = poll_fn(|cx| {
        WARNED.set(false);
        let behind = dispatcher::get_default(Clone::clone);
        let before = BEHIND.replace(Some(behind));
        let polled = dispatcher::with_default(&WATCHER, || future.as_mut().poll(cx));
        BEHIND.replace(before);
        warned |= WARNED.take();
        polled
    })
    .await;
    (output, warned)
}

struct Watcher;

fn is_warning(metadata: &Metadata<'_>) -> bool {
    metadata.target() == TARGET && *metadata.level() <= Level::WARN
}

fn behind<T>(ask: impl FnOnce(&Dispatch) -> T) -> Option<T> {
    BEHIND.with_borrow(|behind| behind.as_ref().map(ask))
}

impl Subscriber for Watcher {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if is_warning(metadata) { Interest::sometimes() } else { Interest::never() }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::WARN)
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        is_warning(metadata) || behind(|behind| behind.enabled(metadata)).unwrap_or(false)
    }

    fn event(&self, event: &Event<'_>) {
        if is_warning(event.metadata()) {
            WARNED.set(true);
        }
        behind(|behind| {
            if behind.enabled(event.metadata()) {
                behind.event(event);
            }
        });
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        behind(|behind| behind.new_span(span)).unwrap_or_else(|| Id::from_u64(1))
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        behind(|behind| behind.record(span, values));
    }

    fn record_follows_from(&self, span: &Id, follows: &Id) {
        behind(|behind| behind.record_follows_from(span, follows));
    }

    fn enter(&self, span: &Id) {
        behind(|behind| behind.enter(span));
    }

    fn exit(&self, span: &Id) {
        behind(|behind| behind.exit(span));
    }

    fn clone_span(&self, id: &Id) -> Id {
        behind(|behind| behind.clone_span(id)).unwrap_or_else(|| id.clone())
    }

    fn try_close(&self, id: Id) -> bool {
        behind(|behind| behind.try_close(id)).unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_warning_is_heard_and_other_words_are_not() {
        let ((), warned) = watch(async { tracing::warn!(target: "sqlx::postgres::notice", "standby") }).await;
        assert!(warned);
        let ((), warned) = watch(async {
            tracing::info!(target: "sqlx::postgres::notice", "chatter");
            tracing::warn!("another target");
        })
        .await;
        assert!(!warned);
    }

    #[tokio::test]
    async fn a_warning_outside_is_not_laid_to_a_later_commit() {
        tracing::warn!(target: "sqlx::postgres::notice", "before");
        let ((), warned) = watch(async { tokio::task::yield_now().await }).await;
        assert!(!warned);
    }
}
