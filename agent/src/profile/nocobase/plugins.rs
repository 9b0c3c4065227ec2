//! Plugins as packages: those that were added lie in the storage, where any node may change them while another runs.

use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{NocoBaseProfile, PACKAGE_MAX, database};
use crate::backup::plugins_folder;
use crate::profile::PluginPlaces;
use crate::profile::drift::{Drift, InMemory, Versions, compare};

/// Most plugins that are looked at.
const PLUGINS_MAX: usize = 500;

impl NocoBaseProfile {
    /// Where plugins lie; the reason of an error is for people.
    pub(in crate::profile) async fn plugin_places(&self) -> Result<PluginPlaces, String> {
        let environment = self.computed(false).await.map_err(|error| error.to_string())?;
        let storage = PathBuf::from(environment.get("STORAGE_PATH"));
        if storage.as_os_str().is_empty() {
            return Err("the app's settings name no STORAGE_PATH".into());
        }
        let modules = self.config.app_folder.join("node_modules");
        Ok(PluginPlaces { storage, plugins: plugins_folder(&environment.vars), modules })
    }

    /// In what the loaded plugins differ from those that should be; the reason of an error is for people.
    pub(in crate::profile) async fn drift(&self, before: Option<&Versions>) -> Result<Drift, String> {
        let environment = self.computed(false).await.map_err(|error| error.to_string())?;
        let wanted = database::enabled(&environment, &self.pgappname("soloist-agent")).await?;
        let loaded = self.in_memory().await?;
        let versions = self.storage.call(plugins_folder(&environment.vars), |folder| versions(&folder)).await;
        let versions =
            versions.map_err(|error| format!("the plugins in the storage cannot be read: {error}"))?;
        Ok(compare(&wanted, &loaded, before, versions))
    }

    /// What the app's processes have loaded, each of them asked.
    async fn in_memory(&self) -> Result<InMemory, String> {
        let api = self.api().await.map_err(|error| error.to_string())?;
        let ask = || async {
            let loaded = api.loaded().await.map_err(|error| error.to_string())?;
            loaded.ok_or_else(|| "the app does not tell what it has loaded".to_owned())
        };
        let mut found = InMemory::of(ask().await?);
        for _ in 1..api.times() {
            found.and(ask().await?);
        }
        Ok(found)
    }
}

impl NocoBaseProfile {
    /// Notes in the database that a plugin is not enabled: the only way to start an app again that a plugin keeps from starting.
    pub(in crate::profile) async fn plugin_off(&self, plugin: &str) -> Result<(), String> {
        let environment = self.computed(false).await.map_err(|error| error.to_string())?;
        database::plugin_off(&environment, &self.pgappname("soloist-agent"), plugin).await
    }
}

/// Versions of the plugins in a folder: `NAME` and `@SCOPE/NAME`.
fn versions(folder: &Path) -> io::Result<Versions> {
    let mut found = Versions::new();
    for (name, path) in installed(folder)? {
        insert(&mut found, name, &path);
    }
    Ok(found)
}

/// The packages in a folder, with their places.
pub(super) fn installed(folder: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for (name, path) in folders(folder)? {
        if name.starts_with('@') {
            let inner = folders(&path)?.into_iter();
            found.extend(inner.map(|(inner, path)| (format!("{name}/{inner}"), path)));
        } else {
            found.push((name, path));
        }
        if found.len() >= PLUGINS_MAX {
            break;
        }
    }
    Ok(found)
}

fn folders(folder: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries.take(PLUGINS_MAX) {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if !name.starts_with('.') && entry.path().is_dir() {
            found.push((name, entry.path()));
        }
    }
    Ok(found)
}

/// One whose package cannot be read is none: NocoBase skips it too.
fn insert(found: &mut Versions, name: String, folder: &Path) {
    #[derive(Deserialize)]
    struct Package {
        version: String,
    }
    let text = std::fs::File::open(folder.join("package.json")).and_then(|file| {
        use io::Read as _;
        let mut text = String::new();
        file.take(PACKAGE_MAX).read_to_string(&mut text)?;
        Ok(text)
    });
    if let Some(package) = text.ok().and_then(|text| serde_json::from_str::<Package>(&text).ok()) {
        found.insert(name, package.version);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_plain_and_scoped_packages() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("plain", "{\"version\":\"1.0.0\"}"),
            ("@a/one", "{\"version\":\"2.0.0\"}"),
            ("@a/broken", "{"),
            (".hidden", "{\"version\":\"3.0.0\"}"),
        ] {
            std::fs::create_dir_all(folder.path().join(name)).unwrap();
            std::fs::write(folder.path().join(name).join("package.json"), text).unwrap();
        }
        let expected = [("@a/one", "2.0.0"), ("plain", "1.0.0")];
        let expected: Versions =
            expected.iter().map(|(name, version)| ((*name).into(), (*version).into())).collect();
        assert_eq!(versions(folder.path()).unwrap(), expected);
        assert!(versions(&folder.path().join("none")).unwrap().is_empty());
    }
}
