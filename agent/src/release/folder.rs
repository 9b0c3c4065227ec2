//! Releases in a folder, and the link to the current one. Its calls block, as long as a mount hangs.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use soloist_core::ids::Version;

use super::{Contents, ReleaseError, digest};
use crate::host::lock;

/// How the name of a folder begins whose release is not complete.
const PARTIAL: &str = ".partial-";
/// Held by whoever fetches.
const LOCK: &str = ".lock";
/// Most bytes that are read of a file that names a version.
const VERSION_FILE_MAX: u64 = 1024 * 1024;

/// The releases of one node.
#[derive(Debug, Clone)]
pub struct Releases {
    /// The folder with one folder per version.
    pub folder: PathBuf,
    /// The link to one of them.
    pub current: PathBuf,
    /// What is in them.
    pub contents: Contents,
    /// Whether this node can fetch others.
    pub fetches: bool,
}

impl Releases {
    /// Where a version lies, or should.
    #[must_use]
    pub fn path(&self, version: &Version) -> PathBuf {
        self.folder.join(&version.0)
    }

    /// Looks whether a version is there and complete, and gives its digest.
    ///
    /// # Errors
    /// When it is not, or cannot be read.
    pub fn look(&self, version: &Version) -> Result<String, ReleaseError> {
        let path = self.path(version);
        self.complete(version, &path)?;
        let digest = match self.contents {
            Contents::NocoBase => digest::of_packages(&path),
            Contents::Other { .. } => digest::of_files(&path),
        };
        digest.map_err(ReleaseError::io("read", &path))
    }

    /// Looks whether another version could be made current.
    ///
    /// # Errors
    /// When the link is none, or cannot be exchanged.
    pub fn switchable(&self) -> Result<(), ReleaseError> {
        let parent = self.parent();
        match fs::symlink_metadata(&self.current) {
            Ok(meta) if !meta.is_symlink() => {
                return Err(ReleaseError::NotALink {
                    current: self.current.clone(),
                    folder: self.folder.clone(),
                });
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(ReleaseError::io("look at", &self.current)(error));
            }
            _ => {}
        }
        let access = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
        let writable = rustix::fs::access(&parent, access).map_err(io::Error::from);
        writable.map_err(ReleaseError::io("exchange the link to the current release in", &parent))
    }

    /// Looks whether what is current now could be made current again: the way back of an upgrade needs it.
    ///
    /// # Errors
    /// When it does not lie where its version is looked for.
    pub fn returns(&self) -> Result<(), ReleaseError> {
        // What leads nowhere, or says no version, is nothing to go back to.
        let Ok(now) = self.current.canonicalize() else { return Ok(()) };
        let (_, Ok(version)) = self.version_of(&now) else { return Ok(()) };
        let place = self.folder.join(&version);
        if place.canonicalize().is_ok_and(|place| place == now) {
            return Ok(());
        }
        Err(ReleaseError::NoWayBack { now, version, place })
    }

