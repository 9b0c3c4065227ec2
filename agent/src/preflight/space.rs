//! Free space.

use std::io;
use std::path::Path;

use soloist_core::preflight::{Place, Space};

use crate::host::disk::DiskReader;

/// What an ordinary user can still write in a folder.
pub(super) async fn free(disk: &DiskReader, place: Place, path: &Path) -> io::Result<Space> {
    let found = disk.call(path.to_owned(), |path| Ok(rustix::fs::statvfs(&path)?)).await?;
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    Ok(Space { place, path: path.display().to_string(), free })
}
