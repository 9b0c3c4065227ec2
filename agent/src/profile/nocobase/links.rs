//! Links from the app's own folder of packages to the plugins in the storage.
//!
//! NocoBase makes them itself at each start, but a process of 2.2.15 that starts without a plugin's link takes the plugin's short name
//! for its package and never looks again: it answers the list of plugins with 500 for good.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::plugins::installed;

/// Makes `modules` lead to each plugin that lies in `plugins`, and to none that is gone. What lies in `modules` itself stays.
pub(super) fn link_all(modules: &Path, plugins: &Path) -> io::Result<()> {
    for (name, place) in installed(plugins)? {
        let link = modules.join(name);
        match fs::symlink_metadata(&link) {
            Ok(found) if !found.is_symlink() || same(&link, &place) => continue,
            Ok(_) => fs::remove_file(&link)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        if let Some(parent) = link.parent() {
            fs::create_dir_all(parent)?;
        }
        match symlink(&place, &link) {
            // Another node that shares the code was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            done => done?,
        }
    }
    drop_dead(modules, plugins, true)
}

/// Whether both lead to the same folder.
fn same(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

/// Removes links to plugins that are gone.
fn drop_dead(folder: &Path, plugins: &Path, scopes: bool) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        if kind.is_symlink() && !path.exists() && fs::read_link(&path)?.starts_with(plugins) {
            fs::remove_file(&path)?;
        }
        if scopes && kind.is_dir() && entry.file_name().to_string_lossy().starts_with('@') {
            drop_dead(&path, plugins, false)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_to_what_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let (modules, plugins) = (folder.path().join("node_modules"), folder.path().join("plugins"));
        let dir = |path: &Path| fs::create_dir_all(path).unwrap();
        for name in ["@a/x", "@a/shipped", "plain"] {
            dir(&plugins.join(name));
        }
        dir(&modules.join("@a/shipped"));
        symlink("/nowhere", modules.join("elsewhere")).unwrap();
        for _ in 0..2 {
            link_all(&modules, &plugins).unwrap();
            assert_eq!(fs::read_link(modules.join("@a/x")).unwrap(), plugins.join("@a/x"));
            assert_eq!(fs::read_link(modules.join("plain")).unwrap(), plugins.join("plain"));
            assert!(!modules.join("@a/shipped").is_symlink(), "what came with the app wins");
        }
        fs::remove_dir_all(plugins.join("@a/x")).unwrap();
        link_all(&modules, &plugins).unwrap();
        assert!(!modules.join("@a/x").is_symlink(), "a link to nothing");
        assert!(modules.join("elsewhere").is_symlink(), "it is not Soloist's");
        link_all(&modules, &folder.path().join("none")).unwrap();
    }
}
