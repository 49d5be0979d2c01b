//! What breaks a running system on purpose: processes that are killed and paused, connections that are
//! slowed, held and cut, a plan of when, from a seed, and a diary of all of it.
//!
//! [`node`] has the processes, [`proxy`] the connections, [`plan`] what is done when, [`load`] what goes on
//! meanwhile through Kafka, [`calls`] what goes on through gRPC, [`java`] by which client besides ours,
//! [`answers`] the comparison of callers' answers with the published events, [`diary`] the history,
//! [`dump`] what a build left. Knows no
//! runtime: a node is a command line and an address. Deliberately absent: waiting for a system to settle and
//! the account of it, which are [`crate::checkers`]'; and root's means (network namespaces, `tc`): everything
//! here works for anybody.

pub mod answers;
pub mod calls;
pub mod diary;
pub mod dump;
pub mod java;
pub mod load;
pub mod node;
pub mod plan;
pub mod proxy;
