//! Yields a model server that speaks enough of OpenAI's chat completions for a gateway, and records its requests.
//!
//! The newest turn of the conversation decides the answer:
//! ```text
//! user: … CALL read {"path":"x"}   -> a call of that tool
//! the result of a tool             -> "TOOL SAID: " and the result
//! anything else                    -> "MODEL HEARD: " and the text
//! ```
//!
//! # Source
//! OpenAI API reference, "Chat Completions" and "Streaming" (server-sent events).
//!
//! # Not here
//! The rest of that interface.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use serde_json::{Value, json};

/// Name of the one model that it offers.
pub const MODEL: &str = "qwen3-max";

/// A running server; it lives until the process ends.
#[derive(Debug, Clone)]
pub struct Model {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Value>>>,
    refused: Arc<Mutex<u32>>,
}

impl Model {
    /// Starts a server on a free port of `host`; it demands `key` as bearer token.
    ///
    /// # Errors
    /// When the address cannot be used.
    pub fn start(host: &str, key: &str) -> io::Result<Model> {
        let listener = TcpListener::bind((host, 0))?;
        let model = Model { address: listener.local_addr()?, asked: Arc::default(), refused: Arc::default() };
        let (served, key) = (model.clone(), format!("Bearer {key}"));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (served, key) = (served.clone(), key.clone());
                // A client that disconnects must not affect the next one.
                thread::spawn(move || served.serve(&stream, &key));
            }
        });
        Ok(model)
    }

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The bodies of all requests that it answered, oldest first.
    pub fn asked(&self) -> Vec<Value> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Number of requests with a wrong key.
    pub fn refused(&self) -> u32 {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers one request, and closes the connection.
    fn serve(&self, stream: &TcpStream, key: &str) -> io::Result<()> {
        let mut reader = BufReader::new(stream);
        let mut first = String::new();
        reader.read_line(&mut first)?;
        let (mut length, mut authorized) = (0, false);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
                break;
            }
            let Some((name, value)) = line.split_once(':') else { continue };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.trim().parse().map_err(io::Error::other)?,
                "authorization" => authorized = value.trim() == key,
                _ => {}
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        if !authorized {
            *self.refused.lock().unwrap_or_else(PoisonError::into_inner) += 1;
            return answer(stream, "401 Unauthorized", &json!({"error": {"message": "wrong key"}}));
        }
        if !first.starts_with("POST ") || !first.contains("/chat/completions") {
            return answer(stream, "404 Not Found", &json!({"error": {"message": "no such path"}}));
        }
        let request: Value = serde_json::from_slice(&body)?;
        let (message, reason) = reply(&request);
        let streamed = request.get("stream").and_then(Value::as_bool).unwrap_or(false);
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(request);
        if streamed {
            stream_answer(stream, message, reason)
        } else {
            answer(stream, "200 OK", &whole(message, reason))
        }
    }
}

/// The message that answers a conversation, and its finish reason.
fn reply(request: &Value) -> (Value, &'static str) {
    let empty = Vec::new();
    let messages = request.get("messages").and_then(Value::as_array).unwrap_or(&empty);
    let role = |message: &Value| message.get("role").and_then(Value::as_str).unwrap_or_default().to_owned();
    // The newest turn: what follows the last answer that was not a tool call.
    let answered = |message: &Value| role(message) == "assistant" && message.get("tool_calls").is_none();
    let turn = messages.rsplit(answered).next().unwrap_or_default();
    if let Some(result) = turn.iter().rfind(|message| role(message) == "tool") {
        return (json!({"role": "assistant", "content": format!("TOOL SAID: {}", text(result))}), "stop");
    }
    let said: Vec<String> = turn.iter().filter(|message| role(message) == "user").map(text).collect();
    let said = said.join("\n");
    let call =
        said.split_once("CALL ").and_then(|(_, call)| call.split_once(' ')).and_then(|(tool, rest)| {
            let arguments = serde_json::Deserializer::from_str(rest).into_iter::<Value>().next()?.ok()?;
            Some((tool.to_owned(), arguments))
        });
    match call {
        Some((tool, arguments)) => {
            let function = json!({"name": tool, "arguments": arguments.to_string()});
            let calls = json!([{"index": 0, "id": "call_1", "type": "function", "function": function}]);
            (json!({"role": "assistant", "content": null, "tool_calls": calls}), "tool_calls")
        }
        None => (json!({"role": "assistant", "content": format!("MODEL HEARD: {said}")}), "stop"),
    }
}

/// The text of a message, whose content may come in parts.
fn text(message: &Value) -> String {
    match message.get("content") {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => {
            parts.iter().filter_map(|part| part.get("text").and_then(Value::as_str)).collect()
        }
        _ => String::new(),
    }
}

fn usage() -> Value {
    json!({"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2})
}

fn whole(message: Value, reason: &str) -> Value {
    let choice = json!({"index": 0, "message": message, "finish_reason": reason});
    json!({"id": "c", "object": "chat.completion", "created": 0, "model": MODEL, "choices": [choice], "usage": usage()})
}

fn answer(mut stream: &TcpStream, status: &str, body: &Value) -> io::Result<()> {
    let body = body.to_string();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())
}

fn stream_answer(mut stream: &TcpStream, message: Value, reason: &str) -> io::Result<()> {
    let chunk = |delta: Value, reason: Value| {
        let choice = json!({"index": 0, "delta": delta, "finish_reason": reason});
        json!({"id": "c", "object": "chat.completion.chunk", "created": 0, "model": MODEL, "choices": [choice]})
    };
    let mut last = chunk(json!({}), json!(reason));
    if let Some(last) = last.as_object_mut() {
        last.insert("usage".to_owned(), usage());
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")?;
    for event in [chunk(message, Value::Null), last] {
        stream.write_all(format!("data: {event}\n\n").as_bytes())?;
    }
    stream.write_all(b"data: [DONE]\n\n")
}
