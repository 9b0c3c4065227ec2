//! The credential with which the agent speaks to the app. It never shows in logs or errors.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Largest credential file in bytes.
const FILE_MAX: u64 = 64 * 1024;

/// A text that does not show itself.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// How to sign in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// An API token.
    Token(Secret),
    /// An account of NocoBase's password sign-in.
    Password {
        /// Account: email address or user name.
        account: String,
        /// Its password.
        password: Secret,
    },
}

/// A credential file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// It could not be read.
    #[error("cannot read the API credential {path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Others could read or have written it.
    #[error("the API credential {path} is not private ({why}); run: chown {uid} {path} && chmod 600 {path}", path = path.display())]
    NotPrivate {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
        /// The agent's user.
        uid: u32,
    },
    /// Its content is not understood. The content itself is not repeated.
    #[error("the API credential {path} is neither one line with an API token, nor TOML with `token = \"…\"`, nor TOML with `account = \"…\"` and `password = \"…\"`", path = path.display())]
    Content {
        /// The file.
        path: PathBuf,
    },
}

impl Credential {
    /// Reads a credential file, which must belong to the agent's user and be closed to everybody else.
    pub fn read(path: &Path) -> Result<Self, CredentialError> {
        let error = |source| CredentialError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(error)?;
        // Asked of the open file: the path may mean another one by now.
        let meta = file.metadata().map_err(error)?;
        let uid = rustix::process::geteuid().as_raw();
        let why = if meta.uid() != uid {
            Some(format!("it belongs to user {}", meta.uid()))
        } else if meta.mode() & 0o077 != 0 {
            Some(format!("its mode is {:o}", meta.mode() & 0o777))
        } else {
            None
        };
        if let Some(why) = why {
            return Err(CredentialError::NotPrivate { path: path.to_owned(), why, uid });
        }
        let mut text = String::new();
        file.take(FILE_MAX).read_to_string(&mut text).map_err(error)?;
        parse(&text).ok_or_else(|| CredentialError::Content { path: path.to_owned() })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    token: Option<Secret>,
    account: Option<String>,
    password: Option<Secret>,
}

fn parse(text: &str) -> Option<Credential> {
    let text = text.trim();
    if !text.is_empty() && !text.contains(char::is_whitespace) && !text.contains('=') {
        return Some(Credential::Token(Secret::new(text.to_owned())));
    }
    match toml::from_str(text).ok()? {
        Stored { token: Some(token), account: None, password: None } => Some(Credential::Token(token)),
        Stored { token: None, account: Some(account), password: Some(password) } => {
            Some(Credential::Password { account, password })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn forms() {
        assert!(matches!(parse("abc.def\n"), Some(Credential::Token(_))));
        assert!(matches!(parse("token = \"abc==\""), Some(Credential::Token(_))));
        assert!(matches!(parse("account = \"a@b\"\npassword = \"x\""), Some(Credential::Password { .. })));
        for bad in ["", "two words", "account = \"a\"", "other = \"a\""] {
            assert!(parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn open_files_are_refused_and_nothing_leaks() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("credential");
        std::fs::write(&path, "hush-hush").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let error = Credential::read(&path).unwrap_err().to_string();
        assert!(error.contains("chmod 600"), "{error}");
        std::fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
        let read = Credential::read(&path).unwrap();
        assert!(!format!("{read:?}").contains("hush"));
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, "hush hush").unwrap();
        assert!(!Credential::read(&path).unwrap_err().to_string().contains("hush"));
    }
}
