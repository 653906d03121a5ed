//! Yields files from mirrors into the store, many at once, each checked as it arrives.

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use rootfs::content::Sha256Digest;

use super::mirror::Mirrors;
use super::progress::Progress;
use super::store::{self, Expected, InsertError, Store};
use crate::lock::{ArchiveKind, Blob};

/// Files that are fetched at once.
const AT_ONCE: usize = 8;
/// How long a mirror may take to connect or to answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long to wait before a place that failed for a moment is asked again: a name server that is busy, a connection that
/// was cut, a mirror that says 503.
const PAUSES: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];
/// A mirror that is slower than this many bytes a second has stalled.
const SLOWEST: u64 = 20_000;

/// Why a file cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No mirror has it.
    #[error("no mirror gives {label}{}", tried(.attempts))]
    Nowhere {
        /// Name and version.
        label: String,
        /// Each place that was tried, and what came of it.
        attempts: Vec<(String, String)>,
    },
    /// It is not here and the network must not be used.
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

fn tried(attempts: &[(String, String)]) -> String {
    attempts.iter().map(|(place, outcome)| format!("\n  {place}: {outcome}")).collect()
}

fn others(more: usize) -> String {
    if more == 0 { String::new() } else { format!(" (nor are {more} more files)") }
}

/// Digest and size of a file that is in the store now.
pub type Fetched = (Sha256Digest, u64);

/// What mirrors have of a file that need not be there.
#[derive(Debug)]
pub enum Optional {
    /// One has it.
    Found(Fetched),
    /// The one that answers does not have it.
    Absent,
    /// No one has it, and some could not be asked: the places, and what came of it.
    Unknown(Vec<(String, String)>),
}

/// Whether the network may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// It may.
    Allowed,
    /// Never.
    Offline,
}

/// Fetches from mirrors into a store.
#[derive(Debug)]
pub struct Fetcher<'a> {
    store: &'a Store,
    mirrors: &'a Mirrors,
    /// A folder as a vendored one, of which what is there is taken first.
    carried: Option<PathBuf>,
    network: Network,
    agent: ureq::Agent,
}

impl<'a> Fetcher<'a> {
    /// A fetcher; nothing is asked yet.
    pub fn new(store: &'a Store, mirrors: &'a Mirrors, network: Network) -> Self {
        let tls = ureq::tls::TlsConfig::builder().root_certs(ureq::tls::RootCerts::PlatformVerifier).build();
        let agent = ureq::Agent::config_builder()
            .tls_config(tls)
            .timeout_connect(Some(PATIENCE))
            .timeout_recv_response(Some(PATIENCE))
            .user_agent(concat!("proofmark/", env!("CARGO_PKG_VERSION")))
            .build()
            .into();
        Fetcher { store, mirrors, carried: None, network, agent }
    }

    /// Takes what a lock carries from the folder beside it, before any mirror is asked.
    pub fn carrying(self, folder: PathBuf) -> Self {
        Fetcher { carried: Some(folder), ..self }
    }

    /// Every place that may have a file.
    fn places(&self, blob: &Blob) -> Vec<String> {
        let carried = self.carried.iter().map(|folder| super::carried::place(folder, blob));
        let carried = carried.filter(|path| path.is_file()).map(|path| path.display().to_string());
        carried.chain(self.mirrors.places(blob)).collect()
    }

    /// The store that is filled.
    pub fn store(&self) -> &Store {
        self.store
    }

    /// The mirrors that are asked.
    pub fn mirrors(&self) -> &Mirrors {
        self.mirrors
    }

