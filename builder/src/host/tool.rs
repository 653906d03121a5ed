//! Runs a program with nothing but the given inputs, and returns its output.
//!
//! The program gets exactly the given environment, no input, and its own process group, which is killed when
//! the program ends or times out: no process that it started stays behind.
//!
//! # Not here
//! Which program to run, and what its output means.

pub mod running;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// Bytes kept of each stream; more is an error for stdout, and for stderr only the end is kept.
const MAX_OUTPUT: usize = 64 << 20;

/// Bytes of stderr that an error shows.
const TAIL: usize = 4 << 10;

/// Longest pause between two polls of a running program.
const PAUSE: Duration = Duration::from_millis(20);

/// Why a program failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be started.
    #[error("cannot start {program}")]
    Start {
        /// Its path.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// It exited with a failure, or was killed.
    #[error("{program} ended with {status}{stderr}")]
    Failed {
        /// Its path and first argument.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it printed on stderr.
        stderr: Tail,
    },
    /// It timed out.
    #[error("{program} did not end within {} s{stderr}", limit.as_secs_f32())]
    TimedOut {
        /// Its path and first argument.
        program: String,
        /// The time limit.
        limit: Duration,
        /// The end of what it printed on stderr.
        stderr: Tail,
    },
    /// It printed more than the limit.
    #[error("{program} printed more than {MAX_OUTPUT} bytes")]
    TooMuch {
        /// Its path and first argument.
        program: String,
    },
    /// Its output or exit status cannot be read.
    #[error("lost {program}")]
    Lost {
        /// Its path and first argument.
        program: String,
        /// Why.
        source: io::Error,
    },
}

/// The end of a program's output, as part of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tail(pub String);

impl fmt::Display for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            f.write_str(", and said nothing")
        } else {
            write!(f, ", and said:\n{}", self.0)
        }
    }
}

/// A program and all its inputs.
#[derive(Debug, Clone)]
pub struct Run {
    /// Path of the program; there is no search.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Its whole environment.
    pub environment: BTreeMap<OsString, OsString>,
    /// The working folder.
    pub folder: PathBuf,
    /// The time limit.
    pub limit: Duration,
}

/// A program's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// All of stdout.
    pub stdout: Vec<u8>,
    /// The end of stderr.
    pub stderr: Vec<u8>,
}

/// Runs a program, which must succeed.
///
/// # Errors
/// [`Error`]; the program and all that it started are gone in any case.
pub fn run(what: &Run) -> Result<Output, Error> {
    let program = name(what);
    let mut child = Command::new(&what.program)
        .args(&what.arguments)
        .env_clear()
        .envs(&what.environment)
        .current_dir(&what.folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|source| Error::Start { program: what.program.display().to_string(), source })?;
    let overflow = Arc::new(AtomicBool::new(false));
    let stdout = child.stdout.take().map(|stream| {
        let overflow = Arc::clone(&overflow);
        thread::spawn(move || whole(stream, &overflow))
    });
    let stderr = child.stderr.take().map(|stream| thread::spawn(move || end(stream)));

    let status = wait(&mut child, what.limit, &overflow);
    // Processes left in the group hold the streams open.
    kill_group(&child);
    if !matches!(status, Ok(Some(_))) {
        let _ = child.wait();
    }
    let lost = |source| Error::Lost { program: program.clone(), source };
    let stdout = stdout.map_or(Ok(Vec::new()), join).map_err(lost)?;
    let stderr = stderr.map_or(Ok(Vec::new()), join).map_err(lost)?;
    if overflow.load(Ordering::Relaxed) {
        return Err(Error::TooMuch { program });
    }
    match status.map_err(lost)? {
        None => Err(Error::TimedOut { program, limit: what.limit, stderr: tail(&stderr) }),
        Some(status) if !status.success() => Err(Error::Failed { program, status, stderr: tail(&stderr) }),
        Some(_) => Ok(Output { stdout, stderr }),
    }
}

/// Returns the program and its first argument, for messages.
fn name(what: &Run) -> String {
    let program = what.program.display();
    what.arguments
        .first()
        .map_or_else(|| program.to_string(), |first| format!("{program} {}", first.display()))
}

