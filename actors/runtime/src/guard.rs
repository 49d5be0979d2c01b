//! Panics of an adapter's code outside `decide`: caught here, counted, and returned as an error to the code
//! that called the adapter.
//!
//! Inside `decide` an actor dies, and its supervisor restarts it ([`crate::partition`]); everywhere else the
//! task that runs the code serves others as well, so the panic becomes a value (I6). Its text goes to the log
//! alone, never to a caller: it may quote what a stranger sent. Deliberately absent: what becomes of the
//! message, which is that of a failed handler.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
};

use futures::FutureExt as _;

use crate::telemetry;

/// A step that panicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{step} panicked; the log has the panic's text")]
pub(crate) struct Panicked {
    step: &'static str,
}

/// Runs `work`. What it may leave half done is dropped with it or belongs to the adapter, which is shared and
/// so must survive a panic anyway.
pub(crate) fn guarded<T>(step: &'static str, work: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| noted(step, &*panic))
}

/// Waits for `work`.
pub(crate) async fn guarded_future<T>(step: &'static str, work: impl Future<Output = T>) -> Result<T, Panicked> {
    AssertUnwindSafe(work).catch_unwind().await.map_err(|panic| noted(step, &*panic))
}

fn noted(step: &'static str, panic: &(dyn Any + Send)) -> Panicked {
    metrics::counter!(telemetry::PANICS_TOTAL, "step" => step).increment(1);
    tracing::error!(step, panic = text(panic), "adapter code panicked");
    Panicked { step }
}

/// What a panic said.
pub(crate) fn text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn panic_becomes_value_without_its_text() {
        let caught = guarded("decoding", || panic!("secret {}", 1)).map(|(): ()| ());
        assert_eq!(caught, Err(Panicked { step: "decoding" }));
        assert!(!caught.map_err(|panicked| panicked.to_string()).expect_err("it panicked").contains("secret"));
        let caught = guarded_future("preparing", async { panic!("secret") }).await.map(|(): ()| ());
        assert_eq!(caught, Err(Panicked { step: "preparing" }));
        assert_eq!(guarded("decoding", || 1), Ok(1));
    }
}
