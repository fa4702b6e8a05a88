//! Parameters and bodies, refused with an [`super::Failure`] like everything else.

use super::error::Failure;
use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Query, RawPathParams, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use std::fmt::Display;
use std::str::FromStr;

/// A JSON body.
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let bytes = Bytes::from_request(request, state).await.map_err(|error| {
            Failure::new(StatusCode::BAD_REQUEST, 1, "bad_value", &error.to_string())
        })?;
        serde_json::from_slice(&bytes).map(Self).map_err(|error| {
            Failure::bad_value(&format!("the body is not what it must be: {error}"))
        })
    }
}

/// The parameters behind the question mark.
pub(super) struct Parameters<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Parameters<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        Query::try_from_uri(&parts.uri)
            .map(|query| Self(query.0))
            .map_err(|error| Failure::bad_value(&format!("{error}")))
    }
}

/// The parts of the path in braces.
pub(super) struct PathPart(RawPathParams);

impl<S: Send + Sync> FromRequestParts<S> for PathPart {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        RawPathParams::from_request_parts(parts, state)
            .await
            .map(Self)
            .map_err(|error| Failure::bad_value(&error.to_string()))
    }
}

impl PathPart {
    /// One of them, parsed.
    pub(super) fn parse<T>(&self, name: &str) -> Result<T, Failure>
    where
        T: FromStr,
        T::Err: Display,
    {
        let text = self.0.iter().find(|(key, _)| *key == name).map(|(_, value)| value);
        text.unwrap_or_default().parse().map_err(|error: T::Err| {
            Failure::bad_value(&format!("{name} in the path cannot be used: {error}"))
        })
    }
}
