//! Reading requests: names in paths, parameters of queries, bodies, and what form of answer is wanted.
//!
//! Nothing is silently ignored: an unknown parameter, a repeated one, or a value that is not one is refused by name,
//! because a misspelt filter that is dropped answers a question nobody asked.

use std::future::poll_fn;
use std::pin::Pin;
use std::str::FromStr;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::{FromRequestParts, Path, Query};
use http::request::Parts;
use http::{HeaderMap, Request, header};
use serde::de::DeserializeOwned;
use tokio::sync::OwnedSemaphorePermit;

use crate::error::{ApiError, nearest};
use crate::state::ApiState;

/// The last segment of the path that is a name.
pub(crate) struct Name(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Path::<String>::from_request_parts(parts, state).await {
            Ok(Path(name)) => Ok(Self(name)),
            Err(_) => Err(ApiError::bad_query("server", "the name in the path is not percent-encoded UTF-8")),
        }
    }
}

/// The parameters of a query.
pub(crate) struct Params(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        if parts.uri.query().is_none_or(str::is_empty) {
            return Ok(Self(Vec::new()));
        }
        let pairs = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri);
        let Ok(Query(pairs)) = pairs else {
            return Err(ApiError::bad_query("query", "the query is not name=value&name=value, percent-encoded"));
        };
        Ok(Self(pairs))
    }
}

impl Params {
    /// Refuses what is not in `known`, and what is given twice.
    pub(crate) fn only(&self, known: &[&str]) -> Result<(), ApiError> {
        for (at, (name, _)) in self.0.iter().enumerate() {
            if !known.contains(&name.as_str()) {
                let hint = match nearest(name, known) {
                    Some(nearest) => format!("did you mean {nearest:?}?"),
                    None if known.is_empty() => "this route takes none".into(),
                    None => format!("there are {}", known.join(", ")),
                };
                return Err(ApiError::bad_query(name, format!("there is no parameter {name:?}; {hint}")));
            }
            if self.0[..at].iter().any(|(other, _)| other == name) {
                return Err(ApiError::bad_query(name, format!("the parameter {name:?} is given twice")));
            }
        }
        Ok(())
    }

    /// A text. An empty one is refused: it is mostly a variable that was not set.
    pub(crate) fn text(&self, name: &str) -> Result<Option<&str>, ApiError> {
        match self.0.iter().find(|(other, _)| other == name) {
            None => Ok(None),
            Some((_, value)) if value.is_empty() => {
                Err(ApiError::bad_query(name, format!("the parameter {name:?} is empty; leave it out to mean any")))
            }
            Some((_, value)) => Ok(Some(value)),
        }
    }

    /// A text that must be there.
    pub(crate) fn required(&self, name: &str, why: &str) -> Result<&str, ApiError> {
        self.text(name)?.ok_or_else(|| ApiError::bad_query(name, format!("the parameter {name:?} is missing: {why}")))
    }

