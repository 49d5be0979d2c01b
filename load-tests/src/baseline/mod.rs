//! The design to be measured against.
