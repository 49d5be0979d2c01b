//! Pure vocabulary and port traits of the Holdfast runtime.
