//! Whether the nodes have one storage: each leaves a nonce there and reads those of the others.
//!
//! ```text
//!   <STORAGE_PATH>/.soloist/<fleet>/<node>      one line: the nonce and the one before it
//! ```
//!
//! A nonce is renewed now and then, so that a copy of the storage, which has the old ones, does not look like the storage.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use soloist_core::ids::NodeId;
use soloist_core::policy::NODES_MAX;
use soloist_core::preflight::StorageFacts;
use soloist_core::time::Millis;

use crate::host::disk::DiskReader;
use crate::profile::NodeContext;

/// How long a nonce is used.
const RENEW_EVERY: Duration = Duration::from_secs(600);
/// Longest file that is read, in bytes: two nonces of 16 digits.
const FILE_MAX: u64 = 64;

/// The nonce that this node has left.
#[derive(Debug, Clone)]
pub(super) struct Nonce {
    value: String,
    before: Option<String>,
    left: Instant,
}

/// Leaves this node's nonce, if it is not there or is due to be renewed, and reads those of all nodes.
pub(super) async fn exchange(
    disk: &DiskReader,
    storage: &Path,
    context: &NodeContext,
    nonce: &mut Option<Nonce>,
) -> io::Result<StorageFacts> {
    if storage.as_os_str().is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "STORAGE_PATH is not set"));
    }
    let (fleet, node) = (context.fleet.clone(), context.node.clone());
    let had = nonce.clone();
    let work = move |storage: std::path::PathBuf| {
        // A storage that is not mounted must not be made up.
        if !storage.is_dir() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "is not a folder"));
        }
        let folder = storage.join(".soloist").join(fleet.as_str());
        std::fs::create_dir_all(&folder)?;
        let stands = read(&folder.join(node.as_str()));
        let nonce = match had {
            Some(had) if stands.first() == Some(&had.value) && had.left.elapsed() < RENEW_EVERY => had,
            _ => leave(&folder, &node, stands.first().cloned())?,
        };
        Ok((nonce, all(&folder)?))
    };
    let (left, seen) = disk.call(storage.to_owned(), work).await?;
    let age = Millis(u64::try_from(left.left.elapsed().as_millis()).unwrap_or(u64::MAX));
    let facts = StorageFacts { nonce: left.value.clone(), before: left.before.clone(), age, seen };
    *nonce = Some(left);
    Ok(facts)
}

/// Leaves a new nonce: a temporary file, and a rename, so that nobody reads half of it. Everyone may read it, since nodes may run
/// as different users.
fn leave(folder: &Path, node: &NodeId, before: Option<String>) -> io::Result<Nonce> {
    let value = format!("{:016x}", rand::random::<u64>());
    let temporary = folder.join(format!(".{node}.tmp"));
    let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o644).open(&temporary)?;
    writeln!(file, "{value} {}", before.as_deref().unwrap_or_default())?;
    file.sync_all()?;
    std::fs::rename(&temporary, folder.join(node.as_str()))?;
    Ok(Nonce { value, before, left: Instant::now() })
}

/// The nonces of all nodes; a file that cannot be read is not seen.
fn all(folder: &Path) -> io::Result<BTreeMap<NodeId, Vec<String>>> {
    let mut seen = BTreeMap::new();
    for entry in std::fs::read_dir(folder)?.flatten() {
        let name = entry.file_name();
        // A temporary file's name begins with a dot and is not the name of a node.
        let Some(node) = name.to_str().and_then(|name| NodeId::new(name).ok()) else { continue };
        let nonces = read(&entry.path());
        if !nonces.is_empty() && seen.len() < NODES_MAX {
            seen.insert(node, nonces);
        }
    }
    Ok(seen)
}

fn read(path: &Path) -> Vec<String> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(FILE_MAX).read_to_string(&mut text));
    if read.is_err() {
        return Vec::new();
    }
    text.split_whitespace().take(2).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use soloist_core::ids::FleetId;

    use super::*;

    fn context(node: &str) -> NodeContext {
        NodeContext {
            fleet: FleetId::new("crm").unwrap(),
            node: NodeId::new(node).unwrap(),
            data_folder: "/nonexistent".into(),
            releases: None,
        }
    }

    async fn go(storage: &Path, node: &str, nonce: &mut Option<Nonce>) -> io::Result<StorageFacts> {
        exchange(&DiskReader::new(Duration::from_secs(3)), storage, &context(node), nonce).await
    }

    #[tokio::test]
    async fn nodes_see_each_other() {
        let temp = tempfile::tempdir().unwrap();
        let (mut one, mut two) = (None, None);
        let first = go(temp.path(), "n1", &mut one).await.unwrap();
        let second = go(temp.path(), "n2", &mut two).await.unwrap();
        let seen = &second.seen[&NodeId::new("n1").unwrap()];
        assert_eq!(seen.as_slice(), std::slice::from_ref(&first.nonce));
        let again = go(temp.path(), "n1", &mut one).await.unwrap();
        assert_eq!(again.nonce, first.nonce, "it is kept");
        assert_eq!(again.seen.len(), 2);
        assert!(temp.path().join(".soloist/crm/n1").is_file());
    }

    #[tokio::test]
    async fn a_new_run_and_a_changed_file_bring_a_new_nonce() {
        let temp = tempfile::tempdir().unwrap();
        let first = go(temp.path(), "n1", &mut None).await.unwrap();
        let mut nonce = None;
        let second = go(temp.path(), "n1", &mut nonce).await.unwrap();
        assert_ne!(second.nonce, first.nonce);
        assert_eq!(second.before.as_ref(), Some(&first.nonce));
        assert_eq!(second.seen[&NodeId::new("n1").unwrap()], [second.nonce.clone(), first.nonce]);
        std::fs::write(temp.path().join(".soloist/crm/n1"), "other\n").unwrap();
        let third = go(temp.path(), "n1", &mut nonce).await.unwrap();
        assert_eq!(third.before.as_deref(), Some("other"));
        assert_ne!(third.nonce, second.nonce);
    }

    #[tokio::test]
    async fn a_storage_that_is_not_there_is_not_made() {
        let temp = tempfile::tempdir().unwrap();
        let missing = temp.path().join("mnt");
        assert!(go(&missing, "n1", &mut None).await.is_err());
        assert!(!missing.exists());
        assert!(go(Path::new(""), "n1", &mut None).await.is_err());
    }
}
