//! Starts a long-running program, gives access to its streams, and ends it on drop at the latest.
//!
//! As with [`run`](super::run), it gets exactly the given environment and its own process group. Where
//! `setpriv` is installed, the kernel ends it even if this process is killed.
//!
//! # Source
//! PR_SET_PDEATHSIG in prctl(2): the signal comes when the *thread* that started the program ends, so the
//! starting thread must outlive the program.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use super::{Error, TAIL, Tail, kill_group, tail};

/// Ties a program's life to the thread that started it (setpriv(1), util-linux 2.33).
const TIE: &str = "/usr/bin/setpriv";

/// A long-running program and all its inputs.
#[derive(Debug, Clone)]
pub struct Start {
    /// Path of the program; there is no search.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Its whole environment.
    pub environment: BTreeMap<OsString, OsString>,
    /// The working folder.
    pub folder: PathBuf,
}

/// A started program; it is killed, with its group, on drop.
#[derive(Debug)]
pub struct Running {
    child: Child,
    program: String,
    status: Option<ExitStatus>,
    stderr: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Start {
    /// Starts the program. Its input and output are pipes; the end of its stderr is kept.
    ///
    /// # Errors
    /// [`Error::Start`].
    pub fn start(&self) -> Result<Running, Error> {
        let program = self.program.display().to_string();
        let failed = |source| Error::Start { program: program.clone(), source };
        // `setpriv` would report this less clearly.
        self.program.metadata().map_err(failed)?;
        let mut command = if Path::new(TIE).exists() {
            let mut command = Command::new(TIE);
            command.args(["--pdeathsig", "KILL", "--"]).arg(&self.program);
            command
        } else {
            Command::new(&self.program)
        };
        let mut child = command
            .args(&self.arguments)
            .env_clear()
            .envs(&self.environment)
            .current_dir(&self.folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        let stderr = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&stderr);
        let reader = child.stderr.take().map(|stream| thread::spawn(move || keep_end(stream, &kept)));
        Ok(Running { child, program, status: None, stderr, reader })
    }
}

impl Running {
    /// Returns the program's standard input, once.
    pub fn stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Returns the program's standard output, once.
    pub fn stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Returns the end of the program's stderr so far.
    pub fn stderr(&self) -> Tail {
        self.stderr.lock().map_or(Tail(String::new()), |bytes| tail(&bytes))
    }

    /// Returns how the program ended, if it has.
    ///
    /// # Errors
    /// [`Error::Lost`].
    pub fn ended(&mut self) -> Result<Option<ExitStatus>, Error> {
        if self.status.is_none() {
            let lost = |source| Error::Lost { program: self.program.clone(), source };
            self.status = self.child.try_wait().map_err(lost)?;
            if self.status.is_some() {
                self.tidy();
            }
        }
        Ok(self.status)
    }

    /// Kills the program and its whole group.
    pub fn stop(&mut self) {
        if self.status.is_none() {
            kill_group(&self.child);
            self.status = self.child.wait().ok();
            self.tidy();
        }
    }

    /// Kills what is left in the group and holds stderr open; then all of stderr has arrived.
    fn tidy(&mut self) {
        kill_group(&self.child);
        if let Some(reader) = self.reader.take() {
            // It returns nothing, and its panic would have ended this process.
            let _ = reader.join();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Keeps the end of a stream as it arrives.
fn keep_end(mut stream: impl Read, kept: &Mutex<Vec<u8>>) {
    let mut buffer = [0; 4 << 10];
    loop {
        let count = match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        let Ok(mut kept) = kept.lock() else { return };
        kept.extend_from_slice(buffer.get(..count).unwrap_or_default());
        let surplus = kept.len().saturating_sub(2 * TAIL);
        if surplus > 0 {
            kept.drain(..surplus);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::time::{Duration, Instant};

    use super::*;

    fn shell(script: &str) -> Running {
        let start = Start {
            program: "/bin/sh".into(),
            arguments: vec!["-c".into(), script.into()],
            environment: BTreeMap::from([("PATH".into(), "/usr/bin:/bin".into())]),
            folder: "/".into(),
        };
        start.start().unwrap()
    }

    fn first_line(running: &mut Running) -> String {
        let mut line = String::new();
        BufReader::new(running.stdout().unwrap()).read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    fn is_gone(process: &str) -> bool {
        let begun = Instant::now();
        let state = Path::new("/proc").join(process).join("stat");
        // A zombie that is not yet reaped counts as gone.
        while std::fs::read_to_string(&state).is_ok_and(|stat| !stat.contains(") Z ")) {
            if begun.elapsed() > Duration::from_secs(20) {
                return false;
            }
            thread::sleep(Duration::from_millis(20));
        }
        true
    }

    #[test]
    fn a_program_is_spoken_with_and_tells_how_it_ended() {
        let mut running = shell("read word; echo \"got $word\"; echo why >&2; exit 3");
        assert_eq!(running.ended().unwrap(), None);
        running.stdin().unwrap().write_all(b"hello\n").unwrap();
        assert_eq!(first_line(&mut running), "got hello");
        let begun = Instant::now();
        while running.ended().unwrap().is_none() {
            assert!(begun.elapsed() < Duration::from_secs(60));
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(running.ended().unwrap().and_then(|status| status.code()), Some(3));
        assert_eq!(running.stderr(), Tail("why".to_owned()));
    }

    #[test]
    fn dropping_it_kills_the_program_and_what_it_started() {
        let mut running = shell("sleep 1000 & echo $!; wait");
        let grandchild = first_line(&mut running);
        let child = running.child.id().to_string();
        drop(running);
        assert!(is_gone(&child) && is_gone(&grandchild));
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let start = Start {
            program: "/no/such/program".into(),
            arguments: Vec::new(),
            environment: BTreeMap::new(),
            folder: "/".into(),
        };
        assert_eq!(start.start().unwrap_err().to_string(), "cannot start /no/such/program");
    }
}
