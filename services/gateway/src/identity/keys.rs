//! The issuer's keys, as it publishes them: followed in the background, and asked for at once when a token
//! names one that is not known.
//!
//! Invariant: an issuer that is away changes nothing about the keys that are known, and unknown names make no
//! more than one question in [`PAUSE`]. Only keys for signatures by asymmetric algorithms are taken.
//! Deliberately absent: keys named by a token itself (`jku`, `jwk`, `x5u`).

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock, Weak},
    time::Duration,
};

use bytes::Bytes;
use holdfast_platform::http_client::HttpClient;
use http::{Request, StatusCode, header};
use http_body_util::Full;
use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse},
};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep},
};

/// Between two looks at what the issuer publishes; a key that it withdraws is good for no longer.
const FOLLOWED_EVERY: Duration = Duration::from_mins(5);

/// Until it is asked again after a failure.
const AGAIN_AFTER: Duration = Duration::from_secs(10);

/// Between two questions because of a name that is not known.
const PAUSE: Duration = Duration::from_secs(2);

/// A key by which tokens are checked.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) algorithm: Algorithm,
    pub(super) decoding: Arc<DecodingKey>,
}

/// The keys were never learnt.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unreachable;

type Known = HashMap<String, Key>;

#[derive(Debug)]
pub(super) struct Keys {
    url: String,
    client: HttpClient,
    /// None until they were learnt once.
    known: RwLock<Option<Arc<Known>>>,
    asked: Mutex<Option<Instant>>,
}

impl Keys {
    /// Follows the keys at `url` until the last handle is gone.
    pub(super) fn following(url: String, client: HttpClient) -> Arc<Self> {
        let keys = Arc::new(Self { url, client, known: RwLock::default(), asked: Mutex::default() });
        tokio::spawn(Self::follow(Arc::downgrade(&keys)));
        keys
    }

    async fn follow(keys: Weak<Self>) {
        while let Some(keys) = keys.upgrade() {
            let learnt = {
                let mut asked = keys.asked.lock().await;
                *asked = Some(Instant::now());
                keys.learn().await
            };
            drop(keys);
            sleep(if learnt { FOLLOWED_EVERY } else { AGAIN_AFTER }).await;
        }
    }

    /// The key of that name. A token without one means the only key there is.
    pub(super) async fn find(&self, name: Option<&str>) -> Result<Option<Key>, Unreachable> {
        if let Some(key) = self.known().and_then(|known| named(&known, name)) {
            return Ok(Some(key));
        }
        let mut asked = self.asked.lock().await;
        // An earlier caller in this queue may have learnt the key.
        if let Some(key) = self.known().and_then(|known| named(&known, name)) {
            return Ok(Some(key));
        }
        if asked.is_none_or(|at| at.elapsed() >= PAUSE) {
            *asked = Some(Instant::now());
            self.learn().await;
        }
        self.known().map(|known| named(&known, name)).ok_or(Unreachable)
    }

    pub(super) fn are_known(&self) -> bool {
        self.known().is_some()
    }

    fn known(&self) -> Option<Arc<Known>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn learn(&self) -> bool {
        match self.ask().await {
            Ok(known) => {
                metrics::gauge!("holdfast_gateway_issuer_keys").set(u32::try_from(known.len()).unwrap_or(u32::MAX));
                *self.known.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(known));
                true
            }
            Err(error) => {
                tracing::warn!(
                    url = self.url,
                    error,
                    "the issuer's keys could not be learnt; those that are known stay"
                );
                false
            }
        }
    }

    async fn ask(&self) -> Result<Known, String> {
        let request = Request::get(&self.url).header(header::ACCEPT, "application/json").body(Full::new(Bytes::new()));
        let answer = self.client.send(request.map_err(|error| error.to_string())?).await;
        let answer = answer.map_err(|error| error.to_string())?;
        if answer.status != StatusCode::OK {
            return Err(format!("it answered {}", answer.status));
        }
        let set: JwkSet = serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
        let known: Known = set.keys.iter().filter_map(usable).collect();
        // An answer without any would lock everybody out; what is known is better.
        if known.is_empty() { Err("it publishes no key that can be used".to_owned()) } else { Ok(known) }
    }
}

fn named(known: &Known, name: Option<&str>) -> Option<Key> {
    match name {
        Some(name) => known.get(name).cloned(),
        None if known.len() == 1 => known.values().next().cloned(),
        None => None,
    }
}

/// A key for signatures, by its name, with the one algorithm that it is for.
fn usable(jwk: &Jwk) -> Option<(String, Key)> {
    if jwk.common.public_key_use.as_ref().is_some_and(|r#use| *r#use != PublicKeyUse::Signature) {
        return None;
    }
    let algorithm = match (jwk.common.key_algorithm, &jwk.algorithm) {
        (None | Some(KeyAlgorithm::RS256), AlgorithmParameters::RSA(_)) => Algorithm::RS256,
        (Some(KeyAlgorithm::RS384), AlgorithmParameters::RSA(_)) => Algorithm::RS384,
        (Some(KeyAlgorithm::RS512), AlgorithmParameters::RSA(_)) => Algorithm::RS512,
        (Some(KeyAlgorithm::PS256), AlgorithmParameters::RSA(_)) => Algorithm::PS256,
        (None | Some(KeyAlgorithm::ES256), AlgorithmParameters::EllipticCurve(curve))
            if curve.curve == EllipticCurve::P256 =>
        {
            Algorithm::ES256
        }
        (None | Some(KeyAlgorithm::ES384), AlgorithmParameters::EllipticCurve(curve))
            if curve.curve == EllipticCurve::P384 =>
        {
            Algorithm::ES384
        }
        (None | Some(KeyAlgorithm::EdDSA), AlgorithmParameters::OctetKeyPair(_)) => Algorithm::EdDSA,
        // Secrets (`oct`) above all: who knows what is published could sign with it.
        _ => return None,
    };
    let decoding = Arc::new(DecodingKey::from_jwk(jwk).ok()?);
    Some((jwk.common.key_id.clone().unwrap_or_default(), Key { algorithm, decoding }))
}
