//! Yields the text of a verdict for people.
//!
//! # Shape
//! ```text
//! refused: image 1.2 (release) on qemu-tdx, memory 4G
//! signature: not verified
//! reasons:
//!   - …
//! notes:
//!   - …
//! ```
//!
//! # Not here
//! The verdict itself (`ovmf_measure::appraise`).

use std::fmt::Write;

use ovmf_measure::appraise::Verdict;
use serde::Serialize;

/// What `--json` prints: the verdict, with its reasons and notes in words.
#[derive(Debug, Serialize)]
pub struct Answer<'a> {
    #[serde(flatten)]
    verdict: &'a Verdict,
    words: Words,
}

#[derive(Debug, Serialize)]
struct Words {
    reasons: Vec<String>,
    notes: Vec<String>,
}

impl<'a> From<&'a Verdict> for Answer<'a> {
    fn from(verdict: &'a Verdict) -> Self {
        let words = Words {
            reasons: verdict.reasons().iter().map(ToString::to_string).collect(),
            notes: verdict.notes().iter().map(ToString::to_string).collect(),
        };
        Answer { verdict, words }
    }
}

/// Formats a verdict.
pub fn to_text(verdict: &Verdict) -> String {
    let image = verdict.image();
    let mut text = format!("{}: {} {} ({})", verdict.answer(), image.name, image.version, image.profile);
    if let Some(platform) = verdict.platform() {
        text.push_str(" on ");
        text.push_str(&platform.name);
        for (name, value) in &platform.shape {
            // Writing to a string does not fail.
            let _ = write!(text, ", {name} {value}");
        }
    }
    let _ = writeln!(text, "\nsignature: {}", verdict.signature());
    let mut list = |title: &str, lines: Vec<String>| {
        if !lines.is_empty() {
            let _ = writeln!(text, "{title}:\n  - {}", lines.join("\n  - "));
        }
    };
    list("reasons", verdict.reasons().iter().map(ToString::to_string).collect());
    list("notes", verdict.notes().iter().map(ToString::to_string).collect());
    text
}
