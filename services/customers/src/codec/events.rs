//! Events to the wire: which customer, when, what changed. To what is left out, because topics are kept.

use holdfast_core::{Timestamp, codec::EncodedEvent};
use holdfast_customers_domain::{Event, PreferenceField, ProfileField};
use holdfast_proto::{customers::v1, time};
use prost::Message as _;

/// `ce_type` of `CustomerCreated`.
pub(super) const CUSTOMER_CREATED: &str = "holdfast.customers.v1.CustomerCreated";
/// `ce_type` of `ProfileUpdated`.
pub(super) const PROFILE_UPDATED: &str = "holdfast.customers.v1.ProfileUpdated";
/// `ce_type` of `AddressAdded`.
pub(super) const ADDRESS_ADDED: &str = "holdfast.customers.v1.AddressAdded";
/// `ce_type` of `AddressChanged`.
pub(super) const ADDRESS_CHANGED: &str = "holdfast.customers.v1.AddressChanged";
/// `ce_type` of `AddressRemoved`.
pub(super) const ADDRESS_REMOVED: &str = "holdfast.customers.v1.AddressRemoved";
/// `ce_type` of `PreferencesSet`.
pub(super) const PREFERENCES_SET: &str = "holdfast.customers.v1.PreferencesSet";
/// `ce_type` of `CustomerSuspended`.
pub(super) const CUSTOMER_SUSPENDED: &str = "holdfast.customers.v1.CustomerSuspended";
/// `ce_type` of `CustomerReactivated`.
pub(super) const CUSTOMER_REACTIVATED: &str = "holdfast.customers.v1.CustomerReactivated";
/// `ce_type` of `CustomerErased`.
pub(super) const CUSTOMER_ERASED: &str = "holdfast.customers.v1.CustomerErased";

/// The event of the customer `key`.
pub(super) fn encode(event: &Event, key: &str) -> EncodedEvent {
    let customer_id = key.to_owned();
    let occurred_at = Some(stamp(event.at()));
    let (r#type, payload) = match event {
        Event::CustomerCreated { .. } => {
            (CUSTOMER_CREATED, v1::CustomerCreated { customer_id, occurred_at }.encode_to_vec())
        }
        Event::ProfileUpdated { fields, .. } => {
            let fields = fields.iter().map(|field| profile_field(*field).into()).collect();
            (PROFILE_UPDATED, v1::ProfileUpdated { customer_id, occurred_at, fields }.encode_to_vec())
        }
        Event::AddressAdded { id, .. } => {
            let address_id = id.to_string();
            (ADDRESS_ADDED, v1::AddressAdded { customer_id, occurred_at, address_id }.encode_to_vec())
        }
        Event::AddressChanged { id, .. } => {
            let address_id = id.to_string();
            (ADDRESS_CHANGED, v1::AddressChanged { customer_id, occurred_at, address_id }.encode_to_vec())
        }
        Event::AddressRemoved { id, .. } => {
            let address_id = id.to_string();
            (ADDRESS_REMOVED, v1::AddressRemoved { customer_id, occurred_at, address_id }.encode_to_vec())
        }
        Event::PreferencesSet { fields, .. } => {
            let fields = fields.iter().map(|field| preference_field(*field).into()).collect();
            (PREFERENCES_SET, v1::PreferencesSet { customer_id, occurred_at, fields }.encode_to_vec())
        }
        Event::CustomerSuspended { reason, .. } => {
            let reason = reason.as_ref().to_owned();
            (CUSTOMER_SUSPENDED, v1::CustomerSuspended { customer_id, occurred_at, reason }.encode_to_vec())
        }
        Event::CustomerReactivated { .. } => {
            (CUSTOMER_REACTIVATED, v1::CustomerReactivated { customer_id, occurred_at }.encode_to_vec())
        }
        Event::CustomerErased { .. } => {
            (CUSTOMER_ERASED, v1::CustomerErased { customer_id, occurred_at }.encode_to_vec())
        }
    };
    EncodedEvent { r#type, payload: payload.into() }
}

const fn profile_field(field: ProfileField) -> v1::ProfileField {
    match field {
        ProfileField::Name => v1::ProfileField::Name,
        ProfileField::Email => v1::ProfileField::Email,
        ProfileField::Phone => v1::ProfileField::Phone,
    }
}

const fn preference_field(field: PreferenceField) -> v1::PreferenceField {
    match field {
        PreferenceField::Locale => v1::PreferenceField::Locale,
        PreferenceField::Marketing => v1::PreferenceField::Marketing,
    }
}

pub(super) fn stamp(at: Timestamp) -> holdfast_proto::Timestamp {
    time::from_unix_ms(at.unix_ms())
}
