//! Tells when a service answers over HTTP that it is ready, by polling.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::super::http::{Http, Patience, Redirect, Request, Route};

/// Time limit for the first answer. QEMU's network accepts connections for a guest that does not listen yet,
/// and they get no answer: only a new connection helps.
const PATIENCE: Duration = Duration::from_secs(3);
/// Longest time limit for an answer. A slow guest needs seconds to answer, and abandoned requests pile up in
/// it, so each time-out makes the next limit half as long again.
const MOST_PATIENCE: Duration = Duration::from_secs(30);
/// Pause between two requests.
const PAUSE: Duration = Duration::from_millis(200);

/// The last answer of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// No answer yet.
    None,
    /// Not ready, and why.
    NotYet(String),
    /// Status 200.
    Ready,
}

/// A service that is being polled.
#[derive(Debug)]
pub struct Ready {
    answer: Arc<Mutex<Answer>>,
}

impl Ready {
    /// Polls `url` on another thread, until the service is ready or this is dropped.
    pub fn ask(url: &str) -> Self {
        let answer = Arc::new(Mutex::new(Answer::None));
        let told = Arc::downgrade(&answer);
        let url = url.to_owned();
        let http = Http::of_the_program();
        thread::spawn(move || {
            let mut patience = PATIENCE;
            loop {
                let question = Request {
                    url: &url,
                    accept: "*/*",
                    patience: Patience::Whole(patience),
                    redirect: Redirect::Return,
                    route: Route::Direct,
                };
                let said = match http.get(&question) {
                    Ok(response) if response.status() == 200 => Answer::Ready,
                    Ok(response) => Answer::NotYet(format!("status {}", response.status())),
                    Err(error) => {
                        if error.timed_out() {
                            patience = (patience * 3 / 2).min(MOST_PATIENCE);
                        }
                        Answer::NotYet(error.to_string())
                    }
                };
                let done = said == Answer::Ready;
                let Some(answer) = told.upgrade() else { return };
                *answer.lock().unwrap_or_else(PoisonError::into_inner) = said;
                if done {
                    return;
                }
                thread::sleep(PAUSE);
            }
        });
        Ready { answer }
    }

    /// Returns the last answer of the service.
    pub fn answer(&self) -> Answer {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::time::Instant;

    use super::*;

    fn wait_for(ready: &Ready, wanted: &dyn Fn(&Answer) -> bool) {
        let begun = Instant::now();
        while !wanted(&ready.answer()) {
            assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", ready.answer());
            thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn only_status_200_is_ready() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/readyz", listener.local_addr().unwrap());
        let ready = Ready::ask(&url);
        for status in ["503 No", "302 Found\r\nLocation: /elsewhere", "200 OK"] {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let count = stream.read(&mut request).unwrap();
            assert!(request[..count].starts_with(b"GET /readyz HTTP/1.1\r\n"));
            write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
            let said = match status.get(..3) {
                Some("200") => Answer::Ready,
                code => Answer::NotYet(format!("status {}", code.unwrap())),
            };
            drop(stream);
            wait_for(&ready, &|answer| *answer == said);
        }
    }

    #[test]
    fn nobody_there_is_not_ready() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let ready = Ready::ask(&format!("http://{free}/"));
        wait_for(&ready, &|answer| matches!(answer, Answer::NotYet(why) if why.contains("refused")));
    }
}
