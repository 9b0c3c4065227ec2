//! Names and numbers that must not be mixed up: one type each.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A name that was not accepted as a fleet, node or operation name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{what} \"{value}\" is not valid: use 1 to {max} characters from a-z, 0-9, '-', '_' and '.', starting with a letter or digit"
)]
pub struct BadName {
    /// What the name should have named, for example `fleet`.
    pub what: &'static str,
    /// The beginning of the refused text.
    pub value: String,
    /// Longest accepted length in bytes.
    pub max: usize,
}

/// Longest name of a fleet or node in bytes; they appear in every label, path and process marker.
pub const NAME_MAX: usize = 63;

fn check(what: &'static str, value: &str) -> Result<(), BadName> {
    let head = value.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let tail = value
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.'));
    if head && tail && value.len() <= NAME_MAX {
        return Ok(());
    }
    // Enough to recognise it; it may come from anyone.
    let value = value.chars().take(2 * NAME_MAX).collect();
    Err(BadName { what, value, max: NAME_MAX })
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// Checks and takes a name.
            pub fn new(value: impl Into<String>) -> Result<Self, BadName> {
                let value = value.into();
                check($what, &value)?;
                Ok(Self(value))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $type {
            type Error = BadName;
            fn try_from(value: String) -> Result<Self, BadName> {
                Self::new(value)
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> String {
                value.0
            }
        }

        impl std::str::FromStr for $type {
            type Err = BadName;
            fn from_str(value: &str) -> Result<Self, BadName> {
                Self::new(value)
            }
        }
    };
}

name!(
    /// A fleet: the NocoBase nodes that share one database and one storage.
    FleetId,
    "fleet"
);
name!(
    /// A node of a fleet, by its name. Which agent may speak for it is settled by its [`Incarnation`] lineage.
    NodeId,
    "node"
);
name!(
    /// An operation, named by the client that asks for it, so that asking twice is asking once.
    OperationId,
    "operation"
);

name!(
    /// A backup. It has the name of the operation that made it.
    BackupId,
    "backup"
);

macro_rules! number {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
        #[serde(transparent)]
        pub struct $type(pub u64);

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

number!(
    /// Number of an assignment, taken from the log index: a higher one replaces a lower one.
    Generation
);
number!(
    /// Fencing token: the log index at which the lock was taken. Rises with every holder.
    Token
);
number!(
    /// The right to install or upgrade a database, named by the log index that granted it. Spent when used.
    Right
);
number!(
    /// One run of an agent. Drawn at random at each start of the agent's process.
    Incarnation
);
number!(
    /// One request to run the app, drawn at random: a keeper executes only the launch that the ledger names.
    Launch
);

macro_rules! text {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
        #[serde(transparent)]
        pub struct $type(pub String);

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text!(
    /// The kernel's boot id of a host: changes with every boot.
    BootId
);
text!(
    /// The machine id of a host: stays over boots, differs between machines.
    MachineId
);
text!(
    /// A code version as NocoBase writes it, for example `2.2.15`.
    Version
);
