//! NocoBase's own program that fetches commercial plugins.

use std::path::Path;

use super::NocoBaseProfile;
use crate::host::Marker;
use crate::profile::CommercialFetch;

/// Where it is; older releases have it in the package `cli`.
const PROGRAMS: [&str; 2] =
    ["node_modules/@nocobase/cli-v1/bin/index.js", "node_modules/@nocobase/cli/bin/index.js"];
/// Where plugins come from if the settings say nothing.
const SERVER: &str = "https://pkg.nocobase.com/";

impl NocoBaseProfile {
    /// What fetches the commercial plugins that fit the current code; the reason of an error is for people.
    pub(in crate::profile) async fn commercial(&self) -> Result<CommercialFetch, String> {
        let environment = self.computed(false).await.map_err(|error| error.to_string())?;
        let get = |key: &str| environment.get(key).to_owned();
        let key = Path::new(&get("STORAGE_PATH")).join(".license/license-key");
        let named = !get("NOCOBASE_PKG_USERNAME").is_empty() && !get("NOCOBASE_PKG_PASSWORD").is_empty();
        if !named && !self.storage.exists(key.clone()).await.map_err(|error| error.to_string())? {
            return Err(format!(
                "there is no licence to fetch commercial plugins with: neither {} nor NOCOBASE_PKG_USERNAME and \
                 NOCOBASE_PKG_PASSWORD; or set commercial_plugins = false in the fleet's policy",
                key.display()
            ));
        }
        let folder = environment.folder.display().to_string();
        let mut program = None;
        for name in PROGRAMS {
            if self.code.exists(environment.folder.join(name)).await.unwrap_or(false) {
                program = Some(name.to_owned());
                break;
            }
        }
        let program = program.ok_or_else(|| format!("{folder} has no {}", PROGRAMS[0]))?;
        let node = self.node_program().map_err(|error| error.to_string())?;
        // It looks for everything below the folder that it runs in.
        let argv = ["env", "-C", &folder, &node, &program, "pkg", "download-pro"];
        let mut env = environment.vars.clone();
        // What stands in the environment wins over the settings.
        env.insert("DISABLE_PKG_DOWNLOAD".into(), "false".into());
        // It is not the app, and its session in the database is the agent's.
        env.remove(Marker::VARIABLE);
        env.insert("PGAPPNAME".into(), self.pgappname("soloist-agent"));
        let server = Some(get("NOCOBASE_PKG_URL")).filter(|url| !url.is_empty());
        let server = server.unwrap_or_else(|| SERVER.into());
        Ok(CommercialFetch { argv: argv.map(str::to_owned).into(), env, server })
    }
}
