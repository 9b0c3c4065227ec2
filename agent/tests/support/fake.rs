//! An imitation of NocoBase's API: what the agent reads of it, and switches for what goes wrong.

#![allow(dead_code, reason = "each test program uses a part")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use serde_json::{Value, json};
use soloist_agent::probe::{ApiClient, Proofs};

/// What the imitation is like now.
pub(crate) struct App {
    pub(crate) version: String,
    /// Code and message of the health answer; `None` is healthy.
    pub(crate) health: Option<(String, String)>,
    pub(crate) database_up: bool,
    /// Package name to enabled.
    pub(crate) plugins: BTreeMap<String, bool>,
    /// Packages whose routes are served.
    pub(crate) loaded: Vec<String>,
    /// The token that is valid now.
    pub(crate) token: String,
    pub(crate) sign_ins: u32,
    pub(crate) commands: u32,
    /// How a command behaves.
    pub(crate) mode: Mode,
    /// Health and loaded packages of a second process, which answers every other request.
    pub(crate) other: Option<Process>,
    turn: bool,
}

/// What only a process knows: its health and what it has loaded.
pub(crate) type Process = (Option<(String, String)>, Vec<String>);

impl App {
    /// The process that answers next.
    fn next(&mut self) -> Process {
        self.turn = !self.turn;
        match &self.other {
            Some(other) if self.turn => other.clone(),
            _ => (self.health.clone(), self.loaded.clone()),
        }
    }
}

/// How `pm:enable` and `pm:disable` behave.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// They work.
    Works,
    /// They fail and change nothing.
    Fails,
    /// They take this long and work in the end, whoever still waits.
    Slow(Duration),
    /// The database says yes, the routes do not.
    Unloaded,
}

type Shared = Arc<Mutex<App>>;

/// A running imitation.
pub(crate) struct Fake {
    pub(crate) app: Shared,
    pub(crate) base: String,
    temp: tempfile::TempDir,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) const MAP: &str = "@nocobase/plugin-map";
/// A plugin without a route of its own.
pub(crate) const EMBED: &str = "@nocobase/plugin-embed";

impl Fake {
    pub(crate) async fn start() -> Self {
        let app = App {
            version: "2.2.15".into(),
            health: None,
            database_up: true,
            plugins: [MAP, EMBED].map(|name| (name.to_owned(), false)).into(),
            loaded: Vec::new(),
            token: "first".into(),
            sign_ins: 0,
            commands: 0,
            mode: Mode::Works,
            other: None,
            turn: false,
        };
        let app: Shared = Arc::new(Mutex::new(app));
        let router = Router::new().route("/api/{route}", any(serve)).with_state(Arc::clone(&app));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}/api/", listener.local_addr().unwrap());
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { app, base, temp: tempfile::tempdir().unwrap(), task }
    }

    pub(crate) fn set(&self, change: impl FnOnce(&mut App)) {
        change(&mut self.app.lock().unwrap());
    }

    /// What proves plugins: their routes, and what is loaded.
    pub(crate) fn proofs(&self) -> Proofs {
        Proofs::new([], true)
    }

    /// A client that signs in with account and password.
    pub(crate) fn client(&self) -> ApiClient {
        ApiClient::new(&self.base, Some(self.credential())).unwrap()
    }

    /// A file with account and password.
    pub(crate) fn credential(&self) -> std::path::PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = self.temp.path().join("credential");
        std::fs::write(&path, "account = \"root\"\npassword = \"right\"\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path
    }
}

async fn serve(
    State(app): State<Shared>,
    Path(route): Path<String>,
    Query(query): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
    body: String,
) -> Response {
    let (status, loaded) = app.lock().unwrap().next();
    if let Some((code, message)) = status {
        let error = json!({"error": {"status": 503, "maintaining": true, "message": message, "code": code}});
        return (StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response();
    }
    match route.as_str() {
        "__health_check" => "ok".into_response(),
        "app:getInfo" => {
            let app = app.lock().unwrap();
            if app.database_up {
                data(json!({"version": app.version}))
            } else {
                errors(500, "database is away")
            }
        }
        // An entry for each plugin that is loaded, and other texts.
        "app:getLang" => {
            let mut texts: BTreeMap<&str, Value> =
                loaded.iter().map(|name| (name.as_str(), json!({}))).collect();
            texts.insert("client", json!({"key": "text"}));
            data(json!({"lang": "en-US", "resources": texts}))
        }
        "auth:signIn" => sign_in(&mut app.lock().unwrap(), &headers, &body),
        _ if !signed_in(&app.lock().unwrap(), &headers) => errors(401, "token expired"),
        "pm:list" => data(list(&app.lock().unwrap())),
        "pm:enable" | "pm:disable" => {
            assert_eq!(query.get("awaitResponse").map(String::as_str), Some("true"));
            let work = command(app, query["filterByTk"].clone(), route == "pm:enable");
            // The app goes on when its client is gone.
            tokio::spawn(work).await.unwrap()
        }
        "map-configuration:get" if loaded.iter().any(|name| name == MAP) => errors(400, "type is required"),
        _ => (StatusCode::NOT_FOUND, "Not Found").into_response(),
    }
}

async fn command(app: Shared, plugin: String, enable: bool) -> Response {
    let mode = {
        let mut app = app.lock().unwrap();
        app.commands += 1;
        app.mode
    };
    if mode == Mode::Fails {
        return errors(500, &format!("{plugin} plugin load error"));
    }
    if let Mode::Slow(time) = mode {
        app.lock().unwrap().health = Some(("APP_COMMANDING".into(), format!("enabling plugin {plugin}")));
        tokio::time::sleep(time).await;
    }
    let mut app = app.lock().unwrap();
    app.health = None;
    app.plugins.insert(plugin.clone(), enable);
    app.loaded.retain(|name| *name != plugin);
    if enable && mode != Mode::Unloaded {
        app.loaded.push(plugin.clone());
    }
    data(json!(plugin))
}

fn sign_in(app: &mut App, headers: &HeaderMap, body: &str) -> Response {
    let body: Value = serde_json::from_str(body).unwrap();
    if headers.get("x-authenticator").is_none_or(|name| name != "basic") || body["password"] != "right" {
        return errors(401, "wrong password");
    }
    app.sign_ins += 1;
    data(json!({"user": {}, "token": app.token}))
}

fn signed_in(app: &App, headers: &HeaderMap) -> bool {
    headers.get("authorization").is_some_and(|value| value == &format!("Bearer {}", app.token))
}

fn list(app: &App) -> Value {
    app.plugins
        .iter()
        .map(|(name, enabled)| json!({"displayName": name, "packageName": name, "enabled": enabled}))
        .collect()
}

fn data(value: Value) -> Response {
    json!({ "data": value }).to_string().into_response()
}

fn errors(status: u16, message: &str) -> Response {
    let body = json!({"errors": [{"message": message}]}).to_string();
    (StatusCode::from_u16(status).unwrap(), body).into_response()
}
