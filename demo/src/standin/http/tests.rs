//! The interface over a real socket, with the answers that the real NocoBase gives.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::standin::StandinOptions;

/// A started node on a free port.
async fn node(options: StandinOptions) -> (Arc<App>, u16) {
    let app = Arc::new(App::new(options).unwrap());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let routes = router(Arc::clone(&app));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    (app, port)
}

/// Status and body of one request; `token` may be empty.
async fn call(port: u16, method: &str, path: &str, token: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    let authorization =
        if token.is_empty() { String::new() } else { format!("Authorization: Bearer {token}\r\n") };
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{authorization}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

async fn sign_in_as_root(port: u16) -> String {
    let body = r#"{"account":"admin@nocobase.com","password":"admin123"}"#;
    let (status, answer) = call(port, "POST", "/api/auth:signIn", "", body).await;
    assert_eq!(status, 200);
    let answer: Value = serde_json::from_str(&answer).unwrap();
    answer["data"]["token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_start_is_503_with_progress_and_then_200() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = StandinOptions::for_test(folder.path(), "node-1");
    options.quickstart = true;
    options.start_delay_ms = 400;
    let (app, port) = node(options).await;
    let booting = tokio::spawn(boot::boot(Arc::clone(&app)));
    let mut messages = Vec::new();
    let begun = std::time::Instant::now();
    loop {
        assert!(begun.elapsed() < std::time::Duration::from_secs(30), "it does not come up: {messages:?}");
        let (status, body) = call(port, "GET", "/api/__health_check", "", "").await;
        if status == 200 {
            assert_eq!(body, "ok");
            break;
        }
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status, &body["error"]["code"]), (503, &json!("APP_COMMANDING")));
        assert_eq!(body["error"]["command"]["name"], "start");
        messages.push(body["error"]["message"].as_str().unwrap().to_owned());
        messages.dedup();
    }
    booting.await.unwrap();
    assert!(messages.iter().any(|message| message.contains("install: ")), "{messages:?}");
    assert!(messages.iter().any(|message| message.starts_with("load plugin [")), "{messages:?}");
    let (status, body) = call(port, "GET", "/api/app:getInfo", "", "").await;
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &body["data"]["version"]), (200, &json!("1.0.0")));
    std::fs::write(folder.path().join("database.json.down"), "").unwrap();
    assert_eq!(call(port, "GET", "/api/app:getInfo", "", "").await.0, 500);
    assert_eq!(
        call(port, "GET", "/api/__health_check", "", "").await.0,
        200,
        "health does not touch the database"
    );
}

#[tokio::test]
async fn a_plugin_enabled_on_one_node_is_not_loaded_on_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = StandinOptions::for_test(folder.path(), "node-1");
    options.quickstart = true;
    let (one, port_one) = node(options).await;
    boot::boot(Arc::clone(&one)).await;
    let (two, port_two) = node(StandinOptions::for_test(folder.path(), "node-2")).await;
    boot::boot(Arc::clone(&two)).await;

    assert_eq!(call(port_one, "GET", "/api/pm:list?mode=summary", "", "").await.0, 401);
    assert_eq!(call(port_one, "POST", "/api/pm:enable?filterByTk=map", "", "").await.0, 401);
    let token = sign_in_as_root(port_one).await;
    let route = "/api/map-configuration:get?type=amap";
    let missing = (404, "Not Found".to_owned());
    assert_eq!(call(port_one, "GET", route, &token, "").await, missing);

    let enable = "/api/pm:enable?awaitResponse=true&filterByTk=%40nocobase%2Fplugin-map";
    let answer = call(port_one, "POST", enable, &token, "").await;
    assert_eq!(answer, (200, r#"{"data":"@nocobase/plugin-map"}"#.to_owned()));
    assert_eq!(call(port_one, "GET", route, &token, "").await.0, 200);
    assert_eq!(call(port_one, "GET", "/api/map-configuration:get", &token, "").await.0, 500);
    assert_eq!(call(port_one, "GET", route, "", "").await.0, 401);

    // The other process lists it, because the list is the database's, and has not loaded it.
    let (_, list) = call(port_two, "GET", "/api/pm:list?mode=summary", &token, "").await;
    let list: Value = serde_json::from_str(&list).unwrap();
    let map = |row: &&Value| row["packageName"] == "@nocobase/plugin-map";
    assert_eq!(list["data"].as_array().unwrap().iter().find(map).unwrap()["enabled"], true);
    assert_eq!(call(port_two, "GET", route, &token, "").await, missing);
    let (status, body) =
        call(port_two, "GET", "/api/pm:disable?filterByTk=map&awaitResponse=true", &token, "").await;
    assert_eq!(status, 500);
    assert!(body.contains("map plugin load error"), "{body}");
}

#[tokio::test]
async fn without_await_response_the_answer_comes_before_the_work() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = StandinOptions::for_test(folder.path(), "node-1");
    options.quickstart = true;
    options.task_delay_ms = 2000;
    let (app, port) = node(options).await;
    boot::boot(Arc::clone(&app)).await;
    let token = sign_in_as_root(port).await;
    assert_eq!(call(port, "GET", "/api/pm:enable?filterByTk=map", &token, "").await.0, 200);
    let (status, body) = call(port, "GET", "/api/__health_check", "", "").await;
    assert_eq!(status, 503);
    assert!(body.contains("APP_COMMANDING") && body.contains("pm.enable"), "{body}");
    assert!(!app.is_loaded("map"));
    let begun = std::time::Instant::now();
    while !app.is_loaded("map") {
        assert!(begun.elapsed() < Duration::from_secs(30), "it is never loaded");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(call(port, "GET", "/api/__health_check", "", "").await.0, 200);
}

#[tokio::test]
async fn a_failed_start_stays_at_app_error() {
    let folder = tempfile::tempdir().unwrap();
    let (app, port) = node(StandinOptions::for_test(folder.path(), "node-1")).await;
    boot::boot(app).await;
    let (status, body) = call(port, "GET", "/api/__health_check", "", "").await;
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &body["error"]["code"]), (503, &json!("APP_ERROR")));
    assert!(body["error"]["message"].as_str().unwrap().contains("empty"));
    let (status, body) = call(port, "GET", "/facts", "", "").await;
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &body["database"]["empty"]), (200, &json!(true)));
}

#[tokio::test]
async fn an_open_websocket_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let (app, port) = node(StandinOptions::for_test(folder.path(), "node-1")).await;
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    let request = "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 101");
    let early = tokio::time::timeout(Duration::from_millis(100), app.sockets.all_closed()).await;
    assert!(early.is_err(), "it is open");
    drop(stream);
    tokio::time::timeout(Duration::from_secs(30), app.sockets.all_closed()).await.unwrap();
}
