//! Who calls: a JSON Web Token, signed by the issuer that is configured, for the audience that is.
//!
//! Invariant: a token is good only if its signature is by a key of the issuer's published set, by the
//! algorithm of *that key*, and it is in force, for us, and by that issuer: neither `none` nor a secret that
//! is a public key gets in. What is wrong with a token is said no closer than its caller may know.
//! Deliberately absent: sessions, and who people are; `sub` is a customer's id, or names a member of the
//! staff.

mod keys;

use std::{sync::Arc, time::Duration};

use holdfast_platform::http_client::HttpClient;
use http::{StatusCode, header, request::Parts};
use jsonwebtoken::{Validation, decode, decode_header, errors::ErrorKind};
use serde::Deserialize;
use tonic::metadata::MetadataValue;
use uuid::Uuid;

use crate::problem::Problem;
use keys::{Keys, Unreachable};

/// The scope that lets a member of the staff read every customer's data.
pub const STAFF: &str = "holdfast.staff";

/// Longest token, in bytes.
const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// How far clocks may be apart.
const LEEWAY: Duration = Duration::from_secs(30);

/// For one question to the issuer.
const PATIENCE: Duration = Duration::from_secs(3);

/// Whose tokens are taken.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the issuer publishes its keys (RFC 7517).
    pub jwks_url: String,
    /// `iss` of its tokens.
    pub issuer: String,
    /// What `aud` has to hold.
    pub audience: String,
}

/// Tells who calls. Clones share the issuer's keys.
#[derive(Clone, Debug)]
pub struct Identity {
    keys: Arc<Keys>,
    issuer: String,
    audience: String,
}

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    subject: String,
    customer: Option<Uuid>,
    is_staff: bool,
}

impl Caller {
    /// A customer.
    pub fn customer(id: Uuid) -> Self {
        Self { subject: id.to_string(), customer: Some(id), is_staff: false }
    }

    /// A member of the staff.
    pub fn staff(subject: impl Into<String>) -> Self {
        Self { subject: subject.into(), customer: None, is_staff: true }
    }

    /// `sub`.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Whether what belongs to `customer` may be read.
    pub fn may_read(&self, customer: &str) -> bool {
        self.is_staff || self.is(customer)
    }

    /// Whether the caller is that customer.
    pub fn is(&self, customer: &str) -> bool {
        self.customer.is_some_and(|own| customer.parse() == Ok(own))
    }

    /// Whether the caller is of the staff.
    pub const fn is_staff(&self) -> bool {
        self.is_staff
    }

    /// The customer who calls.
    ///
    /// # Errors
    /// 403 for the staff, who have no orders.
    pub fn as_customer(&self) -> Result<Uuid, Problem> {
        let detail = "only a customer can do this; the token's subject is none";
        self.customer.ok_or_else(|| Problem::new(StatusCode::FORBIDDEN, "NOT_A_CUSTOMER", detail))
    }

    /// `message`, as this caller's.
    pub fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        let kind = if self.is_staff { "staff" } else { "customer" };
        // What is no header value stays here: the contexts can do without, and the subject is in the log of
        // this request.
        if let Ok(value) = MetadataValue::try_from(format!("{kind}/{}", self.subject)) {
            request.metadata_mut().insert(holdfast_platform::grpc::CALLER_HEADER, value);
        }
        request
    }
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    #[serde(default)]
    scope: String,
}

impl Identity {
    /// Learns the issuer's keys in the background from now on. Inside a tokio runtime.
    pub fn new(settings: Settings) -> Self {
        let Settings { jwks_url, issuer, audience } = settings;
        Self { keys: Keys::following(jwks_url, HttpClient::new(PATIENCE)), issuer, audience }
    }

    /// Whether the issuer's keys were ever learnt.
    pub fn is_able(&self) -> bool {
        self.keys.are_known()
    }

    /// Who shows `token`.
    ///
    /// # Errors
    /// 401 if it is not good, 503 if that can't be known because the issuer's keys were never learnt.
    pub async fn verify(&self, token: &str) -> Result<Caller, Problem> {
        let claims = self.claims(token).await?;
        let is_staff = claims.scope.split(' ').any(|scope| scope == STAFF);
        let customer = Uuid::try_parse(&claims.sub).ok();
        if customer.is_none() && !is_staff {
            let detail = format!("the token's subject is no customer's id, and its scope is not {STAFF}");
            return Err(Problem::new(StatusCode::FORBIDDEN, "NOT_A_CUSTOMER", detail));
        }
        let subject = customer.map_or(claims.sub, |id| id.to_string());
        Ok(Caller { subject, customer, is_staff })
    }

    async fn claims(&self, token: &str) -> Result<Claims, Problem> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(invalid("the token is too long"));
        }
        let header =
            decode_header(token).map_err(|_| invalid("the token is none, or of an algorithm that is not taken"))?;
        let key = self.keys.find(header.kid.as_deref()).await.map_err(|Unreachable| {
            let detail = "tokens can't be checked just now: the issuer's keys could not be had";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "ISSUER_UNREACHABLE", detail)
                .retry_after(Duration::from_secs(5))
        })?;
        let Some(key) = key.filter(|key| key.algorithm == header.alg) else {
            return Err(invalid("the token is signed by no key of the issuer's"));
        };
        let mut validation = Validation::new(key.algorithm);
        validation.leeway = LEEWAY.as_secs();
        validation.validate_nbf = true;
        validation.set_issuer(&[&self.issuer]);
        validation.set_audience(&[&self.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        let decoded = decode::<Claims>(token, &key.decoding, &validation);
        decoded.map(|token| token.claims).map_err(|error| {
            invalid(match error.kind() {
                ErrorKind::ExpiredSignature => "the token has expired",
                ErrorKind::ImmatureSignature => "the token is not in force yet",
                ErrorKind::InvalidAudience => "the token is for another audience",
                ErrorKind::InvalidIssuer => "the token is of another issuer",
                ErrorKind::InvalidSignature => "the token's signature is not its issuer's",
                _ => "the token is not valid",
            })
        })
    }

    /// Who sends a request, by its `authorization` header.
    ///
    /// # Errors
    /// As [`Identity::verify`]; 401 if there is no such header.
    pub async fn of(&self, parts: &Parts) -> Result<Caller, Problem> {
        let shown = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = shown.and_then(|shown| {
            let (scheme, token) = shown.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        match token {
            Some(token) => self.verify(token).await,
            None => Err(Problem::unauthenticated("show a token: `authorization: Bearer …`", "Bearer")),
        }
    }
}

fn invalid(why: &str) -> Problem {
    Problem::unauthenticated(why, &format!(r#"Bearer error="invalid_token", error_description="{why}""#))
}
