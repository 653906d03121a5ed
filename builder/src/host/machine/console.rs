//! Yields the last lines of a guest's serial console, and passes on all output as it arrives.
//!
//! # Not here
//! What the lines mean.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::process::ChildStdin;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use rustix::termios::{InputModes, LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

/// Number of lines kept.
const LINES: usize = 25;
/// Number of characters kept per line.
const LENGTH: usize = 200;

/// The last lines of a console, without cursor movements.
#[derive(Debug, Default)]
pub struct Lines {
    whole: VecDeque<String>,
    partial: String,
    escape: Escape,
    lossy: Vec<u8>,
}

/// The console's position in an escape sequence of ECMA-48.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Escape {
    #[default]
    Outside,
    /// After ESC.
    Begun,
    /// After ESC and `[`: parameters, then a final byte of 0x40 to 0x7e (ECMA-48, 5.4).
    Control,
}

impl Lines {
    /// Adds console output.
    pub fn feed(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            match (self.escape, byte) {
                (Escape::Outside, 0x1b) => self.escape = Escape::Begun,
                (Escape::Begun, b'[') => self.escape = Escape::Control,
                (Escape::Begun, _) => self.escape = Escape::Outside,
                (Escape::Control, 0x40..=0x7e) => self.escape = Escape::Outside,
                (Escape::Control, _) => {}
                (Escape::Outside, b'\n') => self.end_line(),
                (Escape::Outside, b'\t' | 0x20..=0x7e | 0x80..) if self.lossy.len() < LENGTH => {
                    self.lossy.push(if byte == b'\t' { b' ' } else { byte });
                }
                (Escape::Outside, _) => {}
            }
        }
        self.partial = String::from_utf8_lossy(&self.lossy).trim().to_owned();
    }

    fn end_line(&mut self) {
        let line = String::from_utf8_lossy(&self.lossy).trim().to_owned();
        self.lossy.clear();
        if line.is_empty() {
            return;
        }
        if self.whole.len() == LINES {
            self.whole.pop_front();
        }
        self.whole.push_back(line);
    }

    /// Returns the last line that is not blank.
    pub fn last(&self) -> &str {
        if self.partial.is_empty() { self.whole.back().map_or("", String::as_str) } else { &self.partial }
    }

    /// Returns the last lines, oldest first.
    pub fn all(&self) -> Vec<String> {
        let partial = Some(&self.partial).filter(|line| !line.is_empty());
        self.whole.iter().chain(partial).cloned().collect()
    }
}

/// A sink for all console output.
pub type Sink = Box<dyn Write + Send>;

/// A console that is being read.
#[derive(Debug)]
pub struct Console {
    lines: Arc<Mutex<Lines>>,
    reader: Option<JoinHandle<io::Result<()>>>,
}

impl Console {
    /// Reads a console to its end on another thread, and passes every byte to the sinks.
    pub fn read(mut stream: impl Read + Send + 'static, mut sinks: Vec<Sink>) -> Self {
        let lines = Arc::new(Mutex::new(Lines::default()));
        let kept = Arc::clone(&lines);
        let reader = thread::spawn(move || {
            let mut outcome = Ok(());
            let mut buffer = [0; 4 << 10];
            loop {
                let count = match stream.read(&mut buffer) {
                    Ok(0) => return outcome,
                    Ok(count) => count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => return outcome.and(Err(error)),
                };
                let bytes = buffer.get(..count).unwrap_or_default();
                if let Ok(mut lines) = kept.lock() {
                    lines.feed(bytes);
                }
                // A failing sink must not stop the guest: drop it, and report its error.
                sinks.retain_mut(|sink| match sink.write_all(bytes).and_then(|()| sink.flush()) {
                    Ok(()) => true,
                    Err(error) => {
                        if outcome.is_ok() {
                            outcome = Err(error);
                        }
                        false
                    }
                });
            }
        });
        Console { lines, reader: Some(reader) }
    }

    /// Returns the last line that is not blank.
    pub fn last(&self) -> String {
        self.lines.lock().map_or(String::new(), |lines| lines.last().to_owned())
    }

    /// Returns the last lines, oldest first.
    pub fn all(&self) -> Vec<String> {
        self.lines.lock().map_or(Vec::new(), |lines| lines.all())
    }

    /// Waits until the console is closed.
    ///
    /// # Errors
    /// The error of the first sink that failed.
    pub fn finish(&mut self) -> io::Result<()> {
        let Some(reader) = self.reader.take() else { return Ok(()) };
        reader.join().unwrap_or_else(|_| Err(io::Error::other("the reader of the console panicked")))
    }
}

/// The terminal's keys, passed to the guest; drop restores the terminal.
#[derive(Debug)]
pub struct Keys {
    before: Termios,
}

impl Keys {
    /// Passes each key to a guest at once, without echo, except those for interrupt (Ctrl-C) and stop
    /// (Ctrl-Z).
    ///
    /// # Errors
    /// When standard input is not a terminal.
    pub fn pass_to(mut guest: ChildStdin) -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut while_passing = before.clone();
        while_passing.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
        while_passing.input_modes.remove(InputModes::ICRNL | InputModes::IXON);
        tcsetattr(io::stdin(), OptionalActions::Now, &while_passing)?;
        thread::spawn(move || {
            let mut buffer = [0; 256];
            while let Ok(count @ 1..) = io::stdin().read(&mut buffer) {
                let bytes = buffer.get(..count).unwrap_or_default();
                if guest.write_all(bytes).and_then(|()| guest.flush()).is_err() {
                    return;
                }
            }
        });
        Ok(Keys { before })
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        // Nobody is left to report an error to.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_and_empty_lines_are_left_out() {
        let mut lines = Lines::default();
        for byte in b"\x1b[2J\x1b[01;01HBdsDxe: loading\r\n\r\n\x1b[0m[  OK  ] Started\x1b[K\r\nlogin: " {
            lines.feed(&[*byte]);
        }
        assert_eq!(lines.all(), ["BdsDxe: loading", "[  OK  ] Started", "login:"]);
        assert_eq!(lines.last(), "login:");
        lines.feed(b"\n");
        assert_eq!(lines.last(), "login:");
    }

    #[test]
    fn only_so_many_lines_and_characters_are_kept() {
        let mut lines = Lines::default();
        for number in 0..100 {
            lines.feed(format!("line {number} {}\n", "x".repeat(1 << 10)).as_bytes());
        }
        lines.feed(&vec![0xff; 1 << 20]);
        let all = lines.all();
        assert_eq!(all.len(), LINES + 1);
        assert!(all.iter().all(|line| line.chars().count() <= LENGTH));
        assert!(all.first().is_some_and(|line| line.starts_with("line 75 ")));
    }

    #[test]
    fn a_sink_that_fails_does_not_keep_the_rest_from_the_others() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("console");
        let file = std::fs::File::create(&path).unwrap();
        let mut console = Console::read(&b"one\ntwo\n"[..], vec![Box::new(Full), Box::new(file)]);
        assert_eq!(console.finish().unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(std::fs::read(&path).unwrap(), b"one\ntwo\n");
        assert_eq!(console.all(), ["one", "two"]);
    }
}
