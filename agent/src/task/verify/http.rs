//! A check's request to the node's own app.

use std::time::Duration;

use reqwest::header::HeaderName;
use soloist_core::check::Expected;

use crate::probe::shorten;

/// How long connecting may take; the rest has the check's own time.
const CONNECT: Duration = Duration::from_secs(3);
/// Largest answer in which something is looked for, in bytes.
const BODY_MAX: usize = 4 * 1024 * 1024;

/// Asks one app.
pub(super) struct Asker {
    origin: String,
    http: reqwest::Client,
}

impl Asker {
    /// For the app at `origin`, for example `http://127.0.0.1:13000`. Never through a proxy, and no redirection is followed: its
    /// status is the answer.
    pub(super) fn new(origin: &str) -> Result<Self, String> {
        let builder = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
        let http = builder.connect_timeout(CONNECT).pool_max_idle_per_host(0).build();
        Ok(Self { origin: origin.to_owned(), http: http.map_err(|error| error.to_string())? })
    }

    /// Asks once; the reason of an error says what was expected and what was found.
    pub(super) async fn ask(
        &self,
        path: &str,
        status: u16,
        header: Option<&Expected>,
        json: Option<&Expected>,
    ) -> Result<(), String> {
        let url = format!("{}{path}", self.origin);
        let broken = |error: reqwest::Error| {
            let what = if error.is_connect() { "the app does not listen" } else { "the answer broke off" };
            format!("GET {url}: {what}")
        };
        let mut response = self.http.get(&url).send().await.map_err(broken)?;
        let found = response.status().as_u16();
        let headers = response.headers().clone();
        let mut body = Vec::new();
        if found != status || json.is_some() {
            while let Some(chunk) = response.chunk().await.map_err(broken)? {
                if body.len() + chunk.len() > BODY_MAX {
                    return Err(format!("GET {url}: the answer has more than {BODY_MAX} bytes"));
                }
                body.extend_from_slice(&chunk);
            }
        }
        if found != status {
            let said = shorten(&String::from_utf8_lossy(&body));
            let said = if said.is_empty() { said } else { format!(" ({said})") };
            return Err(format!("GET {url}: expected status {status}, found {found}{said}"));
        }
        if let Some(Expected { at, is }) = header {
            let name = HeaderName::from_bytes(at.as_bytes()).map_err(|_| format!("\"{at}\" is no header"))?;
            let values = headers.get_all(name);
            if !values.iter().any(|value| value.as_bytes() == is.as_bytes()) {
                let found =
                    values.iter().next().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
                return Err(format!(
                    "GET {url}: expected \"{is}\" in the header {at}, found {}",
                    shown(found)
                ));
            }
        }
        if let Some(Expected { at, is }) = json {
            let parsed = serde_json::from_slice::<serde_json::Value>(&body);
            let parsed =
                parsed.map_err(|_| format!("GET {url}: expected \"{is}\" at {at}, found no JSON"))?;
            let found = parsed.pointer(at).map(|value| match value {
                serde_json::Value::String(text) => text.clone(),
                other => other.to_string(),
            });
            if found.as_deref() != Some(is) {
                return Err(format!("GET {url}: expected \"{is}\" at {at}, found {}", shown(found)));
            }
        }
        Ok(())
    }
}

fn shown(found: Option<String>) -> String {
    found.map_or_else(|| "nothing".to_owned(), |found| format!("\"{}\"", shorten(&found)))
}
