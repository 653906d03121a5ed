//! Yields files from mirrors into the store, many at once, each checked as it arrives.

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rayon::prelude::*;
use rootfs::content::Sha256Digest;

use super::http::{self, Http, Patience, Redirect, Request, Route};
use super::mirror::Mirrors;
use super::progress::Progress;
use super::store::{self, Expected, InsertError, Store};
use crate::lock::{ArchiveKind, Blob};

/// Why a file cannot be fetched.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No source has it.
    #[error("no mirror gives {label}{}", tried(.attempts))]
    Nowhere {
        /// Name and version.
        label: String,
        /// Each place that was tried, and the outcome.
        attempts: Vec<(String, String)>,
    },
    /// It is not in the store, and the network is off.
    #[error("{label} is not in the store, and the network is not to be used{}", others(*.more))]
    Offline {
        /// Name and version.
        label: String,
        /// How many more files are missing.
        more: usize,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// Lists places and outcomes, each on a line of its own.
pub(super) fn tried(attempts: &[(String, String)]) -> String {
    attempts.iter().map(|(place, outcome)| format!("\n  {place}: {outcome}")).collect()
}

fn others(more: usize) -> String {
    if more == 0 { String::new() } else { format!(" (nor are {more} more files)") }
}

/// Applies `fetch` to each item, as many at once as requests may be; results keep the order. Fetching waits for the network, so
/// it takes more threads than there are processors.
pub(super) fn at_once<T, R, C>(items: &[T], fetch: impl Fn(&T) -> R + Sync + Send) -> C
where
    T: Sync,
    R: Send,
    C: FromParallelIterator<R> + FromIterator<R> + Send,
{
    match rayon::ThreadPoolBuilder::new().num_threads(http::AT_ONCE).build() {
        Ok(pool) => pool.install(|| items.par_iter().map(fetch).collect()),
        Err(_) => items.iter().map(fetch).collect(),
    }
}

/// Digest and size of a file that is in the store now.
pub type Fetched = (Sha256Digest, u64);

/// The outcome of asking for an optional file.
#[derive(Debug)]
pub enum Optional {
    /// A mirror has it.
    Found(Fetched),
    /// The first mirror that answers does not have the file.
    Absent,
    /// No mirror has it, and some did not answer: each mirror, and the outcome.
    Unknown(Vec<(String, String)>),
}

/// Whether the network may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// Yes.
    Allowed,
    /// No.
    Offline,
}

/// Fetches from mirrors into a store.
#[derive(Debug)]
pub struct Fetcher<'a> {
    store: &'a Store,
    mirrors: &'a Mirrors,
    /// A folder laid out like a vendored one; its files are preferred.
    carried: Option<PathBuf>,
    network: Network,
    http: Http,
}

impl<'a> Fetcher<'a> {
    /// Makes a fetcher that uses the program's connections; it sends nothing yet.
    pub fn new(store: &'a Store, mirrors: &'a Mirrors, network: Network) -> Self {
        Fetcher { store, mirrors, carried: None, network, http: Http::of_the_program() }
    }

    /// Sends its requests through another client.
    #[cfg(test)]
    pub fn through(self, http: Http) -> Self {
        Fetcher { http, ..self }
    }

    /// Takes the documents that a lock carries from the folder beside it, before asking any mirror.
    pub fn carrying(self, folder: PathBuf) -> Self {
        Fetcher { carried: Some(folder), ..self }
    }

    /// Lists every place that may have a file.
    fn places(&self, blob: &Blob) -> Vec<String> {
        let carried = self.carried.iter().map(|folder| super::carried::place(folder, blob));
        let carried = carried.filter(|path| path.is_file()).map(|path| path.display().to_string());
        carried.chain(self.mirrors.places(blob)).collect()
    }

    /// Returns the store that it fills.
    pub fn store(&self) -> &Store {
        self.store
    }

    /// Returns the mirrors that it asks.
    pub fn mirrors(&self) -> &Mirrors {
        self.mirrors
    }

