//! What is in a plugin's archive: a `tar.gz` as npm makes them, with everything below one folder.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use flate2::read::GzDecoder;
use serde::Deserialize;
use tar::{Archive, EntryType};

use crate::host::digest;

/// Largest archive in bytes, and the most that it may hold.
const ARCHIVE_MAX: u64 = 512 * 1024 * 1024;
const CONTENT_MAX: u64 = 2 * 1024 * 1024 * 1024;
/// Most entries.
const ENTRIES_MAX: usize = 100_000;
/// Most bytes of what says more of an entry: its long name, its attributes.
const ATTRIBUTES_MAX: u64 = 64 * 1024;
/// Largest `package.json` or list of versions that is read, in bytes.
const TEXT_MAX: u64 = 1024 * 1024;

/// What a package says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) version: String,
    #[serde(default)]
    main: Option<String>,
}

/// The SHA-256 of an archive, in hexadecimal digits.
pub(super) fn sha256(path: &Path) -> io::Result<String> {
    let file = File::open(path)?;
    if file.metadata()?.len() > ARCHIVE_MAX {
        return Err(io::Error::other(format!("it has more than {} MB", ARCHIVE_MAX / 1024 / 1024)));
    }
    digest::sha256(file, |_| Ok(())).map(|(_, digits)| digits)
}

/// Unpacks an archive into a folder that does not exist yet, without its uppermost folder. Nothing outside of it is written; links
/// and the like are refused, no plugin has any.
///
/// # Errors
/// When it is damaged, or not like that; says what.
pub(super) fn unpack(archive: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    inspect(archive)?;
    for entry in open(archive)?.entries()? {
        let mut entry = entry.map_err(damaged)?;
        let name = entry.path()?.into_owned();
        let Some(inner) = inner(&name)? else { continue };
        let path = to.join(&inner);
        match entry.header().entry_type() {
            EntryType::Directory => fs::create_dir_all(path)?,
            EntryType::Regular | EntryType::Continuous => {
                if let Some(parent) = path.parent() {
                    fs::create_dir_all(parent)?;
                }
                let mut out = File::create_new(&path).map_err(|error| named(&name, &error))?;
                io::copy(&mut entry, &mut out).map_err(damaged)?;
                out.sync_all()?;
            }
            // Of the whole archive, and nothing that a plugin needs.
            _ => {}
        }
    }
    Ok(())
}

fn open(archive: &Path) -> io::Result<Archive<GzDecoder<io::BufReader<File>>>> {
    Ok(Archive::new(GzDecoder::new(io::BufReader::new(File::open(archive)?))))
}

/// Goes over the entries as they lie in the file, before the library reads what belongs to them: it takes a name or attributes of any
/// length into memory, and follows lists of holes without end.
fn inspect(archive: &Path) -> io::Result<()> {
    let (mut entries, mut left, mut announced) = (0, CONTENT_MAX, None::<u64>);
    for entry in open(archive)?.entries()?.raw(true) {
        let mut entry = entry.map_err(damaged)?;
        let size = entry.size();
        entries += 1;
        if entries > ENTRIES_MAX {
            return Err(io::Error::other(format!("it has more than {ENTRIES_MAX} entries")));
        }
        left = left.checked_sub(size).ok_or_else(|| io::Error::other("it holds more than 2 GB"))?;
        match entry.header().entry_type() {
            EntryType::Directory | EntryType::Regular | EntryType::Continuous => {
                // Where the two differ, the library would see other entries than this.
                if announced.take().is_some_and(|announced| announced != size) {
                    return Err(two_sizes());
                }
            }
            EntryType::GNULongName | EntryType::XGlobalHeader | EntryType::XHeader => {
                if size > ATTRIBUTES_MAX {
                    return Err(io::Error::other(format!("it has a name or attributes of {size} bytes")));
                }
                for attribute in entry.pax_extensions()?.into_iter().flatten() {
                    let attribute = attribute.map_err(damaged)?;
                    if attribute.key_bytes() != b"size" {
                        continue;
                    }
                    let size = attribute.value().ok().and_then(|size| size.parse().ok());
                    let size =
                        size.ok_or_else(|| io::Error::other("it has an entry whose size is no number"))?;
                    if announced.replace(size).is_some_and(|before| before != size) {
                        return Err(two_sizes());
                    }
                }
            }
            _ => {
                let name = entry.path()?.into_owned();
                return Err(io::Error::other(format!("{} is neither a file nor a folder", name.display())));
            }
        }
    }
    Ok(())
}

