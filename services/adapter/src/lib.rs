//! What the adapters of every context do the same, between the wire and an aggregate.
//!
//! [`body`] reads a message's body, [`check`] its fields, [`call`] carries gRPC calls to actors, [`status`]
//! turns what comes back into a status, [`mod@read`] and [`page`] hold the words of reads and listings,
//! [`store`] bounds what services read beside actors, [`shown`] holds what operators see, [`peers`] lets
//! nodes ask one another. Invariant: a refusal names the field and what would be right, and holds no value of
//! the payload. Deliberately absent: any order, any stock, and which rejection becomes which code (each
//! context's `status.rs`).

pub mod body;
pub mod call;
pub mod check;
pub mod page;
pub mod peers;
pub mod read;
pub mod shown;
pub mod status;
pub mod store;