    /// Brings all of `blobs` into the store; returns how many it fetched, and their bytes.
    ///
    /// # Errors
    /// [`Error`] of the first file that cannot be fetched. Files fetched before it stay.
    pub fn ensure(&self, blobs: &[Blob], progress: Progress) -> Result<(usize, u64), Error> {
        let mut missing: Vec<&Blob> =
            blobs.iter().filter(|blob| !self.store.has(&blob.sha256, blob.size)).collect();
        missing.sort_by_key(|blob| (blob.sha256, std::cmp::Reverse(blob.size)));
        missing.dedup_by_key(|blob| blob.sha256);
        missing.sort_by_key(|blob| std::cmp::Reverse(blob.size));
        let Some(first) = missing.first() else { return Ok((0, 0)) };
        // Only here: it may ask the machine's npm for its registry, which takes longer than many files.
        if self.network == Network::Offline && !self.places(first).iter().any(|place| is_local(place)) {
            return Err(Error::Offline { label: first.label.clone(), more: missing.len() - 1 });
        }
        let total = missing.iter().map(|blob| blob.size).sum();
        let stage = progress.stage("fetch", total);
        let count = missing.len();
        let queue: Mutex<VecDeque<_>> = Mutex::new(missing.into_iter().enumerate().collect());
        let failure: Mutex<Option<(usize, Error)>> = Mutex::new(None);
        let take = || {
            let failed = failure.lock().map_or(true, |failure| failure.is_some());
            if failed { None } else { queue.lock().ok()?.pop_front() }
        };
        std::thread::scope(|scope| {
            for _ in 0..http::AT_ONCE.min(count) {
                scope.spawn(|| {
                    while let Some((index, blob)) = take() {
                        let places = self.places(blob);
                        let expected = Expected::Sha256(blob.sha256, blob.size);
                        let progress = |bytes| stage.advance(bytes);
                        let got = self.try_all(&places, &expected, &blob.label, &progress, &Ok);
                        // Of several failures, report the first in the queue, so that every run reports the
                        // same one.
                        if let (Err(error), Ok(mut failure)) = (got, failure.lock())
                            && failure.as_ref().is_none_or(|(first, _)| index < *first)
                        {
                            *failure = Some((index, error));
                        }
                    }
                });
            }
        });
        if let Some((_, error)) = failure.into_inner().unwrap_or(None) {
            return Err(error);
        }
        stage.done(&format!("{count} files, {}", crate::amount::bytes(total)));
        Ok((count, total))
    }

    /// Brings one file of an archive, without a full lock entry, into the store.
    ///
    /// # Errors
    /// [`Error`] when no mirror gives what is expected.
    pub fn one(
        &self,
        archive: ArchiveKind,
        path: &str,
        snapshot: &str,
        expected: &Expected,
        label: &str,
    ) -> Result<Fetched, Error> {
        match expected {
            Expected::Sha256(digest, size) if self.store.has(digest, *size) => return Ok((*digest, *size)),
            Expected::Sha512(digest, _) => {
                if let Some(found) = self.store.find_sha512(digest) {
                    return Ok(found);
                }
            }
            _ => {}
        }
        let bases = self.mirrors.bases(archive, snapshot);
        let places: Vec<String> = bases.iter().map(|base| format!("{base}/{path}")).collect();
        self.try_all(&places, expected, label, &|_| {}, &Ok)
    }

    /// Returns what `judge` makes of the first copy of a file that satisfies it. Nothing is known of the file
    /// in advance: it is signed, or says what to fetch next. Mirrors are asked in order, up to the one whose
    /// copy is accepted.
    ///
    /// # Errors
    /// [`Error::Nowhere`] with the reason why `judge` refused each copy.
    pub fn judged<T>(
        &self,
        archive: ArchiveKind,
        path: &str,
        snapshot: &str,
        at_most: u64,
        judge: &dyn Fn(Fetched) -> Result<T, String>,
    ) -> Result<T, Error> {
        let bases = self.mirrors.bases(archive, snapshot);
        let places: Vec<String> = bases.iter().map(|base| format!("{base}/{path}")).collect();
        self.try_all(&places, &Expected::AtMost(at_most), path, &|_| {}, judge)
    }

