//! Between messages and the core's types.
//!
//! To a message always works: `From`. From a message can fail, since a field may be missing, a name malformed, or a value
//! newer than this build: `TryFrom` with a [`FieldError`] that names the field.

mod agent;
mod assignment;
mod bound;
mod event;
mod fence;
mod observed;
mod policy;
mod preflight;
mod request;
mod traffic;
mod view;

use std::collections::BTreeMap;

pub use agent::Greeting;
pub use bound::{LIST_MAX, REPORT_TEXT_MAX, WORD_MAX};
pub use fence::covers;
use soloist_core::ids::BadName;

use crate::v1;

/// A message that does not say what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("field {field}: {problem}")]
pub struct FieldError {
    /// The field, with the fields around it, for example `spec.task.key`.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
}

impl FieldError {
    /// A problem with a field.
    pub fn new(field: &str, problem: impl Into<String>) -> FieldError {
        FieldError { field: field.to_owned(), problem: problem.into() }
    }

    /// The same problem, seen from the message around it.
    fn within(mut self, outer: &str) -> FieldError {
        self.field = format!("{outer}.{}", self.field);
        self
    }
}

/// A name, checked.
///
/// # Errors
///
/// If it is not one.
pub fn name<T: TryFrom<String, Error = BadName>>(
    field: &str,
    value: impl Into<String>,
) -> Result<T, FieldError> {
    T::try_from(value.into()).map_err(|error| FieldError::new(field, error.to_string()))
}

/// A name that may be left out.
///
/// # Errors
///
/// If it is given and not a name.
pub fn maybe_name<T: TryFrom<String, Error = BadName>>(
    field: &str,
    value: Option<String>,
) -> Result<Option<T>, FieldError> {
    value.map(|value| name(field, value)).transpose()
}

/// A message inside another, which must be there.
///
/// # Errors
///
/// If it is missing or malformed.
pub fn nested<T, U: TryFrom<T, Error = FieldError>>(field: &str, value: Option<T>) -> Result<U, FieldError> {
    let value = value.ok_or_else(|| FieldError::new(field, "is missing"))?;
    U::try_from(value).map_err(|error| error.within(field))
}

/// A message inside another, which may be left out.
///
/// # Errors
///
/// If it is malformed.
pub fn maybe<T, U: TryFrom<T, Error = FieldError>>(
    field: &str,
    value: Option<T>,
) -> Result<Option<U>, FieldError> {
    value.map(U::try_from).transpose().map_err(|error| error.within(field))
}

/// A list of messages.
///
/// # Errors
///
/// If one is malformed; the error names its position.
pub fn each<T, U: TryFrom<T, Error = FieldError>>(field: &str, values: Vec<T>) -> Result<Vec<U>, FieldError> {
    let each = values.into_iter().enumerate();
    each.map(|(at, value)| U::try_from(value).map_err(|error| error.within(&format!("{field}[{at}]"))))
        .collect()
}

/// The error for a value that is unset, or newer than this build.
fn unknown(field: &str) -> FieldError {
    FieldError::new(field, "has no value that this version knows")
}

/// Named texts as a message carries them.
pub fn parameters(map: BTreeMap<String, String>) -> Vec<v1::Parameter> {
    map.into_iter().map(|(name, value)| v1::Parameter { name, value }).collect()
}

/// Named texts, each name once.
pub fn named(field: &str, list: Vec<v1::Parameter>) -> Result<BTreeMap<String, String>, FieldError> {
    let mut map = BTreeMap::new();
    for v1::Parameter { name, value } in list {
        if map.contains_key(&name) {
            return Err(FieldError::new(field, format!("\"{}\" occurs twice", bound::text(name))));
        }
        map.insert(name, value);
    }
    Ok(map)
}
