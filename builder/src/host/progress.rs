//! Yields honest progress on standard error: bars on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Moving bars.
    Terminal,
    /// One line per stage.
    Lines,
    /// Not at all.
    Silent,
}

/// A stage of work in progress.
#[derive(Debug)]
pub struct Stage {
    what: String,
    bar: ProgressBar,
    progress: Progress,
    started: Instant,
}

impl Progress {
    /// Picks bars when standard error is a terminal, lines otherwise.
    pub fn detect() -> Self {
        if std::io::stderr().is_terminal() { Progress::Terminal } else { Progress::Lines }
    }

    /// Begins a stage of `total` bytes; 0 if unknown.
    pub fn stage(self, what: &str, total: u64) -> Stage {
        let bar = match self {
            Progress::Terminal => ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()),
            _ => ProgressBar::hidden(),
        };
        let style = if total > 0 {
            bar.set_length(total);
            "{msg:<28} {bar:30} {bytes}/{total_bytes} {bytes_per_sec}"
        } else {
            "{msg:<28} {spinner} {elapsed}"
        };
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        bar.set_message(what.to_owned());
        if self == Progress::Terminal {
            bar.enable_steady_tick(Duration::from_millis(100));
        }
        Stage { what: what.to_owned(), bar, progress: self, started: Instant::now() }
    }

    /// Prints one line.
    pub fn note(self, line: &str) {
        if self != Progress::Silent {
            eprintln!("{line}");
        }
    }
}

impl Stage {
    /// Advances by `bytes`.
    pub fn advance(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    /// Shows the current activity.
    pub fn now(&self, line: &str) {
        self.bar.set_message(line.to_owned());
    }

    /// Ends the stage; `result` is its outcome. Returns how long it took.
    pub fn done(self, result: &str) -> Duration {
        let took = self.started.elapsed();
        self.bar.finish_and_clear();
        if self.progress != Progress::Silent {
            eprintln!("{:<28} {:>7.2} s  {result}", self.what, took.as_secs_f64());
        }
        took
    }
}