/// Returns how the program ended; `None` if it timed out, or printed too much.
fn wait(child: &mut Child, limit: Duration, overflow: &AtomicBool) -> io::Result<Option<ExitStatus>> {
    let start = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if start.elapsed() >= limit || overflow.load(Ordering::Relaxed) {
            return Ok(None);
        }
        thread::sleep(pause.min(limit.saturating_sub(start.elapsed())));
        pause = (pause * 2).min(PAUSE);
    }
}

fn kill_group(child: &Child) {
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // The group may be empty.
        let _ = kill_process_group(group, Signal::KILL);
    }
}

fn join(thread: thread::JoinHandle<io::Result<Vec<u8>>>) -> io::Result<Vec<u8>> {
    thread.join().unwrap_or_else(|_| Err(io::Error::other("the reader of a stream panicked")))
}

/// Reads all of a stream, up to the limit.
fn whole(stream: impl Read, overflow: &AtomicBool) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.take(MAX_OUTPUT as u64 + 1).read_to_end(&mut bytes)?;
    overflow.store(bytes.len() > MAX_OUTPUT, Ordering::Relaxed);
    Ok(bytes)
}

/// Reads the end of a stream.
fn end(mut stream: impl Read) -> io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    let mut buffer = [0; 8 << 10];
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Ok(kept);
        }
        kept.extend_from_slice(buffer.get(..count).unwrap_or_default());
        let surplus = kept.len().saturating_sub(2 * TAIL);
        if surplus > 0 {
            kept.drain(..surplus);
        }
    }
}

/// Returns the last lines of a stream, as text.
fn tail(stderr: &[u8]) -> Tail {
    let last = stderr.get(stderr.len().saturating_sub(TAIL)..).unwrap_or_default();
    Tail(String::from_utf8_lossy(last).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration) -> Run {
        Run {
            program: "/bin/sh".into(),
            arguments: vec!["-c".into(), script.into()],
            environment: BTreeMap::from([("A".into(), "1".into())]),
            folder: "/".into(),
            limit,
        }
    }

    const ENOUGH: Duration = Duration::from_secs(60);

    #[test]
    fn a_program_gets_its_environment_and_folder_and_nothing_else() {
        let output = run(&shell("pwd; echo $A; echo \"${HOME-no home}\"; cat; echo e >&2", ENOUGH)).unwrap();
        assert_eq!(output, Output { stdout: b"/\n1\nno home\n".to_vec(), stderr: b"e\n".to_vec() });
    }

    #[test]
    fn a_failure_tells_its_status_and_the_end_of_stderr() {
        let error =
            run(&shell("i=0; while [ $i -lt 2000 ]; do echo line $i >&2; i=$((i+1)); done; exit 7", ENOUGH));
        let message = error.unwrap_err().to_string();
        assert!(message.starts_with("/bin/sh -c ended with exit status: 7, and said:\n"), "{message}");
        assert!(message.ends_with("line 1999") && message.len() < 2 * TAIL, "{message}");
        let silent = run(&shell("kill -9 $$", ENOUGH)).unwrap_err().to_string();
        assert!(silent.contains("signal: 9") && silent.ends_with("and said nothing"), "{silent}");
    }

    #[test]
    fn when_the_time_is_up_the_whole_group_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let script =
            format!("(sleep 2; touch {}/late) & echo started >&2; sleep 100", folder.path().display());
        let start = Instant::now();
        let error = run(&shell(&script, Duration::from_millis(500))).unwrap_err();
        assert!(matches!(&error, Error::TimedOut { stderr, .. } if stderr.0 == "started"), "{error}");
        assert!(start.elapsed() < Duration::from_secs(30));
        thread::sleep(Duration::from_secs(3));
        assert!(!folder.path().join("late").exists());
    }

    #[test]
    fn what_a_program_leaves_behind_does_not_hold_it_up() {
        let start = Instant::now();
        assert_eq!(run(&shell("sleep 100 & echo done", ENOUGH)).unwrap().stdout, b"done\n");
        assert!(start.elapsed() < ENOUGH);
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let mut what = shell("", ENOUGH);
        what.program = "/no/such/program".into();
        let error = run(&what).unwrap_err();
        assert_eq!(error.to_string(), "cannot start /no/such/program");
    }

    #[test]
    fn endless_output_is_refused() {
        let error =
            run(&shell("while :; do echo 0123456789012345678901234567890123456789; done | cat", ENOUGH));
        let error = error.unwrap_err();
        assert!(matches!(error, Error::TooMuch { .. }), "{error}");
    }
}