    /// Tells whether the first mirror that answers has an optional file. No mirror is asked twice; one that
    /// does not answer is added to `silent`, and mirrors in `silent` are skipped.
    pub fn optional(
        &self,
        archive: ArchiveKind,
        path: &str,
        at_most: u64,
        silent: &Mutex<BTreeSet<String>>,
    ) -> Optional {
        let is_silent = |base: &String| silent.lock().is_ok_and(|silent| silent.contains(base));
        let expected = Expected::AtMost(at_most);
        let mut failures = Vec::new();
        for base in self.mirrors.bases(archive, "") {
            let place = format!("{base}/{path}");
            let outcome = if is_local(&place) {
                match File::open(&place) {
                    Ok(mut file) => self.take(&mut file, &expected, &|_| {}),
                    // A vendored folder may be incomplete.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => Err(Refusal::Final(error.to_string())),
                }
            } else if self.network == Network::Offline {
                Err(Refusal::Final("not asked: offline".to_owned()))
            } else if is_silent(&base) {
                Err(Refusal::Final("did not answer before".to_owned()))
            } else {
                match self.ask(&place, &expected) {
                    // A registry without support for attestations answers 405.
                    Err(http::Error::Status(404 | 405 | 410)) => return Optional::Absent,
                    Err(error) => {
                        if let (http::Error::Lost(_), Ok(mut silent)) = (&error, silent.lock()) {
                            silent.insert(base.clone());
                        }
                        Err(Refusal::of(&error))
                    }
                    Ok(mut response) => self.take(&mut response.body(), &expected, &|_| {}),
                }
            };
            match outcome {
                Ok(Ok(found)) => return Optional::Found(found),
                Ok(Err(error)) => failures.push((place, error.to_string())),
                Err(refusal) => failures.push((place, refusal.into_text())),
            }
        }
        if failures.is_empty() { Optional::Absent } else { Optional::Unknown(failures) }
    }

    /// Returns what `judge` makes of the first file that matches `expected` and satisfies it.
    fn try_all<T>(
        &self,
        places: &[String],
        expected: &Expected,
        label: &str,
        progress: &dyn Fn(u64),
        judge: &dyn Fn(Fetched) -> Result<T, String>,
    ) -> Result<T, Error> {
        let mut attempts: Vec<(String, Refusal)> = Vec::new();
        for pause in std::iter::once(None).chain(http::PAUSES.map(Some)) {
            let again = |place: &String| {
                let before = attempts.iter().find(|(asked, _)| asked == place);
                before.is_none_or(|(_, refusal)| matches!(refusal, Refusal::Momentary(_)))
            };
            let asked: Vec<&String> = places.iter().filter(|place| again(place)).collect();
            if asked.is_empty() {
                break;
            }
            pause.into_iter().for_each(std::thread::sleep);
            for place in asked {
                let outcome = match self.try_one(place, expected, progress) {
                    Ok(Ok(found)) => judge(found).map_err(Refusal::Final),
                    Ok(Err(store)) => return Err(store.into()),
                    Err(refusal) => Err(refusal),
                };
                match outcome {
                    Ok(found) => return Ok(found),
                    Err(refusal) => {
                        attempts.retain(|(before, _)| before != place);
                        attempts.push((place.clone(), refusal));
                    }
                }
            }
        }
        let attempts = attempts.into_iter().map(|(place, refusal)| (place, refusal.into_text())).collect();
        Err(Error::Nowhere { label: label.to_owned(), attempts })
    }

    /// Takes a file from a folder or a server.
    fn try_one(&self, place: &str, expected: &Expected, progress: &dyn Fn(u64)) -> Taken {
        if is_local(place) {
            let mut file = File::open(place).map_err(|error| Refusal::Final(error.to_string()))?;
            self.take(&mut file, expected, progress)
        } else if self.network == Network::Offline {
            Err(Refusal::Final("not asked: offline".to_owned()))
        } else {
            self.get(place, expected, progress)
        }
    }

    /// Takes a file into the store.
    fn take(&self, reader: &mut dyn Read, expected: &Expected, progress: &dyn Fn(u64)) -> Taken {
        match self.store.insert(reader, expected, progress) {
            Ok(found) => Ok(Ok(found)),
            Err(InsertError::Store(error)) => Ok(Err(error)),
            Err(InsertError::Source(error)) if is_cut(&error) => Err(Refusal::Momentary(error.to_string())),
            Err(other) => Err(Refusal::Final(other.to_string())),
        }
    }

    fn ask(&self, url: &str, expected: &Expected) -> Result<http::Response, http::Error> {
        let patience = Patience::File(expected.at_most());
        let (redirect, route) = (Redirect::Follow, Route::Environment);
        self.http.get(&Request { url, accept: "*/*", patience, redirect, route })?.accepted()
    }