    /// Brings all of `blobs` into the store; gives how many had to be fetched, and their bytes.
    ///
    /// # Errors
    /// [`Error`] of the first file that cannot be had. What was fetched by then stays.
    pub fn ensure(&self, blobs: &[Blob], progress: Progress) -> Result<(usize, u64), Error> {
        let mut missing: Vec<&Blob> =
            blobs.iter().filter(|blob| !self.store.has(&blob.sha256, blob.size)).collect();
        missing.sort_by_key(|blob| (blob.sha256, std::cmp::Reverse(blob.size)));
        missing.dedup_by_key(|blob| blob.sha256);
        missing.sort_by_key(|blob| std::cmp::Reverse(blob.size));
        let Some(first) = missing.first() else { return Ok((0, 0)) };
        let local = self.places(first).iter().any(|place| is_local(place));
        if self.network == Network::Offline && !local {
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
            for _ in 0..AT_ONCE.min(count) {
                scope.spawn(|| {
                    while let Some((index, blob)) = take() {
                        let places = self.places(blob);
                        let expected = Expected::Sha256(blob.sha256, blob.size);
                        let got =
                            self.try_all(&places, &expected, &blob.label, &|bytes| stage.advance(bytes));
                        // Of several that fail at once the first of the queue is named: the same at every run.
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

    /// Brings one file of an archive, of which less is known, into the store.
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
        self.try_all(&places, expected, label, &|_| {})
    }

    /// What each mirror has of a file of which nothing is known beforehand: the places, and the file once it is in
    /// the store. Used for signed files, of which the caller takes the first that verifies.
    pub fn each(
        &self,
        archive: ArchiveKind,
        path: &str,
        snapshot: &str,
        at_most: u64,
    ) -> Vec<(String, Result<Fetched, Error>)> {
        let bases = self.mirrors.bases(archive, snapshot);
        bases
            .into_iter()
            .map(|base| format!("{base}/{path}"))
            .map(|place| {
                let got =
                    self.try_all(std::slice::from_ref(&place), &Expected::AtMost(at_most), path, &|_| {});
                (place, got)
            })
            .collect()
    }

    /// What the most wanted mirror that answers has of a file that need not be there. Nobody is asked twice; a mirror
    /// that does not answer is put into `silent`, and whoever is there is not asked.
    pub fn optional(
        &self,
        archive: ArchiveKind,
        path: &str,
        at_most: u64,
        silent: &Mutex<BTreeSet<String>>,
    ) -> Optional {
        let is_silent = |base: &String| silent.lock().is_ok_and(|silent| silent.contains(base));
        let mut failures = Vec::new();
        for base in self.mirrors.bases(archive, "") {
            let place = format!("{base}/{path}");
            let outcome = if is_local(&place) {
                match File::open(&place) {
                    Ok(mut file) => self.take(&mut file, &Expected::AtMost(at_most), &|_| {}),
                    // A vendored folder need not hold everything.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => Err(Refusal::Final(error.to_string())),
                }
            } else if self.network == Network::Offline {
                Err(Refusal::Final("not asked: offline".to_owned()))
            } else if is_silent(&base) {
                Err(Refusal::Final("did not answer before".to_owned()))
            } else {
                match self.agent.get(&place).call() {
                    // 405 is what a registry says that does not know of attestations at all.
                    Err(ureq::Error::StatusCode(404 | 405 | 410)) => return Optional::Absent,
                    Err(error) => {
                        if !matches!(error, ureq::Error::StatusCode(_))
                            && let Ok(mut silent) = silent.lock()
                        {
                            silent.insert(base.clone());
                        }
                        Err(Refusal::of(error))
                    }
                    Ok(mut response) => {
                        let mut reader = response.body_mut().with_config().limit(u64::MAX).reader();
                        self.take(&mut reader, &Expected::AtMost(at_most), &|_| {})
                    }
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

    fn try_all(
        &self,
        places: &[String],
        expected: &Expected,
        label: &str,
        progress: &dyn Fn(u64),
    ) -> Result<Fetched, Error> {
        let mut attempts: Vec<(String, Refusal)> = Vec::new();
        for pause in std::iter::once(None).chain(PAUSES.map(Some)) {
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
                let outcome = if is_local(place) {
                    File::open(place)
                        .map_err(|error| Refusal::Final(error.to_string()))
                        .and_then(|mut file| self.take(&mut file, expected, progress))
                } else if self.network == Network::Offline {
                    Err(Refusal::Final("not asked: offline".to_owned()))
                } else {
                    self.get(place, expected, progress)
                };
                match outcome {
                    Ok(Ok(found)) => return Ok(found),
                    Ok(Err(store)) => return Err(store.into()),
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

    /// Takes a file into the store. Outer error: the source is to blame; inner: the store is.
    fn take(
        &self,
        reader: &mut dyn Read,
        expected: &Expected,
        progress: &dyn Fn(u64),
    ) -> Result<Result<(Sha256Digest, u64), store::Error>, Refusal> {
        match self.store.insert(reader, expected, progress) {
            Ok(found) => Ok(Ok(found)),
            Err(InsertError::Store(error)) => Ok(Err(error)),
            Err(InsertError::Source(error)) if is_cut(&error) => Err(Refusal::Momentary(error.to_string())),
            Err(other) => Err(Refusal::Final(other.to_string())),
        }
    }

    fn get(
        &self,
        url: &str,
        expected: &Expected,
        progress: &dyn Fn(u64),
    ) -> Result<Result<(Sha256Digest, u64), store::Error>, Refusal> {
        let limit = match expected {
            Expected::Sha256(_, size) | Expected::Sha512(_, size) | Expected::AtMost(size) => *size,
        };
        let patience = PATIENCE + Duration::from_secs(limit / SLOWEST);
        let request = self.agent.get(url).config().timeout_recv_body(Some(patience)).build();
        let mut response = request.call().map_err(Refusal::of)?;
        let announced = response.body().content_length();
        if let (Expected::Sha256(_, size), Some(announced)) = (expected, announced)
            && announced != *size
        {
            return Err(Refusal::Final(format!("expected {size} bytes, found {announced} announced")));
        }
        let mut reader = Stalls {
            inner: response.body_mut().with_config().limit(u64::MAX).reader(),
            since: None,
            bytes: 0,
        };
        self.take(&mut reader, expected, progress)
    }
}

/// What came of asking a place in vain.
enum Refusal {
    /// It may go better in a moment.
    Momentary(String),
    /// It will not: no such file, another file, or nothing in all the time that it had.
    Final(String),
}

impl Refusal {
    fn of(error: ureq::Error) -> Refusal {
        let text = error.to_string();
        match error {
            ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => Refusal::Momentary(text),
            ureq::Error::StatusCode(429 | 500 | 502..=504) => Refusal::Momentary(text),
            // A name that cannot be resolved now comes as one of these, without a kind of its own.
            ureq::Error::Io(error) if error.kind() != io::ErrorKind::TimedOut => Refusal::Momentary(text),
            _ => Refusal::Final(text),
        }
    }

    fn into_text(self) -> String {
        let (Refusal::Momentary(text) | Refusal::Final(text)) = self;
        text
    }
}

/// Whether a connection ended that should not have.
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
        if count > 0 && elapsed > PATIENCE && self.bytes < SLOWEST * elapsed.as_secs() {
            let message = format!("stalled: {} bytes in {} s", self.bytes, elapsed.as_secs());
            return Err(io::Error::new(io::ErrorKind::TimedOut, message));
        }
        Ok(count)
    }
}
