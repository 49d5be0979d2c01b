//! The customer who calls: who they are, where they live, and that they want to be forgotten.
//!
//! Invariant: about oneself alone; there is no address under which another customer could be asked for.
//! Mutations answer with a receipt that holds no personal data, as the context's do.

use axum::{
    Extension, Json,
    extract::State,
    response::{IntoResponse, Response},
};
use holdfast_proto::{
    Timestamp,
    customers::v1::{self as wire, customer_service_client::CustomerServiceClient},
};
use http::{StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    body::Body,
    edge::{Edge, ask},
    identity::Caller,
    key::{Key, Keyed},
    path::At,
    problem::{Conflicts, Problem, Refusals},
};

/// Who a customer is.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// As the person writes it, 1-200 bytes.
    #[schema(example = "Ada Lovelace", min_length = 1, max_length = 200)]
    pub name: String,
    /// 3-254 bytes.
    #[schema(example = "ada@example.org", min_length = 3, max_length = 254, pattern = "^[^@ ]+@[^@ ]+$")]
    pub email: String,
    /// At most 40 bytes; empty for none.
    #[serde(default)]
    #[schema(example = "+44 20 7946 0000", max_length = 40)]
    pub phone: String,
}

/// How a customer wants to be treated.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Preferences {
    /// A language tag of BCP 47; empty if nothing was said.
    #[serde(default)]
    #[schema(example = "en-GB", max_length = 35, pattern = "^[A-Za-z0-9-]{0,35}$")]
    pub locale: String,
    /// Whether the shop may advertise to this customer.
    #[serde(default)]
    pub marketing: bool,
}

/// An account to be opened.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewCustomer {
    /// Who it is.
    pub profile: Profile,
    /// How to treat them.
    #[serde(default)]
    pub preferences: Preferences,
}

/// Where something can be sent.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Address {
    /// Who receives it there, 1-200 bytes.
    #[schema(example = "Ada Lovelace", min_length = 1, max_length = 200)]
    pub recipient: String,
    /// Street, house, floor: 1-4 lines of 1-200 bytes.
    #[schema(min_items = 1, max_items = 4)]
    pub lines: Vec<String>,
    /// 1-100 bytes.
    #[schema(example = "London", min_length = 1, max_length = 100)]
    pub city: String,
    /// At most 20 bytes; empty where the country has none.
    #[serde(default)]
    #[schema(example = "N1 9GU", max_length = 20)]
    pub postal_code: String,
    /// ISO 3166-1 alpha-2.
    #[schema(example = "GB", pattern = "^[A-Z]{2}$")]
    pub country: String,
}

/// An address that is known.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct KnownAddress {
    /// Its id, a UUID.
    #[schema(format = Uuid)]
    pub address_id: String,
    /// What it says; not there if it was lost with a database.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<Address>,
}

/// A customer, with all that is known.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Customer {
    /// Its id, a UUID.
    #[schema(format = Uuid)]
    pub customer_id: String,
    /// ACTIVE, SUSPENDED or ERASED.
    #[schema(example = "ACTIVE")]
    pub status: String,
    /// Not there once ERASED.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<Profile>,
    /// None once ERASED.
    pub addresses: Vec<KnownAddress>,
    /// Not there once ERASED.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preferences: Option<Preferences>,
    /// When the account was opened.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub created_at: Option<Timestamp>,
    /// Grows by one with everything that happens to it.
    pub version: u64,
}

/// That something was done.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Receipt {
    /// To which customer.
    #[schema(format = Uuid)]
    pub customer_id: String,
    /// ACTIVE, SUSPENDED or ERASED.
    #[schema(example = "ACTIVE")]
    pub status: String,
    /// The account's version right after it.
    pub version: u64,
}

/// That an address was added.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Added {
    /// Its id, by which an order is sent there.
    #[schema(format = Uuid)]
    pub address_id: String,
    /// The account's version right after it.
    pub version: u64,
}

/// An address's place.
#[derive(Debug, Deserialize)]
pub struct AddressAt {
    address_id: Uuid,
}

fn word(status: wire::CustomerStatus) -> String {
    status.as_str_name().trim_start_matches("CUSTOMER_STATUS_").to_owned()
}

fn receipt(customer: Option<wire::CustomerReceipt>) -> Result<Receipt, Problem> {
    let customer = customer.ok_or_else(Problem::internal)?;
    Ok(Receipt { status: word(customer.status()), customer_id: customer.customer_id, version: customer.version })
}