    fn get(&self, url: &str, expected: &Expected, progress: &dyn Fn(u64)) -> Taken {
        let mut response = self.ask(url, expected).map_err(|error| Refusal::of(&error))?;
        if let (Expected::Sha256(_, size), Some(announced)) = (expected, response.length())
            && announced != *size
        {
            return Err(Refusal::Final(format!("expected {size} bytes, found {announced} announced")));
        }
        self.take(&mut Stalls { inner: response.body(), since: None, bytes: 0 }, expected, progress)
    }
}

/// The outcome of taking a file. The outer error blames the source, the inner one the store.
type Taken = Result<Result<Fetched, store::Error>, Refusal>;

/// Why a source gave no file.
enum Refusal {
    /// A retry may succeed.
    Momentary(String),
    /// A retry is useless: the file is missing or different, or the time is up.
    Final(String),
}

impl Refusal {
    fn of(error: &http::Error) -> Refusal {
        let text = error.to_string();
        if error.momentary() { Refusal::Momentary(text) } else { Refusal::Final(text) }
    }

    fn into_text(self) -> String {
        let (Refusal::Momentary(text) | Refusal::Final(text)) = self;
        text
    }
}

/// Tells whether a connection ended too early.
fn is_cut(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, UnexpectedEof};
    matches!(
        error.kind(),
        BrokenPipe | ConnectionAborted | ConnectionRefused | ConnectionReset | UnexpectedEof
    )
}

fn is_local(place: &str) -> bool {
    !place.contains("://") && Path::new(place).is_absolute() || place.starts_with('.')
}

/// A reader that gives up on a source that has become too slow.
struct Stalls<R> {
    inner: R,
    since: Option<std::time::Instant>,
    bytes: u64,
}

