//! What a person does in the app's own interface, as requests to one node.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Somebody who has signed in at one node.
pub(crate) struct Person {
    base: String,
    bearer: String,
}

impl Person {
    /// Signs in.
    pub(crate) fn at(port: u16) -> Self {
        let base = format!("http://127.0.0.1:{port}/api");
        let who = "{\"account\":\"admin@nocobase.com\",\"password\":\"admin123\"}";
        let signed = ask(&["-H", "X-Authenticator: basic", "-d", who, &format!("{base}/auth:signIn")]);
        let token = signed["data"]["token"].as_str().expect("a token");
        Self { bearer: format!("Authorization: Bearer {token}"), base }
    }

    /// Posts something, and says what came back.
    pub(crate) fn post(&self, path: &str, body: &Value) -> Value {
        ask(&["-H", &self.bearer, "-d", &body.to_string(), &format!("{}/{path}", self.base)])
    }

    /// Uploads a file.
    pub(crate) fn upload(&self, path: &str, file: &Path) {
        let form = format!("file=@{}", file.display());
        let place = format!("{}/{path}", self.base);
        let args = ["-sS", "--fail-with-body", "--max-time", "60", "-H", &self.bearer, "-F", &form, &place];
        let output = Command::new("curl").args(args).output().expect("curl can be run");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}

fn ask(args: &[&str]) -> Value {
    let usual = ["-sS", "--fail-with-body", "--max-time", "60", "-H", "Content-Type: application/json"];
    let output = Command::new("curl").args(usual).args(args).output().expect("curl can be run");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(&text).unwrap_or_default()
}
