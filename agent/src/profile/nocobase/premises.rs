//! What preflight looks at on a NocoBase node.

use std::collections::BTreeSet;

use super::settings::find_setting;
use super::{NocoBaseProfile, PACKAGE_MAX, database};
use crate::profile::command::base_env;
use crate::profile::{Launcher, Premises, Survey};

impl NocoBaseProfile {
    pub(in crate::profile) async fn premises(&self) -> Premises {
        let environment = self.computed(false).await.map(|environment| environment.vars);
        // Without it the environment could not be computed, which is told.
        let text = self.code.read(self.settings_file(), PACKAGE_MAX).await.unwrap_or_default();
        let own = &self.config.env;
        let stands = |key: &String| own.contains_key(key) || find_setting(&text, key).is_some();
        let set: BTreeSet<String> =
            environment.iter().flat_map(|vars| vars.keys()).filter(|key| stands(key)).cloned().collect();
        let off = find_setting(&text, "DISABLE_PKG_DOWNLOAD").map(|setting| setting.value);
        let off = own.get("DISABLE_PKG_DOWNLOAD").cloned().or(off);
        let launcher = Launcher {
            environment: environment.map_err(|error| error.to_string()),
            set,
            downloads: off.is_none_or(|off| off != "true"),
            node: self.node_program().map_err(|error| error.to_string()),
            path: own.get("PATH").cloned().or_else(|| base_env().remove("PATH")).unwrap_or_default(),
        };
        Premises { app_folder: self.config.app_folder.clone(), launcher: Some(launcher) }
    }

    pub(in crate::profile) async fn survey(&self) -> Option<Result<Survey, String>> {
        // Without settings nothing can be asked; that they are missing is told by itself.
        let environment = self.computed(false).await.ok()?;
        Some(database::survey(&environment, &self.pgappname("soloist-agent")).await)
    }
}
