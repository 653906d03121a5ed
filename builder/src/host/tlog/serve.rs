//! Yields the requests to a small HTTP server, one at a time, to a function that answers them.
//!
//! # Shape
//! HTTP/1.1, one request per connection: request line, headers of at most 16 KiB, a body of at most 1 MiB
//! with `Content-Length`. A client slower than [`PATIENCE`] is dropped.
//!
//! # Not here
//! TLS: use a proxy in front. The answers: `witness`.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

/// Longest request line and headers, in bytes.
const MOST_HEADER: u64 = 16 << 10;
/// Longest body, in bytes.
const MOST_BODY: u64 = 1 << 20;
/// Time limit for a client to send or to receive.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A client's request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// `GET`, `POST`.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// The body.
    pub body: Vec<u8>,
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// HTTP status.
    pub status: u16,
    /// `Content-Type`.
    pub kind: &'static str,
    /// The body.
    pub body: Vec<u8>,
}

/// Reads a request.
fn read(stream: &TcpStream) -> io::Result<Request> {
    let wrong = |reason: &str| io::Error::new(io::ErrorKind::InvalidData, reason);
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    let mut request: Option<(String, String)> = None;
    let mut head = (&mut reader).take(MOST_HEADER);
    loop {
        let mut line = String::new();
        if head.read_line(&mut line)? == 0 || !line.ends_with('\n') {
            return Err(wrong("the header is truncated or too long"));
        }
        let line = line.trim_end();
        match (&request, line) {
            (Some(_), "") => break,
            (None, line) => {
                let mut words = line.split(' ');
                let (Some(method), Some(path)) = (words.next(), words.next()) else {
                    return Err(wrong("no request line"));
                };
                request = Some((method.to_owned(), path.to_owned()));
            }
            (Some(_), line) => {
                if let Some((name, value)) = line.split_once(':')
                    && name.eq_ignore_ascii_case("content-length")
                {
                    length = value.trim().parse::<u64>().map_err(|_| wrong("no length"))?;
                }
            }
        }
    }
    if length > MOST_BODY {
        return Err(wrong("the body is too long"));
    }
    let mut body = Vec::new();
    reader.take(length).read_to_end(&mut body)?;
    if body.len() as u64 != length {
        return Err(wrong("the body is truncated"));
    }
    let (method, path) = request.ok_or_else(|| wrong("no request line"))?;
    Ok(Request { method, path, body })
}

fn write(mut stream: &TcpStream, response: &Response) -> io::Result<()> {
    let head = format!(
        "HTTP/1.1 {} -\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        response.status,
        response.kind,
        response.body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(&response.body)?;
    stream.flush()
}

/// Answers requests, one after the other, until `answer` returns `None`; that client gets no answer.
///
/// # Errors
/// When no more connections can be accepted. Errors of a single client go to `remark`.
pub fn serve(
    listener: &TcpListener,
    answer: &mut dyn FnMut(Request) -> Option<Response>,
    remark: &dyn Fn(&str),
) -> io::Result<()> {
    for stream in listener.incoming() {
        let stream = stream?;
        let timed =
            stream.set_read_timeout(Some(PATIENCE)).and_then(|()| stream.set_write_timeout(Some(PATIENCE)));
        let request = match timed.and_then(|()| read(&stream)) {
            Ok(request) => request,
            Err(error) => {
                remark(&format!("a client was dropped: {error}"));
                let body = b"malformed request\n".to_vec();
                let _ = write(&stream, &Response { status: 400, kind: "text/plain", body });
                continue;
            }
        };
        let Some(response) = answer(request) else { return Ok(()) };
        if let Err(error) = write(&stream, &response) {
            remark(&format!("a client was lost: {error}"));
        }
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::thread;

    use super::*;

    /// Serves on a free port until the test ends; returns the address.
    pub fn served(mut answer: impl FnMut(Request) -> Response + Send + 'static) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        thread::spawn(move || serve(&listener, &mut |request| Some(answer(request)), &|_| {}));
        address
    }

    fn sent(address: &str, text: &str) -> String {
        let mut stream = TcpStream::connect(address.strip_prefix("http://").unwrap()).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    }

    #[test]
    fn a_request_is_read_whole_and_a_malformed_one_refused() {
        let address = served(|request| {
            let body = format!("{} {} {}", request.method, request.path, request.body.len()).into_bytes();
            Response { status: 200, kind: "text/plain", body }
        });
        let answer = sent(&address, "POST /a?b HTTP/1.1\r\ncontent-LENGTH: 3\r\n\r\nabc");
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("POST /a?b 3"), "{answer}");
        for text in [
            "",
            "GET\r\n\r\n",
            "GET / HTTP/1.1\r\n",
            "GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
            "GET / HTTP/1.1\r\nContent-Length: 2\r\n\r\na",
            "GET / HTTP/1.1\r\nContent-Length: 9999999\r\n\r\na",
        ] {
            assert!(sent(&address, text).starts_with("HTTP/1.1 400"), "{text:?}");
        }
    }
}
