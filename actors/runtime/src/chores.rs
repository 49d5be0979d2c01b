//! The tasks that a shell has started.
//!
//! Invariant: the shell hears of each task's end, also when it panicked, and then knows which one that was.
//! Deliberately absent: what follows from it.

use std::collections::HashMap;

use tokio::task::{Id, JoinSet};

/// Tasks that end in a `T`, each with a note `N` of what it is for.
pub(crate) struct Chores<T, N> {
    tasks: JoinSet<T>,
    notes: HashMap<Id, N>,
}

impl<T: Send + 'static, N> Chores<T, N> {
    pub fn new() -> Self {
        Self { tasks: JoinSet::new(), notes: HashMap::new() }
    }

    pub fn spawn(&mut self, note: N, task: impl Future<Output = T> + Send + 'static) {
        let id = self.tasks.spawn(task).id();
        self.notes.insert(id, note);
    }

    /// Waits for the next end: what the task returned, or the note of one that panicked. `None` if there is
    /// none. Cancel-safe.
    pub async fn next(&mut self) -> Option<Result<T, N>> {
        loop {
            match self.tasks.join_next_with_id().await? {
                Ok((id, end)) => {
                    self.notes.remove(&id);
                    return Some(Ok(end));
                }
                Err(error) => {
                    tracing::error!(%error, "a task failed");
                    if let Some(note) = self.notes.remove(&error.id()) {
                        return Some(Err(note));
                    }
                }
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    pub fn abort_all(&mut self) {
        self.tasks.abort_all();
    }
}
