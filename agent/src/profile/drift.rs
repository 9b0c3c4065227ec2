//! In what the plugins that a running app has loaded differ from those that it should have.
//!
//! A plugin that somebody enables in the app's own interface is enabled in the database and loaded on that one node. The others
//! learn nothing of it, and say "enabled" because the database says so. Only what a process really has in its memory tells.

use std::collections::{BTreeMap, BTreeSet};

/// Versions of the plugins on a node's disk, by package name: of those that can change while the app runs.
pub type Versions = BTreeMap<String, String>;

/// A package that is always loaded and stands in no table.
const PRESET: &str = "@nocobase/preset-";

/// In what one plugin differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Its package name.
    pub package: String,
    /// The difference with that name, for people.
    pub text: String,
}

/// What was found at one look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    /// All differences.
    pub differences: Vec<Difference>,
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
    let differs = |package: &String, how: &str| Difference {
        package: package.clone(),
        text: format!("{package} {how}"),
    };
    let missing = wanted.difference(loaded).map(|package| differs(package, "is enabled and not loaded"));
    let extra = loaded.difference(wanted).filter(|package| !package.starts_with(PRESET));
    let extra = extra.map(|package| differs(package, "is not enabled and still loaded"));
    let other = before.into_iter().flatten().filter(|(package, _)| loaded.contains(*package));
    let other = other.filter_map(|(package, old)| {
        let new = versions.get(package).filter(|new| *new != old)?;
        Some(differs(package, &format!("{old} is loaded, and {new} lies on the disk")))
    });
    let differences = missing.chain(extra).chain(other).collect();
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
        let found: Vec<(&str, &str)> =
            drift.differences.iter().map(|found| (found.package.as_str(), found.text.as_str())).collect();
        assert_eq!(
            found,
            [
                ("@a/new", "@a/new is enabled and not loaded"),
                ("@a/gone", "@a/gone is not enabled and still loaded"),
                ("@a/x", "@a/x 1.0.0 is loaded, and 2.0.0 lies on the disk"),
            ]
        );
        assert_eq!(drift.versions, new);
        let same = compare(&set(&["@a/x"]), &set(&["@a/x"]), None, new);
        assert!(same.differences.is_empty());
    }

    #[test]
    fn none_is_left_out_for_the_others() {
        let wanted: BTreeSet<String> = (10..30).map(|at| format!("@a/{at}")).collect();
        let drift = compare(&wanted, &BTreeSet::new(), None, Versions::new());
        let found: BTreeSet<String> = drift.differences.into_iter().map(|found| found.package).collect();
        assert_eq!(found, wanted);
    }
}
