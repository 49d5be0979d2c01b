//! What a request says in its address: parts of its path, and its query.
//!
//! Invariant: what is malformed is a problem that names it; an unknown parameter is one too, since a misspelt
//! condition that is passed over answers something that was not asked.

use axum::extract::{FromRequestParts, Path, Query};
use http::request::Parts;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::problem::Problem;

/// Parts of the path.
#[derive(Clone, Copy, Debug)]
pub struct At<T>(pub T);

/// The query.
#[derive(Clone, Copy, Debug)]
pub struct Asked<T>(pub T);

/// An order's place.
#[derive(Clone, Copy, Debug, serde::Deserialize)]
pub struct OrderAt {
    /// Its id.
    pub order_id: Uuid,
}

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for At<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path(value) = Path::<T>::from_request_parts(parts, state)
            .await
            .map_err(|rejection| Problem::malformed("PATH_INVALID", "path", rejection.body_text()))?;
        Ok(Self(value))
    }
}

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Query(value) = Query::<T>::from_request_parts(parts, state)
            .await
            .map_err(|rejection| Problem::malformed("QUERY_INVALID", "query", rejection.body_text()))?;
        Ok(Self(value))
    }
}
