//! Wire contracts between contexts.
