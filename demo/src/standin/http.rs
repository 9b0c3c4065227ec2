//! The stand-in's HTTP interface, with NocoBase's paths, status codes and bodies.
//!
//! While a process does not serve, everything under `/api/` answers 503 with the phase. `app:getInfo` touches the database, the
//! health endpoint does not. A route of a plugin is an unknown route (404, plain text) in a process that has not loaded it.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::app::{App, Phase};
use super::database::{Content, PluginRow};
use super::plugins::{self, PLUGINS, Plugin};
use super::{boot, facts, sockets};

/// The root account that NocoBase's own installation suggests; the stand-in listens on the loopback only.
const ACCOUNTS: [&str; 2] = ["admin@nocobase.com", "nocobase"];
const PASSWORD: &str = "admin123";

type Parameters = Query<HashMap<String, String>>;

/// Opens the port late, as NocoBase does, and serves for ever.
pub(super) async fn serve(app: Arc<App>) -> anyhow::Result<()> {
    tokio::time::sleep(boot::port_delay(app.options.start_delay_ms)).await;
    let port = app.options.port;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .await
        .with_context(|| format!("cannot listen on 127.0.0.1:{port}"))?;
    axum::serve(listener, router(app)).await.context("the HTTP server broke")
}

fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/facts", get(show_facts))
        .route("/ws", get(sockets::open))
        .fallback(api)
        .with_state(app)
}

async fn page(State(app): State<Arc<App>>) -> Html<String> {
    Html(format!("<!doctype html><title>stand-in</title><p>{}, code {}", app.options.node, app.code))
}