    /// One of several words.
    pub(crate) fn one_of(&self, name: &str, words: &[&'static str]) -> Result<Option<&'static str>, ApiError> {
        let Some(value) = self.text(name)? else { return Ok(None) };
        match words.iter().find(|word| **word == value) {
            Some(word) => Ok(Some(word)),
            None => {
                let hint = nearest(value, words).map_or_else(String::new, |word| format!(", did you mean {word:?}?"));
                let detail = format!("{name}={value:?} is not one of {}{hint}", words.join(", "));
                Err(ApiError::bad_query(name, detail))
            }
        }
    }

    /// An integer within bounds.
    pub(crate) fn integer(&self, name: &str, min: i64, max: i64) -> Result<Option<i64>, ApiError> {
        let Some(value) = self.text(name)? else { return Ok(None) };
        let detail = || format!("{name}={value:?} is not an integer from {min} to {max}");
        match i64::from_str(value) {
            Ok(number) if (min..=max).contains(&number) => Ok(Some(number)),
            _ => Err(ApiError::bad_query(name, detail())),
        }
    }

    /// How many items a page may hold.
    pub(crate) fn limit(&self, state: &ApiState) -> Result<usize, ApiError> {
        let limit = self.integer("limit", 1, state.limits.list_items_max as i64)?;
        Ok(limit.map_or(state.limits.list_items_default, |limit| limit as usize))
    }

    /// An epoch that changes are asked after.
    pub(crate) fn since(&self) -> Result<Option<i64>, ApiError> {
        self.integer("since", 0, MAX_EPOCH)
    }

    /// A span of time: `30s`, `500ms`, `1m`, or seconds.
    pub(crate) fn duration(&self, name: &str, max_seconds: u64) -> Result<Option<Duration>, ApiError> {
        let Some(value) = self.text(name)? else { return Ok(None) };
        let (digits, millis_per_unit) = match value {
            _ if value.ends_with("ms") => (&value[..value.len() - 2], 1),
            _ if value.ends_with('s') => (&value[..value.len() - 1], 1_000),
            _ if value.ends_with('m') => (&value[..value.len() - 1], 60_000),
            _ => (value, 1_000),
        };
        let millis = u64::from_str(digits).ok().and_then(|number| number.checked_mul(millis_per_unit));
        match millis {
            Some(millis) if millis <= max_seconds * 1_000 => Ok(Some(Duration::from_millis(millis))),
            _ => {
                let detail = format!("{name}={value:?} is not a span such as 30s, 500ms or 1m, {max_seconds}s at most");
                Err(ApiError::bad_query(name, detail))
            }
        }
    }
}

/// The last epoch that RFC 3339 can write.
pub(crate) const MAX_EPOCH: i64 = 253_402_300_799;

/// Which of the forms offered the caller prefers: the header `Accept` with its weights, of which that of the narrowest
/// range counts for a form; the first where it is silent.
pub(crate) fn negotiate(headers: &HeaderMap, offered: &[&'static str]) -> Result<&'static str, ApiError> {
    // For each form the narrowest range that fits, and its weight.
    let mut wanted: Vec<Option<(u8, f32)>> = vec![None; offered.len()];
    let mut is_given = false;
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    for range in values.flat_map(|value| value.split(',')).filter(|range| !range.trim().is_empty()) {
        is_given = true;
        let mut parts = range.split(';').map(str::trim);
        let range = parts.next().unwrap_or_default();
        let weight = parts.find_map(|part| part.strip_prefix("q=")).and_then(|q| q.parse().ok()).unwrap_or(1.0f32);
        for (form, wanted) in offered.iter().zip(&mut wanted) {
            let kind = form.split('/').next().unwrap_or_default();
            let narrow = match range.strip_suffix("/*") {
                None if range.eq_ignore_ascii_case(form) => 2,
                Some(range) if range.eq_ignore_ascii_case(kind) => 1,
                Some("*") => 0,
                _ => continue,
            };
            if wanted.is_none_or(|(known, _)| narrow > known) {
                *wanted = Some((narrow, weight));
            }
        }
    }
    if !is_given {
        return offered.first().copied().ok_or_else(|| ApiError::not_acceptable(offered));
    }
    let mut best: Option<(f32, &'static str)> = None;
    for (form, wanted) in offered.iter().zip(wanted) {
        if let Some((_, weight)) = wanted
            && weight > best.map_or(0.0, |(most, _)| most)
        {
            best = Some((weight, form));
        }
    }
    best.map(|(_, form)| form).ok_or_else(|| ApiError::not_acceptable(offered))
}

/// JSON is all there is.
pub(crate) fn wants_json(headers: &HeaderMap) -> Result<(), ApiError> {
    match headers.get(header::ACCEPT) {
        None => Ok(()),
        Some(_) => negotiate(headers, &[JSON]).map(|_| ()),
    }
}

/// The media type of JSON.
pub(crate) const JSON: &str = "application/json";

/// The media type of a request's body, without its parameters.
pub(crate) fn content_type(headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Marks a request that has a place among a bounded number, so that its body needs no room among all others: what
/// readers send must not keep an operator's command out.
#[derive(Clone, Copy)]
pub(crate) struct HasPlace;

/// The whole body, within its bounds of size and time.
pub(crate) async fn read_body(state: &ApiState, request: Request<Body>) -> Result<Vec<u8>, ApiError> {
    let max = state.limits.body_bytes_max;
    let too_large = || {
        state.observer.refused("bodyBytesMax");
        ApiError::body_too_large(max as u64)
    };
    let announced = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if announced.is_some_and(|bytes: usize| bytes > max) {
        return Err(too_large());
    }
    let has_place = request.extensions().get::<HasPlace>().is_some();
    let mut body = request.into_body();
    let read = async {
        let mut bytes = Vec::new();
        // Taken for what has come, not for what was announced: to fill the room one has to send.
        let mut room: Option<OwnedSemaphorePermit> = None;
        while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
            let frame = frame.map_err(|error| ApiError::bad_body(format!("the body broke off: {error}")))?;
            let Ok(piece) = frame.into_data() else { continue };
            if bytes.len() + piece.len() > max {
                return Err(too_large());
            }
            if !has_place {
                let more = state.body_room(piece.len())?;
                match &mut room {
                    Some(room) => room.merge(more),
                    None => room = Some(more),
                }
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    };
    match tokio::time::timeout(state.limits.body_timeout, read).await {
        Ok(read) => read,
        Err(_) => {
            state.observer.refused("bodyTimeout");
            Err(ApiError::body_timeout(state.limits.body_timeout.as_secs()))
        }
    }
}

/// A body of JSON.
pub(crate) async fn read_json<T: DeserializeOwned>(state: &ApiState, request: Request<Body>) -> Result<T, ApiError> {
    if content_type(request.headers()) != JSON {
        return Err(ApiError::unsupported_media_type(JSON));
    }
    let body = read_body(state, request).await?;
    serde_json::from_slice(&body).map_err(|error| ApiError::bad_body(format!("{error}; see /openapi.json")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heaviest_form_wins_and_silence_means_the_first() {
        const YAML: &str = "application/yaml";
        for (accept, expected) in [
            (None, Some(YAML)),
            (Some("*/*"), Some(YAML)),
            (Some("application/*"), Some(YAML)),
            (Some("application/json"), Some(JSON)),
            (Some("application/yaml;q=0.5, application/json"), Some(JSON)),
            (Some("text/html, application/json;q=0.9, */*;q=0.1"), Some(JSON)),
            (Some("application/json;q=0"), None),
            (Some("application/yaml;q=0, */*"), Some(JSON)),
            (Some("*/*, application/yaml;q=0.1, application/json;q=0.2"), Some(JSON)),
            (Some("*/*;q=0.5, application/yaml;q=0"), Some(JSON)),
            (Some("application/*;q=0, application/json"), Some(JSON)),
            (Some("text/html"), None),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(accept) = accept {
                headers.insert(header::ACCEPT, accept.parse().expect("a header value"));
            }
            assert_eq!(negotiate(&headers, &[YAML, JSON]).ok(), expected, "{accept:?}");
        }
    }
}