fn two_sizes() -> io::Error {
    io::Error::other("it has an entry with two sizes")
}

fn damaged(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("it is damaged, or no tar.gz: {error}"))
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// The path below the uppermost folder; `None` for that folder itself.
fn inner(name: &Path) -> io::Result<Option<PathBuf>> {
    let plain = |part: &Component<'_>| matches!(part, Component::Normal(_));
    let parts: Vec<Component<'_>> = name.components().filter(|part| *part != Component::CurDir).collect();
    if !parts.iter().all(plain) {
        return Err(io::Error::other(format!("{} leads out of it", name.display())));
    }
    let inner: PathBuf = parts.iter().skip(1).collect();
    Ok((!inner.as_os_str().is_empty()).then_some(inner))
}

/// What the package in a folder says of itself.
///
/// # Errors
/// When there is none.
pub(super) fn package(folder: &Path) -> io::Result<Package> {
    let text = read(&folder.join("package.json"))?;
    serde_json::from_str(&text).map_err(|error| io::Error::other(format!("package.json: {error}")))
}

/// Why the package in a folder is no plugin that this version of NocoBase can load; `None` if nothing speaks against it.
pub(super) fn problem(folder: &Path, package: &Package, code: Option<&str>) -> Option<String> {
    let main = package.main.as_deref().unwrap_or("index.js");
    let there = |path: &str| folder.join(path).is_file();
    if !there(main) && !there(&format!("{main}.js")) && !there(&format!("{main}/index.js")) {
        return Some(format!(
            "{main}, which its package.json names as main, is not in it: it is no plugin that was built"
        ));
    }
    let built = built_for(folder)?;
    let code = code?;
    (minor(&built) != minor(code)).then(|| format!("it was built for NocoBase {built}, and this is {code}"))
}

/// The version of NocoBase that a plugin was built for: the build leaves a list of versions in it.
fn built_for(folder: &Path) -> Option<String> {
    let text = read(&folder.join("dist/externalVersion.js")).ok()?;
    let list = text.get(text.find('{')?..=text.rfind('}')?)?;
    let list: serde_json::Value = serde_json::from_str(list).ok()?;
    ["@nocobase/server", "@nocobase/client"]
        .iter()
        .find_map(|name| Some(list.get(name)?.as_str()?.to_owned()))
}