    /// Makes a version current. When this returns, it stays so over a power cut.
    ///
    /// # Errors
    /// When the version is not complete, or the link cannot be exchanged; then it is as it was.
    pub fn switch(&self, version: &Version) -> Result<(), ReleaseError> {
        let target = self.path(version);
        self.complete(version, &target)?;
        self.switchable()?;
        let parent = self.parent();
        if !self.is_current(version) {
            let name = self.current.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let new = parent.join(format!(".{name}.soloist"));
            match fs::remove_file(&new) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(ReleaseError::io("remove", &new)(error));
                }
                _ => {}
            }
            symlink(&target, &new).map_err(ReleaseError::io("make the link", &new))?;
            sync(&parent)?;
            fs::rename(&new, &self.current).map_err(ReleaseError::io("exchange the link", &self.current))?;
        }
        sync(&parent)
    }

    /// Whether the link leads to this version.
    #[must_use]
    pub fn is_current(&self, version: &Version) -> bool {
        match (self.current.canonicalize(), self.path(version).canonicalize()) {
            (Ok(current), Ok(path)) => current == path,
            _ => false,
        }
    }

    // ---- for a fetch ----

    /// Whether there is something under this version's name.
    pub(crate) fn exists(&self, version: &Version) -> bool {
        fs::symlink_metadata(self.path(version)).is_ok()
    }

    /// The right to fetch; `None` while somebody else on this host has it.
    pub(crate) fn turn(&self) -> Result<Option<lock::Held>, ReleaseError> {
        fs::create_dir_all(&self.folder)
            .map_err(ReleaseError::io("create the folder for releases", &self.folder))?;
        let path = self.folder.join(LOCK);
        lock::try_take(&path).map_err(ReleaseError::io("lock", &path))
    }

    /// An empty folder for a fetch. What earlier ones have left is removed.
    pub(crate) fn begin(&self, version: &Version) -> Result<PathBuf, ReleaseError> {
        self.clear()?;
        let partial = self.folder.join(format!("{PARTIAL}{version}"));
        fs::create_dir(&partial).map_err(ReleaseError::io("create", &partial))?;
        Ok(partial)
    }

    /// Removes what fetches that came to nothing have left.
    pub(crate) fn clear(&self) -> Result<(), ReleaseError> {
        let entries = fs::read_dir(&self.folder).map_err(ReleaseError::io("read", &self.folder))?;
        for entry in entries.flatten() {
            let path = entry.path();
            if entry.file_name().to_string_lossy().starts_with(PARTIAL) {
                let folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
                let removed = if folder { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
                removed.map_err(ReleaseError::io("remove", &path))?;
            }
        }
        Ok(())
    }

    /// Takes what a fetch has brought, if it is complete. When this returns, it stays there over a power cut.
    pub(crate) fn adopt(&self, version: &Version, partial: &Path) -> Result<(), ReleaseError> {
        self.complete(version, partial)?;
        let folder = File::open(partial).map_err(ReleaseError::io("open", partial))?;
        // A hundred thousand files: all of the file system at once is faster than one after another.
        rustix::fs::syncfs(&folder).map_err(io::Error::from).map_err(ReleaseError::io("sync", partial))?;
        let path = self.path(version);
        fs::rename(partial, &path).map_err(ReleaseError::io("complete", &path))?;
        sync(&self.folder)
    }

    fn complete(&self, version: &Version, path: &Path) -> Result<(), ReleaseError> {
        let missing = || ReleaseError::Missing {
            version: version.clone(),
            folder: self.folder.clone(),
            fetches: self.fetches,
        };
        match fs::metadata(path) {
            Ok(meta) if meta.is_dir() => {}
            Ok(_) => return Err(self.incomplete(version, path, "it is no folder".into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(missing()),
            Err(error) => return Err(ReleaseError::io("read", path)(error)),
        }
        let (file, found) = self.version_of(path);
        match found {
            Ok(found) if found == version.0 => {}
            Ok(found) => {
                return Err(self.incomplete(
                    version,
                    path,
                    format!("{} says version {found}", file.display()),
                ));
            }
            Err(error) => {
                return Err(self.incomplete(
                    version,
                    path,
                    format!("{} cannot be read: {error}", file.display()),
                ));
            }
        }
        let entry = Path::new("node_modules/@nocobase/app/lib/index.js");
        if self.contents == Contents::NocoBase && !path.join(entry).is_file() {
            return Err(self.incomplete(version, path, format!("{} is missing", entry.display())));
        }
        Ok(())
    }

    /// Which version a release says that it is, and the file that says so.
    fn version_of(&self, release: &Path) -> (&Path, io::Result<String>) {
        match &self.contents {
            Contents::NocoBase => {
                let file = Path::new("node_modules/@nocobase/server/package.json");
                (file, read(&release.join(file)).and_then(|text| package_version(&text)))
            }
            Contents::Other { version_file } => {
                let first = |text: String| Ok(text.lines().next().unwrap_or_default().trim().to_owned());
                (version_file, read(&release.join(version_file)).and_then(first))
            }
        }
    }

    fn incomplete(&self, version: &Version, path: &Path, why: String) -> ReleaseError {
        ReleaseError::Incomplete {
            version: version.clone(),
            path: path.to_owned(),
            why,
            fetches: self.fetches,
        }
    }

    /// The folder that the link lies in.
    fn parent(&self) -> PathBuf {
        self.current.parent().unwrap_or(Path::new("/")).to_owned()
    }
}

fn read(path: &Path) -> io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    File::open(path)?.take(VERSION_FILE_MAX).read_to_string(&mut text)?;
    Ok(text)
}

fn package_version(text: &str) -> io::Result<String> {
    #[derive(Deserialize)]
    struct Package {
        version: String,
    }
    Ok(serde_json::from_str::<Package>(text)?.version)
}

/// Makes the names in a folder survive a power cut.
fn sync(folder: &Path) -> Result<(), ReleaseError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(ReleaseError::io("sync", folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn releases(place: &Path) -> Releases {
        Releases {
            folder: place.join("releases"),
            current: place.join("current"),
            contents: Contents::Other { version_file: "version".into() },
            fetches: true,
        }
    }

    fn put(releases: &Releases, version: &str) -> Version {
        let path = releases.folder.join(version);
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("version"), format!("{version}\nmore\n")).unwrap();
        Version(version.to_owned())
    }

    #[test]
    fn a_switch_exchanges_the_link() {
        let place = tempfile::tempdir().unwrap();
        let releases = releases(place.path());
        let (one, two) = (put(&releases, "1"), put(&releases, "2"));
        assert!(!releases.is_current(&one));
        releases.switch(&one).unwrap();
        assert!(releases.is_current(&one));
        // What a crash left in the middle of a switch is in nobody's way.
        symlink("/nonexistent", place.path().join(".current.soloist")).unwrap();
        for _ in 0..2 {
            releases.switch(&two).unwrap();
            assert!(releases.is_current(&two) && !releases.is_current(&one));
        }
        assert_eq!(fs::read_link(&releases.current).unwrap(), releases.folder.join("2"));
        assert!(!place.path().join(".current.soloist").is_symlink());
    }

    #[test]
    fn what_is_not_complete_is_never_current() {
        let place = tempfile::tempdir().unwrap();
        let releases = releases(place.path());
        let one = put(&releases, "1");
        releases.switch(&one).unwrap();
        let two = Version("2".into());
        let error = releases.switch(&two).unwrap_err().to_string();
        let folder = releases.folder.display();
        let wanted = format!(
            "version 2 is not in {folder}: fetch it with soloist upgrade prepare --to 2, or put it there"
        );
        assert_eq!(error, wanted);
        put(&releases, "2");
        fs::write(releases.folder.join("2/version"), "3\n").unwrap();
        let error = releases.look(&two).unwrap_err().to_string();
        assert!(error.contains("version says version 3") && error.contains("move it away"), "{error}");
        assert!(releases.switch(&two).is_err() && releases.is_current(&one));
    }

    #[test]
    fn a_real_folder_in_the_links_place_stays() {
        let place = tempfile::tempdir().unwrap();
        let releases = releases(place.path());
        let one = put(&releases, "1");
        fs::create_dir(&releases.current).unwrap();
        let error = releases.switch(&one).unwrap_err().to_string();
        assert!(error.contains("not a symbolic link") && error.contains("ln -s"), "{error}");
        assert!(releases.switchable().is_err());
        assert!(fs::symlink_metadata(&releases.current).unwrap().is_dir());
    }

    #[test]
    fn what_is_current_must_be_found_again() {
        let place = tempfile::tempdir().unwrap();
        let releases = releases(place.path());
        let one = put(&releases, "1");
        releases.returns().unwrap();
        releases.switch(&one).unwrap();
        releases.returns().unwrap();
        fs::rename(releases.path(&one), place.path().join("live")).unwrap();
        fs::remove_file(&releases.current).unwrap();
        symlink(place.path().join("live"), &releases.current).unwrap();
        let error = releases.returns().unwrap_err().to_string();
        assert!(error.contains("/live has version 1") && error.contains("releases/1"), "{error}");
    }

    #[test]
    fn nocobase_is_known_by_its_packages() {
        let place = tempfile::tempdir().unwrap();
        let releases = Releases { contents: Contents::NocoBase, ..releases(place.path()) };
        let version = Version("2.2.15".into());
        let at = |path: &str| releases.path(&version).join("node_modules/@nocobase").join(path);
        fs::create_dir_all(at("server")).unwrap();
        fs::create_dir_all(at("app/lib")).unwrap();
        fs::write(at("server/package.json"), "{\"version\":\"2.2.15\"}").unwrap();
        let error = releases.look(&version).unwrap_err().to_string();
        assert!(error.contains("@nocobase/app/lib/index.js is missing"), "{error}");
        fs::write(at("app/lib/index.js"), "").unwrap();
        assert_eq!(releases.look(&version).unwrap().len(), 16);
        fs::write(at("server/package.json"), "{\"version\":\"2.2.16\"}").unwrap();
        assert!(releases.look(&version).unwrap_err().to_string().contains("says version 2.2.16"));
    }
}
