//! Sends every HTTP request of the program, through one pool of connections.
//!
//! # Shape
//! ```text
//! Request ─ Http ─┬─ Names: one look-up per host ──┐
//!                 └─ pool: AT_ONCE idle per host ──┴─> Response: any status, a body to read
//! ```
//! Only this module decides how long a request may take ([`Patience`]), when and how often it is retried
//! ([`PAUSES`], [`Error::momentary`]), how many run at once ([`AT_ONCE`]) and which route it takes
//! ([`Route`]).
//!
//! # Source
//! ureq 3 resolves a host name before it looks for an idle connection, so its resolver must remember.
//!
//! # Not here
//! What an answer means. HTTP/2: ureq does not support it.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

/// Requests in flight at once; npm allows 15. Also the number of idle connections kept per host.
pub const AT_ONCE: usize = 24;
/// Idle connections kept in total: for Debian's two archives, npm's registry and another mirror.
const IDLE: usize = 4 * AT_ONCE;
/// Time limit of each step of a request: resolve, connect, first byte of the answer, next bytes.
pub const STEP: Duration = Duration::from_secs(20);
/// The slowest acceptable transfer, in bytes per second.
pub const SLOWEST: u64 = 20_000;
/// Pauses before retries after a transient failure: a busy name server, a cut connection, a 503.
pub const PAUSES: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];
/// Longest error body that is read to keep its connection usable, in bytes.
const MOST_REFUSAL: u64 = 64 << 10;

/// Why a request has no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server answers with an error status.
    #[error("http status: {0}")]
    Status(u16),
    /// No answer arrived.
    #[error(transparent)]
    Lost(#[from] ureq::Error),
}

impl Error {
    /// Tells whether the same request may succeed shortly.
    pub fn momentary(&self) -> bool {
        match self {
            Error::Status(status) => matches!(status, 429 | 500 | 502..=504),
            Error::Lost(ureq::Error::HostNotFound | ureq::Error::ConnectionFailed) => true,
            // A busy name server, as one that says so.
            Error::Lost(ureq::Error::Timeout(ureq::Timeout::Resolve)) => true,
            // The system reports a failed look-up as one of these, without a kind of its own.
            Error::Lost(ureq::Error::Io(error)) => error.kind() != io::ErrorKind::TimedOut,
            Error::Lost(_) => false,
        }
    }

    /// Tells whether the request timed out.
    pub fn timed_out(&self) -> bool {
        matches!(self, Error::Lost(ureq::Error::Timeout(_)))
    }
}

/// Time limit of a request. [`STEP`] also bounds each step of a file's request; others have no limit per
/// step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// For a file of at most this many bytes, which may arrive as slowly as [`SLOWEST`].
    File(u64),
    /// From the first step to the last byte.
    Whole(Duration),
}

/// How a redirect is handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redirect {
    /// Followed, at most ten times.
    Follow,
    /// Returned as the answer.
    Return,
}

/// The route to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// Through the environment's proxy, if any.
    Environment,
    /// Straight to the server.
    Direct,
}

/// A request.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Its URL.
    pub url: &'a str,
    /// The header `Accept`.
    pub accept: &'a str,
    /// Its time limit.
    pub patience: Patience,
    /// How a redirect is handled.
    pub redirect: Redirect,
    /// Its route.
    pub route: Route,
}

/// An answer whose body has not been read.
#[derive(Debug)]
pub struct Response(ureq::http::Response<ureq::Body>);

impl Response {
    /// Returns the HTTP status.
    pub fn status(&self) -> u16 {
        self.0.status().as_u16()
    }

    /// Returns a header, if it is present and is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.0.headers().get(name)?.to_str().ok()
    }

    /// Returns the announced length of the body, if any.
    pub fn length(&self) -> Option<u64> {
        self.0.body().content_length()
    }

    /// Returns the body. Its connection is reused once all of it is read.
    pub fn body(&mut self) -> impl Read {
        self.0.body_mut().as_reader()
    }

    /// Returns the answer, unless its status is an error.
    ///
    /// # Errors
    /// [`Error::Status`] for a status of 400 and above.
    pub fn accepted(mut self) -> Result<Response, Error> {
        let status = self.status();
        if status < 400 {
            return Ok(self);
        }
        self.drain();
        Err(Error::Status(status))
    }

    /// Reads what is left of a short body, for a connection whose body is not read to the end is closed. A body that is
    /// long, slow or cut costs its connection, and nothing else.
    fn drain(&mut self) {
        let begun = Instant::now();
        let mut rest = self.body().take(MOST_REFUSAL);
        let mut piece = [0; 4 << 10];
        while begun.elapsed() < STEP && rest.read(&mut piece).is_ok_and(|count| count > 0) {}
    }
}

