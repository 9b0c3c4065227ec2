//! Uploaded files: a copy of the folder, with an index that lets the next pass copy only what changed.
//!
//! A file counts as unchanged when its size and its time of change are those that the index has. The time is taken before
//! the copy, so that what changes under the copy is copied again by the next pass.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::{self, BufRead as _, BufReader, BufWriter, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown, symlink};
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::BackupError;
use super::folder::{private_folder, remove_tree, sync_folder};
use super::manifest::{FileEntry, UPLOADS, UPLOADS_INDEX, UploadsKept};
use super::stream::{Hashing, Ticket, copy, create, digest, write};

/// What a copy is called until it is whole.
const UNDER_WAY: &str = ".soloist-copy";

/// One file, link or folder below the uploads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    path: String,
    mode: u32,
    uid: u32,
    gid: u32,
    #[serde(flatten)]
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Folder,
    Link { target: PathBuf },
    File { bytes: u64, changed_at: (i64, i64), sha256: String },
}

type Index = BTreeMap<String, Entry>;

/// Makes the copy in a backup's folder like `live`, and writes the index. Without `live` the copy is empty.
pub(super) fn mirror(
    live: &Path,
    backup: &Path,
    ticket: &Ticket,
) -> Result<(FileEntry, UploadsKept), BackupError> {
    let copied = backup.join(UPLOADS);
    private_folder(&copied).map_err(BackupError::io("create", &copied))?;
    let old = read_index(backup).unwrap_or_default();
    let (mut new, mut folders) = (Index::new(), vec![String::new()]);
    while let Some(folder) = folders.pop() {
        for (path, meta) in entries(live, &folder)? {
            let (from, to) = (live.join(&path), copied.join(&path));
            let kind = match mirror_one(&from, &to, &meta, old.get(&path), ticket) {
                Ok(Some(kind)) => kind,
                // Neither file, link nor folder.
                Ok(None) => continue,
                // Removed while it was copied: the app runs during a presync.
                Err(error) if error.kind() == io::ErrorKind::NotFound && !from.exists() => continue,
                Err(error) => return Err(BackupError::io("copy", &from)(error)),
            };
            if kind == Kind::Folder {
                folders.push(path.clone());
            }
            let (mode, uid, gid) = (meta.mode() & 0o7777, meta.uid(), meta.gid());
            new.insert(path.clone(), Entry { path, mode, uid, gid, kind });
        }
    }
    remove_others(&copied, &new)?;
    let mut kept = UploadsKept::default();
    for entry in new.values() {
        kept.entries += u64::from(entry.kind != Kind::Folder);
        kept.bytes += if let Kind::File { bytes, .. } = entry.kind { bytes } else { 0 };
    }
    let index = write(backup, UPLOADS_INDEX, ticket, |to| {
        let mut to = BufWriter::new(to);
        for entry in new.values() {
            serde_json::to_writer(&mut to, entry)?;
            to.write_all(b"\n")?;
        }
        to.flush()
    })?;
    Ok((index, kept))
}

fn mirror_one(
    from: &Path,
    to: &Path,
    meta: &Metadata,
    old: Option<&Entry>,
    ticket: &Ticket,
) -> io::Result<Option<Kind>> {
    ticket.go_on()?;
    let there = fs::symlink_metadata(to).ok();
    if there.as_ref().is_some_and(|there| there.file_type() != meta.file_type()) {
        remove_tree(to).map_err(io::Error::other)?;
    }
    if meta.is_dir() {
        private_folder(to)?;
        return Ok(Some(Kind::Folder));
    }
    if meta.is_symlink() {
        let target = fs::read_link(from)?;
        if fs::read_link(to).ok().as_ref() != Some(&target) {
            remove_tree(to).map_err(io::Error::other)?;
            symlink(&target, to)?;
        }
        return Ok(Some(Kind::Link { target }));
    }
    if !meta.is_file() {
        return Ok(None);
    }
    let now = (meta.len(), (meta.mtime(), meta.mtime_nsec()));
    if let Some(Kind::File { bytes, changed_at, .. }) = old.map(|old| &old.kind)
        && (*bytes, *changed_at) == now
        && there.is_some_and(|there| there.is_file() && there.len() == now.0)
    {
        return Ok(old.map(|old| old.kind.clone()));
    }
    let (bytes, sha256) = copy_file(from, to, ticket)?;
    // A file that grew under the copy has another time, too.
    let changed_at = if bytes == now.0 { now.1 } else { (0, 0) };
    Ok(Some(Kind::File { bytes, changed_at, sha256 }))
}

