//! `proofmark diff`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use proofmark::claim::difference::{self, Difference, Side};
use proofmark::claim::file;
use proofmark::claim::moved::{self, Moved};
use proofmark::flow::measure;
use proofmark::host::built::{self, Built, Files};
use proofmark::host::output;
use proofmark::recipe::{self, Profile};
use proofmark::session::Session;
use serde::Serialize;

use crate::failure::{NO, hinted};
use crate::format::Format;

/// Shows what differs between two images, two locks or two recipes: first packages, then files, then what changed in
/// them, then everything else, then which registers and events of a boot change, and why. Text files of up to 256 KiB
/// are compared line by line. Outputs of images are first checked against their manifests.
///
/// Exits with 0 when nothing differs, and with 4 when something does.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Folder of an image, a recipe.lock, or a recipe: recipe.toml or its folder.
    #[arg(value_name = "A")]
    before: PathBuf,
    /// Another of the same kind.
    #[arg(value_name = "B")]
    after: PathBuf,
    /// Do not look into files; report only that they differ.
    #[arg(long)]
    brief: bool,
}

/// What can be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Image,
    Lock,
    Recipe,
}

impl Kind {
    fn words(self) -> &'static str {
        match self {
            Kind::Image => "an image",
            Kind::Lock => "a lock",
            Kind::Recipe => "a recipe",
        }
    }

    /// What a path holds.
    fn of(path: &Path) -> anyhow::Result<Self> {
        let metadata = fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
        let extension = path.extension().and_then(|extension| extension.to_str());
        if metadata.is_dir() && path.join(file::MANIFEST).is_file() {
            Ok(Kind::Image)
        } else if metadata.is_dir() && path.join("recipe.toml").is_file() || extension == Some("toml") {
            Ok(Kind::Recipe)
        } else if metadata.is_file() && extension == Some("lock") {
            Ok(Kind::Lock)
        } else {
            Err(hinted(
                format!("{} is neither an image, a lock nor a recipe", path.display()),
                "name a folder with manifest.json, a file that ends in .lock, or a recipe.toml or its folder",
            ))
        }
    }
}

/// What `--json` prints.
#[derive(Serialize)]
struct Answer<'a> {
    kind: Kind,
    equal: bool,
    #[serde(flatten)]
    difference: &'a Difference,
    /// Registers that differ; only for images that have reference values.
    #[serde(skip_serializing_if = "<[Moved]>::is_empty")]
    registers: &'a [Moved],
}

/// Compares the two, and prints the differences.
pub fn run(arguments: &Arguments, session: &Session, format: Format) -> anyhow::Result<ExitCode> {
    let (before, after) = (&arguments.before, &arguments.after);
    let kind = Kind::of(before)?;
    let other = Kind::of(after)?;
    if kind != other {
        return Err(hinted(
            format!("{} is {}, but {} is {}", before.display(), kind.words(), after.display(), other.words()),
            "name two of the same kind",
        ));
    }
    let difference = match kind {
        Kind::Image => images(arguments, session)?,
        Kind::Lock => {
            difference::compare(&Side::of_lock(&built::lock(before)?), &Side::of_lock(&built::lock(after)?))
        }
        Kind::Recipe => recipes(arguments)?,
    };
    let moved = if kind == Kind::Image { moved(arguments, &difference)? } else { Vec::new() };
    let equal = difference.is_empty();
    match format {
        Format::Text => output::print(&format!("{}{}", difference.to_text(), moved::to_text(&moved)))?,
        Format::Json => {
            let answer = Answer { kind, equal, difference: &difference, registers: &moved };
            output::print(&format!("{}\n", serde_json::to_string_pretty(&answer)?))?;
        }
    }
    Ok(if equal { ExitCode::SUCCESS } else { ExitCode::from(NO) })
}

