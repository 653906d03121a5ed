//! Yields /etc/pam.d/common-*, from the profiles in /usr/share/pam-configs, as pam-auth-update(8) does.
//!
//! # Shape
//! ```text
//! profiles with "Default: yes", highest priority first
//!   -> "Primary" block: a jump to "end" becomes the number of remaining lines
//!   -> "Additional" block: the same, one less
//! ```
//! in the templates of /usr/share/pam, in place of their `$<type>_primary` and `$<type>_additional` lines.
//!
//! # Source
//! libpam-runtime 1.7.0 `usr/sbin/pam-auth-update` (`parse_pam_profile`, `create_from_template`, `merge_one_line`).
//!
//! # Not here
//! Local changes to the generated files, and answers to debconf: a fresh image has neither.

use std::collections::{BTreeMap, BTreeSet};

use super::write;
use crate::path::TreePath;
use crate::tree::{self, Tree};

const NAME: &str = "pam";
const TYPES: [&str; 5] = ["auth", "account", "password", "session", "session-noninteractive"];

/// Why the common PAM files cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An invalid profile.
    #[error("{path}: {problem}: {text:?}")]
    Profile {
        /// The profile.
        path: TreePath,
        /// What is wrong.
        problem: &'static str,
        /// The part that is wrong.
        text: String,
    },
    /// Two enabled profiles that exclude each other.
    #[error("PAM profile {first:?} conflicts with {second:?}")]
    Conflict {
        /// The profile that declares the conflict.
        first: String,
        /// The other one.
        second: String,
    },
    /// A profile names a module that the image lacks.
    #[error("{path} needs {module}, which is not in the image")]
    Module {
        /// The profile.
        path: TreePath,
        /// The module.
        module: String,
    },
    /// A template without one of the marks that enclose the generated lines.
    #[error("{path} has no line {mark:?}")]
    Template {
        /// The template.
        path: TreePath,
        /// The mark.
        mark: &'static str,
    },
    /// A file cannot be read or written.
    #[error(transparent)]
    Tree(#[from] tree::Error),
}

/// A profile: fields by name, their lines trimmed.
struct Profile {
    path: TreePath,
    fields: BTreeMap<String, Vec<String>>,
}

impl Profile {
    fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).and_then(|lines| lines.first()).map(String::as_str)
    }

    fn priority(&self) -> Result<i64, Error> {
        let text = self.field("Priority").unwrap_or("0");
        text.parse().map_err(|_| self.wrong("priority is not a number", text))
    }

    fn wrong(&self, problem: &'static str, text: &str) -> Error {
        Error::Profile { path: self.path.clone(), problem, text: text.to_owned() }
    }

    /// The lines for a type and block; the first profile of a block uses its `-Initial` ones.
    fn lines(&self, kind: &str, block: &str, position: usize) -> Option<&[String]> {
        let name = match kind.strip_suffix("-noninteractive") {
            Some(_) if self.field("Session-Interactive-Only") == Some("yes") => return None,
            Some(base) => capital(base),
            None => capital(kind),
        };
        if self.field(&format!("{name}-Type")) != Some(block) {
            return None;
        }
        let initial = self.fields.get(&format!("{name}-Initial")).filter(|_| position == 0);
        Some(initial.or_else(|| self.fields.get(&name)).map_or(&[], Vec::as_slice))
    }
}

/// Writes the five files if libpam-runtime is in the image; returns the names of the enabled profiles in their order.
///
/// # Errors
/// [`Error`]: an invalid profile or template, or a missing module.
pub fn apply(tree: &mut Tree) -> Result<Vec<String>, Error> {
    if !write::exists(tree, "usr/share/pam")? {
        return Ok(Vec::new());
    }
    let enabled = enabled(tree)?;
    for kind in TYPES {
        let path = TreePath::new(&format!("usr/share/pam/common-{kind}")).map_err(tree::Error::from)?;
        let template = String::from_utf8_lossy(&tree.read(&path)?).into_owned();
        let text = fill(&template, &path, kind, &enabled)?;
        write::file(tree, &format!("etc/pam.d/common-{kind}"), 0o644, text, NAME)?;
    }
    // The old passwords that passwd(1) remembers: libpam-modules makes the file, empty.
    write::file(tree, "etc/security/opasswd", 0o600, "", NAME)?;
    Ok(enabled.iter().map(|profile| profile.path.name().to_owned()).collect())
}

