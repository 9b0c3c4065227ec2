//! Putting the kept paths of the storage back: unpacked beside their place, and put there by renames.
//!
//! ```text
//! STORAGE/.soloist-restore-ID/new/plugins     unpacked; renamed to STORAGE/plugins
//! STORAGE/.soloist-restore-ID/old/plugins     what was there before the first try; kept until the restore ends
//! STORAGE/.soloist-restore-ID/trash/…         what an earlier try that was cut off had put there
//! ```
//!
//! It may be cut off anywhere and done again: what was there at the beginning is moved aside once and never overwritten.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use soloist_core::ids::BackupId;

use super::archive;
use super::error::BackupError;
use super::folder::{private_folder, remove_tree, sync_folder};
use super::stream::Ticket;

/// Folders beside the kept paths while they are exchanged.
#[derive(Debug)]
pub(super) struct Aside(BTreeSet<PathBuf>);

impl Aside {
    /// Removes what was there before.
    pub(super) fn remove(self) -> Result<(), BackupError> {
        self.0.iter().try_for_each(|folder| remove_tree(folder))
    }
}

/// Puts the paths of an archive where they belong; those that the backup has as absent are absent afterwards.
pub(super) fn put_back(
    tar: &Path,
    id: &BackupId,
    kept: &[(&'static str, PathBuf)],
    present: &BTreeMap<String, bool>,
    ticket: &Ticket,
) -> Result<Aside, BackupError> {
    let mut asides = BTreeSet::new();
    let mut into = BTreeMap::new();
    for (name, path) in kept {
        let parent = path.parent().unwrap_or(path);
        let aside = parent.join(format!(".soloist-restore-{id}"));
        if asides.insert(aside.clone()) {
            remove_tree(&aside.join("new"))?;
        }
        for folder in ["new", "old", "trash"] {
            let folder = aside.join(folder);
            private_folder(&folder).map_err(BackupError::io("create", &folder))?;
        }
        into.insert((*name).to_owned(), aside.join("new"));
    }
    archive::unpack(tar, &into, ticket).map_err(BackupError::io("unpack", tar))?;
    for aside in &asides {
        let synced = File::open(aside).and_then(|folder| Ok(rustix::fs::syncfs(&folder)?));
        synced.map_err(BackupError::io("sync", aside))?;
    }
    for (name, path) in kept {
        let parent = path.parent().unwrap_or(path);
        let aside = parent.join(format!(".soloist-restore-{id}"));
        // The archive has the name in NocoBase's storage; the place may be called otherwise.
        let last = path.file_name().map_or(Path::new(name), Path::new);
        let (new, old, trash) =
            (aside.join("new").join(name), aside.join("old").join(last), aside.join("trash").join(last));
        if fs::symlink_metadata(path).is_ok() {
            let first = fs::symlink_metadata(&old).is_err() && !began(&aside, name);
            let away = if first { &old } else { &trash };
            remove_tree(&trash)?;
            fs::rename(path, away).map_err(BackupError::io(
                "move aside (a mount point cannot be replaced: mount the folder above it)",
                path,
            ))?;
        }
        mark(&aside, name)?;
        if present.get(*name).copied().unwrap_or(false) {
            fs::rename(&new, path).map_err(BackupError::io("put back", path))?;
        }
        sync_folder(parent)?;
    }
    Ok(Aside(asides))
}

/// Whether an earlier try got as far as this path.
fn began(aside: &Path, name: &str) -> bool {
    aside.join(format!("began-{name}")).exists()
}

fn mark(aside: &Path, name: &str) -> Result<(), BackupError> {
    let path = aside.join(format!("began-{name}"));
    File::create(&path).and_then(|file| file.sync_all()).map_err(BackupError::io("write", &path))?;
    sync_folder(aside)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::progress::{Meter, Progress};
    use crate::backup::stream::{offload, write};

    #[tokio::test]
    async fn cut_off_and_done_again() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().to_owned();
        let storage = root.join("storage");
        fs::create_dir_all(storage.join("plugins")).unwrap();
        fs::write(storage.join("plugins/a"), "old").unwrap();
        let meter = Meter::new(&tokio::sync::watch::channel(Progress::default()).0);
        let work = offload(&meter, move |ticket| {
            let kept = [("plugins", storage.join("plugins")), (".upgrading", storage.join(".upgrading"))];
            let mut present = BTreeMap::new();
            write(&root, "a.tar", ticket, |to| {
                present = archive::pack(&kept, to, ticket)?;
                Ok(())
            })?;
            fs::write(storage.join("plugins/a"), "newer").unwrap();
            fs::write(storage.join("plugins/b"), "only newer").unwrap();
            fs::write(storage.join(".upgrading"), "").unwrap();
            let id = "x".parse().unwrap();
            // The first try is cut off before its end: nothing is removed.
            put_back(&root.join("a.tar"), &id, &kept, &present, ticket)?;
            let aside = put_back(&root.join("a.tar"), &id, &kept, &present, ticket)?;
            let before = storage.join(".soloist-restore-x/old/plugins/a");
            assert_eq!(fs::read_to_string(before).unwrap(), "newer", "what was there stays until the end");
            aside.remove()?;
            assert_eq!(fs::read_to_string(storage.join("plugins/a")).unwrap(), "old");
            let names: Vec<_> =
                fs::read_dir(&storage).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            assert_eq!(names, ["plugins"], "neither the newer marker nor anything aside");
            assert!(!storage.join("plugins/b").exists());
            Ok(())
        });
        work.await.unwrap();
    }
}
