//! The stored customer, and the customer as it is shown to who may see all of it.
//!
//! What is stored is trusted, but a state that no build could have written is an error, never a guess.

use bytes::Bytes;
use holdfast_core::{Aggregate, Timestamp, codec::StateError};
use holdfast_customers_domain::{Address, Customer, Details, Preferences, Profile, Status};
use holdfast_proto::{customers::v1, time};
use prost::Message as _;
use uuid::Uuid;

use super::events::stamp;

/// The form in which the customer is stored; empty if it does not exist.
pub(super) fn encode(state: &Customer) -> Bytes {
    let Some(details) = state.details() else { return Bytes::new() };
    let v1::Customer { status, profile, addresses, preferences, suspension_reason, created_at, updated_at, .. } =
        shown(details);
    v1::CustomerState { status, profile, addresses, preferences, suspension_reason, created_at, updated_at }
        .encode_to_vec()
        .into()
}

/// The customer with all that is known, for the answer to a query; `None` if it does not exist.
pub fn customer(state: &Customer, key: &str, version: u64) -> Option<v1::Customer> {
    state.details().map(|details| v1::Customer { customer_id: key.to_owned(), version, ..shown(details) })
}

fn shown(details: &Details) -> v1::Customer {
    let suspension_reason = match &details.status {
        Status::Suspended { reason } => reason.as_ref().to_owned(),
        Status::Active | Status::Erased => String::new(),
    };
    let addresses = details
        .addresses
        .iter()
        .map(|(id, known)| v1::CustomerAddress { address_id: id.to_string(), address: known.as_ref().map(address) });
    v1::Customer {
        status: status(&details.status).into(),
        profile: details.profile.as_ref().map(profile),
        addresses: addresses.collect(),
        preferences: details.preferences.as_ref().map(preferences),
        suspension_reason,
        created_at: Some(stamp(details.created_at)),
        updated_at: Some(stamp(details.updated_at)),
        ..v1::Customer::default()
    }
}

/// An account's status as others see it.
pub(crate) const fn status(status: &Status) -> v1::CustomerStatus {
    match status {
        Status::Active => v1::CustomerStatus::Active,
        Status::Suspended { .. } => v1::CustomerStatus::Suspended,
        Status::Erased => v1::CustomerStatus::Erased,
    }
}

fn profile(known: &Profile) -> v1::Profile {
    v1::Profile {
        name: known.name.as_ref().to_owned(),
        email: known.email.as_ref().to_owned(),
        phone: known.phone.as_deref().unwrap_or_default().to_owned(),
    }
}

/// An address as others see it.
pub(crate) fn address(known: &Address) -> v1::Address {
    v1::Address {
        recipient: known.recipient.as_ref().to_owned(),
        lines: known.lines.iter().map(|line| line.as_ref().to_owned()).collect(),
        city: known.city.as_ref().to_owned(),
        postal_code: known.postal_code.as_ref().to_owned(),
        country: known.country.as_ref().to_owned(),
    }
}

fn preferences(known: &Preferences) -> v1::Preferences {
    v1::Preferences { locale: known.locale.as_deref().unwrap_or_default().to_owned(), marketing: known.marketing }
}

/// Reads a stored customer of `schema`.
///
/// # Errors
/// [`StateError`] for a schema of a later build, and for bytes that none could have written.
pub fn decode(schema: u32, bytes: &[u8]) -> Result<Customer, StateError> {
    let broken = |reason: &str| StateError { schema, reason: reason.to_owned() };
    if schema != Customer::SCHEMA {
        return Err(broken("this build knows schema 1 only"));
    }
    if bytes.is_empty() {
        return Ok(Customer::default());
    }
    // The parser's own words stay here: they could quote what they read.
    let stored = v1::CustomerState::decode(bytes).map_err(|_| broken("the bytes are no stored customer"))?;
    rehydrate(&stored).map(Customer::rehydrate).map_err(broken)
}

fn rehydrate(stored: &v1::CustomerState) -> Result<Details, &'static str> {
    let status = match stored.status() {
        v1::CustomerStatus::Active => Status::Active,
        v1::CustomerStatus::Suspended => Status::Suspended { reason: stored.suspension_reason.as_str().into() },
        v1::CustomerStatus::Erased => Status::Erased,
        v1::CustomerStatus::Unspecified => return Err("a status that this build does not know"),
    };
    let personal = stored.profile.is_some() || stored.preferences.is_some() || !stored.addresses.is_empty();
    if status == Status::Erased && personal {
        return Err("an erased customer holds personal data");
    }
    let address = |stored: &v1::CustomerAddress| {
        let id = Uuid::try_parse(&stored.address_id).map_err(|_| "an address id is no UUID")?;
        Ok((id, stored.address.as_ref().map(known_address)))
    };
    Ok(Details {
        status,
        profile: stored.profile.as_ref().map(|known| Profile {
            name: known.name.as_str().into(),
            email: known.email.as_str().into(),
            phone: (!known.phone.is_empty()).then(|| known.phone.as_str().into()),
        }),
        addresses: stored.addresses.iter().map(address).collect::<Result<_, &'static str>>()?,
        preferences: stored.preferences.as_ref().map(|known| Preferences {
            locale: (!known.locale.is_empty()).then(|| known.locale.as_str().into()),
            marketing: known.marketing,
        }),
        created_at: stored_time(stored.created_at.as_ref())?,
        updated_at: stored_time(stored.updated_at.as_ref())?,
    })
}

fn known_address(stored: &v1::Address) -> Address {
    Address {
        recipient: stored.recipient.as_str().into(),
        lines: stored.lines.iter().map(|line| line.as_str().into()).collect(),
        city: stored.city.as_str().into(),
        postal_code: stored.postal_code.as_str().into(),
        country: stored.country.as_str().into(),
    }
}

fn stored_time(at: Option<&holdfast_proto::Timestamp>) -> Result<Timestamp, &'static str> {
    at.and_then(time::to_unix_ms).map(Timestamp::from_unix_ms).ok_or("a time is missing or none")
}
