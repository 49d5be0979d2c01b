//! Where shipments go, asked of customers in Prepare: for a whole batch at once, and never remembered.
//!
//! Invariant: an address is asked for when its shipment is requested, and with customers away the news of the
//! payment waits; an erased address is a missing one. Deliberately absent: transport (see [`grpc`]), and a
//! cache, which would be one more place to erase.

mod fixed;
pub mod grpc;

use std::collections::BTreeMap;

use async_trait::async_trait;
use holdfast_core::codec::LookupFailed;
use holdfast_fulfillment_domain::{Address, Command, Lookup};
use uuid::Uuid;

pub use fixed::StaticAddresses;

/// Most addresses asked for in one question.
pub const ADDRESSES_MAX: usize = 1000;

/// Names one of a customer's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Whose.
    pub customer: Uuid,
    /// Which.
    pub address: Uuid,
}

/// Knows where customers are.
#[async_trait]
pub trait Addresses: Send + Sync + 'static {
    /// What each of `places` says (at most [`ADDRESSES_MAX`], none twice), in their order; `None` where there
    /// is no address, or not any more. One that failed costs no other its answer.
    async fn addresses(&self, places: &[Place]) -> Result<Vec<Result<Option<Address>, LookupFailed>>, LookupFailed>;
}

#[async_trait]
impl Addresses for Box<dyn Addresses> {
    async fn addresses(&self, places: &[Place]) -> Result<Vec<Result<Option<Address>, LookupFailed>>, LookupFailed> {
        (**self).addresses(places).await
    }
}

/// Fills in the addresses that `commands` lack; one result for each command.
pub(crate) async fn fill(source: &dyn Addresses, commands: &mut [&mut Command]) -> Vec<Result<(), LookupFailed>> {
    let mut places: Vec<Place> = commands.iter_mut().filter_map(|command| lacking(command)?.0).collect();
    places.sort_unstable();
    places.dedup();
    let mut answers = BTreeMap::new();
    for part in places.chunks(ADDRESSES_MAX) {
        let answer = match source.addresses(part).await {
            Ok(found) if found.len() == part.len() => Ok(found),
            Ok(_) => Err(LookupFailed("not one address for each place".into())),
            Err(failed) => Err(failed),
        };
        for (at, place) in part.iter().enumerate() {
            let of_place = answer.as_ref().map_err(Clone::clone).and_then(|found| found[at].clone());
            answers.insert(*place, of_place.map(|found| found.map_or(Lookup::Missing, Lookup::Found)));
        }
    }
    let filled = commands.iter_mut().map(|command| {
        if let Some((place, lookup)) = lacking(command) {
            // What is no address's id is nobody's address.
            *lookup = place.map_or(Ok(Lookup::Missing), |place| answers[&place].clone())?;
        }
        Ok(())
    });
    filled.collect()
}

/// The place whose address `command` lacks, `None` if it names none, and where to put the address.
fn lacking(command: &mut Command) -> Option<(Option<Place>, &mut Lookup)> {
    match command {
        Command::OrderPaid { customer, address_id, address, .. } if *address == Lookup::NotAsked => {
            let id = Uuid::try_parse(address_id).ok().filter(|id| id.to_string() == **address_id);
            Some((id.map(|id| Place { customer: *customer, address: id }), address))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
