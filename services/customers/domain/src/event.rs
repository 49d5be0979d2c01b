//! What can have happened to a customer. Its state is the fold of these; each carries the time it happened.
//!
//! Inside the process an event holds the personal data that came with it. What is published does not, so an
//! event that was read back from its topic, after a database was restored, holds `None` there: that data is
//! lost, and the state says so.

use std::sync::Arc;

use holdfast_core::Timestamp;
use uuid::Uuid;

use crate::{Address, PreferenceField, Preferences, Profile, ProfileField};

/// Something that happened to a customer. `at` is when, by the owning node's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An account was opened.
    CustomerCreated {
        /// When.
        at: Timestamp,
        /// Who it is; `None` if that is lost.
        profile: Option<Profile>,
        /// How it wants to be treated; `None` if that is lost.
        preferences: Option<Preferences>,
    },
    /// The profile changed.
    ProfileUpdated {
        /// When.
        at: Timestamp,
        /// The parts that are not as they were.
        fields: Vec<ProfileField>,
        /// All of it from now on; `None` if that is lost.
        profile: Option<Profile>,
    },
    /// An address was added.
    AddressAdded {
        /// When.
        at: Timestamp,
        /// Which.
        id: Uuid,
        /// What it says; `None` if that is lost.
        address: Option<Address>,
    },
    /// What an address says changed.
    AddressChanged {
        /// When.
        at: Timestamp,
        /// Which.
        id: Uuid,
        /// What it says from now on; `None` if that is lost.
        address: Option<Address>,
    },
    /// An address was removed.
    AddressRemoved {
        /// When.
        at: Timestamp,
        /// Which.
        id: Uuid,
    },
    /// The preferences changed.
    PreferencesSet {
        /// When.
        at: Timestamp,
        /// The parts that are not as they were.
        fields: Vec<PreferenceField>,
        /// All of them from now on; `None` if that is lost.
        preferences: Option<Preferences>,
    },
    /// The account was suspended.
    CustomerSuspended {
        /// When.
        at: Timestamp,
        /// Why, in a few words.
        reason: Arc<str>,
    },
    /// The suspension ended.
    CustomerReactivated {
        /// When.
        at: Timestamp,
    },
    /// What was known of the person is gone.
    CustomerErased {
        /// When.
        at: Timestamp,
    },
}

impl Event {
    /// When it happened, by the owning node's clock.
    pub const fn at(&self) -> Timestamp {
        match self {
            Self::CustomerCreated { at, .. }
            | Self::ProfileUpdated { at, .. }
            | Self::AddressAdded { at, .. }
            | Self::AddressChanged { at, .. }
            | Self::AddressRemoved { at, .. }
            | Self::PreferencesSet { at, .. }
            | Self::CustomerSuspended { at, .. }
            | Self::CustomerReactivated { at }
            | Self::CustomerErased { at } => *at,
        }
    }
}