/// `2.2` of `2.2.15`: what NocoBase itself compares.
fn minor(version: &str) -> (String, String) {
    let mut parts = version.split('.').map(str::to_owned);
    (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let name = Path::new(path.file_name().unwrap_or_default());
    let file = File::open(path).map_err(|error| named(name, &error))?;
    file.take(TEXT_MAX).read_to_string(&mut text).map_err(|error| named(name, &error))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(entries: &[(&str, &str)]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let gzip = flate2::write::GzEncoder::new(file.reopen().unwrap(), flate2::Compression::fast());
        let mut tar = tar::Builder::new(gzip);
        for (name, text) in entries {
            let mut header = tar::Header::new_gnu();
            // What a careful builder would refuse.
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            tar.append(&header, text.as_bytes()).unwrap();
        }
        tar.into_inner().unwrap().finish().unwrap();
        file
    }

    const GOOD: [(&str, &str); 3] = [
        ("package/package.json", r#"{"name":"@a/x","version":"1.0.0","main":"dist/server/index.js"}"#),
        ("package/dist/server/index.js", ""),
        ("package/dist/externalVersion.js", "module.exports = {\n \"@nocobase/server\": \"2.2.1\"\n};"),
    ];

    #[test]
    fn a_plugin_is_unpacked_and_understood() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("new");
        unpack(packed(&GOOD).path(), &to).unwrap();
        let found = package(&to).unwrap();
        assert_eq!((found.name.as_str(), found.version.as_str()), ("@a/x", "1.0.0"));
        assert_eq!(problem(&to, &found, Some("2.2.15")), None);
        let other = problem(&to, &found, Some("2.3.0")).unwrap();
        assert!(other.contains("built for NocoBase 2.2.1, and this is 2.3.0"), "{other}");
        fs::remove_file(to.join("dist/server/index.js")).unwrap();
        assert!(problem(&to, &found, None).unwrap().contains("dist/server/index.js"));
    }

    #[test]
    fn whatever_is_in_an_archive_stays_in_its_folder() {
        let mut whole = Vec::new();
        GzDecoder::new(packed(&GOOD).reopen().unwrap()).read_to_end(&mut whole).unwrap();
        let names = |folder: &Path| {
            let read = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
            read.collect::<std::collections::BTreeSet<_>>()
        };
        crate::hell::harm_all(&[whole], |bytes| {
            let place = tempfile::tempdir().unwrap();
            let archive = place.path().join("archive");
            let file = File::create(&archive).unwrap();
            let mut gzip = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
            io::Write::write_all(&mut gzip, bytes).unwrap();
            gzip.finish().unwrap();
            let to = place.path().join("in/new");
            if let Err(error) = unpack(&archive, &to) {
                assert!(!error.to_string().is_empty());
            }
            assert_eq!(names(place.path()), ["archive".into(), "in".into()].into());
            assert_eq!(names(&place.path().join("in")), ["new".into()].into());
            if let Ok(found) = package(&to) {
                let _ = problem(&to, &found, Some("2.2.15"));
            }
        });
        let folder = tempfile::tempdir().unwrap();
        crate::hell::harm_texts(&[GOOD[0].1], |text| {
            fs::write(folder.path().join("package.json"), text).unwrap();
            match package(folder.path()) {
                Ok(found) => drop(problem(folder.path(), &found, Some("2.2.15"))),
                Err(error) => assert!(error.to_string().contains("package.json"), "{error}"),
            }
        });
    }

    /// An archive of an entry of this type, and of an empty file.
    fn entry(kind: EntryType, content: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let gzip = flate2::write::GzEncoder::new(file.reopen().unwrap(), flate2::Compression::fast());
        let mut tar = tar::Builder::new(gzip);
        for (kind, content) in [(kind, content), (EntryType::Regular, &[])] {
            let mut header = tar::Header::new_gnu();
            header.set_path("package/x").unwrap();
            header.set_entry_type(kind);
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            tar.append(&header, content).unwrap();
        }
        tar.into_inner().unwrap().finish().unwrap();
        file
    }

    #[test]
    fn what_a_plugin_never_has_is_refused_before_it_is_read() {
        let long = vec![b'x'; usize::try_from(ATTRIBUTES_MAX).unwrap() + 1];
        for (kind, content, why) in [
            (EntryType::GNULongName, long.as_slice(), "a name or attributes of 65537 bytes"),
            (EntryType::XHeader, &long, "a name or attributes of 65537 bytes"),
            (EntryType::XGlobalHeader, &long, "a name or attributes of 65537 bytes"),
            (EntryType::XHeader, b"10 size=9\n", "an entry with two sizes"),
            (EntryType::XHeader, b"10 size=0\n10 size=9\n", "an entry with two sizes"),
            (EntryType::XHeader, b"10 size=?\n", "an entry whose size is no number"),
            (EntryType::XHeader, b"no attributes\n", "it is damaged"),
            (EntryType::GNULongLink, b"x", "package/x is neither a file nor a folder"),
            (EntryType::GNUSparse, b"", "package/x is neither a file nor a folder"),
            (EntryType::Symlink, b"", "package/x is neither a file nor a folder"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let error = unpack(entry(kind, content).path(), folder.path()).unwrap_err().to_string();
            assert!(error.contains(why), "{kind:?}: {error}");
        }
        // As npm writes them where a path is long.
        let folder = tempfile::tempdir().unwrap();
        unpack(entry(EntryType::XHeader, b"10 size=0\n21 path=package/long\n").path(), folder.path())
            .unwrap();
        assert_eq!(fs::read(folder.path().join("long")).unwrap(), b"");
    }

    #[test]
    fn what_is_no_package_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for (at, name) in ["../out", "package/../../out", "/out"].iter().enumerate() {
            let error =
                unpack(packed(&[(name, "x")]).path(), &folder.path().join(at.to_string())).unwrap_err();
            assert!(error.to_string().contains("leads out of it"), "{name}: {error}");
        }
        let text = tempfile::NamedTempFile::new().unwrap();
        fs::write(text.path(), "no archive").unwrap();
        let error = unpack(text.path(), &folder.path().join("text")).unwrap_err().to_string();
        assert!(error.contains("invalid gzip header"), "{error}");
        unpack(packed(&[("package/readme", "x")]).path(), &folder.path().join("empty")).unwrap();
        let error = package(&folder.path().join("empty")).unwrap_err().to_string();
        assert!(error.contains("package.json"), "{error}");
    }
}