fn enabled(tree: &Tree) -> Result<Vec<Profile>, Error> {
    let modules: BTreeSet<&str> =
        tree.iter().map(|(path, _)| path.name()).filter(|name| name.starts_with("pam_")).collect();
    let mut profiles = Vec::new();
    let folder = TreePath::new("usr/share/pam-configs").map_err(tree::Error::from)?;
    for (path, _) in tree.children(&folder) {
        let text = String::from_utf8_lossy(&tree.read(path)?).into_owned();
        let profile = parse(path, &text)?;
        if profile.field("Default") == Some("yes") {
            profiles.push((profile.priority()?, profile));
        }
    }
    // As in pam-auth-update, both priority and name descend.
    profiles.sort_by(|(a, first), (b, second)| b.cmp(a).then_with(|| second.path.cmp(&first.path)));
    let profiles: Vec<Profile> = profiles.into_iter().map(|(_, profile)| profile).collect();
    for profile in &profiles {
        for other in profile.field("Conflicts").unwrap_or("").split(", ").filter(|name| !name.is_empty()) {
            if profiles.iter().any(|profile| profile.path.name() == other) {
                let (first, second) = (profile.path.name().to_owned(), other.to_owned());
                return Err(Error::Conflict { first, second });
            }
        }
        for line in profile.fields.values().flatten() {
            let module =
                line.split_whitespace().find(|word| word.starts_with("pam_") && word.ends_with(".so"));
            if let Some(module) = module.filter(|module| !modules.contains(module)) {
                return Err(Error::Module { path: profile.path.clone(), module: module.to_owned() });
            }
        }
    }
    Ok(profiles)
}

fn parse(path: &TreePath, text: &str) -> Result<Profile, Error> {
    let mut profile = Profile { path: path.clone(), fields: BTreeMap::new() };
    let mut current: Option<String> = None;
    for line in text.lines() {
        let key =
            line.split_once(':').filter(|(key, _)| !key.is_empty() && !key.contains(char::is_whitespace));
        if let Some((key, value)) = key {
            let key = key.strip_suffix("-Final").unwrap_or(key).to_owned();
            let value = value.trim();
            let lines = if value.is_empty() { Vec::new() } else { vec![value.to_owned()] };
            if profile.fields.insert(key.clone(), lines).is_some() {
                return Err(profile.wrong("field given twice", &key));
            }
            current = Some(key);
            continue;
        }
        if line.trim().is_empty() {
            continue;
        }
        match current.as_ref().and_then(|key| profile.fields.get_mut(key)) {
            Some(lines) => lines.push(line.trim().to_owned()),
            None => return Err(profile.wrong("line outside a field", line)),
        }
    }
    for kind in ["Auth", "Account", "Password", "Session"] {
        match profile.field(&format!("{kind}-Type")) {
            None | Some("Primary" | "Additional") => {}
            Some(other) => return Err(profile.wrong("unknown type", other)),
        }
    }
    Ok(profile)
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect()
}

