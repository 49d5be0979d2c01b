//! Events back from the wire, for `holdfast recover`.
//!
//! Invariant: what a published event says comes back as it was; what it left out, the personal data, is
//! `None` and never a guess. A customer folded from such events has its id, status and times, and the ids of
//! its addresses; what it said about itself after the backup is blank until it says it again, rather than as
//! it was before, which is known to be wrong. Refusing instead would keep every customer of the context from
//! coming back, and above all the erasures among their events.

use holdfast_adapter::{body, check};
use holdfast_core::{Message, disposition::Refused};
use holdfast_customers_domain::{Event, PreferenceField, ProfileField};
use holdfast_proto::customers::v1;

use super::events::{
    ADDRESS_ADDED, ADDRESS_CHANGED, ADDRESS_REMOVED, CUSTOMER_CREATED, CUSTOMER_ERASED, CUSTOMER_REACTIVATED,
    CUSTOMER_SUSPENDED, PREFERENCES_SET, PROFILE_UPDATED,
};

/// The event in `message`.
pub(super) fn decode(message: &Message) -> Result<Event, Refused> {
    let at = |time: Option<&_>| check::time("occurred_at", time);
    let id = |id: &str| check::canonical_uuid("address_id", id);
    Ok(match &*message.r#type {
        CUSTOMER_CREATED => {
            let event: v1::CustomerCreated = body::decode(message)?;
            Event::CustomerCreated { at: at(event.occurred_at.as_ref())?, profile: None, preferences: None }
        }
        PROFILE_UPDATED => {
            let event: v1::ProfileUpdated = body::decode(message)?;
            let fields = event.fields().map(profile_field).collect::<Result<_, _>>()?;
            Event::ProfileUpdated { at: at(event.occurred_at.as_ref())?, fields, profile: None }
        }
        ADDRESS_ADDED => {
            let event: v1::AddressAdded = body::decode(message)?;
            Event::AddressAdded { at: at(event.occurred_at.as_ref())?, id: id(&event.address_id)?, address: None }
        }
        ADDRESS_CHANGED => {
            let event: v1::AddressChanged = body::decode(message)?;
            Event::AddressChanged { at: at(event.occurred_at.as_ref())?, id: id(&event.address_id)?, address: None }
        }
        ADDRESS_REMOVED => {
            let event: v1::AddressRemoved = body::decode(message)?;
            Event::AddressRemoved { at: at(event.occurred_at.as_ref())?, id: id(&event.address_id)? }
        }
        PREFERENCES_SET => {
            let event: v1::PreferencesSet = body::decode(message)?;
            let fields = event.fields().map(preference_field).collect::<Result<_, _>>()?;
            Event::PreferencesSet { at: at(event.occurred_at.as_ref())?, fields, preferences: None }
        }
        CUSTOMER_SUSPENDED => {
            let event: v1::CustomerSuspended = body::decode(message)?;
            Event::CustomerSuspended { at: at(event.occurred_at.as_ref())?, reason: event.reason.as_str().into() }
        }
        CUSTOMER_REACTIVATED => {
            let event: v1::CustomerReactivated = body::decode(message)?;
            Event::CustomerReactivated { at: at(event.occurred_at.as_ref())? }
        }
        CUSTOMER_ERASED => {
            let event: v1::CustomerErased = body::decode(message)?;
            Event::CustomerErased { at: at(event.occurred_at.as_ref())? }
        }
        _ => return Err(Refused::unknown_type()),
    })
}

fn profile_field(field: v1::ProfileField) -> Result<ProfileField, Refused> {
    match field {
        v1::ProfileField::Name => Ok(ProfileField::Name),
        v1::ProfileField::Email => Ok(ProfileField::Email),
        v1::ProfileField::Phone => Ok(ProfileField::Phone),
        v1::ProfileField::Unspecified => Err(Refused::invalid("fields", "fields holds one that is unknown")),
    }
}

fn preference_field(field: v1::PreferenceField) -> Result<PreferenceField, Refused> {
    match field {
        v1::PreferenceField::Locale => Ok(PreferenceField::Locale),
        v1::PreferenceField::Marketing => Ok(PreferenceField::Marketing),
        v1::PreferenceField::Unspecified => Err(Refused::invalid("fields", "fields holds one that is unknown")),
    }
}
