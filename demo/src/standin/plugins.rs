//! The stand-in's plugins, with names and routes of real ones.

use std::collections::BTreeMap;

use super::database::PluginRow;

/// One plugin as it lies on the disk, enabled or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plugin {
    /// The short name; the package is `@nocobase/plugin-NAME`.
    pub(super) name: &'static str,
    /// Whether an install enables it.
    pub(super) preset: bool,
    /// A resource of its own, served only by a process that has loaded the plugin.
    pub(super) resource: Option<&'static str>,
}

const fn preset(name: &'static str) -> Plugin {
    Plugin { name, preset: true, resource: None }
}

const fn extra(name: &'static str, resource: &'static str) -> Plugin {
    Plugin { name, preset: false, resource: Some(resource) }
}

/// All plugins on the disk.
pub(super) const PLUGINS: &[Plugin] = &[
    preset("acl"),
    preset("auth"),
    preset("backups"),
    preset("client"),
    preset("data-source-manager"),
    preset("error-handler"),
    preset("file-manager"),
    preset("logger"),
    preset("system-settings"),
    preset("ui-schema-storage"),
    preset("users"),
    preset("workflow"),
    extra("custom-variables", "customVariables"),
    extra("departments", "departments"),
    extra("graph-collection-manager", "graphPositions"),
    extra("localization", "localizationTexts"),
    extra("map", "map-configuration"),
    extra("public-forms", "publicForms"),
];

/// Finds a plugin by its short name or its package name: NocoBase takes both.
pub(super) fn find(name: &str) -> Option<Plugin> {
    let short = name.strip_prefix("@nocobase/plugin-").unwrap_or(name);
    PLUGINS.iter().copied().find(|plugin| plugin.name == short)
}

/// Finds the plugin that a resource belongs to.
pub(super) fn of_resource(resource: &str) -> Option<Plugin> {
    PLUGINS.iter().copied().find(|plugin| plugin.resource == Some(resource))
}

impl Plugin {
    pub(super) fn package_name(&self) -> String {
        format!("@nocobase/plugin-{}", self.name)
    }
}

/// The rows of a fresh install.
pub(super) fn preset_rows() -> BTreeMap<String, PluginRow> {
    PLUGINS
        .iter()
        .filter(|plugin| plugin.preset)
        .map(|plugin| {
            (plugin.name.to_owned(), PluginRow { package_name: plugin.package_name(), enabled: true })
        })
        .collect()
}