/// The program's HTTP client; clones share its connections and resolved addresses.
#[derive(Debug, Clone)]
pub struct Http {
    agent: ureq::Agent,
}

impl Http {
    /// Returns the client that the whole program shares.
    pub fn of_the_program() -> Http {
        static SHARED: OnceLock<Http> = OnceLock::new();
        SHARED.get_or_init(|| Http::new(DefaultResolver::default(), ureq::Proxy::try_from_env())).clone()
    }

    /// Makes a client with its own resolver, which it asks once per host.
    fn new(resolver: impl Resolver, proxy: Option<ureq::Proxy>) -> Http {
        let tls = ureq::tls::TlsConfig::builder().root_certs(ureq::tls::RootCerts::PlatformVerifier).build();
        let config = ureq::Agent::config_builder()
            .tls_config(tls)
            .proxy(proxy)
            .http_status_as_error(false)
            .max_idle_connections(IDLE)
            .max_idle_connections_per_host(AT_ONCE)
            .user_agent(concat!("proofmark/", env!("CARGO_PKG_VERSION")))
            .build();
        Http { agent: ureq::Agent::with_parts(config, DefaultConnector::default(), Names::new(resolver)) }
    }

    /// Sends a GET request.
    ///
    /// # Errors
    /// [`Error::Lost`].
    pub fn get(&self, request: &Request) -> Result<Response, Error> {
        Ok(Response(prepared(self.agent.get(request.url), request).call()?))
    }

    /// Sends a POST request with a body of a media type.
    ///
    /// # Errors
    /// [`Error::Lost`].
    pub fn post(&self, request: &Request, kind: &str, body: &[u8]) -> Result<Response, Error> {
        let post = prepared(self.agent.post(request.url), request).header("Content-Type", kind);
        Ok(Response(post.send(body)?))
    }
}

/// Applies all settings of our request to one of ureq's.
fn prepared<B>(builder: ureq::RequestBuilder<B>, request: &Request) -> ureq::RequestBuilder<B> {
    let config = builder.header("Accept", request.accept).config();
    let config = match request.patience {
        Patience::File(size) => config
            .timeout_resolve(Some(STEP))
            .timeout_connect(Some(STEP))
            .timeout_recv_response(Some(STEP))
            .timeout_per_read(Some(STEP))
            .timeout_recv_body(Some(STEP + Duration::from_secs(size / SLOWEST))),
        Patience::Whole(all) => config.timeout_global(Some(all)),
    };
    let config = match request.redirect {
        Redirect::Follow => config,
        Redirect::Return => config.max_redirects(0),
    };
    match request.route {
        Route::Environment => config.build(),
        Route::Direct => config.proxy(None).build(),
    }
}

/// A resolver that asks another one once per host, however many threads need the answer. A failure is not
/// remembered, but shared with the threads that waited for it.
#[derive(Debug)]
struct Names<R> {
    inner: R,
    hosts: Mutex<BTreeMap<String, Arc<Host>>>,
}

/// What is known about a host.
#[derive(Debug, Default)]
struct Host {
    state: Mutex<State>,
    /// Signals the end of a look-up.
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    addresses: Option<ResolvedSocketAddrs>,
    /// Whether a thread is asking.
    asking: bool,
    /// Number of failed look-ups, and the last failure.
    failures: usize,
    failure: Option<Failure>,
}

/// A failure that can be cloned.
#[derive(Debug, Clone)]
enum Failure {
    NotFound,
    TimedOut(ureq::Timeout),
    Io(io::ErrorKind, String),
}

impl Failure {
    fn of(error: &ureq::Error) -> Failure {
        match error {
            ureq::Error::HostNotFound => Failure::NotFound,
            ureq::Error::Timeout(timeout) => Failure::TimedOut(*timeout),
            ureq::Error::Io(error) => Failure::Io(error.kind(), error.to_string()),
            other => Failure::Io(io::ErrorKind::Other, other.to_string()),
        }
    }

    fn error(&self) -> ureq::Error {
        match self {
            Failure::NotFound => ureq::Error::HostNotFound,
            Failure::TimedOut(timeout) => ureq::Error::Timeout(*timeout),
            Failure::Io(kind, text) => ureq::Error::Io(io::Error::new(*kind, text.clone())),
        }
    }
}

impl<R: Resolver> Names<R> {
    fn new(inner: R) -> Self {
        Names { inner, hosts: Mutex::new(BTreeMap::new()) }
    }
}

