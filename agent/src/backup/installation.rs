//! What is backed up, or restored into: one app's database and storage, as the app's own settings name them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::error::BackupError;
use crate::profile::MARKER;

/// What a backup keeps of the storage, relative to `STORAGE_PATH`, and why. What is missing there is recorded as absent,
/// and is absent again after a restore. Uploads have a policy of their own; the rest is logs, caches, sockets,
/// temporary files and what the client is built from, which the app makes anew.
pub const KEPT: [&str; 5] = [
    // Plugins that were added, as packages with their links. Elsewhere if PLUGIN_STORAGE_PATH says so.
    "plugins",
    // Per app: aes_key.dat and jwt_secret.dat, without which encrypted fields and sessions are lost; the keys of the
    // identity provider; the queue of events that a stop wrote down.
    "apps",
    // Where older releases kept aes_key.dat, and newer ones still look for it.
    "environment-variables",
    // The licence key and the installation's own id.
    ".license",
    // While this is there, the next plain start upgrades. It belongs to the state of the database.
    MARKER,
];

/// Where plugins that were added lie, if that is not a folder of the storage.
const PLUGINS: &str = "PLUGIN_STORAGE_PATH";
/// The same for uploads.
const UPLOADS: &str = "LOCAL_STORAGE_DEST";

/// Where plugins that were added lie, by the app's computed environment.
pub(crate) fn plugins_folder(vars: &BTreeMap<String, String>) -> PathBuf {
    in_storage(vars, PLUGINS, "plugins")
}

/// What a setting names, or else this folder of the storage.
fn in_storage(vars: &BTreeMap<String, String>, key: &str, name: &str) -> PathBuf {
    let get = |key: &str| vars.get(key).map_or("", String::as_str);
    match get(key) {
        "" => Path::new(get("STORAGE_PATH")).join(name),
        own => own.into(),
    }
}

/// Which kind of database it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// PostgreSQL.
    Postgres,
    /// MySQL.
    Mysql,
    /// MariaDB.
    Mariadb,
}

/// The state of one app: where its database is, and its folders.
#[derive(Clone)]
pub struct Installation {
    pub(super) dialect: Dialect,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) database: String,
    pub(super) user: String,
    pub(super) password: String,
    /// `None` stands for the whole database.
    pub(super) schema: Option<String>,
    pub(super) prefix: String,
    pub(super) underscored: bool,
    storage: PathBuf,
    plugins: PathBuf,
    pub(super) uploads: PathBuf,
}

impl Installation {
    /// From the app's computed environment: `DB_…`, `STORAGE_PATH`, `PLUGIN_STORAGE_PATH`, `LOCAL_STORAGE_DEST`.
    ///
    /// # Errors
    /// When something is missing, or is of a kind that is not supported.
    pub fn from_vars(vars: &BTreeMap<String, String>) -> Result<Self, BackupError> {
        let get = |key: &str| vars.get(key).map_or("", String::as_str);
        let need = |key: &str| match get(key) {
            "" => Err(BackupError::Setting(format!("the app's settings have no {key}: a backup needs it"))),
            value if value.contains(['\n', '\0', '\r']) => {
                Err(BackupError::Setting(format!("{key} in the app's settings has a line break: remove it")))
            }
            value => Ok(value.to_owned()),
        };
        let (dialect, port) = match get("DB_DIALECT") {
            "postgres" => (Dialect::Postgres, 5432),
            "mysql" => (Dialect::Mysql, 3306),
            "mariadb" => (Dialect::Mariadb, 3306),
            other => {
                let shown = if other.is_empty() { "none" } else { other };
                return Err(BackupError::Setting(format!(
                    "DB_DIALECT is {shown}, which cannot be backed up: only postgres, mysql and mariadb can"
                )));
            }
        };
        if let Some(key) = vars.iter().find_map(|(key, value)| {
            (key.starts_with("DB_DIALECT_OPTIONS_SSL_") && !value.is_empty()).then_some(key)
        }) {
            return Err(BackupError::Setting(format!(
                "{key} asks for TLS to the database, which a backup cannot do yet: back up by other means"
            )));
        }
        let port = match get("DB_PORT") {
            "" => port,
            text => text
                .parse()
                .map_err(|_| BackupError::Setting(format!("DB_PORT is \"{text}\": it must be a port")))?,
        };
        let folder = |key: &str| {
            let path = PathBuf::from(need(key)?);
            if path.is_absolute() {
                return Ok(path);
            }
            Err(BackupError::Setting(format!(
                "{key} is {}: it must be an absolute path here",
                path.display()
            )))
        };
        let storage = folder("STORAGE_PATH")?;
        let own = |key: &str| if get(key).is_empty() { Ok(()) } else { folder(key).map(drop) };
        Ok(Self {
            dialect,
            host: need("DB_HOST")?,
            port,
            database: need("DB_DATABASE")?,
            user: need("DB_USER")?,
            password: if get("DB_PASSWORD").is_empty() { String::new() } else { need("DB_PASSWORD")? },
            schema: Some(get("DB_SCHEMA"))
                .filter(|schema| !["", "public"].contains(schema) && dialect == Dialect::Postgres)
                .map(str::to_owned),
            prefix: get("DB_TABLE_PREFIX").to_owned(),
            underscored: get("DB_UNDERSCORED") == "true",
            plugins: own(PLUGINS).map(|()| plugins_folder(vars))?,
            uploads: own(UPLOADS).map(|()| in_storage(vars, UPLOADS, "uploads"))?,
            storage,
        })
    }

