//! Yields what replaces each maintainer script of a package set, from the scripts' text and a reviewed table.
//!
//! # Shape
//! ```text
//! script = remainder + sections          "# Automatically added by dh_TOOL/VERSION" .. "# End automatically added section"
//! remainder: nothing but comments        -> nothing to do
//!            its SHA-256 in the table    -> inert, or handled by named fix-ups
//! section:   its digest, parameters out  -> inert, or handled by named fix-ups, with its units and files
//! anything else                          -> unknown: the lock stops, unless the recipe overrides it
//! ```
//! A kernel release in a package's name (`linux-image-6.12.117+deb13-cloud-amd64`) reads `@RELEASE@` in name
//! and text.
//!
//! # Source
//! Debian Policy 6 (which scripts run when); debhelper 13's `autoscripts/`; deb-triggers(5); `data/scripts.toml`.
//!
//! # Not here
//! The fix-ups themselves, which are stages of the assembly. Nothing runs the scripts.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::trust::debian::control::read_sha256;

/// A part of a package that dpkg would run or read, besides the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names are dpkg's file names")]
pub enum ScriptKind {
    Config,
    Preinst,
    Postinst,
    Prerm,
    Postrm,
    Triggers,
}

impl ScriptKind {
    /// Recognises a member of the control archive by its name; `None` if it is not a script.
    pub fn from_member(name: &str) -> Option<Self> {
        Some(match name {
            "config" => Self::Config,
            "preinst" => Self::Preinst,
            "postinst" => Self::Postinst,
            "prerm" => Self::Prerm,
            "postrm" => Self::Postrm,
            "triggers" => Self::Triggers,
            _ => return None,
        })
    }
}

impl fmt::Display for ScriptKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Config => "config",
            Self::Preinst => "preinst",
            Self::Postinst => "postinst",
            Self::Prerm => "prerm",
            Self::Postrm => "postrm",
            Self::Triggers => "triggers",
        })
    }
}

/// A step of the assembly that does declaratively what scripts would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FixUp {
    /// Users and groups: base-passwd's masters, sysusers.d, shadow files, built-in entries.
    Accounts,
    /// update-alternatives links.
    Alternatives,
    /// The CA bundle and its links.
    CaBundle,
    /// The module index of the kernel.
    Depmod,
    /// The initrd and the kernel image, which go into the UKI.
    Initrd,
    /// The dynamic linker's cache.
    LdSoCache,
    /// An empty machine id.
    MachineId,
    /// nsswitch.conf.
    Nsswitch,
    /// /etc/pam.d/common-*.
    Pam,
    /// Owners and modes that archives cannot carry.
    Paths,
    /// Units that presets enable or leave disabled.
    Presets,
    /// Folders, links and files that packages create on first installation.
    Skeleton,
    /// tmpfiles.d.
    Tmpfiles,
}

/// One script of one package.
#[derive(Debug, Clone, Copy)]
pub struct Script<'a> {
    /// The package's name.
    pub package: &'a str,
    /// Which of its scripts.
    pub kind: ScriptKind,
    /// Its text.
    pub bytes: &'a [u8],
}

/// What a script amounts to in an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// It would change nothing in a fresh image.
    Inert,
    /// Fix-ups do what it would do.
    Handled {
        /// Those fix-ups.
        by: BTreeSet<FixUp>,
        /// The units, tmpfiles.d and sysusers.d files that its sections name.
        parameters: BTreeSet<String>,
    },
    /// The recipe says to leave it out.
    Ignored {
        /// The recipe's reason.
        reason: String,
    },
}

/// A script with its judgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    /// The package's name.
    pub package: String,
    /// Which of its scripts.
    pub kind: ScriptKind,
    /// The digest of the whole script, for the lock.
    pub sha256: [u8; 32],
    /// The judgement.
    pub judgement: Judgement,
}

/// A script that has not been reviewed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{package} has an unreviewed {kind} ({what}, sha256 {digest}) that begins {first:?}; \
     review it, then add to the recipe: [debian.scripts] \"{package}\" = {{ action = \"ignore\", reason = \"...\" }}",
    digest = hex::encode(.sha256)
)]
pub struct Unknown {
    /// The package's name.
    pub package: String,
    /// Which of its scripts.
    pub kind: ScriptKind,
    /// `script`, or the debhelper tool that wrote the section.
    pub what: String,
    /// The digest to list in the table.
    pub sha256: [u8; 32],
    /// Its first lines with an effect, at most three.
    pub first: String,
}