impl From<Profile> for wire::Profile {
    fn from(Profile { name, email, phone }: Profile) -> Self {
        Self { name, email, phone }
    }
}

impl From<wire::Profile> for Profile {
    fn from(wire::Profile { name, email, phone }: wire::Profile) -> Self {
        Self { name, email, phone }
    }
}

impl From<Preferences> for wire::Preferences {
    fn from(Preferences { locale, marketing }: Preferences) -> Self {
        Self { locale, marketing }
    }
}

impl From<Address> for wire::Address {
    fn from(Address { recipient, lines, city, postal_code, country }: Address) -> Self {
        Self { recipient, lines, city, postal_code, country }
    }
}

impl From<wire::Address> for Address {
    fn from(wire::Address { recipient, lines, city, postal_code, country }: wire::Address) -> Self {
        Self { recipient, lines, city, postal_code, country }
    }
}

impl From<wire::Customer> for Customer {
    fn from(customer: wire::Customer) -> Self {
        let address = |known: wire::CustomerAddress| KnownAddress {
            address_id: known.address_id,
            address: known.address.map(Address::from),
        };
        Self {
            status: word(customer.status()),
            customer_id: customer.customer_id,
            profile: customer.profile.map(Profile::from),
            addresses: customer.addresses.into_iter().map(address).collect(),
            preferences: customer
                .preferences
                .map(|wire::Preferences { locale, marketing }| Preferences { locale, marketing }),
            created_at: customer.created_at,
            version: customer.version,
        }
    }
}

/// Open an account
///
/// For the customer that the token names.
#[utoipa::path(post, operation_id = "openAccount", path = "/v1/customer", tag = "customer", request_body = NewCustomer, params(Keyed),
    responses((status = 201, body = Receipt, headers(("Location" = String))), Refusals, Conflicts))]
pub async fn create(
    State(edge): State<Edge>,
    Extension(caller): Extension<Caller>,
    key: Key,
    Body(new): Body<NewCustomer>,
) -> Result<Response, Problem> {
    let command = wire::CreateCustomer {
        customer_id: caller.as_customer()?.to_string(),
        profile: Some(new.profile.into()),
        preferences: Some(new.preferences.into()),
    };
    let request = wire::CreateCustomerRequest { request_id: key.request_id(&caller), command: Some(command) };
    let answer = ask!(edge.contexts.customers, CustomerServiceClient.create_customer, caller, request)?;
    let place = [(header::LOCATION, "/v1/customer")];
    Ok((StatusCode::CREATED, place, Json(receipt(answer.customer)?)).into_response())
}

/// Read the caller's account
#[utoipa::path(get, operation_id = "getAccount", path = "/v1/customer", tag = "customer", responses((status = 200, body = Customer), Refusals))]
pub async fn get(State(edge): State<Edge>, Extension(caller): Extension<Caller>) -> Result<Json<Customer>, Problem> {
    let request = wire::GetCustomerRequest {
        customer_id: caller.as_customer()?.to_string(),
        ..wire::GetCustomerRequest::default()
    };
    let answer = ask!(edge.contexts.customers, CustomerServiceClient.get_customer, caller, request)?;
    answer.customer.map(|customer| Json(customer.into())).ok_or_else(Problem::internal)
}

/// Replace the caller's profile
#[utoipa::path(put, operation_id = "setProfile", path = "/v1/customer/profile", tag = "customer", request_body = Profile, params(Keyed),
    responses((status = 200, body = Receipt), Refusals, Conflicts))]
pub async fn set_profile(
    State(edge): State<Edge>,
    Extension(caller): Extension<Caller>,
    key: Key,
    Body(profile): Body<Profile>,
) -> Result<Json<Receipt>, Problem> {
    let command = wire::UpdateProfile { customer_id: caller.as_customer()?.to_string(), profile: Some(profile.into()) };
    let request = wire::UpdateProfileRequest { request_id: key.request_id(&caller), command: Some(command) };
    let answer = ask!(edge.contexts.customers, CustomerServiceClient.update_profile, caller, request)?;
    receipt(answer.customer).map(Json)
}

/// Replace the caller's preferences
#[utoipa::path(put, operation_id = "setPreferences", path = "/v1/customer/preferences", tag = "customer", request_body = Preferences, params(Keyed),
    responses((status = 200, body = Receipt), Refusals, Conflicts))]
