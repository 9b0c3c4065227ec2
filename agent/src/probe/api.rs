//! NocoBase's HTTP API, as far as the agent needs it. The stand-in app of the demo speaks the same.
//!
//! Every request has a deadline and every answer a bound. Requests go to the node itself, never through a proxy.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;

use super::credential::{Credential, CredentialError, Secret};
use super::health::{Health, shorten};

/// Deadline of an ordinary request.
const DEADLINE: Duration = Duration::from_secs(3);
/// How often each of an app's processes is asked: they share one port, and nothing says which one answers.
const ASKED_EACH: u32 = 5;
/// Largest answer that is read in bytes; the list of plugins has about 40 kB.
const BODY_MAX: usize = 4 * 1024 * 1024;

/// A request did not get a usable answer.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Nobody listens.
    #[error("the app does not listen at {0}")]
    Refused(String),
    /// No answer in time.
    #[error("the app did not answer {what} within {} s", deadline.as_secs())]
    Late {
        /// The request.
        what: String,
        /// How long it was waited.
        deadline: Duration,
    },
    /// It broke in the middle.
    #[error("{what} broke off: {why}")]
    Broken {
        /// The request.
        what: String,
        /// What happened.
        why: String,
    },
    /// The app says no.
    #[error("the app answered {what} with {status}: {message}")]
    Status {
        /// The request.
        what: String,
        /// HTTP status.
        status: u16,
        /// The app's own words.
        message: String,
    },
    /// The request needs a credential that is not configured.
    #[error("{what} needs an API credential; give the agent one in its configuration")]
    NoCredential {
        /// The request.
        what: String,
    },
    /// The credential cannot be used.
    #[error(transparent)]
    Credential(#[from] CredentialError),
}

impl ApiError {
    /// Whether the request may have reached the app and have an effect.
    pub fn may_have_effect(&self) -> bool {
        match self {
            ApiError::Refused(_) | ApiError::NoCredential { .. } | ApiError::Credential(_) => false,
            ApiError::Late { .. } | ApiError::Broken { .. } | ApiError::Status { .. } => true,
        }
    }
}

/// An answer with any status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The app's own words about an error: NocoBase answers with a list of errors or with one.
    pub fn message(&self) -> String {
        let json: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let found = ["/errors/0/message", "/error/message"].iter().find_map(|at| json.pointer(at)?.as_str());
        shorten(found.unwrap_or(&String::from_utf8_lossy(&self.body)))
    }
}

/// A plugin as `pm:list` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plugin {
    /// Package name.
    pub package_name: String,
    /// Short name, where the app tells it.
    #[serde(default)]
    pub name: Option<String>,
    /// Whether the database says that it is enabled.
    #[serde(default)]
    pub enabled: bool,
}

