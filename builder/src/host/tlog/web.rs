//! Yields a server's whole answers, of bounded size, to requests with a time limit.
//!
//! # Not here
//! What the answers mean. Redirects are not followed: a log is where its policy says.

use std::io::Read;
use std::time::Duration;

use super::super::http::{self, Http, Patience, Redirect, Request, Route};
use super::Error;
use crate::trust::transparency::tile::{Kind, Name, Source};

/// Longest answer, in bytes.
const MOST_BYTES: u64 = 32 << 20;
/// Longest part of an answer that a message shows, in bytes.
const MOST_SHOWN: usize = 300;

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The header `Location`.
    pub location: Option<String>,
    /// The body.
    pub body: Vec<u8>,
}

/// A server.
#[derive(Debug, Clone)]
pub struct Server {
    http: Http,
    patience: Duration,
    base: String,
}

/// Time limit for an answer. A Rekor v2 answers once a checkpoint covers the entry.
pub const PATIENCE: Duration = Duration::from_secs(60);

impl Server {
    /// Uses the server at a base address; `patience` is the limit for a whole answer.
    pub fn new(base: &str, patience: Duration) -> Self {
        Server { http: Http::of_the_program(), patience, base: base.trim_end_matches('/').to_owned() }
    }

    /// Returns the URL of a path.
    pub fn url(&self, path: &str) -> String {
        match path.trim_start_matches('/') {
            "" => self.base.clone(),
            path => format!("{}/{path}", self.base),
        }
    }

    fn request<'a>(&self, url: &'a str, accept: &'a str) -> Request<'a> {
        let patience = Patience::Whole(self.patience);
        Request { url, accept, patience, redirect: Redirect::Return, route: Route::Environment }
    }

    fn answer(url: &str, result: Result<http::Response, http::Error>) -> Result<Answer, Error> {
        let lost = |source: Box<dyn std::error::Error + Send + Sync>| Error::Unreachable {
            url: url.to_owned(),
            source,
        };
        let mut response = result.map_err(|error| lost(Box::new(error)))?;
        let location = response.header("location").map(str::to_owned);
        let status = response.status();
        let mut body = Vec::new();
        response.body().take(MOST_BYTES + 1).read_to_end(&mut body).map_err(|error| lost(Box::new(error)))?;
        if body.len() as u64 > MOST_BYTES {
            let reason = format!("longer than {MOST_BYTES} bytes");
            return Err(Error::Malformed { url: url.to_owned(), reason });
        }
        Ok(Answer { status, location, body })
    }

    /// Sends a GET request for a path.
    ///
    /// # Errors
    /// [`Error::Unreachable`], [`Error::Malformed`].
    pub fn get(&self, path: &str) -> Result<Answer, Error> {
        let url = self.url(path);
        Self::answer(&url, self.http.get(&self.request(&url, "application/json, */*")))
    }

    /// Sends a POST request to a path.
    ///
    /// # Errors
    /// [`Error::Unreachable`], [`Error::Malformed`].
    pub fn post(&self, path: &str, kind: &str, body: &[u8]) -> Result<Answer, Error> {
        let url = self.url(path);
        Self::answer(&url, self.http.post(&self.request(&url, "application/json"), kind, body))
    }

    /// Returns the body at a path that must exist.
    ///
    /// # Errors
    /// [`Error::Status`] for any status but 200, and those of [`Server::get`].
    pub fn fetch(&self, path: &str) -> Result<Vec<u8>, Error> {
        let answer = self.get(path)?;
        if answer.status == 200 { Ok(answer.body) } else { Err(self.refused(path, &answer)) }
    }

    /// Returns the error for an answer with an error status.
    pub fn refused(&self, path: &str, answer: &Answer) -> Error {
        let shown = answer.body.get(..MOST_SHOWN).unwrap_or(&answer.body);
        let message = String::from_utf8_lossy(shown).trim().to_owned();
        Error::Status { url: self.url(path), status: answer.status, message }
    }
}

/// A log's tiles below an address, in the layout of C2SP's tlog-tiles.
#[derive(Debug, Clone)]
pub struct Tiles(pub Server);

impl Source for Tiles {
    fn tile(&self, name: &Name) -> Result<Vec<u8>, String> {
        let answer = self.0.get(&name.to_string()).map_err(|error| crate::host::chain(&error))?;
        match answer.status {
            200 => Ok(answer.body),
            404 if name.full() != *name => {
                // A partial tile may be gone once the full one exists.
                let body =
                    self.0.fetch(&name.full().to_string()).map_err(|error| crate::host::chain(&error))?;
                let count = usize::from(name.width());
                match name.kind() {
                    Kind::Hashes(_) => Ok(body.get(..count * 32).unwrap_or(&body).to_vec()),
                    Kind::Entries => {
                        let entries = name.full().entries(&body).map_err(|error| error.to_string())?;
                        let parts = entries.into_iter().take(count);
                        let parts = parts.map(crate::trust::transparency::tile::in_bundle);
                        let parts =
                            parts.collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
                        Ok(parts.concat())
                    }
                }
            }
            _ => Err(self.0.refused(&name.to_string(), &answer).to_string()),
        }
    }
}
