//! Look-ups in other contexts, made for a whole batch at once and outside any transaction.
//!
//! A look-up that fails marks its message; the others go on (I6). Deliberately absent: who waits for what meanwhile, which is the lane's.

use std::sync::Arc;

use tracing::{Instrument as _, Span};

use crate::{
    activation::Known,
    context::BoundedContext,
    work::{AnyCommand, Failure, Input, Item, Work},
};

/// An input with its place in the batch that it came in.
pub(crate) type Placed = (usize, Input);

/// The places of the messages in `batch` that need a look-up, with the context to ask. All others that `may_need` one are prepared by that.
pub(crate) fn needing(
    context: &BoundedContext,
    batch: &mut [Input],
    may_need: impl Fn(&Input, &Item) -> bool,
) -> Vec<(usize, &'static str)> {
    let mut places = Vec::new();
    for (place, input) in batch.iter_mut().enumerate() {
        let Work::Item(item) = &input.work else { continue };
        if item.prepared || !may_need(input, item) {
            continue;
        }
        // A message that is shared with an actor already went through here.
        if let Work::Item(item) = &mut input.work
            && let Some(item) = Arc::get_mut(item)
        {
            context.recall(item);
        }
        let Work::Item(item) = &input.work else { continue };
        if let Some(asks) = context.looks_up(item) {
            places.push((place, asks));
        } else if let Work::Item(item) = &mut input.work
            && let Some(item) = Arc::get_mut(item)
        {
            item.prepared = true;
        }
    }
    places
}

/// Shows the adapters the stored states of the aggregates in `batch` that need a look-up and are not in memory.
pub(crate) fn observe(context: &BoundedContext, batch: &[Input], known: &Known) {
    for input in batch {
        if let Work::Item(item) = &input.work
            && let Some((Some(row), _)) = known.cold.get(&item.aggregate)
            && !item.prepared
            && context.looks_up(item).is_some()
            && let Some(kind) = context.kind(item.aggregate.kind)
        {
            kind.observe(&item.aggregate.key, row);
        }
    }
}

/// Makes the look-ups of these messages.
pub(crate) async fn prepare(context: Arc<BoundedContext>, mut asked: Vec<Placed>) -> Vec<Placed> {
    for kind in context.kinds() {
        let mut items: Vec<&mut Item> = Vec::new();
        for (_, input) in &mut asked {
            if let Work::Item(item) = &mut input.work
                && item.aggregate.kind == kind.name()
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
    asked
}