/// A value as it may stand in a query.
pub(crate) fn encode(value: &str) -> String {
    use std::fmt::Write;
    let mut out = String::new();
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-') {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[derive(Deserialize)]
struct Data<T> {
    data: T,
}

/// A client for one app. Clones share the sign-in.
#[derive(Debug, Clone)]
pub struct ApiClient {
    base: String,
    http: reqwest::Client,
    credential: Option<PathBuf>,
    token: Arc<Mutex<Option<Secret>>>,
    times: u32,
}

impl ApiClient {
    /// A client for the API at `base`, for example `http://127.0.0.1:13000/api/`. The credential file is read when
    /// it is needed, so a changed password is found.
    pub fn new(base: &str, credential: Option<PathBuf>) -> Result<Self, ApiError> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(DEADLINE)
            // The app closes connections when it restarts; the next request must not fail for it.
            .pool_max_idle_per_host(0)
            .build()
            .map_err(|error| ApiError::Broken { what: "HTTP client".into(), why: error.to_string() })?;
        Ok(Self {
            base: format!("{}/", base.trim_end_matches('/')),
            http,
            credential,
            token: Arc::default(),
            times: 1,
        })
    }

    /// The same client, for an app that runs in so many processes.
    pub fn of_processes(self, processes: u32) -> Self {
        let times = if processes > 1 { processes.saturating_mul(ASKED_EACH) } else { 1 };
        Self { times, ..self }
    }

    /// How often something must be asked until each of the app's processes has answered. Each request has a connection of its own,
    /// and new connections go to the processes in turn.
    pub(crate) fn times(&self) -> u32 {
        self.times
    }

    /// The address of the API, ending with a slash.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Whether a credential is configured.
    pub fn has_credential(&self) -> bool {
        self.credential.is_some()
    }

    /// Asks for the app's health.
    pub async fn health(&self) -> Health {
        match self.get_public("__health_check").await {
            Ok(answer) => Health::parse(answer.status, &answer.body),
            Err(ApiError::Refused(_)) => Health::Refused,
            // A connection that breaks says nothing about the app's work.
            Err(_) => Health::Silent,
        }
    }

    /// Version that stands in the app's database. The request reaches the database.
    pub async fn database_version(&self) -> Result<String, ApiError> {
        #[derive(Deserialize)]
        struct Info {
            version: String,
        }
        let what = "app:getInfo";
        let answer = self.get_public(what).await?;
        Ok(data::<Info>(what, answer)?.version)
    }

    /// All plugins that are on the node's disk.
    pub async fn plugins(&self) -> Result<Vec<Plugin>, ApiError> {
        let what = "pm:list";
        let answer = self.call("pm:list?mode=summary", false, DEADLINE).await?;
        data(what, answer)
    }

    /// Package names of the plugins that the running process has loaded; `None` for an app that does not tell.
    ///
    /// It is the keys of its texts: NocoBase has an entry for each plugin in its memory, also for one without any text. The
    /// request reaches the database.
    pub async fn loaded(&self) -> Result<Option<BTreeSet<String>>, ApiError> {
        #[derive(Deserialize)]
        struct Lang {
            resources: BTreeMap<String, serde::de::IgnoredAny>,
        }
        let what = "app:getLang";
        let answer = self.get_public(&format!("{what}?locale=en-US")).await?;
        if answer.status == 404 {
            return Ok(None);
        }
        let packages = data::<Lang>(what, answer)?.resources.into_keys();
        // Names without a scope are those of other texts.
        Ok(Some(packages.filter(|name| name.contains('/')).collect()))
    }

    /// Package names of the plugins that the database says are enabled; `None` for an app that does not tell. NocoBase leaves
    /// out those that users' browsers need nothing of.
    pub async fn enabled(&self) -> Result<Option<BTreeSet<String>>, ApiError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Row {
            package_name: String,
        }
        let what = "pm:listEnabled";
        let answer = self.get_public(what).await?;
        if answer.status == 404 {
            return Ok(None);
        }
        Ok(Some(data::<Vec<Row>>(what, answer)?.into_iter().map(|row| row.package_name).collect()))
    }

    /// A request without credential.
    pub async fn get_public(&self, path: &str) -> Result<Answer, ApiError> {
        self.send(self.http.get(self.url(path)), path, DEADLINE).await
    }

    /// Asks the base address itself, without credential; for apps that are known by single addresses.
    pub async fn get_exact(&self) -> Result<Answer, ApiError> {
        let url = self.base.trim_end_matches('/');
        self.send(self.http.get(url), url, DEADLINE).await
    }

    /// A request with credential; any status is an answer.
    pub async fn get(&self, path: &str) -> Result<Answer, ApiError> {
        self.call(path, false, DEADLINE).await
    }

    /// A changing request with credential and a deadline of its own; a status other than 200 is an error.
    pub async fn post(&self, path: &str, deadline: Duration) -> Result<Answer, ApiError> {
        let answer = self.call(path, true, deadline).await?;
        if answer.status == 200 { Ok(answer) } else { Err(status(path, &answer)) }
    }

    async fn call(&self, path: &str, post: bool, deadline: Duration) -> Result<Answer, ApiError> {
        for fresh in [false, true] {
            let token = self.token(path, fresh).await?;
            let url = self.url(path);
            let request = if post { self.http.post(url) } else { self.http.get(url) };
            let answer = self.send(request.bearer_auth(token.expose()), path, deadline).await?;
            if answer.status != 401 || fresh {
                return Ok(answer);
            }
        }
        unreachable!("the second round returns")
    }

    /// The token in use; `fresh` replaces it.
    async fn token(&self, what: &str, fresh: bool) -> Result<Secret, ApiError> {
        let mut cached = self.token.lock().await;
        if let Some(token) = cached.as_ref().filter(|_| !fresh) {
            return Ok(token.clone());
        }
        let path =
            self.credential.as_ref().ok_or_else(|| ApiError::NoCredential { what: path_only(what) })?;
        let token = match Credential::read(path)? {
            Credential::Token(token) => token,
            Credential::Password { account, password } => self.sign_in(&account, &password).await?,
        };
        *cached = Some(token.clone());
        Ok(token)
    }

    async fn sign_in(&self, account: &str, password: &Secret) -> Result<Secret, ApiError> {
        #[derive(Deserialize)]
        struct SignedIn {
            token: Secret,
        }
        let what = "auth:signIn";
        let body = serde_json::json!({ "account": account, "password": password.expose() });
        let request = self.http.post(self.url(what)).header("X-Authenticator", "basic").json(&body);
        let answer = self.send(request, what, DEADLINE).await?;
        Ok(data::<SignedIn>(what, answer)?.token)
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    async fn send(
        &self,
        request: reqwest::RequestBuilder,
        path: &str,
        deadline: Duration,
    ) -> Result<Answer, ApiError> {
        let what = path_only(path);
        // Errors of the HTTP library name the address, which holds no secret; the token is in a header.
        let error = |error: reqwest::Error| {
            if error.is_timeout() {
                ApiError::Late { what: what.clone(), deadline }
            } else if error.is_connect() {
                ApiError::Refused(self.base.clone())
            } else {
                ApiError::Broken { what: what.clone(), why: chain(&error) }
            }
        };
        let mut response = request.timeout(deadline).send().await.map_err(error)?;
        let status = response.status().as_u16();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(error)? {
            if body.len() + chunk.len() > BODY_MAX {
                return Err(ApiError::Broken {
                    what,
                    why: format!("the answer has more than {BODY_MAX} bytes"),
                });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status, body })
    }
}

fn data<T: DeserializeOwned>(what: &str, answer: Answer) -> Result<T, ApiError> {
    if answer.status != 200 {
        return Err(status(what, &answer));
    }
    let parsed: Result<Data<T>, _> = serde_json::from_slice(&answer.body);
    // The reason of a parse error can quote the answer, which may hold a token.
    parsed.map(|found| found.data).map_err(|_| ApiError::Broken {
        what: what.to_owned(),
        why: "the answer is not what NocoBase gives".into(),
    })
}

fn status(path: &str, answer: &Answer) -> ApiError {
    ApiError::Status { what: path_only(path), status: answer.status, message: answer.message() }
}

fn path_only(path: &str) -> String {
    path.split('?').next().unwrap_or(path).to_owned()
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    shorten(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        assert_eq!(encode("@nocobase/plugin-map"), "%40nocobase%2Fplugin-map");
    }
}
