//! Names that do not exist: what was probably meant, and what there is.

use crate::error::{CtlError, Kind};

/// Names that differ more than this are not the same with a typing mistake.
const SIMILAR: f64 = 0.75;
/// Longer lists are cut.
const SHOWN_MAX: usize = 12;

/// The known name that was probably meant. The last part of a package name (`@nocobase/plugin-map`) counts as well.
pub fn closest<'a>(wanted: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let score = |name: &str| {
        let tail = name.rsplit('/').next().unwrap_or(name);
        let short = tail.strip_prefix("plugin-").unwrap_or(tail);
        [name, tail, short].map(|name| strsim::jaro_winkler(wanted, name)).into_iter().fold(0.0, f64::max)
    };
    let scored = known.into_iter().map(|name| (score(name), name)).filter(|(score, _)| *score >= SIMILAR);
    scored.max_by(|one, other| one.0.total_cmp(&other.0)).map(|(_, name)| name)
}

/// The error for a name that is not known, with a suggestion and the known ones.
pub fn unknown(what: &str, wanted: &str, place: &str, known: &[String]) -> CtlError {
    let error = CtlError::new(Kind::Refused, format!("there is no {what} \"{wanted}\" {place}"));
    suggest(error, wanted, known)
}

/// Adds what was probably meant, and what there is.
pub fn suggest(error: CtlError, wanted: &str, known: &[String]) -> CtlError {
    let error = match closest(wanted, known.iter().map(String::as_str)) {
        Some(name) => error.hint(format!("did you mean {name}?")),
        None => error,
    };
    if known.is_empty() {
        return error;
    }
    let mut shown = known.iter().take(SHOWN_MAX).cloned().collect::<Vec<_>>().join(", ");
    if known.len() > SHOWN_MAX {
        shown.push_str(&format!(" and {} more", known.len() - SHOWN_MAX));
    }
    error.hint(format!("there are: {shown}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typing_mistake_is_recognised() {
        let known = ["@nocobase/plugin-map", "@nocobase/plugin-workflow", "node-1"];
        assert_eq!(closest("mapp", known), Some("@nocobase/plugin-map"));
        assert_eq!(closest("nod-1", known), Some("node-1"));
        assert_eq!(closest("xyz", known), None);
    }

    #[test]
    fn long_lists_are_cut() {
        let known: Vec<String> = (0..20).map(|number| format!("thing{number}")).collect();
        let error = unknown("thing", "qq", "here", &known);
        assert_eq!(error.message, "there is no thing \"qq\" here");
        assert!(error.hints[0].ends_with("thing11 and 8 more"), "{:?}", error.hints);
    }
}
