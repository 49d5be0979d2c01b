//! Look-ups in other contexts, made for a whole batch at once and outside any transaction.
//!
//! A look-up that fails marks its message; the others go on (I6).

use std::sync::Arc;

use tracing::{Instrument as _, Span};

use crate::{
    context::BoundedContext,
    work::{AnyCommand, Failure, Input, Item, Work},
};

/// Prepares every command of `batch` that is not prepared yet and not known to be a repeat.
pub(crate) async fn prepare(context: &BoundedContext, batch: &mut [Input], is_repeat: impl Fn(&Item) -> bool) {
    for kind in context.kinds() {
        let mut items: Vec<&mut Item> = Vec::new();
        for input in batch.iter_mut() {
            // A message that is shared with an actor already went through here.
            if let Work::Item(item) = &mut input.work
                && item.aggregate.kind == kind.name()
                && !item.prepared
                && !is_repeat(item)
                && let Some(item) = Arc::get_mut(item)
            {
                items.push(item);
            }
        }
        if items.is_empty() {
            continue;
        }
        // One call serves many messages; the first of them that is traced tells of it.
        let traced = items.iter().map(|item| &item.span).find(|span| !span.is_disabled());
        let span = traced.cloned().unwrap_or_else(Span::none);
        let commands: Vec<&mut AnyCommand> = items.iter_mut().map(|item| &mut item.command).collect();
        let results = kind.prepare(commands).instrument(span).await;
        debug_assert_eq!(results.len(), items.len(), "an adapter answers for each command");
        for (item, result) in items.into_iter().zip(results) {
            item.prepared = true;
            if let Err(error) = result {
                let _ = item.failure.set(Failure::Lookup(error.0));
            }
        }
    }
}
