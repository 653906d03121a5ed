//! Yields a gateway's answers, over HTTP and over its WebSocket protocol, as its users get them.
//!
//! # Source
//! OpenClaw's documentation, "Gateway protocol" (version 3 and up); RFC 6455 for the frames; RFC 9112 for HTTP.
//!
//! # Not here
//! Complete implementations of either: one request, one conversation, frames that a gateway sends to a local client.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// The longest frame that is accepted, in bytes.
const MAX_FRAME: u64 = 64 << 20;

/// An answer over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Status, such as 200.
    pub status: u16,
    /// Body.
    pub body: String,
}

fn connect(gateway: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&gateway, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    Ok(stream)
}

/// Sends one request and reads the answer.
///
/// # Errors
/// When the gateway cannot be reached, or stays silent longer than `limit`.
pub fn request(
    gateway: SocketAddr,
    method: &str,
    path: &str,
    token: &str,
    body: &str,
    limit: Duration,
) -> io::Result<Answer> {
    let mut stream = connect(gateway, limit)?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {gateway}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    let mut reader = BufReader::new(stream);
    let (status, headers) = head_of(&mut reader)?;
    let header = |name: &str| headers.iter().find(|(have, _)| have == name).map(|(_, value)| value.as_str());
    let mut bytes = Vec::new();
    if header("transfer-encoding") == Some("chunked") {
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let size = u64::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
            (&mut reader).take(size).read_to_end(&mut bytes)?;
            reader.read_line(&mut line)?;
            if size == 0 {
                break;
            }
        }
    } else {
        let length = header("content-length").and_then(|length| length.parse().ok()).unwrap_or(MAX_FRAME);
        reader.take(length).read_to_end(&mut bytes)?;
    }
    Ok(Answer { status, body: String::from_utf8_lossy(&bytes).into_owned() })
}

fn head_of(reader: &mut impl BufRead) -> io::Result<(u16, Vec<(String, String)>)> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| io::Error::other(format!("no HTTP answer: {line:?}")))?;
    let mut headers = Vec::new();
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            return Ok((status, headers));
        }
        if let Some((name, value)) = line.split_once(':') {
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
}

/// Waits until the gateway says that it is ready; returns how long that took.
///
/// # Errors
/// The last answer or failure when `limit` has passed.
pub fn wait_ready(gateway: SocketAddr, limit: Duration) -> io::Result<Duration> {
    let start = Instant::now();
    loop {
        let last = request(gateway, "GET", "/readyz", "", "", Duration::from_secs(10));
        match last {
            Ok(answer) if answer.status == 200 => return Ok(start.elapsed()),
            _ if start.elapsed() < limit => std::thread::sleep(Duration::from_millis(100)),
            Ok(answer) => return Err(io::Error::other(format!("not ready: {answer:?}"))),
            Err(error) => return Err(error),
        }
    }
}

/// Sends `message` over `/v1/chat/completions`; returns the agent's answer.
///
/// # Errors
/// As [`request`], and for any answer but a successful one.
pub fn over_http(gateway: SocketAddr, token: &str, message: &str, limit: Duration) -> io::Result<String> {
    let body = json!({"model": "openclaw", "messages": [{"role": "user", "content": message}]}).to_string();
    let answer = request(gateway, "POST", "/v1/chat/completions", token, &body, limit)?;
    let wrong = || io::Error::other(format!("{} {}", answer.status, answer.body));
    if answer.status != 200 {
        return Err(wrong());
    }
    let value: Value = serde_json::from_str(&answer.body)?;
    value.pointer("/choices/0/message/content").and_then(Value::as_str).map(str::to_owned).ok_or_else(wrong)
}

