//! `soloist cluster backup`.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Serialize;
use soloist_proto::{
    errors::{DEADLINE, Problem},
    v1::{self, backup_part::Part},
};
use tokio::time::timeout;
use tonic::Streaming;

use crate::{
    client::ClusterStub,
    commands::Context,
    error::{CtlError, Kind, Result},
};

/// How long the next part of a backup may take.
const PART: Duration = Duration::from_secs(20);
/// The largest backup that is taken, in bytes; see the coordinators' own bound.
const BYTES_MAX: u64 = 300 * 1024 * 1024;

/// Write the coordinators' state into a file, from which a lost cluster can be made again
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The file; it must not exist
    file: PathBuf,
    /// Without a majority, take what one member has: it may lack the last decisions
    #[arg(long)]
    stale: bool,
}

/// What was written.
#[derive(Debug, Serialize)]
struct Written {
    file: PathBuf,
    cluster: String,
    member: u64,
    index: u64,
    bytes: u64,
    wall_ms: u64,
    stale: bool,
}

/// Writes a backup.
pub(super) async fn run(args: Args, context: &Context) -> Result<()> {
    let taken = || {
        let text = format!("{} exists already, and no backup is overwritten", args.file.display());
        CtlError::new(Kind::Usage, text).hint("name another file")
    };
    if args.file.exists() {
        return Err(taken());
    }
    let stale = args.stale;
    let ask = |mut stub: ClusterStub| async move { stub.backup(v1::BackupRequest { stale }).await };
    let parts = context.client.call_cluster(ask).await?;
    let (header, bytes) = fetch(parts).await?;
    save(&args.file, &header, &bytes, context)
}

async fn fetch(mut parts: Streaming<v1::BackupPart>) -> Result<(v1::BackupHeader, Vec<u8>), Problem> {
    let late =
        |_| Problem::new(tonic::Code::DeadlineExceeded, DEADLINE, "the backup stopped coming", "try again");
    let next = async |parts: &mut Streaming<v1::BackupPart>| {
        let part = timeout(PART, parts.message()).await.map_err(late)?;
        Ok::<_, Problem>(part.map_err(|status| Problem::from(&status))?.and_then(|part| part.part))
    };
    let broken = |what: &str| Problem::new(tonic::Code::Internal, "internal", what, "try again");
    let Some(Part::Header(header)) = next(&mut parts).await? else {
        return Err(broken("the backup does not begin with its header"));
    };
    let mut bytes = Vec::new();
    while let Some(part) = next(&mut parts).await? {
        let Part::Data(data) = part else { return Err(broken("the backup has two headers")) };
        bytes.extend_from_slice(&data);
        if bytes.len() as u64 > header.bytes.min(BYTES_MAX) {
            return Err(broken("the backup is longer than it should be"));
        }
    }
    if bytes.len() as u64 != header.bytes || crc32fast::hash(&bytes) != header.checksum {
        return Err(broken("the backup did not arrive as it was sent"));
    }
    Ok((header, bytes))
}

fn save(file: &Path, header: &v1::BackupHeader, bytes: &[u8], context: &Context) -> Result<()> {
    write(file, bytes).map_err(|error| {
        let text = format!("cannot write {}: {error}", file.display());
        CtlError::new(
            if error.kind() == io::ErrorKind::AlreadyExists { Kind::Usage } else { Kind::Failed },
            text,
        )
    })?;
    let written = Written {
        file: file.to_owned(),
        cluster: header.cluster.clone(),
        member: header.member,
        index: header.index,
        bytes: header.bytes,
        wall_ms: header.wall_ms,
        stale: header.stale,
    };
    context.ui.data(&written, || {
        format!(
            "backed up cluster {} at index {} into {} ({} bytes)\n",
            written.cluster,
            written.index,
            file.display(),
            written.bytes
        )
    })?;
    if header.stale {
        context.ui.note(&format!(
            "member {} could ask no leader: the backup may lack what was decided last",
            header.member
        ));
    }
    Ok(())
}

/// Under another name first, so that there is a whole file under the right one or none; and never over another.
fn write(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let unfinished = file.with_file_name(name);
    let folder = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let work = || {
        let mut new = File::options().write(true).create_new(true).open(&unfinished)?;
        new.write_all(bytes)?;
        new.sync_all()?;
        // A link, unlike a rename, does not replace what is there.
        fs::hard_link(&unfinished, file)
    };
    let done = work();
    // It may not have been made.
    let _ = fs::remove_file(&unfinished);
    done?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_written_once_and_whole() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("backup");
        write(&file, b"one").unwrap();
        assert_eq!(write(&file, b"two").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&file).unwrap(), b"one");
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1, "nothing else is left");
        assert!(write(&temp.path().join("none/backup"), b"").is_err());
    }
}