pub async fn set_preferences(
    State(edge): State<Edge>,
    Extension(caller): Extension<Caller>,
    key: Key,
    Body(preferences): Body<Preferences>,
) -> Result<Json<Receipt>, Problem> {
    let command =
        wire::SetPreferences { customer_id: caller.as_customer()?.to_string(), preferences: Some(preferences.into()) };
    let request = wire::SetPreferencesRequest { request_id: key.request_id(&caller), command: Some(command) };
    let answer = ask!(edge.contexts.customers, CustomerServiceClient.set_preferences, caller, request)?;
    receipt(answer.customer).map(Json)
}

/// Add an address
///
/// Its id is made of the Idempotency-Key, so that a repeat adds nothing.
#[utoipa::path(post, operation_id = "addAddress", path = "/v1/customer/addresses", tag = "customer", request_body = Address, params(Keyed),
    responses((status = 201, body = Added), Refusals, Conflicts))]
pub async fn add_address(
    State(edge): State<Edge>,
    Extension(caller): Extension<Caller>,
    key: Key,
    Body(address): Body<Address>,
) -> Result<Response, Problem> {
    let address_id = key.made(&caller).to_string();
    let command = wire::AddAddress {
        customer_id: caller.as_customer()?.to_string(),
        address_id: address_id.clone(),
        address: Some(address.into()),
    };
    let request = wire::AddAddressRequest { request_id: key.request_id(&caller), command: Some(command) };
    let answer = ask!(edge.contexts.customers, CustomerServiceClient.add_address, caller, request)?;
    let version = receipt(answer.customer)?.version;
    Ok((StatusCode::CREATED, Json(Added { address_id, version })).into_response())
}

/// Replace an address
#[utoipa::path(put, operation_id = "changeAddress", path = "/v1/customer/addresses/{address_id}", tag = "customer", request_body = Address,
    params(("address_id" = Uuid, Path), Keyed), responses((status = 200, body = Receipt), Refusals, Conflicts))]
pub async fn change_address(
    State(edge): State<Edge>,
    Extension(caller): Extension<Caller>,
    At(at): At<AddressAt>,
    key: Key,
    Body(address): Body<Address>,
) -> Result<Json<Receipt>, Problem> {
    let command = wire::ChangeAddress {
        customer_id: caller.as_customer()?.to_string(),
        address_id: at.address_id.to_string(),
        address: Some(address.into()),
    };
    let request = wire::ChangeAddressRequest { request_id: key.request_id(&caller), command: Some(command) };
    let answer = ask!(edge.contexts.customers, CustomerServiceClient.change_address, caller, request)?;
    receipt(answer.customer).map(Json)
}

/// Remove an address
#[utoipa::path(delete, operation_id = "removeAddress", path = "/v1/customer/addresses/{address_id}", tag = "customer",
    params(("address_id" = Uuid, Path), Keyed), responses((status = 200, body = Receipt), Refusals, Conflicts))]
pub async fn remove_address(
    State(edge): State<Edge>,
    Extension(caller): Extension<Caller>,
    At(at): At<AddressAt>,
    key: Key,
) -> Result<Json<Receipt>, Problem> {
    let command =
        wire::RemoveAddress { customer_id: caller.as_customer()?.to_string(), address_id: at.address_id.to_string() };
    let request = wire::RemoveAddressRequest { request_id: key.request_id(&caller), command: Some(command) };
    let answer = ask!(edge.contexts.customers, CustomerServiceClient.remove_address, caller, request)?;
    receipt(answer.customer).map(Json)
}

/// Be forgotten
///
/// What is known of the person is erased, here and wherever parcels were sent from. Orders stay, without a
/// name to them.
#[utoipa::path(delete, operation_id = "eraseAccount", path = "/v1/customer", tag = "customer", params(Keyed),
    responses((status = 200, body = Receipt), Refusals, Conflicts))]
pub async fn erase(
    State(edge): State<Edge>,
    Extension(caller): Extension<Caller>,
    key: Key,
) -> Result<Json<Receipt>, Problem> {
    let command = wire::EraseCustomer { customer_id: caller.as_customer()?.to_string() };
    let request = wire::EraseCustomerRequest { request_id: key.request_id(&caller), command: Some(command) };
    let answer = ask!(edge.contexts.customers, CustomerServiceClient.erase_customer, caller, request)?;
    receipt(answer.customer).map(Json)
}
