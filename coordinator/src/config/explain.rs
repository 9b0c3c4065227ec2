//! From the library's errors to ones that people can act on.

use std::path::Path;

use figment::error::Kind;

use super::{ConfigError, ENV_PREFIX, keys::LENGTHS};

/// Where a mistake is, what is wrong, and what was probably meant.
pub(super) fn explain(error: figment::Error, text: Option<(&Path, &str)>) -> ConfigError {
    let mut path = error.path.clone();
    let (problem, hint) = match &error.kind {
        Kind::UnknownField(field, known) => {
            if path.last() != Some(field) {
                path.push(field.clone());
            }
            let close = |name: &&&str| strsim::normalized_damerau_levenshtein(field, name);
            let nearest = known.iter().max_by(|a, b| close(a).total_cmp(&close(b)));
            let hint = match nearest.filter(|name| close(name) > 0.5) {
                Some(name) => format!("did you mean \"{name}\"?"),
                None => format!("known keys: {}", known.join(", ")),
            };
            (format!("there is no key \"{}\"", path.join(".")), hint)
        }
        Kind::InvalidType(found, wanted) | Kind::InvalidValue(found, wanted) => {
            let hint =
                if path.first().is_some_and(|section| section == "fleet_defaults") { LENGTHS } else { "" };
            (format!("{}: found {found}, expected {wanted}", path.join(".")), hint.to_owned())
        }
        Kind::UnknownVariant(found, known) => {
            (format!("{}: \"{found}\" is not one of {}", path.join("."), known.join(", ")), String::new())
        }
        other if path.is_empty() => (other.to_string(), String::new()),
        other => (format!("{}: {other}", path.join(".")), String::new()),
    };
    let source = error.metadata.as_ref().map(|metadata| metadata.name.to_string()).unwrap_or_default();
    let at = match text {
        _ if source.contains("environment") => {
            format!("environment variable {ENV_PREFIX}{}", path.join("__").to_uppercase())
        }
        Some((file, text)) => match line(text, &path) {
            Some(line) => format!("{}, line {line}", file.display()),
            None => file.display().to_string(),
        },
        None => String::new(),
    };
    ConfigError { at, problem, hint }
}

/// The line on which a key stands.
fn line(text: &str, path: &[String]) -> Option<usize> {
    let (key, section) = path.split_last()?;
    let section = section.join(".");
    let mut current = String::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(header) = line.strip_prefix('[').and_then(|line| line.split(']').next()) {
            current = header.trim().to_owned();
            if current == *key && section.is_empty() {
                return Some(at + 1);
            }
        } else if let Some((found, _)) = line.split_once('=')
            && current == section
            && found.trim().trim_matches('"') == key
        {
            return Some(at + 1);
        }
    }
    None
}
