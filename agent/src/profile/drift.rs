//! In what the plugins that a running app has loaded differ from those that it should have.
//!
//! A plugin that somebody enables in the app's own interface is enabled in the database and loaded on that one node. The others
//! learn nothing of it, and say "enabled" because the database says so. Only what a process really has in its memory tells.

use std::collections::{BTreeMap, BTreeSet};

use soloist_core::assignment::{OUTPUT_TEXT_MAX, STALE_MAX};

/// Versions of the plugins on a node's disk, by package name: of those that can change while the app runs.
pub type Versions = BTreeMap<String, String>;

/// A package that is always loaded and stands in no table.
const PRESET: &str = "@nocobase/preset-";

/// What was found at one look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    /// The differences, for people.
    pub differences: Vec<String>,
    /// The versions on the disk.
    pub versions: Versions,
}

/// Compares; `before` are the versions on the disk when the process was young, if they are known.
pub(super) fn compare(
    wanted: &BTreeSet<String>,
    loaded: &BTreeSet<String>,
    before: Option<&Versions>,
    versions: Versions,
) -> Drift {
    let missing = wanted.difference(loaded).map(|package| format!("{package} is enabled and not loaded"));
    let extra = loaded.difference(wanted).filter(|package| !package.starts_with(PRESET));
    let extra = extra.map(|package| format!("{package} is not enabled and still loaded"));
    let other = before.into_iter().flatten().filter(|(package, _)| loaded.contains(*package));
    let other = other.filter_map(|(package, old)| {
        let new = versions.get(package).filter(|new| *new != old)?;
        Some(format!("{package} {old} is loaded, and {new} lies on the disk"))
    });
    let clip = |text: String| text.chars().take(OUTPUT_TEXT_MAX).collect::<String>();
    let mut differences: Vec<String> = missing.chain(extra).chain(other).map(clip).collect();
    if differences.len() > STALE_MAX {
        let more = differences.len() - STALE_MAX + 1;
        differences.truncate(STALE_MAX - 1);
        differences.push(format!("and {more} more"));
    }
    Drift { differences, versions }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn what_differs_is_named() {
        let old = Versions::from([("@a/x".into(), "1.0.0".into()), ("@a/y".into(), "1.0.0".into())]);
        let new = Versions::from([("@a/x".into(), "2.0.0".into()), ("@a/y".into(), "2.0.0".into())]);
        let loaded = set(&["@a/x", "@a/gone", "@nocobase/preset-nocobase"]);
        let drift = compare(&set(&["@a/x", "@a/new"]), &loaded, Some(&old), new.clone());
        assert_eq!(
            drift.differences,
            [
                "@a/new is enabled and not loaded",
                "@a/gone is not enabled and still loaded",
                "@a/x 1.0.0 is loaded, and 2.0.0 lies on the disk",
            ]
        );
        assert_eq!(drift.versions, new);
        let same = compare(&set(&["@a/x"]), &set(&["@a/x"]), None, new);
        assert!(same.differences.is_empty());
    }

    #[test]
    fn only_so_many_are_named() {
        let names: Vec<String> = (10..30).map(|at| format!("@a/{at}")).collect();
        let wanted = names.iter().cloned().collect();
        let drift = compare(&wanted, &BTreeSet::new(), None, Versions::new());
        assert_eq!(drift.differences.len(), STALE_MAX);
        assert_eq!(drift.differences[STALE_MAX - 1], "and 13 more");
    }
}
