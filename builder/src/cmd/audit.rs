//! `proofmark audit`.

use std::path::PathBuf;
use std::process::ExitCode;

use proofmark::claim::reference::{self as values, Detail};
use proofmark::flow::audit::{self, Audit};
use proofmark::host::output;
use proofmark::session::Session;

use crate::failure::NO;
use crate::format::Format;
use crate::options::firmware::FirmwareFiles;

/// Recomputes all reference values of an image from its bytes, including the root file system's hash, and compares
/// them with a document. Reports differences by register: the first event, and the input that it points to.
///
/// Exits with 0 when everything agrees, and with 4 when something differs.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// A folder that `proofmark build` wrote, or a raw disk.
    #[arg(value_name = "IMAGE")]
    image: PathBuf,
    /// The document: reference-values.json.
    #[arg(long, value_name = "FILE")]
    reference: PathBuf,
    #[command(flatten)]
    firmware: FirmwareFiles,
    /// Print every event of every register, not only the differences.
    #[arg(long)]
    explain: bool,
}

/// Audits an image.
pub fn run(arguments: &Arguments, session: &Session, format: Format) -> anyhow::Result<ExitCode> {
    let firmware = arguments.firmware.files();
    let audit = audit::audit(&arguments.image, &arguments.reference, firmware, session)?;
    say(&audit, arguments, format)?;
    Ok(if audit.mismatches.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(NO) })
}

fn say(audit: &Audit, arguments: &Arguments, format: Format) -> anyhow::Result<()> {
    let Audit { document, computed, mismatches } = audit;
    if format == Format::Json {
        let platforms: Vec<_> = computed
            .platforms
            .iter()
            .map(|platform| {
                serde_json::json!({
                    "platform": platform.name,
                    "algorithm": platform.algorithm,
                    "shape": platform.shape,
                    "mrtd": platform.mrtd,
                    "registers": values::registers_json(platform),
                    "events": values::events_json(platform),
                })
            })
            .collect();
        let mut answer = serde_json::json!({
            "agrees": mismatches.is_empty(),
            "mismatches": mismatches,
            "platforms": platforms,
        });
        // With one machine, its registers are where `measure` puts them.
        if let ([only], Some(map)) = (computed.platforms.as_slice(), answer.as_object_mut()) {
            map.insert("registers".to_owned(), values::registers_json(only));
            map.insert("events".to_owned(), values::events_json(only));
        }
        return Ok(output::print(&format!("{}\n", serde_json::to_string_pretty(&answer)?))?);
    }
    let mut text = String::new();
    let detail = if arguments.explain { Detail::Explained } else { Detail::Values };
    for platform in &computed.platforms {
        text.push_str(&values::text(platform, detail));
    }
    for mismatch in mismatches {
        let platform = mismatch.platform.as_deref().unwrap_or("the image");
        let event = mismatch.event.map_or(String::new(), |index| format!(", event {index}"));
        text.push_str(&format!(
            "DIFFERS {platform}: {}{event}, {}\n  expected {}\n  found    {}\n  points to {}\n",
            mismatch.register, mismatch.subject, mismatch.expected, mismatch.found, mismatch.points_to
        ));
    }
    text.push_str(&match mismatches.len() {
        0 => format!(
            "agrees: {} {} ({}), {} machines, root file system hashed again\n",
            document.image.name,
            document.image.version,
            document.image.profile,
            document.platforms.len()
        ),
        count => format!("{count} values do not agree with {}\n", arguments.reference.display()),
    });
    Ok(output::print(&text)?)
}