/// Sends `message` over the WebSocket protocol, in a session of its own; returns the agent's answer.
///
/// # Errors
/// When the gateway refuses the token or the message, or stays silent longer than `limit`.
pub fn over_websocket(
    gateway: SocketAddr,
    token: &str,
    session: &str,
    message: &str,
    limit: Duration,
) -> io::Result<String> {
    let mut socket = Socket::open(gateway, limit)?;
    let start = Instant::now();
    while start.elapsed() < limit {
        let frame = socket.receive()?;
        let at = |pointer: &str| frame.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        match (at("/type"), at("/event"), at("/id"), at("/payload/state")) {
            ("event", "connect.challenge", ..) => socket.send(&json!({
                "type": "req", "id": "connect", "method": "connect",
                "params": {
                    "minProtocol": 3, "maxProtocol": 9, "role": "operator", "caps": [],
                    "scopes": ["operator.read", "operator.write"], "auth": {"token": token},
                    "client": {"id": "gateway-client", "version": "1", "platform": "linux", "mode": "backend"},
                },
            }))?,
            ("res", ..) if frame.get("ok") != Some(&json!(true)) => {
                return Err(io::Error::other(format!("refused: {frame}")));
            }
            ("res", _, "connect", _) => socket.send(&json!({
                "type": "req", "id": "send", "method": "chat.send",
                "params": {"sessionKey": session, "message": message, "idempotencyKey": session},
            }))?,
            ("event", "chat", _, "final") => {
                let content = frame.pointer("/payload/message/content").cloned().unwrap_or_default();
                return Ok(match content {
                    Value::String(text) => text,
                    other => {
                        let parts = other.as_array().cloned().unwrap_or_default();
                        parts.iter().filter_map(|part| part.get("text").and_then(Value::as_str)).collect()
                    }
                });
            }
            ("event", "chat", _, "error" | "aborted") => return Err(io::Error::other(frame.to_string())),
            _ => {}
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "no final answer"))
}

/// A WebSocket connection to a gateway.
struct Socket(BufReader<TcpStream>);

impl Socket {
    fn open(gateway: SocketAddr, limit: Duration) -> io::Result<Self> {
        let mut stream = connect(gateway, limit)?;
        // The key protects caches between client and server; there are none here.
        let head = format!(
            "GET / HTTP/1.1\r\nHost: {gateway}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        stream.write_all(head.as_bytes())?;
        let mut reader = BufReader::new(stream);
        match head_of(&mut reader)? {
            (101, _) => Ok(Socket(reader)),
            (status, _) => Err(io::Error::other(format!("no WebSocket: HTTP {status}"))),
        }
    }

    /// Sends a text in one frame (RFC 6455 §5.2), masked with zeros, a mask that a client may draw.
    fn send(&mut self, value: &Value) -> io::Result<()> {
        self.frame(0x1, value.to_string().as_bytes())
    }

    fn frame(&mut self, opcode: u8, payload: &[u8]) -> io::Result<()> {
        let mut frame = vec![0x80 | opcode];
        match payload.len() {
            short @ 0..126 => frame.push(0x80 | short as u8),
            length => {
                frame.push(0x80 | 127);
                frame.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        frame.extend_from_slice(&[0; 4]);
        frame.extend_from_slice(payload);
        self.0.get_mut().write_all(&frame)
    }

    /// Reads the next text as JSON.
    fn receive(&mut self) -> io::Result<Value> {
        let mut text = Vec::new();
        loop {
            let mut head = [0; 2];
            self.0.read_exact(&mut head)?;
            let [first, second] = head;
            let length = match second & 0x7f {
                126 => {
                    let mut length = [0; 2];
                    self.0.read_exact(&mut length)?;
                    u64::from(u16::from_be_bytes(length))
                }
                127 => {
                    let mut length = [0; 8];
                    self.0.read_exact(&mut length)?;
                    u64::from_be_bytes(length)
                }
                short => u64::from(short),
            };
            if length > MAX_FRAME {
                return Err(io::Error::other(format!("frame of {length} bytes")));
            }
            let mut payload = Vec::new();
            if (&mut self.0).take(length).read_to_end(&mut payload)? as u64 != length {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            match first & 0x0f {
                0x0 | 0x1 => {
                    text.extend_from_slice(&payload);
                    if first & 0x80 != 0 {
                        return Ok(serde_json::from_slice(&text)?);
                    }
                }
                0x8 => {
                    let reason = payload.get(2..).unwrap_or_default();
                    return Err(io::Error::other(format!("closed: {}", String::from_utf8_lossy(reason))));
                }
                0x9 => self.frame(0xa, &payload)?,
                _ => {}
            }
        }
    }
}
