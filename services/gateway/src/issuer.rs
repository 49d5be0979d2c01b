//! An issuer of tokens of our own: for trying things out, and for tests, where keys have to change and tokens
//! have to be wrong.
//!
//! Real keys, real signatures, a key set over real HTTP. Deliberately absent: authentication; a caller that
//! reaches the issuer gets the token that it asks for. Production has an issuer of its own.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    Json, Router,
    extract::{Query, State},
    response::{IntoResponse as _, Response},
    routing::get,
};
use holdfast_platform::http::{Limits, serve};
use http::StatusCode;
use jsonwebtoken::{
    Algorithm, EncodingKey, Header, encode,
    jwk::{Jwk, JwkSet, KeyAlgorithm, PublicKeyUse},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Where the key set is.
pub const JWKS_PATH: &str = "/.well-known/jwks.json";

/// Where tokens are: `GET /token?sub=<customer id>&scope=<scopes>`.
pub const TOKEN_PATH: &str = "/token";

/// How long tokens from [`TOKEN_PATH`] are good for.
const GOOD_FOR: Duration = Duration::from_hours(12);

/// `iss`.
pub const ISSUER: &str = "holdfast-dev";

/// `aud`.
pub const AUDIENCE: &str = "holdfast";

/// A key pair.
#[derive(Clone)]
struct Pair {
    name: String,
    signing: EncodingKey,
    public: Jwk,
}

/// Signs tokens. Clones are the same issuer.
#[derive(Clone)]
pub struct Issuer(Arc<RwLock<Vec<Pair>>>);

impl std::fmt::Debug for Issuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Issuer")
    }
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// None could be made.
    #[error("no key could be made")]
    Make(#[from] rcgen::Error),
    /// One was made, and is of no use.
    #[error("the key can't be used")]
    Use(#[from] jsonwebtoken::errors::Error),
}

impl Pair {
    /// ECDSA over P-256 (ES256).
    fn new() -> Result<Self, Error> {
        let name = Uuid::now_v7().to_string();
        let pair = rcgen::KeyPair::generate()?;
        let signing = EncodingKey::from_ec_der(&pair.serialize_der());
        let mut public = Jwk::from_encoding_key(&signing, Algorithm::ES256)?;
        public.common.key_id = Some(name.clone());
        public.common.public_key_use = Some(PublicKeyUse::Signature);
        public.common.key_algorithm = Some(KeyAlgorithm::ES256);
        Ok(Self { name, signing, public })
    }
}

impl Issuer {
    /// With one key.
    ///
    /// # Errors
    /// If no key can be made.
    pub fn new() -> Result<Self, Error> {
        Ok(Self(Arc::new(RwLock::new(vec![Pair::new()?]))))
    }

    /// Signs with a new key from now on; the others are published for as long as they are not withdrawn.
    ///
    /// # Errors
    /// If no key can be made.
    pub fn rotate(&self) -> Result<(), Error> {
        self.0.write().unwrap_or_else(PoisonError::into_inner).push(Pair::new()?);
        Ok(())
    }

    /// Publishes the newest key alone.
    pub fn withdraw(&self) {
        let mut pairs = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let newest = pairs.len() - 1;
        pairs.drain(..newest);
    }

    /// A token of `subject`, good for so long, with the scopes in `scope`.
    ///
    /// # Errors
    /// If it can't be signed.
    pub fn token(&self, subject: &str, scope: &str, good_for: Duration) -> Result<String, Error> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let claims = json!({
            "iss": ISSUER, "aud": AUDIENCE, "sub": subject, "scope": scope, "iat": now, "exp": now + good_for.as_secs(),
        });
        self.sign(&claims)
    }

    /// Whatever claims, signed by the newest key.
    ///
    /// # Errors
    /// If they can't be signed.
    pub fn sign(&self, claims: &Value) -> Result<String, Error> {
        let newest = self.0.read().unwrap_or_else(PoisonError::into_inner).last().cloned();
        let newest = newest.expect("there is always a key: it begins with one, and the newest stays");
        let header = Header { kid: Some(newest.name), ..Header::new(Algorithm::ES256) };
        Ok(encode(&header, claims, &newest.signing)?)
    }

    /// What it publishes.
    pub fn published(&self) -> JwkSet {
        let pairs = self.0.read().unwrap_or_else(PoisonError::into_inner);
        JwkSet { keys: pairs.iter().map(|pair| pair.public.clone()).collect() }
    }

    /// Publishes the keys over HTTP on `listener`, and hands out tokens, until the task that it runs in ends.
    ///
    /// # Errors
    /// If the socket fails.
    pub async fn serve(self, listener: TcpListener) -> std::io::Result<()> {
        let published = async |State(issuer): State<Self>| Json(issuer.published());
        let routes = Router::new().route(JWKS_PATH, get(published)).route(TOKEN_PATH, get(hand_out));
        serve(listener, routes.with_state(self), Limits::default(), CancellationToken::new()).await
    }
}

#[derive(Deserialize)]
struct Wanted {
    sub: Option<String>,
    #[serde(default)]
    scope: String,
}

async fn hand_out(State(issuer): State<Issuer>, Query(wanted): Query<Wanted>) -> Response {
    let subject = wanted.sub.unwrap_or_else(|| Uuid::now_v7().to_string());
    match issuer.token(&subject, &wanted.scope, GOOD_FOR) {
        Ok(token) => token.into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
