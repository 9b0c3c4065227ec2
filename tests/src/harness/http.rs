//! The smallest HTTP client that the tests need.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// Status and body of a GET on loopback; `None` when nobody answers in time.
#[must_use]
pub fn get(port: u16, path: &str) -> Option<(u16, String)> {
    request(port, "GET", path, &[])
}

/// The same with a credential.
#[must_use]
pub fn get_signed_in(port: u16, path: &str, token: &str) -> Option<(u16, String)> {
    request(port, "GET", path, &[&format!("Authorization: Bearer {token}")])
}

/// Status of a HEAD on loopback.
#[must_use]
pub fn head(port: u16, path: &str) -> Option<u16> {
    request(port, "HEAD", path, &[]).map(|(status, _)| status)
}

/// Status of a HEAD anywhere.
#[must_use]
pub fn head_at(address: SocketAddr, path: &str) -> Option<u16> {
    request_to(address, "HEAD", path, &[]).map(|(status, _)| status)
}

/// The body of a GET anywhere as JSON.
#[must_use]
pub fn get_json_at(address: SocketAddr, path: &str) -> Option<Value> {
    serde_json::from_str(&request_to(address, "GET", path, &[])?.1).ok()
}

/// The body of a GET as JSON.
#[must_use]
pub fn get_json(port: u16, path: &str) -> Option<Value> {
    serde_json::from_str(&get(port, path)?.1).ok()
}

pub(super) fn request(port: u16, method: &str, path: &str, headers: &[&str]) -> Option<(u16, String)> {
    request_to(SocketAddr::from(([127, 0, 0, 1], port)), method, path, headers)
}

fn request_to(address: SocketAddr, method: &str, path: &str, headers: &[&str]) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(3))).ok()?;
    let extra: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    // In one piece: the second of two small ones would wait until the first is acknowledged.
    let request = format!("{method} {path} HTTP/1.0\r\nHost: {}\r\n{extra}\r\n", address.ip());
    stream.write_all(request.as_bytes()).ok()?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (top, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = top.split_whitespace().nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}
