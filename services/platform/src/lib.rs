//! What every Holdfast process does the same.
