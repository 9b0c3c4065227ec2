//! Whether a node has the packages that an operation has exchanged, and whether its app has loaded them.

use soloist_core::assignment::Task;
use soloist_core::packages::{PUT, REMOVE, VERSION};

use crate::profile::Profile;

/// Looks at each package that the task names; the reason of an error is for people.
///
/// The process was started after the exchange, so what lies on the disk is what it has loaded, if it has loaded the plugin at all.
pub(super) async fn verify(profile: &Profile, task: &Task) -> Result<(), String> {
    let named = |kind: &str| {
        let found = task.params.keys().filter_map(|key| key.strip_prefix(kind));
        found.map(str::to_owned).collect::<Vec<_>>()
    };
    let (put, removed) = (named(PUT), named(REMOVE));
    if put.is_empty() && removed.is_empty() {
        return Ok(());
    }
    let drift = profile.drift(None).await.ok_or("this app does not tell what it has loaded")??;
    for plugin in &put {
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
    if let Some(plugin) = removed.iter().find(|plugin| drift.versions.contains_key(*plugin)) {
        return Err(format!("{plugin} is still on this node"));
    }
    let concerns = |difference: &&String| {
        put.iter().chain(&removed).any(|plugin| difference.starts_with(&format!("{plugin} ")))
    };
    match drift.differences.iter().find(concerns) {
        Some(difference) => Err(difference.clone()),
        None => Ok(()),
    }
}