impl<R: Read> Read for Stalls<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let since = *self.since.get_or_insert_with(std::time::Instant::now);
        let count = self.inner.read(buffer)?;
        self.bytes += count as u64;
        let elapsed = since.elapsed();
        if count > 0 && elapsed > http::STEP && self.bytes < http::SLOWEST * elapsed.as_secs() {
            let message = format!("stalled: {} bytes in {} s", self.bytes, elapsed.as_secs());
            return Err(io::Error::new(io::ErrorKind::TimedOut, message));
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Condvar};
    use std::time::{Duration, Instant};

    use ureq::config::Config;
    use ureq::http::Uri;
    use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
    use ureq::unversioned::transport::NextTimeout;

    use super::super::http::tests::{Scripted, Server, http};
    use super::super::mirror::Given;
    use super::*;

    /// Makes `count` files of an archive, each of which contains its path.
    fn blobs(archive: ArchiveKind, count: usize) -> Vec<Blob> {
        let blob = |number| {
            let path = format!("{}/{number}", archive.name());
            let sha256 = Sha256Digest::of(path.as_bytes());
            let (size, label) = (path.len() as u64, path.clone());
            Blob { sha256, size, archive, path, snapshot: String::new(), label }
        };
        (0..count).map(blob).collect()
    }

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        (folder, store)
    }

    /// A resolver that knows addresses and no names.
    #[derive(Debug)]
    struct Unfindable;

    impl Resolver for Unfindable {
        fn resolve(
            &self,
            uri: &Uri,
            config: &Config,
            timeout: NextTimeout,
        ) -> Result<ResolvedSocketAddrs, ureq::Error> {
            match uri.host().unwrap().parse::<IpAddr>() {
                Ok(_) => DefaultResolver::default().resolve(uri, config, timeout),
                Err(_) => Err(ureq::Error::BadUri("no such host".to_owned())),
            }
        }
    }

    fn debian(urls: &[&str]) -> Mirrors {
        let debian = urls.iter().map(|url| (*url).to_owned()).collect();
        Mirrors::new(vec![Given { debian, ..Given::default() }], Box::new(|| None))
    }

    #[test]
    fn many_files_over_many_threads_need_one_look_up_a_host_and_one_connection_a_thread() {
        let server = Server::start(|path| (200, path.trim_start_matches('/').as_bytes().to_vec()));
        let resolver = Scripted::new(server.address);
        let (debian, npm) = ("http://debian.example".to_owned(), "http://npm.example".to_owned());
        let given = Given { debian: vec![debian], npm: vec![npm], ..Given::default() };
        let mirrors = Mirrors::new(vec![given], Box::new(|| None));
        let (_folder, store) = store();
        let fetcher = Fetcher::new(&store, &mirrors, Network::Allowed).through(http(resolver.clone()));
        let files = [blobs(ArchiveKind::Debian, 150), blobs(ArchiveKind::Npm, 150)];
        let (count, _) = fetcher.ensure(&files.concat(), Progress::Silent).unwrap();
        assert_eq!(count, 300);
        assert_eq!(resolver.asked(), ["debian.example", "npm.example"]);
        assert!(server.connections() <= 2 * http::AT_ONCE, "{} connections", server.connections());
        // The connections already open to the host serve all files that follow.
        let opened = server.connections();
        fetcher.ensure(&blobs(ArchiveKind::Debian, 300), Progress::Silent).unwrap();
        assert!(
            server.connections() <= opened.max(http::AT_ONCE * 2),
            "{} connections",
            server.connections()
        );
        assert_eq!(resolver.asked().len(), 2);
    }

    #[test]
    fn at_least_fifteen_requests_are_under_way_at_once() {
        const WANTED: usize = 15;
        let most = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&most);
        // Answers only once this many have asked; a fetch that never gets there still ends, and fails below.
        let gate = Arc::new((Mutex::new(0_usize), Condvar::new()));
        let until = Instant::now() + Duration::from_secs(10);
        let server = Server::start(move |path| {
            let (waiting, changed) = &*gate;
            let mut waiting = waiting.lock().unwrap();
            *waiting += 1;
            seen.fetch_max(*waiting, Ordering::Relaxed);
            changed.notify_all();
            while seen.load(Ordering::Relaxed) < WANTED && Instant::now() < until {
                waiting = changed.wait_timeout(waiting, Duration::from_millis(100)).unwrap().0;
            }
            *waiting -= 1;
            (200, path.trim_start_matches('/').as_bytes().to_vec())
        });
        let (_folder, store) = store();
        let mirrors = debian(&[&server.url()]);
        let fetcher =
            Fetcher::new(&store, &mirrors, Network::Allowed).through(http(Scripted::new(server.address)));
        fetcher.ensure(&blobs(ArchiveKind::Debian, 60), Progress::Silent).unwrap();
        assert!(most.load(Ordering::Relaxed) >= WANTED, "at most {most:?} at once");
    }

    #[test]
    fn no_mirror_is_asked_after_the_one_whose_copy_is_taken() {
        let answering = |first: u16, then: u16, body: &'static str| {
            let asked = Arc::new(AtomicUsize::new(0));
            let count = Arc::clone(&asked);
            let server = Server::start(move |_| {
                let before = count.fetch_add(1, Ordering::Relaxed);
                (if before == 0 { first } else { then }, body.as_bytes().to_vec())
            });
            (server, asked)
        };
        let (busy, busy_asked) = answering(503, 404, "later");
        let (wrong, wrong_asked) = answering(200, 200, "old");
        let (right, right_asked) = answering(200, 200, "new");
        let (last, last_asked) = answering(200, 200, "new");
        let (_folder, store) = store();
        let mirrors = debian(&[&busy.url(), &wrong.url(), &right.url(), &last.url()]);
        // The machine's mirrors cannot be resolved, and the retries are used up.
        let fetcher = Fetcher::new(&store, &mirrors, Network::Allowed).through(http(Unfindable));
        let judge = |wanted: &'static str| {
            let store = &store;
            move |(digest, _): Fetched| match store.read(&digest, "it") {
                Ok(bytes) if *bytes == *wanted.as_bytes() => Ok(digest),
                _ => Err("not wanted".to_owned()),
            }
        };
        let asked = || {
            [&busy_asked, &wrong_asked, &right_asked, &last_asked].map(|asked| asked.load(Ordering::Relaxed))
        };
        let found = fetcher.judged(ArchiveKind::Debian, "it", "", 100, &judge("new")).unwrap();
        assert_eq!(found, Sha256Digest::of(b"new"));
        // A busy mirror is not retried while another has the file.
        assert_eq!(asked(), [1, 1, 1, 0]);

        // When none will do, each gives its reason.
        let refused = fetcher.judged(ArchiveKind::Debian, "it", "", 100, &judge("newest")).unwrap_err();
        let Error::Nowhere { attempts, .. } = refused else { panic!("{refused}") };
        for (server, said) in [
            (&busy, "http status: 404"),
            (&wrong, "not wanted"),
            (&right, "not wanted"),
            (&last, "not wanted"),
        ] {
            let attempt = (format!("{}/it", server.url()), said.to_owned());
            assert!(attempts.contains(&attempt), "{attempts:?}");
        }
        assert_eq!(asked(), [2, 2, 2, 1]);
    }
}