/// Copies one file so that it appears whole, and synced.
fn copy_file(from: &Path, to: &Path, ticket: &Ticket) -> io::Result<(u64, String)> {
    let folder = to.parent().unwrap_or(to);
    let under_way = folder.join(UNDER_WAY);
    let mut out = Hashing::new(create(&under_way)?, ticket);
    copy(&mut File::open(from)?, &mut out)?;
    let (file, bytes, sha256) = out.end();
    file.sync_all()?;
    fs::rename(&under_way, to)?;
    Ok((bytes, sha256))
}

/// Entries of a folder below the uploads, by their paths.
fn entries(root: &Path, folder: &str) -> Result<Vec<(String, Metadata)>, BackupError> {
    let path = root.join(folder);
    let read = match fs::read_dir(&path) {
        Ok(read) => read,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(BackupError::io("read", &path)(error)),
    };
    let mut found = Vec::new();
    for entry in read {
        let entry = entry.map_err(BackupError::io("read", &path))?;
        let name = entry.file_name().into_string().map_err(|name| {
            let text = format!("the name {} is not UTF-8: rename it", name.to_string_lossy());
            BackupError::io("copy from", &path)(io::Error::new(io::ErrorKind::InvalidData, text))
        })?;
        match entry.metadata() {
            Ok(meta) if folder.is_empty() => found.push((name, meta)),
            Ok(meta) => found.push((format!("{folder}/{name}"), meta)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(BackupError::io("read", &entry.path())(error)),
        }
    }
    Ok(found)
}

/// Removes what is gone, and syncs the folders that stay.
fn remove_others(copied: &Path, wanted: &Index) -> Result<(), BackupError> {
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        for (path, meta) in entries(copied, &folder)? {
            if !wanted.contains_key(&path) {
                remove_tree(&copied.join(&path))?;
            } else if meta.is_dir() {
                folders.push(path);
            }
        }
        sync_folder(&copied.join(&folder))?;
    }
    Ok(())
}

/// Every entry lies in a folder that the index has too: nothing is put outside of the uploads, also not through a link.
fn read_index(backup: &Path) -> io::Result<Index> {
    let lines = BufReader::new(File::open(backup.join(UPLOADS_INDEX))?).lines();
    let index = lines
        .map(|line| {
            let entry: Entry = serde_json::from_str(&line?)?;
            Ok((entry.path.clone(), entry))
        })
        .collect::<io::Result<Index>>()?;
    let folder = |path: &str| index.get(path).is_some_and(|entry| entry.kind == Kind::Folder);
    let inside = |path: &&String| {
        let plain = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
        plain && !path.is_empty() && path.rsplit_once('/').is_none_or(|(parent, _)| folder(parent))
    };
    match index.keys().find(|path| !inside(path)) {
        None => Ok(index),
        Some(path) => {
            let text = format!("{path:?} does not lie in a folder of the uploads");
            Err(io::Error::new(io::ErrorKind::InvalidData, text))
        }
    }
}

/// Compares the copy with its index, and says the first thing that is wrong.
pub(super) fn verify(backup: &Path, ticket: &Ticket) -> Result<(), (String, String)> {
    let index = read_index(backup).map_err(|error| (UPLOADS_INDEX.to_owned(), error.to_string()))?;
    for entry in index.values() {
        let path = backup.join(UPLOADS).join(&entry.path);
        let wrong = |why: String| (format!("{UPLOADS}/{}", entry.path), why);
        let meta = fs::symlink_metadata(&path).map_err(|error| wrong(error.to_string()))?;
        let fits = match &entry.kind {
            Kind::Folder => meta.is_dir(),
            Kind::Link { target } => fs::read_link(&path).is_ok_and(|found| found == *target),
            Kind::File { bytes, sha256, .. } => {
                let found = digest(&path, ticket).map_err(|error| wrong(error.to_string()))?;
                found == (*bytes, sha256.clone())
            }
        };
        if !fits {
            return Err(wrong("its content is not what was written".into()));
        }
    }
    Ok(())
}

/// Puts back what `live` lacks or has otherwise. What is only there stays.
pub(super) fn complete(backup: &Path, live: &Path, ticket: &Ticket) -> Result<(), BackupError> {
    let index = read_index(backup).map_err(BackupError::io("read the index of uploads in", backup))?;
    fs::create_dir_all(live).map_err(BackupError::io("create", live))?;
    for entry in index.values() {
        let (from, to) = (backup.join(UPLOADS).join(&entry.path), live.join(&entry.path));
        put(entry, &from, &to, ticket).map_err(BackupError::io("put back", &to))?;
    }
    Ok(())
}

