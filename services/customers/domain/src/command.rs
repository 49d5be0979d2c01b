//! What a customer can be asked.

use std::sync::Arc;

use uuid::Uuid;

use crate::{Address, Preferences, Profile};

/// A command, from the customer or from the shop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Open an account.
    CreateCustomer {
        /// Who it is.
        profile: Profile,
        /// How it wants to be treated.
        preferences: Preferences,
    },
    /// Replace the whole profile.
    UpdateProfile {
        /// All of it.
        profile: Profile,
    },
    /// Add an address.
    AddAddress {
        /// New to this customer.
        id: Uuid,
        /// What it says.
        address: Address,
    },
    /// Replace an address.
    ChangeAddress {
        /// Which.
        id: Uuid,
        /// All of it.
        address: Address,
    },
    /// Remove an address.
    RemoveAddress {
        /// Which.
        id: Uuid,
    },
    /// Replace all preferences.
    SetPreferences {
        /// All of them.
        preferences: Preferences,
    },
    /// Suspend an account in good standing.
    SuspendCustomer {
        /// Why, in a few words. Holds no personal data.
        reason: Arc<str>,
    },
    /// End a suspension.
    ReactivateCustomer,
    /// Erase what is known of the person.
    EraseCustomer,
}

impl Command {
    /// Its name, for rejections and telemetry.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::CreateCustomer { .. } => "CreateCustomer",
            Self::UpdateProfile { .. } => "UpdateProfile",
            Self::AddAddress { .. } => "AddAddress",
            Self::ChangeAddress { .. } => "ChangeAddress",
            Self::RemoveAddress { .. } => "RemoveAddress",
            Self::SetPreferences { .. } => "SetPreferences",
            Self::SuspendCustomer { .. } => "SuspendCustomer",
            Self::ReactivateCustomer => "ReactivateCustomer",
            Self::EraseCustomer => "EraseCustomer",
        }
    }
}
