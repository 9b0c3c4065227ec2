//! Asking the app: its HTTP API, its health, whether it serves, and what it has loaded.

mod api;
mod credential;
mod health;
mod proof;
mod serving;

pub(crate) use api::encode;
pub use api::{Answer, ApiClient, ApiError, Plugin};
pub use credential::{Credential, CredentialError, Secret};
pub use health::Health;
pub(crate) use health::shorten;
pub use proof::{Loaded, Proofs};
pub(crate) use proof::{find as find_plugin, short as short_name, unprovable};
pub use serving::{FAILED_AFTER, Prober, Verdict};