async fn show_facts(State(app): State<Arc<App>>) -> Response {
    let files = app.options.files.clone();
    match tokio::task::spawn_blocking(move || facts::facts(&files)).await {
        Ok(Ok(facts)) => axum::Json(facts).into_response(),
        Ok(Err(error)) => failed(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error:#}")),
        Err(error) => failed(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

async fn api(
    State(app): State<Arc<App>>,
    method: Method,
    uri: Uri,
    Query(parameters): Parameters,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let Some(action) = uri.path().strip_prefix("/api/") else { return not_found() };
    if let Some(answer) = not_serving(&app.phase()) {
        return answer;
    }
    if action == "__health_check" {
        return "ok".into_response();
    }
    let content = match app.read().await {
        Ok(content) => content,
        Err(error) => {
            app.log(&format!("{action}: {error:#}"));
            return (StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error").into_response();
        }
    };
    let signed_in = token_of(&headers) == Some(token(&content).as_str());
    match (action, method) {
        ("app:getInfo", Method::GET) => answer(json!({
            "database": {"dialect": "stand-in"}, "version": content.version, "lang": "en-US", "name": "main", "theme": "default",
        })),
        ("app:getLang", Method::GET) => answer(languages(&app)),
        ("auth:signIn", Method::POST) => sign_in(&body, &content),
        ("pm:listEnabled", Method::GET) => answer(list_enabled(&content)),
        ("pm:list" | "pm:enable" | "pm:disable", _) if !signed_in => unauthenticated(),
        ("pm:list", Method::GET) => {
            answer(list(&content, &app.code, parameters.get("mode").is_some_and(|m| m == "summary")))
        }
        ("pm:enable", _) => change(&app, true, &parameters).await,
        ("pm:disable", _) => change(&app, false, &parameters).await,
        _ => plugin_route(&app, action, &parameters, signed_in),
    }
}

/// The answer of a process that does not serve; `None` when it does.
fn not_serving(phase: &Phase) -> Option<Response> {
    let (code, message, command) = match phase {
        Phase::Running => return None,
        Phase::Commanding { command, message } => ("APP_COMMANDING", message.as_str(), *command),
        Phase::Failed { message } => ("APP_ERROR", message.as_str(), "start"),
        Phase::Stopped => ("APP_STOPPED", "app is stopped", "stop"),
    };
    let error = json!({
        "status": 503, "maintaining": true, "message": message, "command": {"name": command}, "code": code,
    });
    Some((StatusCode::SERVICE_UNAVAILABLE, axum::Json(json!({"error": error}))).into_response())
}

fn sign_in(body: &Bytes, content: &Content) -> Response {
    let request: Value = serde_json::from_slice(body).unwrap_or_default();
    let known = request["account"].as_str().is_some_and(|account| ACCOUNTS.contains(&account));
    if known && request["password"] == PASSWORD {
        return answer(json!({"user": {"id": 1, "nickname": "SuperAdmin"}, "token": token(content)}));
    }
    failed(StatusCode::UNAUTHORIZED, "The username/email or password is incorrect, please re-enter")
}

/// Valid on every node of the fleet and gone with the database, as with NocoBase's shared key.
fn token(content: &Content) -> String {
    format!("stand-in-{}", content.identity)
}

fn token_of(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

fn list(content: &Content, code: &str, summary: bool) -> Value {
    let row = |plugin: &Plugin| {
        let enabled = content.plugins.get(plugin.name).is_some_and(|row| row.enabled);
        let mut row =
            json!({"displayName": plugin.name, "packageName": plugin.package_name(), "enabled": enabled});
        if !summary {
            row["name"] = json!(plugin.name);
            row["version"] = json!(code);
            row["installed"] = json!(enabled);
            row["builtIn"] = json!(plugin.preset);
        }
        row
    };
    PLUGINS.iter().map(row).collect()
}

/// Texts by package: like NocoBase's, an entry for each plugin that the process has loaded.
fn languages(app: &App) -> Value {
    let loaded = PLUGINS.iter().filter(|plugin| app.is_loaded(plugin.name));
    let resources: serde_json::Map<String, Value> =
        loaded.map(|plugin| (plugin.package_name(), json!({}))).collect();
    json!({"lang": "en-US", "resources": resources})
}

fn list_enabled(content: &Content) -> Value {
    let enabled = content.plugins.iter().filter(|(_, row)| row.enabled);
    enabled
        .map(|(name, row)| json!({"name": name, "packageName": row.package_name, "options": null}))
        .collect()
}

/// `pm:enable` and `pm:disable`: answers at once, or with `awaitResponse` after the work.
async fn change(app: &Arc<App>, enable: bool, parameters: &HashMap<String, String>) -> Response {
    let name = parameters.get("filterByTk").map(String::as_str).unwrap_or_default();
    if name.is_empty() {
        return failed(StatusCode::BAD_REQUEST, "plugin name invalid");
    }
    let verb = if enable { "enable" } else { "disable" };
    let Some(plugin) = plugins::find(name) else {
        return failed(
            StatusCode::INTERNAL_SERVER_ERROR,
            &format!("Failed to {verb} plugin: Cannot find module '{name}'"),
        );
    };
    if !enable && !app.is_loaded(plugin.name) {
        let text = format!("Failed to disable plugin: {} plugin load error", plugin.name);
        return failed(StatusCode::INTERNAL_SERVER_ERROR, &text);
    }
    if enable && app.is_loaded(plugin.name) {
        return answer(json!(name));
    }
    let command = if enable { "pm.enable" } else { "pm.disable" };
    if !app.begin(command, format!("syncing database in {verb} plugin {}...", plugin.name)) {
        return not_serving(&app.phase()).unwrap_or_else(not_found);
    }
    // A task of its own: it goes on when whoever asked hangs up.
    let work = tokio::spawn(reload(Arc::clone(app), plugin, enable));
    if parameters.get("awaitResponse").is_none_or(|value| value != "true") {
        return answer(json!(name));
    }
    match work.await {
        Ok(Ok(())) => answer(json!(name)),
        Ok(Err(error)) => {
            failed(StatusCode::INTERNAL_SERVER_ERROR, &format!("Failed to {verb} plugin: {error:#}"))
        }
        Err(error) => failed(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// Writes the change to the database and loads anew what is enabled there, in this process only.
async fn reload(app: Arc<App>, plugin: Plugin, enable: bool) -> anyhow::Result<()> {
    tokio::time::sleep(Duration::from_millis(app.options.task_delay_ms)).await;
    let changed = app
        .update(move |content| {
            let row = PluginRow { package_name: plugin.package_name(), enabled: enable };
            content.plugins.insert(plugin.name.to_owned(), row);
            content.enabled()
        })
        .await;
    if let Ok(enabled) = &changed {
        app.set_loaded(enabled.iter().cloned());
    }
    app.set_phase(Phase::Running);
    changed.map(|_| ())
}

fn plugin_route(app: &App, action: &str, parameters: &HashMap<String, String>, signed_in: bool) -> Response {
    let resource = action.split_once(':').map_or(action, |(resource, _)| resource);
    match plugins::of_resource(resource) {
        Some(plugin) if app.is_loaded(plugin.name) => {
            if !signed_in {
                unauthenticated()
            } else if plugin.name == "map" && !parameters.contains_key("type") {
                failed(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "WHERE parameter \"type\" has invalid \"undefined\" value",
                )
            } else {
                answer(json!({}))
            }
        }
        _ => not_found(),
    }
}

fn answer(data: Value) -> Response {
    axum::Json(json!({"data": data})).into_response()
}

fn failed(status: StatusCode, message: &str) -> Response {
    (status, axum::Json(json!({"errors": [{"message": message}]}))).into_response()
}

fn unauthenticated() -> Response {
    let error = json!({"message": "Unauthenticated. Please sign in to continue.", "code": "EMPTY_TOKEN"});
    (StatusCode::UNAUTHORIZED, axum::Json(json!({"errors": [error]}))).into_response()
}

fn not_found() -> Response {
    (StatusCode::NOT_FOUND, "Not Found").into_response()
}

#[cfg(test)]
mod tests;
