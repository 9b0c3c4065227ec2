//! Proving what an app has loaded, which no list tells: lists come from the database.
//!
//! A plugin that adds a route of its own is proven by that route: "404 Not Found" means that nobody serves it. For
//! a plugin without a known route the proof is weaker: the process started after the change was made, and the
//! database says that the plugin is enabled, so it was loaded at the start.

use std::collections::BTreeMap;

use soloist_core::assignment::Proof;

use super::api::{ApiClient, ApiError, Plugin};

/// Routes that exist only while their plugin is loaded, each tried on a real 2.2.15: enabled, disabled, and in a
/// fresh process. A plugin's collections are no proof: those of `departments` are served when it is disabled, too,
/// so its own action stands for it. A wrong entry would only ever make a proof impossible.
const KNOWN: [(&str, &str); 4] = [
    ("@nocobase/plugin-map", "map-configuration:get"),
    ("@nocobase/plugin-departments", "departments:aggregateSearch"),
    ("@nocobase/plugin-public-forms", "publicForms:list?pageSize=1"),
    ("@nocobase/plugin-localization", "localizationTexts:list?pageSize=1"),
];

/// Which route proves which plugin.
#[derive(Debug, Clone)]
pub struct Routes(BTreeMap<String, String>);

impl Default for Routes {
    fn default() -> Self {
        Self::with(std::iter::empty())
    }
}

/// Whether a plugin is loaded, as its route says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadedAnswer {
    /// Its route is served.
    Loaded,
    /// Its route is not there.
    NotLoaded,
    /// No route is known for it.
    NoRoute,
}

/// How a proof came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proven {
    /// The plugin's route answered.
    ByRoute,
    /// The app started after the change (or made it itself), and the database says so. Weaker: a plugin that
    /// quietly failed to load is not noticed.
    ByList,
}

impl Routes {
    /// The known routes and those of the configuration, which come first.
    pub fn with(configured: impl IntoIterator<Item = (String, String)>) -> Self {
        let known = KNOWN.iter().map(|(plugin, route)| ((*plugin).to_owned(), (*route).to_owned()));
        Self(known.chain(configured).collect())
    }

    /// Asks the app whether a plugin (by package name) is loaded.
    pub async fn loaded(&self, api: &ApiClient, package: &str) -> Result<LoadedAnswer, ApiError> {
        let Some(route) = self.0.get(package) else { return Ok(LoadedAnswer::NoRoute) };
        let answer = api.get(route).await?;
        match answer.status {
            404 => Ok(LoadedAnswer::NotLoaded),
            // The app as a whole is not there; that says nothing about the plugin.
            503 | 401 | 502 => {
                let message = answer.message();
                Err(ApiError::Status { what: route.clone(), status: answer.status, message })
            }
            _ => Ok(LoadedAnswer::Loaded),
        }
    }

    /// Brings a proof. `started_since` tells whether the app's process started after the change in question; where
    /// the proof demands that (`since`), nothing counts without it. The reason of an error is for people.
    pub async fn prove(&self, api: &ApiClient, proof: &Proof, started_since: bool) -> Result<Proven, String> {
        if proof.since.is_some() && !started_since {
            return Err("the app has not been restarted since the change".into());
        }
        let plugins = api.plugins().await.map_err(|error| error.to_string())?;
        let plugin = find(&plugins, &proof.plugin);
        let package = plugin.map_or(proof.plugin.as_str(), |plugin| plugin.package_name.as_str());
        let enabled = plugin.is_some_and(|plugin| plugin.enabled);
        if enabled != proof.loaded {
            let state = if enabled { "enabled" } else { "not enabled" };
            return Err(format!("the database says that {package} is {state}"));
        }
        match (self.loaded(api, package).await.map_err(|error| error.to_string())?, proof.loaded) {
            (LoadedAnswer::Loaded, true) | (LoadedAnswer::NotLoaded, false) => Ok(Proven::ByRoute),
            (LoadedAnswer::Loaded, false) => Err(format!("the app has still loaded {package}")),
            (LoadedAnswer::NotLoaded, true) => Err(format!("the app has not loaded {package}; restart it")),
            // It started after the change, or made the change itself, and its list says so.
            (LoadedAnswer::NoRoute, _) => Ok(Proven::ByList),
        }
    }
}

/// Prefixes that NocoBase puts before short plugin names.
const PREFIXES: [&str; 3] = ["@nocobase/plugin-", "@nocobase/preset-", "@nocobase/plugin-sample-"];

/// The plugin with this package name or short name.
pub(crate) fn find<'a>(plugins: &'a [Plugin], name: &str) -> Option<&'a Plugin> {
    let exact = plugins.iter().find(|plugin| plugin.package_name == name);
    exact.or_else(|| plugins.iter().find(|plugin| short(plugin) == Some(name)))
}

/// A plugin's short name.
pub(crate) fn short(plugin: &Plugin) -> Option<&str> {
    let stripped = || PREFIXES.iter().find_map(|prefix| plugin.package_name.strip_prefix(prefix));
    plugin.name.as_deref().or_else(stripped)
}