fn fill(template: &str, path: &TreePath, kind: &str, enabled: &[Profile]) -> Result<String, Error> {
    /// Where the lines of profiles begin, where the template continues, and the block.
    const MARKS: [(&str, &str, &str); 2] = [
        (
            "# here are the per-package modules (the \"Primary\" block)",
            "# here's the fallback if no module succeeds",
            "Primary",
        ),
        (
            "# and here are more per-package modules (the \"Additional\" block)",
            "# end of pam-auth-update config",
            "Additional",
        ),
    ];
    let mut out = String::new();
    let mut lines = template.lines();
    for (begin, end, block) in MARKS {
        let mut until = |mark: &'static str, out: Option<&mut String>| {
            let mut passed = String::new();
            for line in lines.by_ref() {
                let found = line.starts_with(mark);
                if out.is_some() || found {
                    passed.push_str(line);
                    passed.push('\n');
                }
                if found {
                    return Ok(passed);
                }
            }
            Err(Error::Template { path: path.clone(), mark })
        };
        let before = until(begin, Some(&mut out))?;
        let after = until(end, None)?;
        out.push_str(&before);
        out.push_str(&block_of(kind, block, enabled)?);
        out.push_str(&after);
    }
    out.extend(lines.map(|line| format!("{line}\n")));
    Ok(out)
}

