//! The answer of `/api/__health_check`.

use serde::Deserialize;

/// Longest message, and longest code, that is kept, in characters.
const MESSAGE_MAX: usize = 300;

/// What an app says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It runs. The database is not part of this answer.
    Ok,
    /// It is on its way, or busy with a command.
    Progress {
        /// NocoBase's status, for example `APP_COMMANDING`.
        code: String,
        /// NocoBase's own words, for example `load plugin [ai], 48/77`.
        message: String,
    },
    /// It says that it failed. It may still recover within seconds.
    Error {
        /// NocoBase's code, or the code of the error that it met.
        code: String,
        /// Its own words.
        message: String,
    },
    /// Nobody listens: it is not there, or its first seconds.
    Refused,
    /// It accepted and did not answer in time.
    Silent,
}

/// States in which an app is on its way. Everything else that is not "ok" is an error: a failed app answers with
/// the code of whatever error it met.
const PROGRESS: [&str; 8] = [
    "APP_NOT_FOUND",
    "APP_PREPARING",
    "APP_INITIALIZING",
    "APP_INITIALIZED",
    "APP_STARTING",
    "APP_COMMANDING",
    "APP_STOPPED",
    "COMMAND_END",
];

#[derive(Deserialize)]
struct Body {
    error: Option<BodyError>,
}

#[derive(Deserialize)]
struct BodyError {
    #[serde(default)]
    code: serde_json::Value,
    #[serde(default)]
    message: serde_json::Value,
}

impl Health {
    /// Understands a status and a body.
    pub fn parse(status: u16, body: &[u8]) -> Self {
        if status == 200 {
            return Health::Ok;
        }
        let Ok(Body { error: Some(error) }) = serde_json::from_slice(body) else {
            let message = shorten(&String::from_utf8_lossy(body));
            return Health::Error { code: format!("HTTP {status}"), message };
        };
        let code = shorten(&text(&error.code));
        let message = shorten(&text(&error.message));
        if PROGRESS.contains(&code.as_str()) {
            Health::Progress { code, message }
        } else {
            Health::Error { code, message }
        }
    }

    /// For people, in one line.
    pub fn text(&self) -> String {
        match self {
            Health::Ok => "healthy".into(),
            Health::Progress { code, message } | Health::Error { code, message } if message.is_empty() => {
                code.clone()
            }
            Health::Progress { message, .. } => message.clone(),
            Health::Error { code, message } => format!("{code}: {message}"),
            Health::Refused => "does not listen yet".into(),
            Health::Silent => "does not answer".into(),
        }
    }
}

fn text(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// Keeps messages of others to one bounded line.
pub(crate) fn shorten(text: &str) -> String {
    text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(MESSAGE_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_a_real_app() {
        assert_eq!(Health::parse(200, b"ok"), Health::Ok);
        let busy = br#"{"error":{"status":503,"maintaining":true,"message":"load plugin [ai], 48/77","command":{"name":"start"},"code":"APP_COMMANDING"}}"#;
        assert_eq!(Health::parse(503, busy).text(), "load plugin [ai], 48/77");
        let failed = br#"{"error":{"status":503,"message":"Validation error","code":"APP_ERROR"}}"#;
        assert_eq!(
            Health::parse(503, failed),
            Health::Error { code: "APP_ERROR".into(), message: "Validation error".into() }
        );
        // A failed app reports the code of its error: here the database is away.
        let away = br#"{"error":{"status":503,"message":"connect","code":"ECONNREFUSED"}}"#;
        assert!(matches!(Health::parse(503, away), Health::Error { .. }));
        assert!(matches!(
            Health::parse(404, br#"{"error":{"code":"APP_NOT_FOUND"}}"#),
            Health::Progress { .. }
        ));
        assert!(matches!(Health::parse(502, b"<html>"), Health::Error { .. }));
    }
}