    /// Host, port and name of the database, for people.
    #[must_use]
    pub fn place(&self) -> String {
        format!("{}:{}/{}", self.host, self.port, self.database)
    }

    /// The same place with another database.
    pub(super) fn with_database(&self, name: &str) -> Self {
        Self { database: name.to_owned(), ..self.clone() }
    }

    /// The table with the version's row.
    pub(super) fn version_table(&self) -> String {
        let name = if self.underscored { "application_version" } else { "applicationVersion" };
        format!("{}{name}", self.prefix)
    }

    /// Where each of [`KEPT`] lies. A link at this place is followed, links below it are kept as links.
    pub(super) fn kept(&self) -> Vec<(&'static str, PathBuf)> {
        let place =
            |name: &str| if name == "plugins" { self.plugins.clone() } else { self.storage.join(name) };
        let real = |path: PathBuf| path.canonicalize().unwrap_or(path);
        KEPT.iter().map(|name| (*name, real(place(name)))).collect()
    }
}

impl std::fmt::Debug for Installation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Installation").field("place", &self.place()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vars(more: &[(&str, &str)]) -> BTreeMap<String, String> {
        let base = [
            ("DB_DIALECT", "postgres"),
            ("DB_HOST", "db"),
            ("DB_DATABASE", "noco"),
            ("DB_USER", "u"),
            ("DB_PASSWORD", "secret"),
            ("STORAGE_PATH", "/s"),
        ];
        base.iter().chain(more).map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn settings_are_understood_or_refused() {
        let plain =
            Installation::from_vars(&vars(&[("DB_SCHEMA", "public"), ("DB_TABLE_PREFIX", "n_")])).unwrap();
        assert_eq!((plain.place(), plain.schema.clone()), ("db:5432/noco".into(), None));
        assert_eq!(plain.version_table(), "n_applicationVersion");
        assert_eq!(plain.kept()[0].1, PathBuf::from("/s/plugins"));
        assert!(!format!("{plain:?}").contains("secret"));
        let moved =
            vars(&[("LOCAL_STORAGE_DEST", "/u"), ("PLUGIN_STORAGE_PATH", "/p"), ("DB_SCHEMA", "noco")]);
        let moved = Installation::from_vars(&moved).unwrap();
        assert_eq!(moved.kept()[0].1, PathBuf::from("/p"));
        assert_eq!((moved.uploads, moved.schema.as_deref()), ("/u".into(), Some("noco")));
        for (more, text) in [
            (("DB_DIALECT", "sqlite"), "only postgres"),
            (("DB_DIALECT_OPTIONS_SSL_MODE", "require"), "TLS"),
            (("DB_PORT", "x"), "must be a port"),
            (("STORAGE_PATH", "storage"), "absolute"),
            (("PLUGIN_STORAGE_PATH", "plugins"), "absolute"),
            (("DB_HOST", ""), "no DB_HOST"),
        ] {
            let error = Installation::from_vars(&vars(&[more])).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
    }
}
