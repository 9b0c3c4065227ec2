//! Whether a node has the packages that an operation has exchanged, and whether its app has loaded them.

use soloist_core::assignment::Task;
use soloist_core::packages::{PUT, REMOVE, VERSION};

use crate::profile::{Drift, Profile};

/// Looks at each package that the task names; the reason of an error is for people.
///
/// The process was started after the exchange, so what lies on the disk is what it has loaded, if it has loaded the plugin at all.
pub(super) async fn verify(profile: &Profile, task: &Task) -> Result<(), String> {
    if put(task).chain(removed(task)).next().is_none() {
        return Ok(());
    }
    judge(task, &profile.drift(None).await.ok_or("this app does not tell what it has loaded")??)
}

fn put(task: &Task) -> impl Iterator<Item = &str> {
    task.params.keys().filter_map(|key| key.strip_prefix(PUT))
}

fn removed(task: &Task) -> impl Iterator<Item = &str> {
    task.params.keys().filter_map(|key| key.strip_prefix(REMOVE))
}

fn judge(task: &Task, drift: &Drift) -> Result<(), String> {
    for plugin in put(task) {
        let there = drift.versions.get(plugin).ok_or_else(|| {
            format!(
                "{plugin} is not on this node: does it share the storage with the node that made it ready?"
            )
        })?;
        if let Some(wanted) = task.params.get(&format!("{VERSION}{plugin}")).filter(|wanted| *wanted != there)
        {
            return Err(format!("{plugin} {wanted} is expected, and {there} lies on this node"));
        }
    }
    if let Some(plugin) = removed(task).find(|plugin| drift.versions.contains_key(*plugin)) {
        return Err(format!("{plugin} is still on this node"));
    }
    let concerned = |package: &str| put(task).chain(removed(task)).any(|plugin| plugin == package);
    match drift.differences.iter().find(|difference| concerned(&difference.package)) {
        Some(difference) => Err(difference.text.clone()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use soloist_core::assignment::{Needs, STALE_MAX, TaskKey, TaskPhase};
    use soloist_core::ids::OperationId;

    use super::*;
    use crate::profile::Difference;

    fn task(params: &[(&str, &str)]) -> Task {
        Task {
            key: TaskKey { operation: OperationId::new("op").unwrap(), step: 1, attempt: 1 },
            phase: TaskPhase::Run,
            needs: Needs::Serving,
            name: "verify".into(),
            params: params.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            checks: Vec::new(),
        }
    }

    fn drift(packages: &[String], versions: &[(&str, &str)]) -> Drift {
        let differs = |package: &String| Difference {
            package: package.clone(),
            text: format!("{package} is enabled and not loaded"),
        };
        let versions = versions.iter().map(|(name, version)| ((*name).to_owned(), (*version).to_owned()));
        Drift { differences: packages.iter().map(differs).collect(), versions: versions.collect() }
    }

    #[test]
    fn a_package_behind_many_others_is_found() {
        let mut packages: Vec<String> = (0..STALE_MAX + 2).map(|at| format!("@a/{at:02}")).collect();
        let wanted = task(&[("put @a/x", "npm"), ("version @a/x", "1.0.0")]);
        let there = [("@a/x", "1.0.0")];
        assert_eq!(judge(&wanted, &drift(&packages, &there)), Ok(()), "others are not its concern");
        packages.push("@a/x-more".into());
        assert_eq!(judge(&wanted, &drift(&packages, &there)), Ok(()), "nor is a longer name");
        packages.push("@a/x".into());
        let why = judge(&wanted, &drift(&packages, &there)).unwrap_err();
        assert_eq!(why, "@a/x is enabled and not loaded");
        let gone = judge(&task(&[("remove @a/x", "")]), &drift(&packages, &[]));
        assert!(gone.is_err(), "one that was removed must not be loaded");
    }

    #[test]
    fn what_lies_on_the_disk_must_be_what_was_exchanged() {
        let wanted = task(&[("put @a/x", "npm"), ("version @a/x", "2.0.0"), ("remove @a/y", "")]);
        let judged = |versions: &[(&str, &str)]| judge(&wanted, &drift(&[], versions));
        assert!(judged(&[]).unwrap_err().contains("@a/x is not on this node"));
        let old = judged(&[("@a/x", "1.0.0")]).unwrap_err();
        assert_eq!(old, "@a/x 2.0.0 is expected, and 1.0.0 lies on this node");
        let stays = judged(&[("@a/x", "2.0.0"), ("@a/y", "1.0.0")]).unwrap_err();
        assert_eq!(stays, "@a/y is still on this node");
        assert_eq!(judged(&[("@a/x", "2.0.0")]), Ok(()));
    }
}
