//! Yields /etc/passwd, group, shadow, gshadow, subuid and subgid, from Debian's masters, sysusers.d and the recipe.
//!
//! # Shape
//! ```text
//! base-passwd masters ─┐
//! sysusers.d/*.conf   ─┼─> groups, users ── ids: fixed > pinned > 999 downward ──> the six files
//! built-in table      ─┤
//! recipe              ─┘
//! ```
//! A fixed id is never given to another account, not even to an earlier one (systemd-sysusers would). The lock pins all
//! other ids, so that an additional package changes no other account's id: [`plan`] chooses them once, [`apply`]
//! refuses an account without one. Masters come first, in their order; added accounts follow, sorted by id. Every
//! password is locked (`*` for masters, as shadowconfig(8) leaves them, else `!*`). The date of the last password
//! change is empty: this disables password ageing, needs no clock, and unlike the 0 that systemd-sysusers writes for
//! `SOURCE_DATE_EPOCH=0` does not demand a new password at the next login (shadow(5)).
//!
//! # Source
//! sysusers.d(5) and systemd 257 `src/sysusers/sysusers.c` (order, choice of ids, `u!` expires the account);
//! passwd(5), group(5), shadow(5), gshadow(5); base-passwd 3.6 of trixie.
//!
//! # Not here
//! Home directories, setgid ssh-agent (its postinst's guard against ptrace), and specifiers in sysusers.d other than
//! `%%`: the machine they describe does not exist yet.

mod placing;
mod table;
mod wanted;

use std::collections::BTreeMap;

use super::{systemd_conf, write};
use crate::path::TreePath;
use crate::tree::{self, Tree};

use placing::{Placing, Unpinned};
use table::{Accounts, colon_lines, masters, number};
use wanted::Wanted;

const NAME: &str = "accounts";
const NOLOGIN: &str = "/usr/sbin/nologin";
const PASSWD_MASTER: &str = "usr/share/base-passwd/passwd.master";
const GROUP_MASTER: &str = "usr/share/base-passwd/group.master";

/// Ids that systemd-sysusers assigns, from the top (systemd `SYSTEM_UID_MAX`, `SYSTEM_ALLOC_UID_MIN` in Debian).
const SYSTEM_IDS: std::ops::RangeInclusive<u32> = 100..=999;

/// Accounts that maintainer scripts create with adduser(8): a path of the package that needs them, and their lines in
/// the syntax of sysusers.d. Source: trixie's tpm-udev 0.6 and openssh-client 10.0 postinst.
const BUILT_IN: [(&str, &[&str]); 2] = [
    (
        "usr/lib/udev/rules.d/60-tpm-udev.rules",
        &["g tss -", "u tss - \"TPM software stack\" /var/lib/tpm /bin/false"],
    ),
    ("usr/bin/ssh-agent", &["g _ssh -"]),
];

/// Directories that maintainer scripts give to those accounts, or to `_apt`: path, mode, user, group. Source: the
/// postinst of tpm-udev 0.6 and apt 3.0.
const OWNED: [(&str, u16, &str, &str); 3] = [
    ("var/cache/apt/archives/partial", 0o700, "_apt", "root"),
    ("var/lib/apt/lists/partial", 0o700, "_apt", "root"),
    ("var/lib/tpm", 0o755, "tss", "tss"),
];

/// Why the accounts cannot be resolved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A line that does not follow its format.
    #[error("{source_name}:{line}: {problem}: {text:?}")]
    Line {
        /// The file or table of the line.
        source_name: String,
        /// The line, from 1.
        line: u32,
        /// What is wrong.
        problem: &'static str,
        /// The part that is wrong.
        text: String,
    },
    /// A line that cannot be split into words.
    #[error("{source_name}:{line}: cannot split the line")]
    Words {
        /// The file.
        source_name: String,
        /// The line, from 1.
        line: u32,
        /// Why.
        source: systemd_conf::WordError,
    },
    /// An account without a pinned id.
    #[error("the lock is stale: it has no id for {what} {name:?} ({wanted_by})")]
    Stale {
        /// "user" or "group".
        what: &'static str,
        /// Its name.
        name: String,
        /// Where it is defined.
        wanted_by: String,
    },
    /// An account whose pinned id differs from the one in its definition.
    #[error("the lock is stale: it gives {what} {name:?} the id {pinned}, but {wanted_by} sets {fixed}")]
    StaleId {
        /// "user" or "group".
        what: &'static str,
        /// Its name.
        name: String,
        /// The id in the lock.
        pinned: u32,
        /// The id in the definition.
        fixed: u32,
        /// Where it is defined.
        wanted_by: String,
    },
    /// Two accounts want one id.
    #[error("{what} {name:?} cannot have the id {id}, which belongs to {owner:?}")]
    Taken {
        /// "user" or "group".
        what: &'static str,
        /// Where it is defined.
        name: String,
        /// The id.
        id: u32,
        /// The account that has it.
        owner: String,
    },
    /// No id is left.
    #[error("no free id for {what} {name:?}")]
    Exhausted {
        /// "user" or "group".
        what: &'static str,
        /// The account that wants one.
        name: String,
    },
    /// The recipe declares an account that exists already.
    #[error("{what} {name:?} is declared by both the recipe and {other}")]
    Declared {
        /// "user" or "group".
        what: &'static str,
        /// Its name.
        name: String,
        /// The other source.
        other: String,
    },
    /// A group that is not defined.
    #[error("{wanted_by} names group {group:?}, which does not exist")]
    NoGroup {
        /// The group's name or number.
        group: String,
        /// Where it is named.
        wanted_by: String,
    },
    /// A file cannot be read or written.
    #[error(transparent)]
    Tree(#[from] tree::Error),
}