fn block_of(kind: &str, block: &str, enabled: &[Profile]) -> Result<String, Error> {
    let stack = kind.strip_suffix("-noninteractive").unwrap_or(kind);
    let mut lines = Vec::new();
    let mut position = 0;
    for profile in enabled {
        if let Some(found) = profile.lines(kind, block, position) {
            position += 1;
            lines.extend(found.iter().map(|line| (profile, line)));
        }
    }
    if lines.is_empty() && block == "Primary" {
        return Ok(format!("{stack}\t[default=1]\t\t\tpam_permit.so\n"));
    }
    // A jump counts the modules that it skips: past the end of a Primary block, or to the last line of an Additional
    // block.
    let total = if block == "Additional" { lines.len().saturating_sub(1) } else { lines.len() };
    let mut out = String::new();
    for (index, (profile, line)) in lines.into_iter().enumerate() {
        let (control, rest) = match line.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((inside, rest)) => (format!("[{inside}]"), rest),
            None => {
                let end = line.find(char::is_whitespace).unwrap_or(line.len());
                let (word, rest) = line.split_at_checked(end).unwrap_or((line, ""));
                (word.to_owned(), rest)
            }
        };
        let gap = rest.len() - rest.trim_start().len();
        let (gap, rest) = rest.split_at_checked(gap).unwrap_or(("", rest));
        let mut words = rest.split_whitespace();
        let Some(module) = words.next() else { return Err(profile.wrong("line without a module", line)) };
        let options: Vec<&str> = words.collect();
        let left = total.saturating_sub(index).to_string();
        let head = format!("{control}{gap}{module}").replace("end", &left);
        out.push_str(&format!("{stack}\t{head} {}\n", options.join(" ")));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::Content;
    use crate::tree::{Node, Origin};

    const UNIX: &str = "Name: Unix authentication\nDefault: yes\nPriority: 256\nAuth-Type: Primary\nAuth:\n\
        \t[success=end default=ignore]\tpam_unix.so nullok try_first_pass\nAuth-Initial:\n\
        \t[success=end default=ignore]\tpam_unix.so nullok\nSession-Type: Additional\nSession:\n\
        \trequired\tpam_unix.so\n";
    const SYSTEMD: &str = "Name: s\nDefault: yes\nPriority: 0\nSession-Interactive-Only: yes\n\
        Session-Type: Additional\nSession:\n\toptional\tpam_systemd.so\n";
    const LDAP: &str = "Name: l\nDefault: yes\nPriority: 128\nConflicts: other, third\nAuth-Type: Primary\nAuth-Final:\n\
        \t[success=end default=ignore]\tpam_ldap.so use_first_pass\n";

    fn tree(profiles: &[(&str, &str)]) -> Tree {
        let mut tree = Tree::new(Origin::fix_up("test"));
        let mut put = |at: String, text: &str| {
            let node = Node::file(0o644, Content::raw(text), Origin::debian("pkg", "1"));
            tree.insert(TreePath::new(&at).unwrap(), node).unwrap();
        };
        for kind in TYPES {
            let stack = kind.strip_suffix("-noninteractive").unwrap_or(kind);
            let text = format!(
                "# head\n# here are the per-package modules (the \"Primary\" block)\n${stack}_primary\n\
                 # here's the fallback if no module succeeds\n{stack}\trequisite\t\t\tpam_deny.so\n\
                 # and here are more per-package modules (the \"Additional\" block)\n${stack}_additional\n\
                 # end of pam-auth-update config\n"
            );
            put(format!("usr/share/pam/common-{kind}"), &text);
        }
        for (name, text) in profiles {
            put(format!("usr/share/pam-configs/{name}"), text);
        }
        for module in ["pam_unix.so", "pam_systemd.so", "pam_ldap.so"] {
            put(format!("usr/lib/x86_64-linux-gnu/security/{module}"), "");
        }
        tree
    }

    fn made(profiles: &[(&str, &str)], kind: &str) -> Vec<String> {
        let mut tree = tree(profiles);
        apply(&mut tree).unwrap();
        let text =
            tree.read(&TreePath::new(&format!("etc/pam.d/common-{kind}")).unwrap()).unwrap().into_owned();
        let text = String::from_utf8(text).unwrap();
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    }

    #[test]
    fn jumps_count_the_remaining_lines_and_only_the_first_profile_is_initial() {
        let all = [("unix", UNIX), ("ldap", LDAP), ("systemd", SYSTEMD)];
        assert_eq!(
            made(&all, "auth"),
            [
                "auth\t[success=2 default=ignore]\tpam_unix.so nullok",
                "auth\t[success=1 default=ignore]\tpam_ldap.so use_first_pass",
                "auth\trequisite\t\t\tpam_deny.so",
            ]
        );
    }

    #[test]
    fn interactive_profiles_stay_out_of_other_sessions() {
        let all = [("unix", UNIX), ("systemd", SYSTEMD)];
        let permit = "session\t[default=1]\t\t\tpam_permit.so";
        let deny = "session\trequisite\t\t\tpam_deny.so";
        let unix = "session\trequired\tpam_unix.so ";
        assert_eq!(made(&all, "session"), [permit, deny, unix, "session\toptional\tpam_systemd.so "]);
        assert_eq!(made(&all, "session-noninteractive"), [permit, deny, unix]);
    }

    #[test]
    fn a_profile_that_is_off_by_default_stays_off() {
        let off = UNIX.replace("Default: yes", "Default: no");
        assert_eq!(
            made(&[("unix", &off)], "auth"),
            ["auth\t[default=1]\t\t\tpam_permit.so", "auth\trequisite\t\t\tpam_deny.so"]
        );
    }

    #[test]
    fn without_libpam_runtime_there_is_nothing_to_do() {
        let mut tree = Tree::new(Origin::fix_up("test"));
        assert_eq!(apply(&mut tree), Ok(vec![]));
        assert_eq!(tree.len(), 1);
    }

    #[test]
    fn invalid_profiles_are_refused() {
        let refused = |text: &str| apply(&mut tree(&[("p", text)])).unwrap_err();
        for text in [
            "  stray\n",
            "Default: yes\nPriority: high\n",
            "Auth-Type: Secondary\n",
            "Name: a\nName: b\n",
            "Default: yes\nAuth-Type: Primary\nAuth:\n\trequired\n",
        ] {
            assert!(matches!(refused(text), Error::Profile { .. }), "{text}");
        }
        let text = "Default: yes\nAuth-Type: Primary\nAuth:\n\trequired pam_none.so\n";
        assert!(matches!(refused(text), Error::Module { module, .. } if module == "pam_none.so"));
        let other = "Default: yes\n";
        assert!(matches!(apply(&mut tree(&[("ldap", LDAP), ("third", other)])), Err(Error::Conflict { .. })));
    }

    #[test]
    fn a_template_without_its_marks_is_refused() {
        let mut tree = tree(&[("unix", UNIX)]);
        let path = TreePath::new("usr/share/pam/common-auth").unwrap();
        tree.replace(path, Node::file(0o644, Content::raw("auth\n"), Origin::fix_up("t"))).unwrap();
        assert!(matches!(apply(&mut tree), Err(Error::Template { .. })));
    }
}