impl<R: Resolver> Resolver for Names<R> {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let name = match (uri.scheme(), uri.authority()) {
            (Some(scheme), Some(authority)) => DefaultResolver::host_and_port(scheme, authority),
            _ => None,
        };
        let Some(name) = name else { return self.inner.resolve(uri, config, timeout) };
        let host = {
            let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(hosts.entry(name).or_default())
        };
        let mut state = host.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (begun, before) = (Instant::now(), state.failures);
        loop {
            if let Some(addresses) = &state.addresses {
                return Ok(addresses.clone());
            }
            if let Some(failure) = state.failure.as_ref().filter(|_| state.failures > before) {
                return Err(failure.error());
            }
            if !state.asking {
                break;
            }
            let left = timeout.after.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return Err(ureq::Error::Timeout(timeout.reason));
            }
            let waited = host.ended.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
            state = waited.0;
        }
        state.asking = true;
        drop(state);
        let found = self.inner.resolve(uri, config, timeout);
        let mut state = host.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.asking = false;
        match &found {
            Ok(addresses) => state.addresses = Some(addresses.clone()),
            Err(error) => {
                state.failures += 1;
                state.failure = Some(Failure::of(error));
            }
        }
        host.ended.notify_all();
        found
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    /// A server on loopback that keeps connections open, and counts them.
    #[derive(Debug)]
    pub struct Server {
        pub address: SocketAddr,
        connections: Arc<AtomicUsize>,
        stop: Arc<AtomicBool>,
    }

    impl Server {
        /// Starts a server that answers each path as `answer` says, with a status and a body.
        pub fn start(answer: impl Fn(&str) -> (u16, Vec<u8>) + Send + Sync + 'static) -> Server {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let (connections, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
            let (opened, stopped, answer) = (Arc::clone(&connections), Arc::clone(&stop), Arc::new(answer));
            thread::spawn(move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    if stopped.load(Ordering::Relaxed) {
                        break;
                    }
                    opened.fetch_add(1, Ordering::Relaxed);
                    let answer = Arc::clone(&answer);
                    // The thread ends when its client disconnects.
                    thread::spawn(move || serve(&stream, &*answer));
                }
            });
            Server { address, connections, stop }
        }

        pub fn url(&self) -> String {
            format!("http://{}", self.address)
        }

        /// Returns how many connections were opened.
        pub fn connections(&self) -> usize {
            self.connections.load(Ordering::Relaxed)
        }
    }

    impl Drop for Server {
        fn drop(&mut self) {
            self.stop.store(true, Ordering::Relaxed);
            // Wakes the thread, which waits for a connection.
            let _ = TcpStream::connect(self.address);
        }
    }

    fn serve(stream: &TcpStream, answer: &dyn Fn(&str) -> (u16, Vec<u8>)) -> io::Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        stream.set_nodelay(true)?;
        let mut reader = BufReader::new(stream);
        loop {
            let mut first = String::new();
            if reader.read_line(&mut first)? == 0 {
                return Ok(());
            }
            let mut line = String::new();
            while reader.read_line(&mut line)? > 0 && !line.trim().is_empty() {
                line.clear();
            }
            let (status, body) = answer(first.split(' ').nth(1).unwrap_or_default());
            let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n", body.len());
            let mut writer = stream;
            writer.write_all(&[head.as_bytes(), &body].concat())?;
        }
    }

    /// A resolver that gives one address for all names, after a pause, and counts; addresses resolve to
    /// themselves.
    #[derive(Debug, Clone)]
    pub struct Scripted {
        address: SocketAddr,
        asked: Arc<Mutex<Vec<String>>>,
        /// Look-ups that fail before the first success.
        failing: Arc<AtomicUsize>,
    }

    impl Scripted {
        pub fn new(address: SocketAddr) -> Self {
            Scripted { address, asked: Arc::default(), failing: Arc::default() }
        }

        /// Returns the names that were looked up, sorted.
        pub fn asked(&self) -> Vec<String> {
            let mut asked = self.asked.lock().unwrap().clone();
            asked.sort();
            asked
        }
    }

    impl Resolver for Scripted {
        fn resolve(
            &self,
            uri: &Uri,
            config: &Config,
            timeout: NextTimeout,
        ) -> Result<ResolvedSocketAddrs, ureq::Error> {
            if uri.host().unwrap().parse::<IpAddr>().is_ok() {
                return DefaultResolver::default().resolve(uri, config, timeout);
            }
            self.asked.lock().unwrap().push(uri.host().unwrap().to_owned());
            thread::sleep(Duration::from_millis(50));
            let fails =
                self.failing.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
            if fails.is_ok() {
                return Err(ureq::Error::Io(io::Error::other("the name server is busy")));
            }
            let mut addresses = self.empty();
            addresses.push(self.address);
            Ok(addresses)
        }
    }

    /// Returns the program's client with this resolver and without a proxy.
    pub fn http(resolver: impl Resolver) -> Http {
        Http::new(resolver, None)
    }

    fn request(url: &str) -> Request<'_> {
        let (redirect, route) = (Redirect::Follow, Route::Environment);
        Request { url, accept: "*/*", patience: Patience::File(1 << 20), redirect, route }
    }

    fn text(http: &Http, url: &str) -> Result<String, Error> {
        let mut text = String::new();
        let mut response = http.get(&request(url))?.accepted()?;
        response.body().read_to_string(&mut text).unwrap();
        Ok(text)
    }

    #[test]
    fn connections_are_kept_for_all_threads() {
        // Answers only once all have asked: each needs its own connection.
        let all = Barrier::new(AT_ONCE);
        let server = Server::start(move |_| {
            all.wait();
            (200, b"x".to_vec())
        });
        let http = http(DefaultResolver::default());
        let url = server.url();
        for _ in 0..3 {
            thread::scope(|scope| {
                for _ in 0..AT_ONCE {
                    scope.spawn(|| assert_eq!(text(&http, &url).unwrap(), "x"));
                }
            });
        }
        assert_eq!(server.connections(), AT_ONCE);
    }

    #[test]
    fn a_refusal_leaves_its_connection_usable() {
        let server = Server::start(|path| match path {
            "/lost" => (404, b"not here".to_vec()),
            _ => (200, b"x".to_vec()),
        });
        let http = http(DefaultResolver::default());
        for _ in 0..3 {
            let lost = text(&http, &format!("{}/lost", server.url())).unwrap_err();
            assert!(matches!(lost, Error::Status(404)), "{lost}");
            assert_eq!((lost.to_string().as_str(), lost.momentary()), ("http status: 404", false));
        }
        assert_eq!(text(&http, &server.url()).unwrap(), "x");
        assert_eq!(server.connections(), 1);
    }

    #[test]
    fn a_name_is_looked_up_once_whatever_the_number_of_threads_and_requests() {
        let server = Server::start(|_| (200, b"x".to_vec()));
        let resolver = Scripted::new(server.address);
        let http = http(resolver.clone());
        thread::scope(|scope| {
            for _ in 0..AT_ONCE {
                scope.spawn(|| {
                    for host in ["a.example", "b.example", "a.example"] {
                        assert_eq!(text(&http, &format!("http://{host}/x")).unwrap(), "x");
                    }
                });
            }
        });
        assert_eq!(resolver.asked(), ["a.example", "b.example"]);
    }

    #[test]
    fn a_busy_name_server_is_asked_again_and_a_silent_server_is_not() {
        let timed_out = |what| Error::Lost(ureq::Error::Timeout(what));
        assert!(timed_out(ureq::Timeout::Resolve).momentary());
        for what in [ureq::Timeout::Connect, ureq::Timeout::RecvResponse, ureq::Timeout::RecvBody] {
            assert!(!timed_out(what).momentary(), "{what:?}");
        }
    }

    #[test]
    fn a_failed_look_up_is_shared_by_those_who_wait_and_not_remembered() {
        let server = Server::start(|_| (200, b"x".to_vec()));
        let resolver = Scripted::new(server.address);
        resolver.failing.store(1, Ordering::Relaxed);
        let http = http(resolver.clone());
        let first = thread::scope(|scope| {
            let first = scope.spawn(|| text(&http, "http://a.example/"));
            while resolver.asked().is_empty() {
                thread::sleep(Duration::from_millis(1));
            }
            // The first look-up is in progress, and waits.
            let second = text(&http, "http://a.example/").unwrap_err();
            assert_eq!(second.to_string(), "io: the name server is busy");
            assert!(second.momentary());
            first.join().unwrap()
        });
        assert_eq!(first.unwrap_err().to_string(), "io: the name server is busy");
        assert_eq!(resolver.asked().len(), 1);
        assert_eq!(text(&http, "http://a.example/").unwrap(), "x");
        assert_eq!(resolver.asked().len(), 2);
    }

    #[test]
    fn who_waits_for_a_look_up_waits_no_longer_than_its_own_patience() {
        let server = Server::start(|_| (200, b"x".to_vec()));
        let resolver = Scripted::new(server.address);
        let http = http(resolver.clone());
        thread::scope(|scope| {
            let first = scope.spawn(|| text(&http, "http://a.example/"));
            while resolver.asked().is_empty() {
                thread::sleep(Duration::from_millis(1));
            }
            let patience = Patience::Whole(Duration::from_millis(10));
            let hasty = Request { patience, ..request("http://a.example/") };
            assert!(http.get(&hasty).unwrap_err().timed_out());
            assert_eq!(first.join().unwrap().unwrap(), "x");
        });
    }
}
