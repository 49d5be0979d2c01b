//! The orders context: adapters around its domain.