/// The ids of all accounts that are not from base-passwd, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ids {
    /// Users.
    pub users: BTreeMap<String, u32>,
    /// Groups.
    pub groups: BTreeMap<String, u32>,
}

/// A user that the recipe declares; its password is locked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    /// Its name.
    pub name: String,
    /// Its id; `None` leaves the choice to [`plan`].
    pub uid: Option<u32>,
    /// Its primary group; `None` creates one with its own name.
    pub group: Option<String>,
    /// Further groups, which must exist.
    pub groups: Vec<String>,
    /// What it is for.
    pub description: String,
    /// Its home directory; `None` means `/`.
    pub home: Option<String>,
    /// Its shell; `None` means nologin(8).
    pub shell: Option<String>,
}

/// A group that the recipe declares.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Its id; `None` leaves the choice to [`plan`].
    pub gid: Option<u32>,
}

/// What the recipe declares.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Declared {
    /// Users.
    pub users: Vec<User>,
    /// Groups.
    pub groups: Vec<Group>,
}

/// Chooses the id of every account and keeps the `pinned` ones; drops pinned names that are no longer defined.
///
/// # Errors
/// [`Error`], except [`Error::Stale`] and [`Error::StaleId`].
pub fn plan(tree: &Tree, declared: &Declared, pinned: &Ids) -> Result<Ids, Error> {
    Ok(resolve(tree, declared, pinned, Unpinned::Choose)?.ids())
}

/// Writes the six files, with ids from `pinned` or fixed by a definition.
///
/// # Errors
/// [`Error::Stale`] if an account that is not from base-passwd has no pinned id; else as [`plan`].
pub fn apply(tree: &mut Tree, declared: &Declared, pinned: &Ids) -> Result<(), Error> {
    let accounts = resolve(tree, declared, pinned, Unpinned::Refuse)?;
    let shadow = accounts.groups.iter().find(|group| group.name == "shadow").map_or(0, |group| group.gid);
    write::file(tree, "etc/passwd", 0o644, accounts.passwd(), NAME)?;
    write::file(tree, "etc/group", 0o644, accounts.group(), NAME)?;
    for (path, text) in [("etc/shadow", accounts.shadow()), ("etc/gshadow", accounts.gshadow())] {
        write::file(tree, path, 0o640, text, NAME)?;
        if let Some(node) = tree.edit(&TreePath::new(path).map_err(tree::Error::from)?) {
            node.gid = shadow;
        }
    }
    for path in ["etc/subuid", "etc/subgid"] {
        write::file(tree, path, 0o644, "", NAME)?;
    }
    for (path, mode, user, group) in OWNED {
        let uid = accounts.users.iter().find(|there| there.name == user).map(|user| user.uid);
        let gid = accounts.group_named(group).map(|group| group.gid);
        let node = tree.edit(&TreePath::new(path).map_err(tree::Error::from)?);
        if let (Some(uid), Some(gid), Some(node)) = (uid, gid, node) {
            (node.mode, node.uid, node.gid) = (mode, uid, gid);
        }
    }
    Ok(())
}

/// The ids of the accounts in the tree's /etc/passwd and /etc/group, by name.
///
/// # Errors
/// [`Error::Line`] for a line without a valid id; [`Error::Tree`] if a file is missing.
pub fn read(tree: &Tree) -> Result<Ids, Error> {
    let mut ids = Ids::default();
    for (path, fields, table) in [("etc/passwd", 7, &mut ids.users), ("etc/group", 4, &mut ids.groups)] {
        for (line, fields) in colon_lines(tree, path, fields)? {
            let id = number(path, line, &fields, 2)?;
            table.insert(fields.into_iter().next().unwrap_or_default(), id);
        }
    }
    Ok(ids)
}

fn resolve(tree: &Tree, declared: &Declared, pinned: &Ids, unpinned: Unpinned) -> Result<Accounts, Error> {
    let accounts = masters(tree)?;
    let mut wanted = Wanted::default();
    for (path, text) in systemd_conf::files(tree, "sysusers.d")? {
        for (line, text) in systemd_conf::lines(&text) {
            wanted.read_line(&path.to_string(), line, text)?;
        }
    }
    for (trigger, lines) in BUILT_IN {
        if write::exists(tree, trigger)? {
            for (line, text) in (1..).zip(lines) {
                wanted.read_line("built-in accounts", line, text)?;
            }
        }
    }
    wanted.imply_members();
    wanted.declare(declared, &accounts)?;
    Placing { tree, accounts, wanted: &wanted, pinned, unpinned }.run()
}

fn bad(source: &str, line: u32, problem: &'static str, text: &str) -> Error {
    Error::Line { source_name: source.to_owned(), line, problem, text: text.to_owned() }
}

#[cfg(test)]
mod tests;
