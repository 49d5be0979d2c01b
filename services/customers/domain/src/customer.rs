//! The Customer aggregate: its state, its decisions, its evolution.
//!
//! Invariants: ERASED is final, and an erased customer holds no personal data; a command that changes nothing
//! leaves no trace. Deliberately absent: what a suspension keeps a customer from, which is the business of
//! those who ask for its status.

use std::{collections::BTreeMap, sync::Arc};

use holdfast_core::{Aggregate, Context, Decision, Timestamp};
use uuid::Uuid;

use crate::{ADDRESSES_MAX, Address, Command, Event, Preferences, Profile, Rejection};

/// One customer, or the place where it will be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Customer(Option<Details>);

/// What there is to know about a customer that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Details {
    /// Where the account is in its life.
    pub status: Status,
    /// Who it is; `None` if erased, or lost with a database.
    pub profile: Option<Profile>,
    /// By id; `None` for one whose content was lost with a database.
    pub addresses: BTreeMap<Uuid, Option<Address>>,
    /// How it wants to be treated; `None` if erased, or lost with a database.
    pub preferences: Option<Preferences>,
    /// When it was created, by the owning node's clock.
    pub created_at: Timestamp,
    /// When its last event happened, by the owning node's clock.
    pub updated_at: Timestamp,
}

/// Where an account is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// In good standing.
    Active,
    /// Suspended by the shop.
    Suspended {
        /// Why, in a few words.
        reason: Arc<str>,
    },
    /// Nothing is known of the person any more.
    Erased,
}

impl Status {
    /// Its name on the wire and in rejections.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::Suspended { .. } => "SUSPENDED",
            Self::Erased => "ERASED",
        }
    }
}

impl Customer {
    /// A customer as it was stored. Trusted: nothing is checked.
    pub const fn rehydrate(details: Details) -> Self {
        Self(Some(details))
    }

    /// What there is to know; `None` if the customer does not exist.
    pub const fn details(&self) -> Option<&Details> {
        self.0.as_ref()
    }
}

impl Aggregate for Customer {
    const KIND: &'static str = "customer";
    const SCHEMA: u32 = 1;
    type Command = Command;
    type Event = Event;
    type Rejection = Rejection;

    fn decide(&self, command: &Command, context: &Context<'_>) -> Result<Decision<Self>, Rejection> {
        let at = context.now;
        let event = match (&self.0, command) {
            (None, Command::CreateCustomer { profile, preferences }) => {
                let (profile, preferences) = (Some(profile.clone()), Some(preferences.clone()));
                Some(Event::CustomerCreated { at, profile, preferences })
            }
            (None, _) => return Err(Rejection::CustomerNotFound),
            (Some(details), command) => details.decide(command, at)?,
        };
        Ok(event.map_or_else(Decision::nothing, Decision::event))
    }

    fn evolve(&mut self, event: &Event) {
        if let Event::CustomerCreated { at, profile, preferences } = event {
            self.0 = Some(Details {
                status: Status::Active,
                profile: profile.clone(),
                addresses: BTreeMap::new(),
                preferences: preferences.clone(),
                created_at: *at,
                updated_at: *at,
            });
        } else if let Some(details) = &mut self.0 {
            details.evolve(event);
        }
    }
}

impl Details {
    /// The decision on a command to a customer that exists; `None` if it changes nothing.
    fn decide(&self, command: &Command, at: Timestamp) -> Result<Option<Event>, Rejection> {
        match (command, &self.status) {
            (Command::EraseCustomer, Status::Erased) => return Ok(None),
            (_, Status::Erased) => return Err(Rejection::CustomerErased),
            _ => {}
        }
        Ok(match command {
            Command::CreateCustomer { .. } => return Err(Rejection::CustomerAlreadyExists),
            Command::UpdateProfile { profile } => {
                let fields = profile.changes(self.profile.as_ref());
                let is_change = !fields.is_empty();
                is_change.then(|| Event::ProfileUpdated { at, fields, profile: Some(profile.clone()) })
            }
            Command::SetPreferences { preferences } => {
                let fields = preferences.changes(self.preferences.as_ref());
                let is_change = !fields.is_empty();
                is_change.then(|| Event::PreferencesSet { at, fields, preferences: Some(preferences.clone()) })
            }
            Command::AddAddress { .. } | Command::ChangeAddress { .. } | Command::RemoveAddress { .. } => {
                self.decide_address(command, at)?
            }
            Command::SuspendCustomer { reason } if self.status == Status::Active => {
                Some(Event::CustomerSuspended { at, reason: reason.clone() })
            }
            Command::ReactivateCustomer if self.status != Status::Active => Some(Event::CustomerReactivated { at }),
            Command::SuspendCustomer { .. } | Command::ReactivateCustomer => {
                return Err(Rejection::WrongState { command: command.name(), status: self.status.name() });
            }
            Command::EraseCustomer => Some(Event::CustomerErased { at }),
        })
    }

    fn decide_address(&self, command: &Command, at: Timestamp) -> Result<Option<Event>, Rejection> {
        match command {
            Command::AddAddress { id, .. } if self.addresses.contains_key(id) => Err(Rejection::AddressAlreadyExists),
            Command::AddAddress { .. } if self.addresses.len() >= ADDRESSES_MAX => Err(Rejection::TooManyAddresses),
            Command::AddAddress { id, address } => {
                Ok(Some(Event::AddressAdded { at, id: *id, address: Some(address.clone()) }))
            }
            Command::ChangeAddress { id, address } => match self.addresses.get(id) {
                None => Err(Rejection::AddressNotFound),
                Some(before) if before.as_ref() == Some(address) => Ok(None),
                Some(_) => Ok(Some(Event::AddressChanged { at, id: *id, address: Some(address.clone()) })),
            },
            Command::RemoveAddress { id } if self.addresses.contains_key(id) => {
                Ok(Some(Event::AddressRemoved { at, id: *id }))
            }
            Command::RemoveAddress { .. } => Err(Rejection::AddressNotFound),
            _ => Ok(None),
        }
    }

    fn evolve(&mut self, event: &Event) {
        self.updated_at = event.at();
        match event {
            // The first event only; see `Customer::evolve`.
            Event::CustomerCreated { .. } => {}
            Event::ProfileUpdated { profile, .. } => self.profile.clone_from(profile),
            Event::AddressAdded { id, address, .. } | Event::AddressChanged { id, address, .. } => {
                self.addresses.insert(*id, address.clone());
            }
            Event::AddressRemoved { id, .. } => {
                self.addresses.remove(id);
            }
            Event::PreferencesSet { preferences, .. } => self.preferences.clone_from(preferences),
            Event::CustomerSuspended { reason, .. } => self.status = Status::Suspended { reason: reason.clone() },
            Event::CustomerReactivated { .. } => self.status = Status::Active,
            Event::CustomerErased { .. } => {
                self.status = Status::Erased;
                self.profile = None;
                self.addresses = BTreeMap::new();
                self.preferences = None;
            }
        }
    }
}
