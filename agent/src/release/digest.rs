//! What a release holds in sixteen digits: two nodes with different ones do not have the same code.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

/// Digits of a digest.
const DIGITS: usize = 16;

/// Over name and version of every package in `node_modules`. What a start of the app links into it from elsewhere (plugins on
/// the storage) is not part of the release.
pub(super) fn of_packages(release: &Path) -> io::Result<String> {
    let home = release.canonicalize()?;
    let modules = home.join("node_modules");
    let mut packages = Vec::new();
    for name in names(&modules)? {
        if name.starts_with('@') {
            for inner in names(&modules.join(&name))? {
                packages.push(format!("{name}/{inner}"));
            }
        } else {
            packages.push(name);
        }
    }
    packages.retain(|name| modules.join(name).canonicalize().is_ok_and(|place| place.starts_with(&home)));
    let versions = packages.iter().filter_map(|name| {
        let text = fs::read(modules.join(name).join("package.json")).ok()?;
        let version = serde_json::from_slice::<Package>(&text).ok().and_then(|package| package.version);
        Some(format!("{name}@{}", version.unwrap_or_default()))
    });
    Ok(digest(versions.collect()))
}

#[derive(Deserialize)]
struct Package {
    version: Option<String>,
}

/// Names in a folder that may be packages.
fn names(folder: &Path) -> io::Result<Vec<String>> {
    // A link to another scope's folder is followed: what is behind it is looked at by itself.
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') {
            names.push(name);
        }
    }
    Ok(names)
}

/// Over the relative paths and the sizes of all files.
pub(super) fn of_files(release: &Path) -> io::Result<String> {
    let home = release.canonicalize()?;
    let (mut files, mut folders) = (Vec::new(), vec![home.clone()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            // Of the entry itself: a link is not followed.
            let meta = entry.metadata()?;
            if meta.is_dir() {
                folders.push(entry.path());
            } else {
                let path = entry.path();
                let inside = path.strip_prefix(&home).unwrap_or(&path);
                files.push(format!("{} {}", inside.display(), meta.len()));
            }
        }
    }
    Ok(digest(files))
}

fn digest(mut lines: Vec<String>) -> String {
    lines.sort_unstable();
    let mut hash = Sha256::new();
    for line in &lines {
        hash.update(line.as_bytes());
        hash.update(b"\n");
    }
    let mut text = String::new();
    for byte in hash.finalize().iter().take(DIGITS / 2) {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn put(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn packages_count_and_what_is_linked_from_elsewhere_does_not() {
        let place = tempfile::tempdir().unwrap();
        let release = |name: &str| place.path().join(name);
        for name in ["a", "b"] {
            put(&release(name).join("node_modules/x/package.json"), "{\"version\":\"1.0.0\"}");
            put(&release(name).join("node_modules/@s/y/package.json"), "{\"version\":\"2.0.0\"}");
            put(&release(name).join("node_modules/.bin/z"), name);
        }
        let digest = of_packages(&release("a")).unwrap();
        assert_eq!(digest.len(), DIGITS);
        assert_eq!(of_packages(&release("b")).unwrap(), digest);
        put(&place.path().join("storage/p/package.json"), "{\"version\":\"9\"}");
        symlink(place.path().join("storage/p"), release("b").join("node_modules/@s/p")).unwrap();
        assert_eq!(of_packages(&release("b")).unwrap(), digest, "a plugin on the storage");
        symlink("x", release("b").join("node_modules/w")).unwrap();
        assert_ne!(of_packages(&release("b")).unwrap(), digest, "a package of the release by another name");
        put(&release("a").join("node_modules/@s/y/package.json"), "{\"version\":\"2.0.1\"}");
        assert_ne!(of_packages(&release("a")).unwrap(), digest);
    }

    #[test]
    fn files_count_by_path_and_size() {
        let place = tempfile::tempdir().unwrap();
        put(&place.path().join("bin/app"), "one");
        let digest = of_files(place.path()).unwrap();
        put(&place.path().join("bin/app"), "two");
        assert_eq!(of_files(place.path()).unwrap(), digest);
        put(&place.path().join("bin/app"), "three");
        assert_ne!(of_files(place.path()).unwrap(), digest);
    }
}
