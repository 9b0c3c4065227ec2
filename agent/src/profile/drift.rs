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

/// What an app's processes have in their memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct InMemory {
    /// What all of them have.
    all: BTreeSet<String>,
    /// What at least one of them has.
    any: BTreeSet<String>,
}

impl InMemory {
    /// Of an app's only process, or the first one that answers.
    pub(super) fn of(loaded: BTreeSet<String>) -> Self {
        Self { all: loaded.clone(), any: loaded }
    }

    /// With what another one has, or the same one once more.
    pub(super) fn and(&mut self, loaded: BTreeSet<String>) {
        self.all.retain(|package| loaded.contains(package));
        self.any.extend(loaded);
    }
}

/// Compares; `before` are the versions on the disk when the process was young, if they are known.
pub(super) fn compare(
    wanted: &BTreeSet<String>,
    loaded: &InMemory,
    before: Option<&Versions>,
    versions: Versions,
) -> Drift {
    let differs = |package: &String, how: &str| Difference {
        package: package.clone(),
        text: format!("{package} {how}"),
    };
    let InMemory { all, any } = loaded;
    let missing = wanted.difference(all).map(|package| {
        let some = any.contains(package);
        differs(
            package,
            if some { "is enabled and not loaded by all processes" } else { "is enabled and not loaded" },
        )
    });
    let extra = any.difference(wanted).filter(|package| !package.starts_with(PRESET));
    let extra = extra.map(|package| {
        let every = all.contains(package);
        differs(
            package,
            if every {
                "is not enabled and still loaded"
            } else {
                "is not enabled and still loaded by some processes"
            },
        )
    });
    let other = before.into_iter().flatten().filter(|(package, _)| any.contains(*package));
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
        let loaded = InMemory::of(set(&["@a/x", "@a/gone", "@nocobase/preset-nocobase"]));
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
        let same = compare(&set(&["@a/x"]), &InMemory::of(set(&["@a/x"])), None, new);
        assert!(same.differences.is_empty());
    }

    #[test]
    fn a_difference_in_any_process_counts() {
        let mut loaded = InMemory::of(set(&["@a/x", "@a/new"]));
        loaded.and(set(&["@a/x", "@a/gone"]));
        loaded.and(set(&["@a/x", "@a/new"]));
        let drift = compare(&set(&["@a/x", "@a/new"]), &loaded, None, Versions::new());
        let found: Vec<&str> = drift.differences.iter().map(|found| found.text.as_str()).collect();
        assert_eq!(
            found,
            [
                "@a/new is enabled and not loaded by all processes",
                "@a/gone is not enabled and still loaded by some processes",
            ]
        );
    }

    #[test]
    fn none_is_left_out_for_the_others() {
        let wanted: BTreeSet<String> = (10..30).map(|at| format!("@a/{at}")).collect();
        let drift = compare(&wanted, &InMemory::default(), None, Versions::new());
        let found: BTreeSet<String> = drift.differences.into_iter().map(|found| found.package).collect();
        assert_eq!(found, wanted);
    }
}