/// Registers that differ, for images that have reference values.
fn moved(arguments: &Arguments, difference: &Difference) -> anyhow::Result<Vec<Moved>> {
    let document = |folder: &Path| {
        let path = folder.join(file::VALUES);
        path.is_file().then(|| measure::document(&path)).transpose()
    };
    Ok(match (document(&arguments.before)?, document(&arguments.after)?) {
        (Some(before), Some(after)) => moved::compare(&before, &after, difference),
        _ => Vec::new(),
    })
}

fn images(arguments: &Arguments, session: &Session) -> anyhow::Result<Difference> {
    let before = Built::open(&arguments.before)?;
    let after = Built::open(&arguments.after)?;
    for built in [&before, &after] {
        for name in built.check_outputs()? {
            session
                .progress
                .note(&format!("{} has no {name}: its manifest is believed", built.folder.display()));
        }
    }
    let sides = [&before, &after].map(|built| Side::of_image(&built.manifest, &built.contents));
    let [old, new] = &sides;
    let mut difference = difference::compare(old, new);
    let content = |aspect: &difference::Aspect| aspect.name == "sha256";
    if !arguments.brief && difference.files.iter().any(|file| file.aspects.iter().any(content)) {
        let (old, new) = (before.filesystem()?, after.filesystem()?);
        let (old, new) = (opened(&before, old.as_deref())?, opened(&after, new.as_deref())?);
        let looked = difference.look_into(&|path| read(old.as_ref(), path), &|path| read(new.as_ref(), path));
        // Return the reason itself: its next step is known.
        looked.map_err(|error| match error.downcast::<built::Error>() {
            Ok(error) => anyhow::Error::from(error),
            Err(error) => error.into(),
        })?;
    }
    Ok(difference)
}

fn opened<'a>(built: &'a Built, filesystem: Option<&'a [u8]>) -> Result<Option<Files<'a>>, built::Error> {
    filesystem.map(|bytes| built.files(bytes)).transpose()
}

fn read(files: Option<&Files<'_>>, path: &str) -> io::Result<Option<Vec<u8>>> {
    files.map(|files| files.read(path).map_err(io::Error::other)).transpose()
}

fn recipes(arguments: &Arguments) -> anyhow::Result<Difference> {
    let of = |path: &Path, profile| -> anyhow::Result<_> {
        let file = recipe::file_of(path);
        let recipe = recipe::load(&file, profile, &|path| fs::read(path))?;
        let files = difference::files_of(&recipe, &|path| fs::read(path))
            .with_context(|| format!("cannot read a file of {}", file.display()))?;
        Ok((Side::of_recipe(&recipe, &files), files))
    };
    let compared = |profile| -> anyhow::Result<Difference> {
        let (before, old) = of(&arguments.before, profile)?;
        let (after, new) = of(&arguments.after, profile)?;
        let mut difference = difference::compare(&before, &after);
        if !arguments.brief {
            difference.look_into(&|path| Ok(old.get(path).cloned()), &|path| Ok(new.get(path).cloned()))?;
        }
        Ok(difference)
    };
    Ok(Difference::of_profiles(compared(Profile::Release)?, compared(Profile::Debug)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_at_a_path_is_recognised_or_refused() {
        let root = tempfile::tempdir().unwrap();
        for (folder, file) in [("image", "manifest.json"), ("recipe", "recipe.toml"), ("x", "recipe.lock")] {
            fs::create_dir(root.path().join(folder)).unwrap();
            fs::write(root.path().join(folder).join(file), "").unwrap();
        }
        let kind = |path: &str| Kind::of(&root.path().join(path));
        assert_eq!(kind("image").unwrap(), Kind::Image);
        assert_eq!(kind("recipe").unwrap(), Kind::Recipe);
        assert_eq!(kind("recipe/recipe.toml").unwrap(), Kind::Recipe);
        assert_eq!(kind("x/recipe.lock").unwrap(), Kind::Lock);
        for none in ["x", "image/manifest.json", "nothing"] {
            assert!(kind(none).is_err(), "{none}");
        }
    }
}
