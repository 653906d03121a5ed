//! Yields a mirror on this machine that serves a folder, and misbehaves on demand.
//!
//! # Source
//! RFC 9112: one request per connection, answered with `Connection: close`.
//!
//! # Not here
//! Judging the answers: the program under test does that.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Longest duration of a silent answer.
const SILENCE: Duration = Duration::from_secs(120);
/// Longest head of a request, in bytes.
const HEAD: u64 = 16 << 10;

/// How the mirror answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The file.
    Whole,
    /// 404.
    Missing,
    /// The file and one more byte, with a matching length.
    WrongSize,
    /// The file and one more byte, without a length.
    Longer,
    /// The whole length is announced, but only half of the file comes.
    Truncated,
    /// The file with one bit of its middle byte changed.
    Tampered,
    /// These bytes.
    Instead(Vec<u8>),
    /// The request is accepted, and no answer comes.
    Silent,
    /// The head and one byte come, and then nothing.
    Stalled,
}

type Script = dyn Fn(&str) -> Answer + Send + Sync;

/// A running mirror; dropping it stops it.
#[derive(Debug)]
pub struct Mirror {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    asked: Arc<Mutex<Vec<String>>>,
    thread: Option<JoinHandle<()>>,
}

impl Mirror {
    /// Serves the files below `folder`; `script` chooses the answer to each path.
    ///
    /// # Errors
    /// The system's error.
    pub fn start(
        folder: &Path,
        script: impl Fn(&str) -> Answer + Send + Sync + 'static,
    ) -> io::Result<Mirror> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (folder, script): (PathBuf, Arc<Script>) = (folder.to_owned(), Arc::new(script));
        let (stopped, heard) = (Arc::clone(&stop), Arc::clone(&asked));
        let thread = thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let (folder, script) = (folder.clone(), Arc::clone(&script));
                let (stopped, heard) = (Arc::clone(&stopped), Arc::clone(&heard));
                // A client that disconnects must not affect the next one.
                thread::spawn(move || serve(&stream, &folder, &*script, &stopped, &heard));
            }
        });
        Ok(Mirror { address, stop, asked, thread: Some(thread) })
    }

    /// Its address, as a base URL without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The flags that make the program ask this mirror first.
    pub fn flags(&self) -> [String; 4] {
        let url = self.url();
        [
            "--debian-mirror".into(),
            format!("{url}/debian"),
            "--debian-security-mirror".into(),
            format!("{url}/debian-security"),
        ]
    }

    /// The requested paths, in order.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wake the thread, which waits for a connection.
        if TcpStream::connect(self.address).is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

fn serve(
    mut stream: &TcpStream,
    folder: &Path,
    script: &Script,
    stop: &AtomicBool,
    asked: &Mutex<Vec<String>>,
) -> io::Result<()> {
    let mut reader = BufReader::new(stream.take(HEAD));
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut line = String::new();
    while reader.read_line(&mut line)? > 0 && !line.trim().is_empty() {
        line.clear();
    }
    let path = plain(first.split(' ').nth(1).unwrap_or("/").trim_start_matches('/'));
    asked.lock().unwrap_or_else(PoisonError::into_inner).push(path.clone());
    let answer = script(&path);
    let inside = path.split('/').all(|part| !part.is_empty() && part != "..");
    let file = if inside { fs::read(folder.join(&path)).ok() } else { None };
    let (mut body, mut length) = match (&answer, file) {
        (Answer::Missing, _) | (_, None) => {
            let head = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            return stream.write_all(head.as_bytes());
        }
        (_, Some(file)) => (file, None),
    };
    match &answer {
        Answer::Whole | Answer::Missing | Answer::Silent => {}
        Answer::WrongSize | Answer::Longer => body.push(0),
        Answer::Truncated | Answer::Stalled => length = Some(body.len()),
        Answer::Tampered => {
            let middle = body.len() / 2;
            if let Some(byte) = body.get_mut(middle) {
                *byte ^= 1;
            }
        }
        Answer::Instead(bytes) => body = bytes.clone(),
    }
    let length = match answer {
        Answer::Longer => String::new(),
        _ => format!("Content-Length: {}\r\n", length.unwrap_or(body.len())),
    };
    match answer {
        Answer::Truncated => body.truncate(body.len() / 2),
        Answer::Stalled => body.truncate(1),
        _ => {}
    }
    if answer != Answer::Silent {
        stream.write_all(format!("HTTP/1.1 200 OK\r\n{length}Connection: close\r\n\r\n").as_bytes())?;
        stream.write_all(&body)?;
    }
    if matches!(answer, Answer::Silent | Answer::Stalled) {
        let start = Instant::now();
        while start.elapsed() < SILENCE && !stop.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(50));
        }
    }
    stream.shutdown(Shutdown::Both)
}

/// Decodes a path's percent-encoding.
fn plain(path: &str) -> String {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let code = after.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        match code.and_then(|two| u8::from_str_radix(two, 16).ok()).filter(|_| byte == b'%') {
            Some(code) => {
                bytes.push(code);
                rest = after.get(2..).unwrap_or(&[]);
            }
            None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
