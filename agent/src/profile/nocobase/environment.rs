//! The environment that NocoBase's own launcher would give the app.
//!
//! It is computed by NocoBase's own code in a short-lived `node`: which variables there are, and what they default
//! to, differs between releases. That code also writes: it creates the folders of socket and pm2, and refreshes
//! the index page of the client. It does not touch the database.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use super::settings::find_setting;
use super::{NocoBaseProfile, PACKAGE_MAX, ProfileError};
use crate::probe::ApiClient;
use crate::profile::command::{base_env, output};

/// How long NocoBase's code may take; it takes half a second on an idle host.
const DEADLINE: Duration = Duration::from_secs(30);
/// How long a failure is believed before it is tried again.
const FAILURE_KEPT: Duration = Duration::from_secs(10);
/// What encloses the answer: the code and the libraries that it loads may print, too.
const BEGIN: &str = "<<soloist-environment ";
const END: &str = " soloist-environment>>";

/// Runs in the app folder. Older releases have the same functions in the package `cli`.
const SCRIPT: &str = r#"
const path = require("path"), fs = require("fs");
const file = ["cli-v1", "cli"].map((name) => path.resolve("node_modules/@nocobase", name, "src/util.js")).find(fs.existsSync);
if (!file) throw new Error("node_modules/@nocobase/cli-v1/src/util.js does not exist");
const util = require(file);
util.initEnv();
util.generateAppDir();
process.stdout.write("\n<<soloist-environment " + JSON.stringify(process.env) + " soloist-environment>>\n");
"#;

/// A computed environment and what follows from it.
#[derive(Clone)]
pub(super) struct Environment {
    pub(super) vars: BTreeMap<String, String>,
    pub(super) api: ApiClient,
    /// In how many processes the app runs when it is started plainly.
    pub(super) processes: u32,
    /// The app's folder as it really is: where links lead may change while the app runs.
    pub(super) folder: PathBuf,
}

impl Environment {
    /// With the app's API, which follows from the variables.
    pub(super) fn of(
        vars: BTreeMap<String, String>,
        folder: PathBuf,
        credential: Option<PathBuf>,
    ) -> Result<Self, ProfileError> {
        let api = ApiClient::new(&api_base(&vars), credential)?;
        Ok(Self { vars, api, processes: 1, folder })
    }

    /// A variable's value, empty if it is not set.
    pub(super) fn get(&self, key: &str) -> &str {
        self.vars.get(key).map_or("", String::as_str)
    }
}

impl std::fmt::Debug for Environment {
    // Passwords are among the values.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Environment").field("api", &self.api.base()).finish_non_exhaustive()
    }
}

/// What the environment depends on, as it was: where the app's folder really is, and the files with settings and version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Stamp {
    folder: Option<PathBuf>,
    files: [Option<(u64, SystemTime)>; 2],
}

/// The last result, good while the files stay the same.
#[derive(Debug, Default)]
pub(super) struct Cache {
    stamp: Stamp,
    result: Option<Result<Environment, String>>,
    at: Option<Instant>,
}

impl NocoBaseProfile {
    /// The environment; computed anew if `fresh`, or if `.env`, the code or its folder are others.
    pub(super) async fn computed(&self, fresh: bool) -> Result<Environment, ProfileError> {
        let mut cache = self.cache.lock().await;
        let stamp = self.stamp().await;
        let recent = cache.at.is_some_and(|at| at.elapsed() < FAILURE_KEPT);
        match &cache.result {
            Some(Ok(environment)) if !fresh && cache.stamp == stamp => return Ok(environment.clone()),
            Some(Err(why)) if !fresh && cache.stamp == stamp && recent => {
                return Err(ProfileError::Refused(why.clone()));
            }
            _ => {}
        }
        let folder = stamp.folder.clone().unwrap_or_else(|| self.config.app_folder.clone());
        let result = self.compute(folder).await;
        let kept = result.as_ref().map(Clone::clone).map_err(ToString::to_string);
        *cache = Cache { stamp, result: Some(kept), at: Some(Instant::now()) };
        result
    }

