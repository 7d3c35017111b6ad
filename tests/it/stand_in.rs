//! A server on loopback that stands in for a tracker: keeps what it is asked, answers as it is
//! told, and fails where it is told to.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    /// `POST /path`.
    pub line: String,
    /// The header `Authorization`.
    pub login: String,
    pub body: Vec<u8>,
}

impl Request {
    /// Its body as JSON; `Null` where it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// How a request fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// It arrives, but the answer is lost.
    LostAnswer,
    /// It is refused with this status and does not arrive.
    Status(u16),
}

type Answers = dyn Fn(&Request) -> (u16, String) + Send + Sync;

/// The server.
pub struct StandIn {
    pub url: String,
    /// Every request that arrived, in their order.
    pub arrived: Arc<Mutex<Vec<Request>>>,
}

impl StandIn {
    /// Answers as `answers` says, but for requests for whose number `trouble` has something.
    pub fn new(
        answers: impl Fn(&Request) -> (u16, String) + Send + Sync + 'static,
        trouble: impl Fn(usize) -> Option<Trouble> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let arrived = Arc::new(Mutex::new(Vec::new()));
        let (kept, answers): (_, Arc<Answers>) = (Arc::clone(&arrived), Arc::new(answers));
        thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let Ok(stream) = stream else { continue };
                let Some(request) = read(&stream) else {
                    continue;
                };
                let trouble = trouble(number);
                if let Some(Trouble::Status(status)) = trouble {
                    answer(stream, status, "{\"error\":\"injected\"}");
                    continue;
                }
                let (status, text) = answers(&request);
                kept.lock().unwrap().push(request);
                if trouble.is_none() {
                    answer(stream, status, &text);
                }
            }
        });
        Self { url, arrived }
    }

    /// What arrived at addresses that end with `end`.
    pub fn at(&self, end: &str) -> Vec<Request> {
        let arrived = self.arrived.lock().unwrap();
        let at = arrived.iter().filter(|request| request.line.ends_with(end));
        at.cloned().collect()
    }
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let line = line.trim().strip_suffix(" HTTP/1.1")?.to_owned();
    let (mut login, mut length) = (String::new(), 0);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim().split_once(':') else {
            break;
        };
        match name.to_lowercase().as_str() {
            "authorization" => value.trim().clone_into(&mut login),
            "content-length" => length = value.trim().parse().ok()?,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { line, login, body })
}

fn answer(mut stream: TcpStream, status: u16, text: &str) {
    let length = text.len();
    let _ = write!(
        stream,
        "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{text}"
    );
}
