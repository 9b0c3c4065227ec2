//! Whether another release of the code could take the place of the current one: the app's folder must go through the link, and
//! nothing that the app keeps may lie inside a release, where a switch would leave it behind.

use std::path::{Path, PathBuf};

use soloist_core::ids::Version;

use super::NocoBaseProfile;
use crate::release::Releases;

/// Variables that name folders in which the app keeps things.
const KEEPS: [&str; 3] = ["STORAGE_PATH", "PLUGIN_STORAGE_PATH", "LOCAL_STORAGE_DEST"];

impl NocoBaseProfile {
    pub(in crate::profile) async fn release_fits(
        &self,
        releases: &Releases,
        version: &Version,
    ) -> Result<(), String> {
        let stays = Stays {
            app_folder: self.config.app_folder.clone(),
            current: releases.current.clone(),
            next: releases.path(version),
        };
        let settings = self.settings_file();
        let place = stays.clone();
        let look = move |_| Ok(place.goes_through().and_then(|()| place.keeps(&settings)));
        let looked = self.code.call(self.config.app_folder.clone(), look).await;
        let through = looked.map_err(|error| error.to_string())?.map_err(|why| match why {
            Wrong::Elsewhere(why) => why,
            Wrong::Inside(path) => format!(
                "the app's settings {path} lie inside a release, and would be left behind by a switch: move the file out of {folder} \
                 and set env_file in the [app] table of this node's agent configuration",
                path = path.display(),
                folder = releases.folder.display()
            ),
        })?;
        if through == Through::Nothing {
            return Ok(());
        }
        let environment = self.computed(false).await.map_err(|error| error.to_string())?;
        let paths = KEEPS.map(|key| (key, environment.get(key).to_owned()));
        let env_file = self.settings_file();
        let look = move |_| {
            let mut named = paths.iter().filter(|(_, path)| !path.is_empty());
            let wrong = named.find_map(|(key, path)| match stays.keeps(Path::new(path)) {
                Err(Wrong::Inside(path)) => Some((*key, path)),
                Err(Wrong::Elsewhere(_)) | Ok(_) => None,
            });
            Ok(wrong)
        };
        // The storage may lie on a mount that hangs.
        let looked = self.storage.call(environment.get("STORAGE_PATH").into(), look).await;
        match looked.map_err(|error| format!("the app's storage cannot be looked at: {error}"))? {
            None => Ok(()),
            Some((key, path)) => Err(format!(
                "the app's storage {path} lies inside a release, and would be left behind by a switch: stop the app, move the folder \
                 out of {folder}, and set {key} in {settings} to its absolute path",
                path = path.display(),
                folder = releases.folder.display(),
                settings = env_file.display()
            )),
        }
    }
}

/// What is switched to what.
#[derive(Debug, Clone)]
struct Stays {
    app_folder: PathBuf,
    current: PathBuf,
    next: PathBuf,
}

/// Whether there is a current release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Through {
    Release,
    Nothing,
}

/// What stands against a switch.
#[derive(Debug, PartialEq, Eq)]
enum Wrong {
    /// The app's folder is somewhere else; the reason is for people.
    Elsewhere(String),
    /// This path lies inside a release.
    Inside(PathBuf),
}

impl Stays {
    /// Whether the app's folder is where the link leads.
    fn goes_through(&self) -> Result<(), Wrong> {
        let same = match (self.app_folder.canonicalize(), self.current.canonicalize()) {
            (Ok(app_folder), Ok(current)) => app_folder == current,
            _ => self.app_folder == self.current,
        };
        if same {
            return Ok(());
        }
        Err(Wrong::Elsewhere(format!(
            "app_folder {app_folder} is not where {current} leads, so a switch would change nothing: set app_folder = \"{current}\" in \
             the [app] table of this node's agent configuration",
            app_folder = self.app_folder.display(),
            current = self.current.display()
        )))
    }

    /// Whether a path means the same after the switch as before, outside of both releases.
    fn keeps(&self, path: &Path) -> Result<Through, Wrong> {
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let inside = || Err(Wrong::Inside(path.to_owned()));
        if real(path).starts_with(real(&self.next)) {
            return inside();
        }
        let Ok(now) = self.current.canonicalize() else {
            return if path.starts_with(&self.app_folder) { inside() } else { Ok(Through::Nothing) };
        };
        if real(path).starts_with(&now) {
            return inside();
        }
        let names = [&now, &self.app_folder, &self.current];
        match names.into_iter().find_map(|name| path.strip_prefix(name).ok()) {
            // A link out of the release is as good, if the next release has the same one.
            Some(rest) if real(&self.next.join(rest)) != real(path) => inside(),
            _ => Ok(Through::Release),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_a_switch_would_leave_behind_is_found() {
        let place = tempfile::tempdir().unwrap();
        let at = |path: &str| place.path().join(path);
        for folder in ["releases/1/storage", "releases/2", "storage", "outside"] {
            fs::create_dir_all(at(folder)).unwrap();
        }
        symlink(at("releases/1"), at("current")).unwrap();
        let stays = Stays { app_folder: at("current"), current: at("current"), next: at("releases/2") };
        assert_eq!(stays.goes_through(), Ok(()));
        let keeps = |path: PathBuf| stays.keeps(&path);
        assert_eq!(keeps(at("storage")), Ok(Through::Release));
        assert_eq!(keeps(at("storage/not/there/yet")), Ok(Through::Release));
        for inside in ["current/storage", "releases/1/storage", "current/.env"] {
            assert!(matches!(keeps(at(inside)), Err(Wrong::Inside(_))), "{inside}");
        }
        symlink(at("releases/1/storage"), at("sly")).unwrap();
        assert!(matches!(keeps(at("sly")), Err(Wrong::Inside(_))));
        // A link out of each release.
        symlink(at("outside"), at("releases/1/kept")).unwrap();
        assert!(matches!(keeps(at("current/kept")), Err(Wrong::Inside(_))), "the next release has none");
        symlink(at("outside"), at("releases/2/kept")).unwrap();
        assert_eq!(keeps(at("current/kept")), Ok(Through::Release));
    }

    #[test]
    fn another_folder_is_no_release() {
        let place = tempfile::tempdir().unwrap();
        let at = |path: &str| place.path().join(path);
        fs::create_dir_all(at("releases/1")).unwrap();
        fs::create_dir_all(at("app")).unwrap();
        let stays = Stays { app_folder: at("app"), current: at("current"), next: at("releases/1") };
        assert!(matches!(stays.goes_through(), Err(Wrong::Elsewhere(why)) if why.contains("app_folder")));
        // Without a link yet, the names must do.
        let fresh = Stays { app_folder: at("current"), ..stays };
        assert_eq!(fresh.goes_through(), Ok(()));
        assert_eq!(fresh.keeps(&at("storage")), Ok(Through::Nothing));
        assert!(fresh.keeps(&at("current/.env")).is_err());
    }
}