    async fn stamp(&self) -> Stamp {
        let settings = self.settings_file();
        let look = move |folder: PathBuf| {
            let of = |path: &Path| {
                let meta = std::fs::metadata(path).ok()?;
                Some((meta.len(), meta.modified().ok()?))
            };
            let folder = folder.canonicalize()?;
            let code = folder.join("node_modules/@nocobase/server/package.json");
            Ok(Stamp { files: [of(&settings), of(&code)], folder: Some(folder) })
        };
        // What cannot be looked at is told by whoever reads it.
        self.code.call(self.config.app_folder.clone(), look).await.unwrap_or_default()
    }

    /// The file with the app's settings.
    pub(super) fn settings_file(&self) -> PathBuf {
        let named = || PathBuf::from(self.config.env.get("APP_ENV_PATH").map_or(".env", String::as_str));
        self.config.app_folder.join(self.config.env_file.clone().unwrap_or_else(named))
    }

    async fn compute(&self, folder: PathBuf) -> Result<Environment, ProfileError> {
        let file = self.settings_file();
        let settings = self.code.read(file.clone(), PACKAGE_MAX).await.map_err(|error| {
            ProfileError::Refused(format!("the app's settings {} cannot be read: {error}", file.display()))
        })?;
        let own = self.own_vars()?;
        let mut env = base_env();
        if find_setting(&settings, "TZ").is_some() {
            // What stands in the environment would win over the app's own settings.
            env.remove("TZ");
        }
        env.extend(self.config.env.clone());
        if self.config.env_file.is_some() {
            // NocoBase's own code reads the file, too: in its launcher, and again in each command.
            env.insert("APP_ENV_PATH".into(), file.display().to_string());
        }
        env.extend(own.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        let argv = [self.node_program()?, "-e".into(), SCRIPT.into()];
        // The helper is not the app: it must not carry the node's marker.
        let mut helper = env.clone();
        helper.remove(crate::host::Marker::VARIABLE);
        let text = output("computing the app's environment", &argv, &helper, &folder, DEADLINE).await?;
        let mut vars = parse(&text).ok_or_else(|| ProfileError::Helper {
            what: "computing the app's environment",
            why: "NocoBase's launcher code gave none".into(),
        })?;
        vars.extend(own.map(|(key, value)| (key.to_owned(), value)));
        let processes = self.processes(&vars, &settings, &file)?;
        let environment = Environment::of(vars, folder, self.config.credential.clone())?;
        Ok(Environment { processes, ..environment })
    }
}

fn parse(text: &str) -> Option<BTreeMap<String, String>> {
    let (_, rest) = text.rsplit_once(BEGIN)?;
    let (json, _) = rest.split_once(END)?;
    serde_json::from_str(json).ok()
}

/// Where the node's own API listens.
fn api_base(vars: &BTreeMap<String, String>) -> String {
    let get = |key: &str, default: &str| {
        vars.get(key).map(String::as_str).filter(|value| !value.is_empty()).unwrap_or(default).to_owned()
    };
    let host = match get("APP_HOST", "127.0.0.1").as_str() {
        "0.0.0.0" | "::" | "localhost" => "127.0.0.1".to_owned(),
        v6 if v6.contains(':') && !v6.starts_with('[') => format!("[{v6}]"),
        other => other.to_owned(),
    };
    format!(
        "http://{host}:{}/{}",
        get("APP_PORT", "13000"),
        get("API_BASE_PATH", "/api/").trim_start_matches('/')
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vars(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_answer_is_found_between_other_output() {
        let text = format!("tip: something\n{BEGIN}{{\"A\":\"1\"}}{END}\nbye\n");
        assert_eq!(parse(&text), Some(vars(&[("A", "1")])));
        assert_eq!(parse("nothing"), None);
    }

    #[test]
    fn addresses() {
        assert_eq!(api_base(&vars(&[])), "http://127.0.0.1:13000/api/");
        let other = vars(&[("APP_HOST", "10.0.0.5"), ("APP_PORT", "80"), ("API_BASE_PATH", "/noco/api/")]);
        assert_eq!(api_base(&other), "http://10.0.0.5:80/noco/api/");
        assert_eq!(api_base(&vars(&[("APP_HOST", "::")])), "http://127.0.0.1:13000/api/");
    }
}
