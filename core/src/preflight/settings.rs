//! Which settings of NocoBase must be the same on all nodes.
//!
//! Unset and empty are the same to NocoBase: its launcher replaces both by the default (`if (!process.env[key])`), and its code
//! asks for truth. So an agent leaves both out.

/// What a fleet demands of a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demand {
    /// A difference is a problem.
    Same,
    /// A difference is probably a mistake, and may be meant: two addresses of one server, for example.
    Alike,
    /// Nodes may differ. Its fingerprint never leaves the node.
    Free,
}

/// Keys and formats of what is stored, and where in the database it is.
const SAME: [&str; 16] = [
    "APP_AES_SECRET_KEY",
    "APP_ENV",
    "APP_KEY",
    "APP_PUBLIC_PATH",
    "API_BASE_PATH",
    "CACHE_DEFAULT_STORE",
    "DB_DATABASE",
    "DB_DIALECT",
    "DB_SCHEMA",
    "DB_TABLE_PREFIX",
    "DB_TIMEZONE",
    "DB_UNDERSCORED",
    "DEFAULT_STORAGE_TYPE",
    "PLUGIN_PACKAGE_PREFIX",
    "PLUGIN_STATICS_PATH",
    "TZ",
];

/// What belongs to one host or one node. Whether the database and the storage are one is checked by looking, not by name.
const FREE: [&str; 24] = [
    "APP_ENV_PATH",
    "APP_HOST",
    "APP_LAUNCH_MODE",
    "APP_PACKAGE_ROOT",
    "APP_PORT",
    "APP_SERVER_BASE_URL",
    "CLUSTER_MODE",
    "DB_HOST",
    "DB_LOGGING",
    "DB_PASSWORD",
    "DB_PORT",
    "DB_STORAGE",
    "DB_USER",
    "DISABLE_PKG_DOWNLOAD",
    "HOSTNAME",
    "LOCAL_STORAGE_DEST",
    "NODE_ARGS",
    "NODE_OPTIONS",
    "PGAPPNAME",
    "PM2_HOME",
    "SOCKET_PATH",
    "WATCH_FILE",
    "WORKER_ID",
    "WORKER_MODE",
];

/// Families of settings that belong to one node, or that only a first start reads.
const FREE_BEGINS: [&str; 6] = ["DB_POOL_", "INIT_", "LOGGER_", "NOCOBASE_PKG_", "SKIP_", "SOLOIST_"];
/// Paths and ports of a host.
const FREE_ENDS: [&str; 4] = ["_DIR", "_FOLDER", "_PATH", "_PORT"];

/// What a fleet demands of the setting with this name.
pub fn demand(key: &str) -> Demand {
    if SAME.contains(&key) {
        return Demand::Same;
    }
    let begins = FREE_BEGINS.iter().any(|begin| key.starts_with(begin));
    let ends = FREE_ENDS.iter().any(|end| key.ends_with(end));
    if begins || ends || FREE.contains(&key) { Demand::Free } else { Demand::Alike }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn demands() {
        for key in ["APP_KEY", "TZ", "DB_SCHEMA", "DB_TABLE_PREFIX", "DB_UNDERSCORED", "API_BASE_PATH"] {
            assert_eq!(demand(key), Demand::Same, "{key}");
        }
        for key in ["WORKER_MODE", "SOCKET_PATH", "PM2_HOME", "DB_USER", "DB_PASSWORD", "APP_PORT"] {
            assert_eq!(demand(key), Demand::Free, "{key}");
        }
        for key in ["INIT_ROOT_PASSWORD", "STORAGE_PATH", "LOGGER_LEVEL", "NOCOBASE_PKG_PASSWORD"] {
            assert_eq!(demand(key), Demand::Free, "{key}");
        }
        assert_eq!(demand("CACHE_REDIS_URL"), Demand::Alike);
    }
}