fn put(entry: &Entry, from: &Path, to: &Path, ticket: &Ticket) -> io::Result<()> {
    let there = fs::symlink_metadata(to).ok();
    match &entry.kind {
        Kind::Folder if there.as_ref().is_some_and(Metadata::is_dir) => return Ok(()),
        Kind::Folder => fs::create_dir(to)?,
        Kind::Link { target } if fs::read_link(to).is_ok_and(|found| found == *target) => return Ok(()),
        Kind::Link { target } => {
            remove_tree(to).map_err(io::Error::other)?;
            symlink(target, to)?;
        }
        Kind::File { bytes, sha256, .. } => {
            let same = there.is_some_and(|there| there.is_file() && there.len() == *bytes)
                && digest(to, ticket)?.1 == *sha256;
            if same {
                return Ok(());
            }
            copy_file(from, to, ticket)?;
        }
    }
    if rustix::process::geteuid().is_root() {
        lchown(to, Some(entry.uid), Some(entry.gid))?;
    }
    match entry.kind {
        Kind::Link { .. } => Ok(()),
        _ => fs::set_permissions(to, fs::Permissions::from_mode(entry.mode)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::progress::{Meter, Progress};
    use crate::backup::stream::offload;

    #[test]
    fn an_index_that_leads_out_of_the_uploads_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let read = |entries: &[(&str, Kind)]| {
            let line = |(path, kind): &(&str, Kind)| {
                let entry = Entry { path: (*path).into(), mode: 0, uid: 0, gid: 0, kind: kind.clone() };
                serde_json::to_string(&entry).unwrap() + "\n"
            };
            let text: String = entries.iter().map(line).collect();
            fs::write(place.path().join(UPLOADS_INDEX), text).unwrap();
            read_index(place.path())
        };
        let file = || Kind::File { bytes: 1, changed_at: (0, 0), sha256: "x".into() };
        let link = || Kind::Link { target: "/etc".into() };
        assert_eq!(read(&[("a", Kind::Folder), ("a/b", file()), ("c", link())]).unwrap().len(), 3);
        for path in ["../a", "/etc/passwd", "", ".", "a/../../b", "a/b"] {
            let error = read(&[("a", link()), (path, file())]).unwrap_err();
            assert!(error.to_string().contains("does not lie in a folder"), "{path}: {error}");
        }
    }

    #[tokio::test]
    async fn a_second_pass_copies_what_changed_and_removes_what_is_gone() {
        let place = tempfile::tempdir().unwrap();
        let (live, backup) = (place.path().join("live"), place.path().join("backup"));
        fs::create_dir_all(live.join("a/b")).unwrap();
        fs::create_dir(&backup).unwrap();
        for (name, text) in [("same", "1"), ("a/b/changed", "2"), ("a/gone", "3")] {
            fs::write(live.join(name), text).unwrap();
        }
        symlink("same", live.join("link")).unwrap();
        let meter = Meter::new(&tokio::sync::watch::channel(Progress::default()).0);
        let work = offload(&meter, move |ticket| {
            let (_, kept) = mirror(&live, &backup, ticket)?;
            assert_eq!(kept, UploadsKept { entries: 4, bytes: 3 });
            let inode = |name: &str| fs::metadata(backup.join(UPLOADS).join(name)).unwrap().ino();
            let before = (inode("same"), inode("a/b/changed"));
            fs::write(live.join("a/b/changed"), "22").unwrap();
            fs::remove_file(live.join("a/gone")).unwrap();
            let (_, kept) = mirror(&live, &backup, ticket)?;
            assert_eq!(kept, UploadsKept { entries: 3, bytes: 3 });
            assert_eq!(inode("same"), before.0, "not copied again");
            assert_ne!(inode("a/b/changed"), before.1);
            assert!(!backup.join("uploads/a/gone").exists());
            verify(&backup, ticket).unwrap();

            fs::write(live.join("newer"), "4").unwrap();
            fs::remove_file(live.join("same")).unwrap();
            fs::write(live.join("a/b/changed"), "99").unwrap();
            complete(&backup, &live, ticket)?;
            let text = |name: &str| fs::read_to_string(live.join(name)).unwrap();
            assert_eq!(
                (text("same"), text("a/b/changed"), text("newer")),
                ("1".into(), "22".into(), "4".into())
            );

            fs::write(backup.join("uploads/same"), "x").unwrap();
            assert_eq!(verify(&backup, ticket).unwrap_err().0, "uploads/same");
            Ok(())
        });
        work.await.unwrap();
    }
}
