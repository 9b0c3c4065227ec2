//! What each request is answered: 503 in every case, in the form that whoever asks understands.
//!
//! | request | body |
//! |---|---|
//! | upgrade to a websocket at `…/ws`, while there is a notice | taken: see [`super::socket`] |
//! | below `/api/`, or it accepts JSON and no HTML | JSON for NocoBase's client |
//! | it accepts HTML | the page |
//! | GET or HEAD of anything, and the path has no file extension | the page |
//! | else: pictures, scripts, strangers | none |

use std::sync::Arc;

use axum::Router;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{Request, State};
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::render::Face;
use super::socket::{self, MESSAGE_MAX};
use super::told::{Current, Told};

/// What every answer is made from.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) face: Face,
    pub(super) told: watch::Receiver<Told>,
    /// Places for websockets.
    pub(super) sockets: Arc<Semaphore>,
    pub(super) stop: CancellationToken,
}

/// In which form an answer is understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Html,
    Json,
    Nothing,
}

/// Answers every path.
pub(super) fn router(site: Arc<Site>) -> Router {
    Router::new().fallback(answer).with_state(site)
}

async fn answer(
    State(site): State<Arc<Site>>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
    request: Request,
) -> Response {
    let current = site.told.borrow().now(Instant::now());
    let path = request.uri().path();
    if let (Ok(upgrade), Some(current)) = (upgrade, &current)
        && path.ends_with("/ws")
    {
        let Ok(place) = Arc::clone(&site.sockets).try_acquire_owned() else {
            return unavailable(&site.face, Some(current), Form::Nothing);
        };
        let upgrade = upgrade.max_message_size(MESSAGE_MAX).max_frame_size(MESSAGE_MAX);
        return upgrade.on_upgrade(move |socket| async move {
            socket::hold(socket, site.told.clone(), site.stop.clone()).await;
            drop(place);
        });
    }
    unavailable(&site.face, current.as_ref(), form(request.method(), path, request.headers()))
}

/// The body of the request is not read.
fn unavailable(face: &Face, current: Option<&Current>, form: Form) -> Response {
    let retry = face.retry_after(current).to_string();
    let head = [(RETRY_AFTER, retry.as_str()), (CACHE_CONTROL, "no-store")];
    let (kind, body) = match form {
        Form::Html => ("text/html; charset=utf-8", face.html(current)),
        Form::Json => ("application/json; charset=utf-8", face.json(current)),
        Form::Nothing => return (StatusCode::SERVICE_UNAVAILABLE, head).into_response(),
    };
    (StatusCode::SERVICE_UNAVAILABLE, head, [(CONTENT_TYPE, kind)], body).into_response()
}

fn form(method: &Method, path: &str, headers: &HeaderMap) -> Form {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let accepted = accepted.collect::<Vec<_>>().join(",").to_ascii_lowercase();
    if path.starts_with("/api/") {
        return Form::Json;
    }
    if accepted.contains("text/html") {
        return Form::Html;
    }
    if accepted.contains("application/json") || accepted.contains("+json") {
        return Form::Json;
    }
    let anything = accepted.is_empty() || accepted.trim() == "*/*";
    let file = path.rsplit('/').next().is_some_and(|name| name.contains('.'));
    if anything && !file && (method == Method::GET || method == Method::HEAD) {
        Form::Html
    } else {
        Form::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_is_answered_as_he_understands_it() {
        let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        let axios = "application/json, text/plain, */*";
        let cases = [
            ("GET", "/admin/xyz", browser, Form::Html),
            ("POST", "/signin", browser, Form::Html),
            ("GET", "/", "*/*", Form::Html),
            ("HEAD", "/", "", Form::Html),
            ("GET", "/api/users:list", "*/*", Form::Json),
            ("POST", "/api/users:create", "", Form::Json),
            ("GET", "/nocobase/api/app:getInfo", axios, Form::Json),
            ("GET", "/v/things", "application/vnd.api+json", Form::Json),
            ("GET", "/assets/index.js", "*/*", Form::Nothing),
            ("GET", "/nocobase.png", "image/avif,image/webp,*/*;q=0.8", Form::Nothing),
            ("GET", "/global.css", "text/css,*/*;q=0.1", Form::Nothing),
            ("POST", "/hook", "*/*", Form::Nothing),
        ];
        for (method, path, accept, expected) in cases {
            let mut headers = HeaderMap::new();
            if !accept.is_empty() {
                headers.insert(ACCEPT, accept.parse().unwrap());
            }
            let method = method.parse().unwrap();
            assert_eq!(form(&method, path, &headers), expected, "{method} {path} {accept}");
        }
    }
}
