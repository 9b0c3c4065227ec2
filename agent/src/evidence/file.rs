//! The two files of a record: one that grows, and the one before it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use soloist_core::evidence::{Record, breaks};
use soloist_proto::evidence::open;

/// A file of this size is moved aside, in bytes; the one before it goes. Together they hold some months without exclusive
/// operations, or some two hours in one.
pub(super) const FILE_MAX: u64 = 512 * 1024;

const CURRENT: &str = "evidence.jsonl";
const OLD: &str = "evidence.old.jsonl";
/// Where files go that do not hold what their hashes say.
const DAMAGED: &str = "evidence.damaged.jsonl";

/// A record with its text.
type Line = (Record, String);

#[derive(Debug)]
pub(super) struct ChainFile {
    folder: PathBuf,
    file: File,
    size: u64,
}

impl ChainFile {
    /// Opens the files of a data folder: what they hold, and whether the end of the last one was torn.
    pub(super) fn open(folder: &Path) -> io::Result<(Self, Vec<Line>, bool)> {
        let (path, old) = (folder.join(CURRENT), folder.join(OLD));
        let (mut lines, _, _) = read(&old)?;
        let (current, valid, rest) = read(&path)?;
        let torn = rest == Rest::Torn;
        lines.extend(current);
        let mut valid = valid;
        if rest == Rest::Damaged || !breaks(&records(&lines)).is_empty() {
            tracing::warn!(path = %path.display(), "the record was changed: it is moved aside, and a new one begun");
            std::fs::rename(&path, folder.join(DAMAGED))?;
            let _ = std::fs::remove_file(&old);
            (lines, valid) = (Vec::new(), 0);
        }
        let mut file =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(0o600).open(&path)?;
        file.set_len(valid)?;
        file.seek(SeekFrom::End(0))?;
        File::open(folder)?.sync_all()?;
        Ok((Self { folder: folder.to_owned(), file, size: valid }, lines, torn))
    }

    /// Adds a line, and waits for the disk.
    pub(super) fn append(&mut self, text: &str) -> io::Result<()> {
        if self.size > FILE_MAX {
            let path = self.folder.join(CURRENT);
            std::fs::rename(&path, self.folder.join(OLD))?;
            self.file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&path)?;
            self.size = 0;
            File::open(&self.folder)?.sync_all()?;
        }
        let line = format!("{text}\n");
        let written = self.file.write_all(line.as_bytes()).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // Half a line would look like a changed record later.
            self.file.set_len(self.size)?;
            self.file.seek(SeekFrom::Start(self.size))?;
            return Err(error);
        }
        self.size += line.len() as u64;
        Ok(())
    }
}

/// What follows the last whole record in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    Nothing,
    /// A line without an end: it was being written.
    Torn,
    /// A line that is no record.
    Damaged,
}

/// The records of a file, how many bytes they take, and what follows them.
fn read(path: &Path) -> io::Result<(Vec<Line>, u64, Rest)> {
    let mut text = Vec::new();
    match File::open(path) {
        Ok(file) => file.take(FILE_MAX * 2).read_to_end(&mut text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), 0, Rest::Nothing)),
        Err(error) => return Err(error),
    };
    let (mut lines, mut valid) = (Vec::new(), 0);
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let Some(whole) = line.strip_suffix(b"\n") else { return Ok((lines, valid, Rest::Torn)) };
        let parsed =
            std::str::from_utf8(whole).ok().and_then(|text| Some((open(text).ok()?, text.to_owned())));
        let Some(parsed) = parsed else { return Ok((lines, valid, Rest::Damaged)) };
        lines.push(parsed);
        valid += line.len() as u64;
    }
    Ok((lines, valid, Rest::Nothing))
}

fn records(lines: &[Line]) -> Vec<Record> {
    lines.iter().map(|(record, _)| record.clone()).collect()
}
