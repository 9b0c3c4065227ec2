//! Finding the program of a command before anything is stopped for it.

use std::{
    ffi::{OsStr, OsString},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use super::child::Command;
use crate::error::{CtlError, Kind, Result};

/// Finds a command's program as a shell would.
pub(super) fn find(words: &[OsString]) -> Result<Command> {
    let (program, arguments) =
        words.split_first().ok_or_else(|| CtlError::new(Kind::Usage, "no command is given"))?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = locate(program, &path)?;
    Ok(Command::new(found, program.clone(), arguments.to_vec()))
}

fn locate(program: &OsStr, path: &OsStr) -> Result<PathBuf> {
    let name = program.to_string_lossy();
    if name.contains('/') {
        let file = PathBuf::from(program);
        return match kind(&file) {
            File::Executable => Ok(file),
            File::Other => Err(CtlError::new(Kind::NotExecutable, format!("{name} cannot be executed"))),
            File::Missing => Err(missing(&name)),
        };
    }
    let mut other = None;
    for file in std::env::split_paths(path).map(|folder| folder.join(program)) {
        match kind(&file) {
            File::Executable => return Ok(file),
            File::Other => other = Some(file),
            File::Missing => {}
        }
    }
    Err(match other {
        Some(file) => CtlError::new(Kind::NotExecutable, format!("{} cannot be executed", file.display())),
        None => missing(&name),
    })
}

fn missing(name: &str) -> CtlError {
    CtlError::new(Kind::NotFound, format!("there is no command \"{name}\"; nothing was asked for"))
        .hint("a command is a program and its arguments, without a shell: for a line of shell, use -- sh -c \"...\"")
}

enum File {
    Executable,
    Other,
    Missing,
}

fn kind(file: &Path) -> File {
    match file.metadata() {
        Ok(found) if found.is_file() && found.permissions().mode() & 0o111 != 0 => File::Executable,
        Ok(_) => File::Other,
        Err(_) => File::Missing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_before_anything_else() {
        let path = OsStr::new("/nowhere:/bin:/usr/bin");
        assert!(locate(OsStr::new("sh"), path).unwrap().ends_with("sh"));
        assert_eq!(locate(OsStr::new("/bin/sh"), path).unwrap(), Path::new("/bin/sh"));
        assert_eq!(locate(OsStr::new("no-such-thing"), path).unwrap_err().kind, Kind::NotFound);
        assert_eq!(locate(OsStr::new("/no/such/thing"), path).unwrap_err().kind, Kind::NotFound);
        assert_eq!(locate(OsStr::new("/etc/passwd"), path).unwrap_err().kind, Kind::NotExecutable);
    }
}
