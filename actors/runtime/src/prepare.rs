//! Look-ups in other contexts, made for a whole batch at once and outside any transaction.
//!
//! A look-up that fails marks its message; the others go on (I6). Deliberately absent: who waits for what
//! meanwhile, which is the lane's.

use std::sync::Arc;

use holdfast_machine::lane::{Failure, Number};
use tracing::{Instrument as _, Span};

use crate::{
    activation::{Cold, Row},
    context::BoundedContext,
    guard::{Panicked, guarded, guarded_future},
    kind::Kind,
    work::{AnyCommand, Input, Item, Work},
};

/// An input with its number.
pub(crate) type Numbered = (Number, Input);

/// The context that `item` needs a look-up in, or how its adapter failed when it was asked; `None` if it
/// needs none.
pub(crate) fn need(context: &BoundedContext, item: &mut Arc<Item>) -> Option<Result<&'static str, Failure>> {
    // A message that is shared with an actor already went through here.
    let recalled = Arc::get_mut(item).map_or(Ok(()), |item| context.recall(item));
    match recalled.and_then(|()| context.looks_up(item)) {
        Ok(context) => context.map(Ok),
        Err(panicked) => {
            let failure = Failure::Handler(panicked.to_string());
            let _ = item.failure.set(failure.clone());
            Some(Err(failure))
        }
    }
}

/// Shows the adapters the stored states of the aggregates that need a look-up and are not in memory.
pub(crate) fn observe<'i>(context: &BoundedContext, items: impl Iterator<Item = &'i Item>, cold: &Cold) {
    for item in items {
        if let Some(Row { state: Ok(Some(row)), .. }) = cold.get(&item.aggregate)
            && let Ok(Some(_)) = context.looks_up(item)
            && let Some(kind) = context.kind(item.aggregate.kind)
        {
            // Only a hint: where the state can't be read, that shows when it is.
            let _ = guarded("observe", || kind.observe(&item.aggregate.key, row));
        }
    }
}

/// Makes the look-ups of these messages.
pub(crate) async fn prepare(context: Arc<BoundedContext>, mut asked: Vec<Numbered>) -> Vec<Numbered> {
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
        if let Err(panicked) = prepare_all(&**kind, &mut items).instrument(span.clone()).await {
            // Whose fault it is shows when each is asked for alone.
            let is_alone = items.len() == 1;
            for item in items {
                let alone = if is_alone {
                    Err(panicked)
                } else {
                    prepare_all(&**kind, &mut [&mut *item]).instrument(span.clone()).await
                };
                if let Err(panicked) = alone {
                    let _ = item.failure.set(Failure::Handler(panicked.to_string()));
                }
            }
        }
    }
    asked
}

const TOO_FEW: &str = "its adapter answered for fewer commands than it was asked";

/// Makes the look-ups of messages of one kind.
async fn prepare_all(kind: &dyn Kind, items: &mut [&mut Item]) -> Result<(), Panicked> {
    let commands: Vec<&mut AnyCommand> = items.iter_mut().map(|item| &mut item.command).collect();
    let results = guarded_future("prepare", kind.prepare(commands)).await?;
    let mut results = results.into_iter();
    for item in items {
        match results.next() {
            Some(Ok(())) => {}
            Some(Err(error)) => _ = item.failure.set(Failure::LookUp(error.0)),
            None => _ = item.failure.set(Failure::Handler(TOO_FEW.to_owned())),
        }
    }
    Ok(())
}
