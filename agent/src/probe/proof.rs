//! Proving what an app has loaded, which no list tells: lists come from the database.
//!
//! Two things of an app's process change with what it has loaded, and one of them is asked for each plugin:
//!
//! | what | loaded | not loaded | known for |
//! |---|---|---|---|
//! | a route of the plugin | any other answer | "404 Not Found" | [`KNOWN`] and the configuration; it comes first |
//! | the plugin among the texts of `app:getLang` | it is there | it is not | every plugin of NocoBase |
//!
//! The texts are put together from the plugins that the process has in its memory, not from the database, and have an entry
//! for each, also for one without any text: with 2.2.15 they were right for all 98 plugins, on a node that enabled or
//! disabled one and on another that had not been restarted since. (One exception: with `plugin-localization`, texts that were
//! translated by hand can outlive a plugin of another vendor; then a route in the configuration decides.) An app that tells
//! neither is not changed at all, because nothing could tell how it ended.

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

/// What can prove which plugins an app has loaded.
#[derive(Debug, Clone)]
pub struct Proofs {
    routes: BTreeMap<String, String>,
    /// Whether the app's texts tell.
    texts: bool,
}

/// Whether a plugin is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loaded {
    /// The process has it.
    Yes,
    /// The process does not have it.
    No,
    /// Some of the app's processes have it.
    Partly,
    /// Nothing is known by which to tell.
    Unknown,
}

impl Proofs {
    /// The known routes and those of the configuration, which come first; and texts, where the app is known to have an entry for
    /// each plugin.
    pub fn new(configured: impl IntoIterator<Item = (String, String)>, texts: bool) -> Self {
        let known = KNOWN.iter().map(|(plugin, route)| ((*plugin).to_owned(), (*route).to_owned()));
        Self { routes: known.chain(configured).collect(), texts }
    }

    /// Asks the app, each of its processes, whether it has loaded a plugin (by package name).
    ///
    /// # Errors
    /// When the app does not answer properly, which says nothing about the plugin.
    pub async fn loaded(&self, api: &ApiClient, package: &str) -> Result<Loaded, ApiError> {
        let first = self.ask(api, package).await?;
        for _ in 1..api.times() {
            if self.ask(api, package).await? != first {
                return Ok(Loaded::Partly);
            }
        }
        Ok(first)
    }

    async fn ask(&self, api: &ApiClient, package: &str) -> Result<Loaded, ApiError> {
        match self.routes.get(package) {
            Some(route) => by_route(api, route).await,
            None if self.texts => by_texts(api, package).await,
            None => Ok(Loaded::Unknown),
        }
    }

    /// Whether the app has loaded a plugin, or has not, as `wanted`; the reason of an error is for people.
    ///
    /// # Errors
    /// When it is not so, or cannot be told.
    pub async fn require(&self, api: &ApiClient, package: &str, wanted: bool) -> Result<(), String> {
        match (self.loaded(api, package).await.map_err(|error| error.to_string())?, wanted) {
            (Loaded::Yes, true) | (Loaded::No, false) => Ok(()),
            (Loaded::Partly, _) => {
                Err(format!("only some of the app's processes have loaded {package}; restart it"))
            }
            (Loaded::Yes, false) => Err(format!("the app has still loaded {package}")),
            (Loaded::No, true) => Err(format!("the app has not loaded {package}; restart it")),
            (Loaded::Unknown, _) => Err(unprovable(package)),
        }
    }

    /// Brings a proof. `started_since` tells whether the app's process started after the change in question; where
    /// the proof demands that (`since`), nothing counts without it.
    ///
    /// # Errors
    /// Why it is not proven, for people.
    pub async fn prove(&self, api: &ApiClient, proof: &Proof, started_since: bool) -> Result<(), String> {
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
        self.require(api, package, proof.loaded).await
    }
}

/// Why nothing is done about a plugin, and what to do about that.
pub(crate) fn unprovable(package: &str) -> String {
    format!(
        "nothing here can tell whether the app has loaded {package}: the app does not tell, and it has no known route; \
         name a route that only this plugin serves under plugin_routes in each node's agent configuration"
    )
}

async fn by_route(api: &ApiClient, route: &str) -> Result<Loaded, ApiError> {
    let answer = api.get(route).await?;
    match answer.status {
        404 => Ok(Loaded::No),
        // The app as a whole is not there; that says nothing about the plugin.
        503 | 401 | 502 => {
            let message = answer.message();
            Err(ApiError::Status { what: route.to_owned(), status: answer.status, message })
        }
        _ => Ok(Loaded::Yes),
    }
}

async fn by_texts(api: &ApiClient, package: &str) -> Result<Loaded, ApiError> {
    Ok(match api.loaded().await? {
        Some(loaded) if loaded.contains(package) => Loaded::Yes,
        Some(_) => Loaded::No,
        None => Loaded::Unknown,
    })
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
