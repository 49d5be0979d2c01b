//! What scenarios found, shown: a page, tables, and the JSON that a later run is compared with.
//!
//! Invariant: everything is made of [`Results`], so a page says nothing that its JSON does not hold.
//! Deliberately absent: scripts, and anything that a reader's browser would have to fetch.

mod bars;
mod drawing;
mod lines;
mod machine;
mod matrix;
pub mod number;
mod page;
mod results;
mod table;

pub use machine::Machine;
pub use page::{html, write};
pub use results::{Entry, Error, Results};
pub use table::table;
