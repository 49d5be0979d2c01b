//! Addresses that never change, for tests.

use std::collections::BTreeMap;

use async_trait::async_trait;
use holdfast_core::codec::LookupFailed;
use holdfast_fulfillment_domain::Address;

use super::{Addresses, Place};

/// Addresses as given.
#[derive(Clone, Debug, Default)]
pub struct StaticAddresses(BTreeMap<Place, Address>);

impl StaticAddresses {
    /// These; there are no others.
    pub fn of(addresses: impl IntoIterator<Item = (Place, Address)>) -> Self {
        Self(addresses.into_iter().collect())
    }
}

#[async_trait]
impl Addresses for StaticAddresses {
    async fn addresses(&self, places: &[Place]) -> Result<Vec<Result<Option<Address>, LookupFailed>>, LookupFailed> {
        Ok(places.iter().map(|place| self.0.get(place).cloned()).map(Ok).collect())
    }
}
