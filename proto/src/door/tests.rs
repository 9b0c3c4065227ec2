//! A small HTTP server behind a door, clients that stall, and one that asks.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, body::Body, routing::get};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, repeat},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_util::io::ReaderStream;

use super::{Caller, Calls, Door, Terms};

/// Time for anything to happen. Nothing here needs a tenth of it on an idle machine.
const DEADLINE: Duration = Duration::from_secs(30);
const CONNECTIONS_MAX: usize = 4;

const LONG: Terms = Terms {
    port: "test",
    connections_max: CONNECTIONS_MAX,
    greeting_max: DEADLINE,
    greeting_bytes: 0,
    idle_max: Duration::from_secs(600),
    stuck_max: Duration::from_secs(600),
};

/// What the slow answers wait for, and what says that they do.
struct Slow {
    permits: Semaphore,
    begun: Semaphore,
}

/// Serves `/` at once, `/endless` for ever, and `/slow` once there is a permit.
async fn serve(terms: Terms) -> (SocketAddr, Arc<Slow>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let slow = Arc::new(Slow { permits: Semaphore::new(0), begun: Semaphore::new(0) });
    let served = slow.clone();
    let routes = Router::new()
        .route("/", get(|| async { "here" }))
        .route("/endless", get(|| async { Body::from_stream(ReaderStream::new(repeat(0))) }))
        .route(
            "/slow",
            get(async move || {
                served.begun.add_permits(1);
                served.permits.acquire().await.map(|permit| permit.forget()).map_or("", |()| "done")
            }),
        )
        .layer(Calls)
        .into_make_service_with_connect_info::<Caller>();
    tokio::spawn(async move { axum::serve(Door::new(listener, terms), routes).await });
    (address, slow)
}

async fn open(at: SocketAddr, head: &str) -> TcpStream {
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

/// Everything that comes until the connection ends.
async fn rest(mut stream: TcpStream) -> io::Result<String> {
    let mut text = String::new();
    timeout(DEADLINE, stream.read_to_string(&mut text)).await.expect("it must end")?;
    Ok(text)
}

async fn ask(at: SocketAddr, path: &str) -> io::Result<String> {
    rest(open(at, &format!("GET {path} HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n")).await).await
}

#[tokio::test]
async fn clients_that_stall_keep_nobody_out() {
    let (at, _) = serve(LONG).await;
    let mut stalled = Vec::new();
    for round in 0..4 * CONNECTIONS_MAX {
        stalled.push(open(at, "GET / HTTP/1.1\r\nhost: t\r\nx-half: ").await);
        let answer = ask(at, "/").await.unwrap();
        assert!(answer.ends_with("here"), "round {round}: {answer}");
    }
    // All but the newest went for the others.
    for stream in stalled.drain(..3 * CONNECTIONS_MAX) {
        assert_eq!(rest(stream).await.unwrap_or_default(), "", "it is closed without an answer");
    }
}

#[tokio::test]
async fn whoever_is_being_answered_stays() {
    let (at, slow) = serve(LONG).await;
    let calls: Vec<_> = (0..CONNECTIONS_MAX).map(|_| tokio::spawn(ask(at, "/slow"))).collect();
    let begun = slow.begun.acquire_many(u32::try_from(CONNECTIONS_MAX).unwrap());
    timeout(DEADLINE, begun).await.expect("all are under way").unwrap().forget();
    assert_eq!(ask(at, "/").await.unwrap_or_default(), "", "one more is turned away");
    slow.permits.add_permits(CONNECTIONS_MAX);
    let mut answered = 0;
    for call in calls {
        answered += usize::from(call.await.unwrap().is_ok_and(|answer| answer.ends_with("done")));
    }
    assert_eq!(answered, CONNECTIONS_MAX);
    assert!(ask(at, "/").await.unwrap().ends_with("here"), "there is room again");
}

#[tokio::test]
async fn who_takes_nothing_of_its_answer_is_left() {
    let terms = Terms { stuck_max: Duration::from_millis(100), connections_max: 1, ..LONG };
    let (at, _) = serve(terms).await;
    let mut stuck = open(at, "GET /endless HTTP/1.1\r\nhost: t\r\n\r\n").await;
    let mut first = [0; 1];
    timeout(DEADLINE, stuck.read_exact(&mut first)).await.unwrap().unwrap();
    // It has the only seat, and a call: it does not go for another connection, but because it takes nothing.
    let let_in = async {
        while !ask(at, "/").await.is_ok_and(|answer| answer.ends_with("here")) {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, let_in).await.expect("the seat must come free");
}

#[tokio::test]
async fn a_connection_that_asks_nothing_ends() {
    let short = Duration::from_millis(100);
    let (idle, _) = serve(Terms { idle_max: short, ..LONG }).await;
    for head in ["", "GET / HT", "GET / HTTP/1.1\r\nhost: t\r\n"] {
        assert_eq!(rest(open(idle, head).await).await.unwrap_or_default(), "");
    }
    // It is answered, and ends when nothing follows.
    let kept = open(idle, "GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
    assert!(rest(kept).await.unwrap().ends_with("here"));
    let (greeted, _) = serve(Terms { greeting_max: short, greeting_bytes: 24, ..LONG }).await;
    assert_eq!(rest(open(greeted, "GET / HTTP/1.1\r\nhost:").await).await.unwrap_or_default(), "");
}
