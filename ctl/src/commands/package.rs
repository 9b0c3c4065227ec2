//! What `soloist plugin add`, `update` and `remove` are given: archives and names.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use flate2::read::GzDecoder;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use soloist_core::{
    ids::{NodeId, Version},
    operation::{PackageChange, Request},
};

use crate::error::{CtlError, Kind, Result};

/// Largest `package.json` that is read, in bytes.
const PACKAGE_MAX: u64 = 1024 * 1024;
/// Entries of an archive that are looked at for it.
const ENTRIES_MAX: usize = 100_000;

/// Packages to add or update.
#[derive(Debug, Clone, clap::Args)]
pub struct PutRequest {
    /// The packages: archives (PLUGIN.tgz) that lie at the same place on a node, or names that npm knows (NAME or NAME@VERSION)
    #[arg(required = true, value_name = "FILE|NAME[@VERSION]")]
    packages: Vec<String>,
    /// The node that upgrades the database and looks into the archives first; by default one on this machine
    #[arg(long, value_name = "NODE")]
    pub on: Option<NodeId>,
}

impl PutRequest {
    /// As the coordinators understand it.
    ///
    /// # Errors
    /// When an archive cannot be read, or is no package.
    pub fn request(&self, enable: bool) -> Result<Request> {
        let changes = self.packages.iter().map(|text| put(text, enable)).collect::<Result<_>>()?;
        Ok(Request::Packages { changes, on: self.on.clone() })
    }
}

/// Plugins to remove.
#[derive(Debug, Clone, clap::Args)]
pub struct RemoveRequest {
    /// The plugins' packages (@my/plugin-hello)
    #[arg(required = true, value_name = "PACKAGE")]
    packages: Vec<String>,
    /// The node on which they are disabled
    #[arg(long, value_name = "NODE")]
    pub on: Option<NodeId>,
}

impl RemoveRequest {
    /// As the coordinators understand it.
    pub fn request(&self) -> Request {
        let change = |plugin: &String| PackageChange::Remove { plugin: plugin.clone() };
        Request::Packages { changes: self.packages.iter().map(change).collect(), on: self.on.clone() }
    }
}

/// One package: an archive if it is written like one, else a name.
fn put(text: &str, enable: bool) -> Result<PackageChange> {
    if text.contains("://") {
        let text = format!("\"{text}\" is an address: download the archive, or give the package's name");
        return Err(CtlError::new(Kind::Usage, text));
    }
    let path = Path::new(text);
    let is_file = [".tgz", ".tar.gz"].iter().any(|end| text.ends_with(end)) || path.is_file();
    if !is_file {
        let (plugin, version) = match text.char_indices().skip(1).find(|(_, letter)| *letter == '@') {
            Some((at, _)) => (text.get(..at).unwrap_or(text), text.get(at + 1..)),
            None => (text, None),
        };
        let version = version.map(|version| Version(version.to_owned()));
        return Ok(PackageChange::Put {
            plugin: plugin.to_owned(),
            source: "npm".into(),
            version,
            sha256: None,
            enable,
        });
    }
    let refuse = |why: String| CtlError::new(Kind::Usage, format!("{text}: {why}"));
    let place: PathBuf = std::path::absolute(path).map_err(|error| refuse(error.to_string()))?;
    let sha256 = checksum(&place).map_err(|error| refuse(error.to_string()))?;
    let package = package(&place).map_err(|why| refuse(format!("it is no plugin's package: {why}")))?;
    Ok(PackageChange::Put {
        plugin: package.name,
        source: place.display().to_string(),
        version: Some(Version(package.version)),
        sha256: Some(sha256),
        enable,
    })
}

fn checksum(path: &Path) -> std::io::Result<String> {
    let mut hash = Sha256::new();
    let mut file = File::open(path)?;
    let mut bytes = [0_u8; 64 * 1024];
    loop {
        let read = file.read(&mut bytes)?;
        if read == 0 {
            return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect());
        }
        hash.update(bytes.get(..read).unwrap_or_default());
    }
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    version: String,
}

/// What the archive says of itself.
fn package(path: &Path) -> std::result::Result<Package, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let mut archive = tar::Archive::new(GzDecoder::new(std::io::BufReader::new(file)));
    for entry in archive.entries().map_err(|error| error.to_string())?.take(ENTRIES_MAX) {
        let entry = entry.map_err(|error| format!("it is damaged, or no tar.gz: {error}"))?;
        let name = entry.path().map_err(|error| error.to_string())?.into_owned();
        let inner: PathBuf = name.components().skip(1).collect();
        if inner == Path::new("package.json") {
            let mut text = String::new();
            entry.take(PACKAGE_MAX).read_to_string(&mut text).map_err(|error| error.to_string())?;
            return serde_json::from_str(&text).map_err(|error| format!("package.json: {error}"));
        }
    }
    Err("there is no package.json in it".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_a_version_or_not() {
        for (text, plugin, version) in [
            ("@my/plugin-hello", "@my/plugin-hello", None),
            ("@my/plugin-hello@1.2.0", "@my/plugin-hello", Some("1.2.0")),
            ("hello@1.0.0", "hello", Some("1.0.0")),
        ] {
            let expected = PackageChange::Put {
                plugin: plugin.into(),
                source: "npm".into(),
                version: version.map(|version| Version(version.into())),
                sha256: None,
                enable: true,
            };
            assert_eq!(put(text, true).unwrap(), expected);
        }
    }

    #[test]
    fn what_is_no_archive_is_said_with_its_name() {
        let missing = put("/nowhere/x.tgz", false).unwrap_err();
        assert!(missing.to_string().contains("/nowhere/x.tgz: No such file"), "{missing}");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.tgz");
        std::fs::write(&path, "nothing").unwrap();
        let bad = put(&path.to_string_lossy(), false).unwrap_err();
        assert!(bad.to_string().contains("no plugin's package"), "{bad}");
        assert!(put("https://example.org/x.tgz", false).unwrap_err().to_string().contains("is an address"));
    }
}
