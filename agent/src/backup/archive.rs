//! The kept paths of the storage as one tar file. Links stay links; sockets and pipes are left out.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use tar::{Archive, Builder, Header};

use super::stream::{Hashing, Ticket, copy};

/// Packs each path that is there under its name, and says which were.
pub(super) fn pack(
    kept: &[(&'static str, PathBuf)],
    to: &mut impl Write,
    ticket: &Ticket,
) -> io::Result<BTreeMap<String, bool>> {
    let mut tar = Builder::new(to);
    let mut present = BTreeMap::new();
    for (name, path) in kept {
        let there = match fs::symlink_metadata(path) {
            Ok(meta) => {
                add(&mut tar, Path::new(name), path, &meta, ticket).map_err(at(path))?;
                true
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(at(path)(error)),
        };
        present.insert((*name).to_owned(), there);
    }
    tar.finish()?;
    Ok(present)
}

fn add(
    tar: &mut Builder<impl Write>,
    name: &Path,
    path: &Path,
    meta: &Metadata,
    ticket: &Ticket,
) -> io::Result<()> {
    ticket.go_on()?;
    let mut header = Header::new_gnu();
    header.set_metadata(meta);
    if meta.is_symlink() {
        header.set_size(0);
        return tar.append_link(&mut header, name, fs::read_link(path)?);
    }
    if meta.is_file() {
        let mut file = File::open(path)?.take(meta.len());
        tar.append_data(&mut header, name, &mut file)?;
        return match file.limit() {
            0 => Ok(()),
            _ => Err(io::Error::other(format!("{} became shorter while it was read", path.display()))),
        };
    }
    if !meta.is_dir() {
        return Ok(());
    }
    header.set_size(0);
    tar.append_data(&mut header, name, io::empty())?;
    let mut entries = fs::read_dir(path)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (name, path) = (name.join(entry.file_name()), entry.path());
        add(tar, &name, &path, &entry.metadata()?, ticket).map_err(at(&path))?;
    }
    Ok(())
}

/// Names the path once.
fn at(path: &Path) -> impl FnOnce(io::Error) -> io::Error + '_ {
    move |error| {
        let text = error.to_string();
        if text.contains(": ") {
            error
        } else {
            io::Error::new(error.kind(), format!("{}: {text}", path.display()))
        }
    }
}

/// Reads the whole archive, and says which names of kept paths are in it.
pub(super) fn walk(path: &Path, ticket: &Ticket) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    let mut archive = Archive::new(File::open(path)?);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let first = first(&entry.path()?);
        if let Some(first) = first.filter(|first| names.last() != Some(first)) {
            names.push(first);
        }
        copy(&mut entry, &mut Hashing::new(io::sink(), ticket))?;
    }
    names.sort();
    names.dedup();
    Ok(names)
}

/// Unpacks what belongs to each kept path into the folder that is named for it.
pub(super) fn unpack(path: &Path, into: &BTreeMap<String, PathBuf>, ticket: &Ticket) -> io::Result<()> {
    let mut archive = Archive::new(File::open(path)?);
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(rustix::process::geteuid().is_root());
    for entry in archive.entries()? {
        ticket.go_on()?;
        let mut entry = entry?;
        let name = entry.path()?.into_owned();
        let Some(folder) = first(&name).and_then(|first| into.get(&first)) else {
            return Err(io::Error::other(format!("{} does not belong into a backup", name.display())));
        };
        if !entry.unpack_in(folder)? {
            return Err(io::Error::other(format!("{} leads out of the folder", name.display())));
        }
    }
    Ok(())
}

fn first(path: &Path) -> Option<String> {
    let first = path.components().next()?;
    first.as_os_str().to_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::backup::progress::{Meter, Progress};
    use crate::backup::stream::{offload, write};

    #[tokio::test]
    async fn links_modes_and_long_names_come_back() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().to_owned();
        let live = root.join("live/plugins");
        let long = "n".repeat(180);
        fs::create_dir_all(live.join("@a/b")).unwrap();
        fs::write(live.join(&long), "long").unwrap();
        fs::write(live.join("@a/b/run.sh"), "x").unwrap();
        fs::set_permissions(live.join("@a/b/run.sh"), fs::Permissions::from_mode(0o750)).unwrap();
        symlink("/nonexistent/target", live.join("@a/link")).unwrap();
        let meter = Meter::new(&tokio::sync::watch::channel(Progress::default()).0);
        offload(&meter, move |ticket| {
            let kept = [("plugins", live), ("apps", root.join("live/apps"))];
            let mut present = BTreeMap::new();
            write(&root, "a.tar", ticket, |to| {
                present = pack(&kept, to, ticket)?;
                Ok(())
            })?;
            assert_eq!((present["plugins"], present["apps"]), (true, false));
            assert_eq!(walk(&root.join("a.tar"), ticket).unwrap(), ["plugins"]);
            let back = root.join("back");
            fs::create_dir(&back).unwrap();
            unpack(&root.join("a.tar"), &[("plugins".to_owned(), back.clone())].into(), ticket).unwrap();
            assert_eq!(fs::read_to_string(back.join("plugins").join(long)).unwrap(), "long");
            let mode = fs::metadata(back.join("plugins/@a/b/run.sh")).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o750);
            assert_eq!(
                fs::read_link(back.join("plugins/@a/link")).unwrap(),
                Path::new("/nonexistent/target")
            );
            assert!(unpack(&root.join("a.tar"), &BTreeMap::new(), ticket).is_err(), "an unknown name");
            Ok(())
        })
        .await
        .unwrap();
    }
}
