//! The inventory context: adapters around its domain.