/// All judgements of a package set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Review {
    /// One entry per script, in the order given.
    pub judged: Vec<Judged>,
    /// Overrides that no unknown script needed.
    pub unused_overrides: Vec<String>,
}

/// Scripts that stop the lock.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} of the maintainer scripts have not been reviewed: {}", .0.len(), Listed(.0))]
pub struct UnknownScripts(pub Vec<Unknown>);

struct Listed<'u>(&'u [Unknown]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&texts.join("; "))
    }
}

/// Why a table cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// It is not the expected TOML.
    #[error("the script table cannot be read")]
    Toml(#[from] toml::de::Error),
    /// An entry's digest is not a SHA-256.
    #[error("`{0}` in the script table is not a SHA-256")]
    Digest(String),
    /// An inert entry has fix-ups, or a handled one has none.
    #[error("the entry {0} in the script table must name fix-ups if it is handled, and none if it is inert")]
    Treatment(String),
    /// Two entries are for the same script.
    #[error("{0} appears twice in the script table")]
    Twice(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TableText {
    #[serde(default)]
    script: Vec<ScriptEntry>,
    #[serde(default)]
    section: Vec<SectionEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScriptEntry {
    package: String,
    script: ScriptKind,
    sha256: String,
    treatment: Treatment,
    #[serde(default)]
    by: BTreeSet<FixUp>,
    /// Required for reviewers; the program does not use it.
    #[serde(rename = "reason")]
    _reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SectionEntry {
    tool: String,
    sha256: String,
    treatment: Treatment,
    #[serde(default)]
    by: BTreeSet<FixUp>,
    #[serde(rename = "reason")]
    _reason: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Treatment {
    Inert,
    Handled,
}

/// The reviewed scripts and sections, each with the fix-ups that replace it (none if inert).
#[derive(Debug, Clone)]
pub struct Table {
    scripts: BTreeMap<(String, ScriptKind, [u8; 32]), BTreeSet<FixUp>>,
    sections: BTreeMap<(String, [u8; 32]), BTreeSet<FixUp>>,
}

impl Table {
    /// Reads the table that ships with the project.
    pub fn shipped() -> Result<Self, TableError> {
        Table::read(include_str!("../../data/scripts.toml"))
    }

    /// Reads a table; every entry needs a reason.
    pub fn read(text: &str) -> Result<Self, TableError> {
        let text: TableText = toml::from_str(text)?;
        let digest = |text: &str| read_sha256(text).ok_or_else(|| TableError::Digest(text.into()));
        let fits = |treatment, by: &BTreeSet<FixUp>, name: &str| {
            let handled = treatment == Treatment::Handled;
            if handled == by.is_empty() { Err(TableError::Treatment(name.into())) } else { Ok(()) }
        };
        let mut table = Table { scripts: BTreeMap::new(), sections: BTreeMap::new() };
        for entry in text.script {
            let name = format!("{} {}", entry.package, entry.script);
            fits(entry.treatment, &entry.by, &name)?;
            let key = (entry.package, entry.script, digest(&entry.sha256)?);
            if table.scripts.insert(key, entry.by).is_some() {
                return Err(TableError::Twice(name));
            }
        }
        for entry in text.section {
            let name = format!("section {} {}", entry.tool, entry.sha256);
            fits(entry.treatment, &entry.by, &name)?;
            if table.sections.insert((entry.tool, digest(&entry.sha256)?), entry.by).is_some() {
                return Err(TableError::Twice(name));
            }
        }
        Ok(table)
    }
}

/// Judges all scripts of a set; `overrides` maps a package to the recipe's reason for ignoring its scripts.
pub fn review<'a>(
    scripts: impl IntoIterator<Item = Script<'a>>,
    table: &Table,
    overrides: &BTreeMap<String, String>,
) -> Result<Review, UnknownScripts> {
    let mut judged = Vec::new();
    let mut unknown = Vec::new();
    let mut unused: BTreeSet<&String> = overrides.keys().collect();
    for script in scripts {
        let judgement = match (judge(&script, table), overrides.get_key_value(script.package)) {
            (Ok(judgement), _) => judgement,
            (Err(_), Some((package, reason))) => {
                unused.remove(package);
                Judgement::Ignored { reason: reason.clone() }
            }
            (Err(error), None) => {
                unknown.push(*error);
                continue;
            }
        };
        let (package, sha256) = (script.package.to_owned(), Sha256::digest(script.bytes).into());
        judged.push(Judged { package, kind: script.kind, sha256, judgement });
    }
    if !unknown.is_empty() {
        return Err(UnknownScripts(unknown));
    }
    Ok(Review { judged, unused_overrides: unused.into_iter().cloned().collect() })
}

/// Judges one script by the rules and the table.
pub fn judge(script: &Script<'_>, table: &Table) -> Result<Judgement, Box<Unknown>> {
    let release = script
        .package
        .strip_prefix("linux-image-")
        .filter(|release| release.starts_with(|c: char| c.is_ascii_digit()));
    let package = match release {
        Some(_) => "linux-image-@RELEASE@",
        None => script.package,
    };
    let unknown = |what: &str, sha256, text: &str| {
        let doing = text.lines().filter(|line| does_something(line)).take(3).collect::<Vec<_>>();
        let (package, first) = (script.package.to_owned(), doing.join("\n"));
        Box::new(Unknown { package, kind: script.kind, what: what.into(), sha256, first })
    };
    let digest = |text: &str| -> [u8; 32] { Sha256::digest(text.as_bytes()).into() };
    match script.kind {
        // These run on removal; a config script only asks debconf's questions (debconf-devel(7)).
        ScriptKind::Prerm | ScriptKind::Postrm | ScriptKind::Config => return Ok(Judgement::Inert),
        ScriptKind::Preinst | ScriptKind::Postinst | ScriptKind::Triggers => {}
    }
    let Ok(text) = std::str::from_utf8(script.bytes) else {
        return Err(unknown("binary", Sha256::digest(script.bytes).into(), ""));
    };
    let text = match release {
        Some(release) => text.replace(release, "@RELEASE@"),
        None => text.to_owned(),
    };
    let mut by = BTreeSet::new();
    let mut parameters = BTreeSet::new();
    if script.kind == ScriptKind::Triggers {
        for line in text.lines().filter(|line| does_something(line)) {
            by.extend(judge_trigger(line).ok_or_else(|| unknown("trigger", digest(line), line))?);
        }
    } else {
        let Split { remainder, sections } = split(&text);
        for Section { tool, body } in sections {
            let (found, named) = judge_section(tool, body, table)
                .ok_or_else(|| unknown(tool, digest(&normalise(body).0), body))?;
            by.extend(found);
            parameters.extend(named);
        }
        if remainder.lines().any(does_something) {
            let key = (package.to_owned(), script.kind, digest(&remainder));
            by.extend(table.scripts.get(&key).ok_or_else(|| unknown("script", key.2, &remainder))?);
        }
    }
    Ok(if by.is_empty() { Judgement::Inert } else { Judgement::Handled { by, parameters } })
}

/// Returns whether a shell line is more than a comment or part of the frame around sections.
fn does_something(line: &str) -> bool {
    let line = line.trim();
    !(line.is_empty() || line.starts_with('#') || matches!(line, "set -e" | "set -eu" | "exit 0" | ":"))
}

/// Judges a line of a triggers file; a line that only declares interest does nothing.
fn judge_trigger(line: &str) -> Option<BTreeSet<FixUp>> {
    let (directive, name) = line.trim().split_once(char::is_whitespace)?;
    Some(match (directive, name.trim()) {
        ("interest" | "interest-await" | "interest-noawait", _) => BTreeSet::new(),
        ("activate" | "activate-await" | "activate-noawait", "ldconfig") => {
            BTreeSet::from([FixUp::LdSoCache])
        }
        ("activate" | "activate-await" | "activate-noawait", "update-initramfs") => {
            BTreeSet::from([FixUp::Initrd])
        }
        _ => return None,
    })
}

struct Split<'a> {
    /// The script without its sections.
    remainder: String,
    sections: Vec<Section<'a>>,
}

struct Section<'a> {
    /// The debhelper tool, without its version.
    tool: &'a str,
    body: &'a str,
}

const SECTION_BEGIN: &str = "# Automatically added by ";
const SECTION_END: &str = "# End automatically added section\n";

/// Cuts debhelper's sections out; a section without an end marker stays in the remainder.
fn split(text: &str) -> Split<'_> {
    let mut split = Split { remainder: String::new(), sections: Vec::new() };
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(SECTION_BEGIN) {
        let cut = after.split_once('\n').and_then(|(by, after)| {
            let (body, after) = after.split_once(SECTION_END)?;
            Some((by.split_once('/').map_or(by, |(tool, _)| tool), body, after))
        });
        let at_line_start = before.is_empty() || before.ends_with('\n');
        let Some((tool, body, after)) =
            cut.filter(|(_, body, _)| at_line_start && !body.contains(SECTION_BEGIN))
        else {
            break;
        };
        split.remainder.push_str(before);
        split.sections.push(Section { tool, body });
        rest = after;
    }
    split.remainder.push_str(rest);
    split
}

fn judge_section(tool: &str, body: &str, table: &Table) -> Option<(BTreeSet<FixUp>, BTreeSet<String>)> {
    let lines = || body.lines().map(str::trim).filter(|line| !line.is_empty());
    // Words that a shell does not expand, except the arguments passed on.
    let plain = |line: &str| {
        let line = line.strip_suffix("-- \"$@\"").unwrap_or(line);
        line.bytes().all(|byte| byte.is_ascii_alphanumeric() || b" /._+-:~\\@".contains(&byte))
    };
    if tool == "dh_installdeb" {
        // dpkg-maintscript-helper(1): these act on upgrades and removals.
        const HELPERS: [&str; 4] = ["rm_conffile", "mv_conffile", "symlink_to_dir", "dir_to_symlink"];
        let inert = lines().all(|line| {
            let words: Vec<&str> = line.split_ascii_whitespace().take(2).collect();
            matches!(words.as_slice(), ["dpkg-maintscript-helper", helper] if HELPERS.contains(helper))
                && plain(line)
        });
        return inert.then(Default::default);
    }
    if tool == "dh_installalternatives" {
        let mut lines = lines().collect::<Vec<_>>().into_iter();
        let framed = lines.next().is_some_and(|line| line.starts_with("if [ \"$1\" = \"configure\" ]"))
            && lines.next_back() == Some("fi");
        let installs = lines.all(|line| {
            (line.starts_with("update-alternatives --install /") || line.starts_with("--slave /"))
                && plain(line)
        });
        return (framed && installs).then(|| (BTreeSet::from([FixUp::Alternatives]), BTreeSet::new()));
    }
    let (normal, parameters) = normalise(body);
    let by = table.sections.get(&(tool.to_owned(), Sha256::digest(normal.as_bytes()).into()))?;
    Some((by.clone(), if by.is_empty() { BTreeSet::new() } else { parameters }))
}

/// Takes the parameters out of a section: a run of units and configuration files becomes one `UNIT`, the init
/// script's name becomes `INIT`, and a quoted value after an equals sign becomes `?`.
fn normalise(body: &str) -> (String, BTreeSet<String>) {
    const SUFFIXES: [&str; 9] =
        [".service", ".socket", ".timer", ".path", ".target", ".mount", ".slice", ".conf", ".automount"];
    let init =
        body.split_once("\"/etc/init.d/").and_then(|(_, rest)| rest.split_once('"')).map(|(name, _)| name);
    let is_word = |c: char| c.is_ascii_alphanumeric() || "@._+\\:-".contains(c);
    let mut parameters = BTreeSet::new();
    let mut normal = String::with_capacity(body.len());
    let mut rest = body;
    while let Some(first) = rest.chars().next() {
        let end =
            if is_word(first) { rest.find(|c| !is_word(c)).unwrap_or(rest.len()) } else { first.len_utf8() };
        let (word, after) = rest.split_at_checked(end).unwrap_or((rest, ""));
        let plain = word.strip_suffix('.').unwrap_or(word);
        if SUFFIXES.iter().any(|suffix| plain.strip_suffix(suffix).is_some_and(|stem| !stem.is_empty())) {
            parameters.insert(plain.to_owned());
            normal.push_str("UNIT");
        } else if Some(word) == init {
            normal.push_str("INIT");
        } else {
            normal.push_str(word);
        }
        rest = after;
    }
    for (many, one) in [("UNIT UNIT", "UNIT"), ("'UNIT' 'UNIT'", "'UNIT'")] {
        while normal.contains(many) {
            normal = normal.replace(many, one);
        }
    }
    // NAME='ssh' ENABLE='yes': only values that are quoted whole and contain nothing that a shell expands.
    let mut quoted = String::with_capacity(normal.len());
    let mut rest = normal.as_str();
    while let Some((before, after)) = rest.split_once("='") {
        let Some((value, after)) = after.split_once('\'') else { break };
        quoted.push_str(before);
        quoted.push_str(if value.chars().all(is_word) { "='?'" } else { "='" });
        if !value.chars().all(is_word) {
            quoted.push_str(value);
            quoted.push('\'');
        }
        rest = after;
    }
    quoted.push_str(rest);
    (quoted, parameters)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENABLE: &str = r#"if [ "$1" = "configure" ] || [ "$1" = "abort-upgrade" ] || [ "$1" = "abort-deconfigure" ] || [ "$1" = "abort-remove" ] ; then
	# The following line should be removed in trixie or trixie+1
	deb-systemd-helper unmask 'ssh.service' >/dev/null || true

	# was-enabled defaults to true, so new installations run enable.
	if deb-systemd-helper --quiet was-enabled 'ssh.service'; then
		# Enables the unit on first installation, creates new
		# symlinks on upgrades if the unit file has changed.
		deb-systemd-helper enable 'ssh.service' >/dev/null || true
	else
		# Update the statefile to add new symlinks (if any), which need to be
		# cleaned up on purge. Also remove old symlinks.
		deb-systemd-helper update-state 'ssh.service' >/dev/null || true
	fi
fi
"#;

    fn section(tool: &str, body: &str) -> String {
        format!(
            "#!/bin/sh\nset -e\n# Automatically added by {tool}\n{body}# End automatically added section\n\nexit 0\n"
        )
    }

    fn of(kind: ScriptKind, text: &str) -> Result<Judgement, Box<Unknown>> {
        judge(&Script { package: "foo", kind, bytes: text.as_bytes() }, &Table::shipped().unwrap())
    }

    fn handled(by: &[FixUp], parameters: &[&str]) -> Judgement {
        let parameters = parameters.iter().map(|parameter| (*parameter).to_owned()).collect();
        Judgement::Handled { by: by.iter().copied().collect(), parameters }
    }

    #[test]
    fn scripts_that_never_run_are_inert() {
        for kind in [ScriptKind::Prerm, ScriptKind::Postrm, ScriptKind::Config] {
            assert_eq!(of(kind, "rm -rf /").unwrap(), Judgement::Inert);
        }
    }

    #[test]
    fn a_script_of_comments_and_frame_is_inert() {
        let text = "#! /bin/sh -e\n# nothing\nset -e\n\n:\nexit 0\n";
        assert_eq!(of(ScriptKind::Postinst, text).unwrap(), Judgement::Inert);
    }

    #[test]
    fn a_units_section_is_handled_whatever_the_unit_and_the_debhelper() {
        for (tool, unit) in
            [("dh_installsystemd/13.24.2", "ssh.service"), ("dh_installsystemd/13.11.4", "my-own@x.timer")]
        {
            let text = section(tool, &ENABLE.replace("ssh.service", unit));
            assert_eq!(of(ScriptKind::Postinst, &text).unwrap(), handled(&[FixUp::Presets], &[unit]));
        }
        let two = ENABLE.replace("'ssh.service' >", "'ssh.service' 'ssh.socket' >");
        assert!(of(ScriptKind::Postinst, &section("dh_installsystemd/13", &two)).is_ok());
    }

    #[test]
    fn a_section_with_other_code_is_unknown() {
        for (from, to) in [
            ("'ssh.service'", "'$(rm -rf /).service'"),
            ("'ssh.service'", "'ssh.service'; reboot"),
            ("enable", "disable"),
            ("'ssh.service'", "`x.service`"),
        ] {
            let text = section("dh_installsystemd/13.24.2", &ENABLE.replace(from, to));
            let error = of(ScriptKind::Postinst, &text).unwrap_err();
            assert_eq!(error.what, "dh_installsystemd", "{to}");
        }
        let error = of(ScriptKind::Postinst, &section("dh_strange/1", "true\n")).unwrap_err();
        assert_eq!(error.what, "dh_strange");
    }

    #[test]
    fn maintscript_helpers_are_inert_and_nothing_else_hides_among_them() {
        let good = "dpkg-maintscript-helper rm_conffile /etc/init.d/kmod 34-1\\~ -- \"$@\"\n";
        assert_eq!(
            of(ScriptKind::Preinst, &section("dh_installdeb/13.24.2", good)).unwrap(),
            Judgement::Inert
        );
        for bad in [
            "dpkg-maintscript-helper rm_conffile /a 1 -- \"$@\"; reboot\n",
            "dpkg-maintscript-helper rm_conffile $(reboot) 1 -- \"$@\"\n",
            "dpkg-maintscript-helper other /a\n",
            "reboot\n",
        ] {
            assert!(of(ScriptKind::Preinst, &section("dh_installdeb/13.24.2", bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn alternatives_sections_are_handled() {
        let good = "if [ \"$1\" = \"configure\" ] || [ \"$1\" = \"abort-remove\" ]; then\n        update-alternatives --install /usr/bin/awk awk /usr/bin/mawk 5 \\\n            --slave /usr/bin/nawk nawk /usr/bin/mawk\nfi\n";
        let judged = of(ScriptKind::Postinst, &section("dh_installalternatives/13.16", good)).unwrap();
        assert_eq!(judged, handled(&[FixUp::Alternatives], &[]));
        for bad in [
            good.replace("mawk 5", "mawk 5 && reboot"),
            good.replace("fi\n", "fi\nreboot\n"),
            good.replace("    update", "    reboot; update"),
        ] {
            assert!(
                of(ScriptKind::Postinst, &section("dh_installalternatives/13.16", &bad)).is_err(),
                "{bad}"
            );
        }
    }

    #[test]
    fn triggers_are_judged_line_by_line() {
        let text = "# added\nactivate-noawait ldconfig\ninterest-noawait /usr/lib/x\n";
        assert_eq!(of(ScriptKind::Triggers, text).unwrap(), handled(&[FixUp::LdSoCache], &[]));
        assert_eq!(of(ScriptKind::Triggers, "interest x\n").unwrap(), Judgement::Inert);
        assert_eq!(of(ScriptKind::Triggers, "activate strange\n").unwrap_err().what, "trigger");
        assert!(of(ScriptKind::Triggers, "nonsense\n").is_err());
    }

    fn table(package: &str, text: &str) -> Table {
        let sha256 = hex::encode(Sha256::digest(text.as_bytes()));
        Table::read(&format!(
            "[[script]]\npackage = \"{package}\"\nscript = \"postinst\"\nsha256 = \"{sha256}\"\n\
             treatment = \"handled\"\nby = [\"depmod\"]\nreason = \"x\"\n"
        ))
        .unwrap()
    }

    #[test]
    fn a_reviewed_script_is_handled_and_one_changed_byte_is_not() {
        let table = table("foo", "depmod\n");
        let judge_text = |package, text: &str| {
            judge(&Script { package, kind: ScriptKind::Postinst, bytes: text.as_bytes() }, &table)
        };
        assert_eq!(judge_text("foo", "depmod\n").unwrap(), handled(&[FixUp::Depmod], &[]));
        let error = judge_text("foo", "set -e\ndepmod -a\nreboot\n").unwrap_err();
        assert_eq!((error.what.as_str(), error.first.as_str()), ("script", "depmod -a\nreboot"));
        assert_eq!(error.sha256, <[u8; 32]>::from(Sha256::digest("set -e\ndepmod -a\nreboot\n")));
        assert!(judge_text("bar", "depmod\n").is_err());
        // A section without an end marker is not a section.
        assert_eq!(
            judge_text("foo", "depmod\n# Automatically added by dh_x/1\n").unwrap_err().what,
            "script"
        );
    }

    #[test]
    fn a_kernels_release_does_not_change_the_judgement() {
        let table = table("linux-image-@RELEASE@", "depmod @RELEASE@\n");
        for release in ["6.12.117+deb13-cloud-amd64", "6.12.118+deb13-amd64"] {
            let (package, text) = (format!("linux-image-{release}"), format!("depmod {release}\n"));
            let script = Script { package: &package, kind: ScriptKind::Postinst, bytes: text.as_bytes() };
            assert_eq!(judge(&script, &table).unwrap(), handled(&[FixUp::Depmod], &[]));
        }
        let script = Script {
            package: "linux-image-cloud-amd64",
            kind: ScriptKind::Postinst,
            bytes: b"depmod cloud-amd64\n",
        };
        assert!(judge(&script, &table).is_err());
    }

    #[test]
    fn unknown_scripts_stop_the_review_unless_overridden() {
        let script = |package| Script { package, kind: ScriptKind::Postinst, bytes: b"#!/bin/sh\nreboot\n" };
        let table = Table::shipped().unwrap();
        let error = review([script("foo"), script("bar")], &table, &BTreeMap::new()).unwrap_err();
        assert_eq!(error.0.len(), 2);
        let text = error.to_string();
        let digest = hex::encode(Sha256::digest(b"#!/bin/sh\nreboot\n"));
        for part in ["foo", "postinst", "reboot", &digest, "[debian.scripts] \"bar\" = { action = \"ignore\""]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        let reasons = ["foo", "bar", "baz"].map(|name| (name.to_owned(), format!("{name} is fine")));
        let review = review([script("foo"), script("bar")], &table, &reasons.into()).unwrap();
        assert_eq!(review.judged[0].judgement, Judgement::Ignored { reason: "foo is fine".into() });
        assert_eq!(review.unused_overrides, ["baz"]);
    }

    #[test]
    fn bytes_that_are_no_text_are_unknown() {
        let script = Script { package: "foo", kind: ScriptKind::Preinst, bytes: b"\x7fELF\xff" };
        assert_eq!(judge(&script, &Table::shipped().unwrap()).unwrap_err().what, "binary");
    }

    #[test]
    fn a_bad_table_is_refused() {
        let entry = |treatment: &str, digest: &str, more: &str| {
            format!("[[section]]\ntool = \"x\"\nsha256 = \"{digest}\"\ntreatment = \"{treatment}\"\n{more}")
        };
        let digest = "0".repeat(64);
        let reason = "reason = \"x\"\n";
        assert!(Table::read(&entry("inert", &digest, reason)).is_ok());
        let twice = entry("inert", &digest, reason).repeat(2);
        assert!(matches!(Table::read(&twice), Err(TableError::Twice(_))));
        assert!(matches!(Table::read(&entry("inert", "00", reason)), Err(TableError::Digest(_))));
        assert!(matches!(Table::read(&entry("handled", &digest, reason)), Err(TableError::Treatment(_))));
        let by = format!("by = [\"pam\"]\n{reason}");
        assert!(matches!(Table::read(&entry("inert", &digest, &by)), Err(TableError::Treatment(_))));
        for more in ["", "reason = \"x\"\nother = 1\n", "by = [\"nothing\"]\nreason = \"x\"\n"] {
            assert!(
                matches!(Table::read(&entry("inert", &digest, more)), Err(TableError::Toml(_))),
                "{more}"
            );
        }
    }

    #[test]
    fn members_are_recognised_by_name() {
        assert_eq!(ScriptKind::from_member("postinst"), Some(ScriptKind::Postinst));
        assert_eq!(ScriptKind::from_member("md5sums"), None);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_judged_without_panic(text in "(# Automatically added by dh_x/1\n|# End automatically added section\n|\"/etc/init.d/|'a.service' |='|\\PC{0,9}|\n){0,12}") {
            let _ = of(ScriptKind::Postinst, &text);
        }
    }
}
