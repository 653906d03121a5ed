//! Yields /etc/passwd, group, shadow, gshadow, subuid and subgid, from Debian's masters, sysusers.d and the recipe.
//!
//! # Shape
//! ```text
//! base-passwd masters ─┐
//! sysusers.d/*.conf   ─┼─> groups, users ── ids: fixed > pinned > 999 downward ──> the six files
//! built-in table      ─┤
//! recipe              ─┘
//! ```
//! A fixed id is never given to another account, even to one that comes first (systemd-sysusers would). Ids that
//! nothing fixes are pinned by the lock, so that one more package moves no other account's id: [`plan`]
//! chooses them once, [`apply`] refuses an account without one. Masters come first and in their order, added accounts
//! follow by id. Every password is locked (`*` for masters, as shadowconfig(8) leaves them, else `!*`). The date of the
//! last password change is empty: that switches password ageing off, has no clock in it, and unlike the 0 that
//! systemd-sysusers writes for `SOURCE_DATE_EPOCH=0` does not demand a new password at the next login (shadow(5)).
//!
//! # Source
//! sysusers.d(5) and systemd 257 `src/sysusers/sysusers.c` (order, choice of ids, `u!` expires the account);
//! passwd(5), group(5), shadow(5), gshadow(5); base-passwd 3.6 of trixie.
//!
//! # Not here
//! Home directories, setgid ssh-agent (its postinst's guard against ptrace), and specifiers in sysusers.d other than `%%`: the machine they speak of does not exist yet.

use std::collections::{BTreeMap, BTreeSet};

use super::{systemd_conf, write};
use crate::path::TreePath;
use crate::tree::{self, Node, Tree};

const NAME: &str = "accounts";
const NOLOGIN: &str = "/usr/sbin/nologin";
const PASSWD_MASTER: &str = "usr/share/base-passwd/passwd.master";
const GROUP_MASTER: &str = "usr/share/base-passwd/group.master";

/// Ids that systemd-sysusers gives out, from the top (systemd `SYSTEM_UID_MAX`, `SYSTEM_ALLOC_UID_MIN` in Debian).
const SYSTEM_IDS: std::ops::RangeInclusive<u32> = 100..=999;

/// Accounts that maintainer scripts make by adduser(8): a path of the package that needs them, and their lines in the
/// syntax of sysusers.d. Read in trixie's tpm-udev 0.6 and openssh-client 10.0 postinst.
const BUILT_IN: [(&str, &[&str]); 2] = [
    (
        "usr/lib/udev/rules.d/60-tpm-udev.rules",
        &["g tss -", "u tss - \"TPM software stack\" /var/lib/tpm /bin/false"],
    ),
    ("usr/bin/ssh-agent", &["g _ssh -"]),
];

/// Directories that maintainer scripts give to those accounts, or to `_apt`: path, mode, user, group. Read in the postinst
/// of tpm-udev 0.6 and apt 3.0.
const OWNED: [(&str, u16, &str, &str); 3] = [
    ("var/cache/apt/archives/partial", 0o700, "_apt", "root"),
    ("var/lib/apt/lists/partial", 0o700, "_apt", "root"),
    ("var/lib/tpm", 0o755, "tss", "tss"),
];

/// Why there is no set of accounts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A line that is not what its format asks for.
    #[error("{source_name}:{line}: {problem}: {text:?}")]
    Line {
        /// The file, or the table, that has the line.
        source_name: String,
        /// Its number, from 1.
        line: u32,
        /// What is wrong.
        problem: &'static str,
        /// The part that is wrong.
        text: String,
    },
    /// A line that has no words.
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
    #[error("the lock is stale: {what} {name:?} ({wanted_by}) has no id in it")]
    Stale {
        /// "user" or "group".
        what: &'static str,
        /// Its name.
        name: String,
        /// Who wants it.
        wanted_by: String,
    },
    /// An account whose pinned id is not the one that its definition fixes.
    #[error("the lock is stale: it gives {what} {name:?} the id {pinned}, {wanted_by} fixes {fixed}")]
    StaleId {
        /// "user" or "group".
        what: &'static str,
        /// Its name.
        name: String,
        /// The id in the lock.
        pinned: u32,
        /// The id that is wanted.
        fixed: u32,
        /// Who wants it.
        wanted_by: String,
    },
    /// Two accounts want one id.
    #[error("{what} {name:?} wants the id {id}, which {owner:?} has")]
    Taken {
        /// "user" or "group".
        what: &'static str,
        /// Who wants it.
        name: String,
        /// The id.
        id: u32,
        /// Who has it.
        owner: String,
    },
    /// No id is left.
    #[error("no free id is left for {what} {name:?}")]
    Exhausted {
        /// "user" or "group".
        what: &'static str,
        /// Who wants one.
        name: String,
    },
    /// The recipe declares an account that is there already.
    #[error("{what} {name:?} is declared by the recipe and by {other}")]
    Declared {
        /// "user" or "group".
        what: &'static str,
        /// Its name.
        name: String,
        /// Who brings it too.
        other: String,
    },
    /// A group that nobody defines.
    #[error("{wanted_by} names group {group:?}, which does not exist")]
    NoGroup {
        /// The group's name or number.
        group: String,
        /// Who names it.
        wanted_by: String,
    },
    /// A file cannot be read or written.
    #[error(transparent)]
    Tree(#[from] tree::Error),
}

/// The ids of all accounts that base-passwd does not bring, by name.
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
    /// Its primary group; `None` makes one of its own name.
    pub group: Option<String>,
    /// Further groups, which must exist.
    pub groups: Vec<String>,
    /// What it is for.
    pub description: String,
    /// Its home directory; `None` is `/`.
    pub home: Option<String>,
    /// Its shell; `None` is nologin(8).
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

/// Chooses the id of every account, keeping the `pinned` ones; pinned names that nobody wants any more are left out.
///
/// # Errors
/// [`Error`], save [`Error::Stale`] and [`Error::StaleId`].
pub fn plan(tree: &Tree, declared: &Declared, pinned: &Ids) -> Result<Ids, Error> {
    Ok(resolve(tree, declared, pinned, Unpinned::Choose)?.ids())
}

/// Writes the six files, every id from `pinned` or fixed by a definition.
///
/// # Errors
/// [`Error::Stale`] when an account that base-passwd does not bring has no pinned id; else as [`plan`].
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
/// [`Error::Line`] for a line that has no number where it must; [`Error::Tree`] when a file is missing.
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

/// What happens to an account whose id neither its definition nor the lock gives.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unpinned {
    Choose,
    Refuse,
}

/// How a definition gives an id.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Id {
    Any,
    Fixed(u32),
    /// As the owner of this path.
    OwnerOf(String),
}

/// A primary group as a definition gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Primary {
    Own,
    Gid(u32),
    Named(String),
}

/// Whether an account that is locked expires too (`u!`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expiry {
    Never,
    Expired,
}

#[derive(Debug, Clone)]
struct WantedUser {
    name: String,
    id: Id,
    primary: Primary,
    description: String,
    home: String,
    shell: String,
    expiry: Expiry,
    by: String,
}

#[derive(Debug, Clone)]
struct WantedGroup {
    name: String,
    id: Id,
    by: String,
}

/// Definitions in the order in which they come; the first one of a name counts.
#[derive(Default)]
struct Wanted {
    users: Vec<WantedUser>,
    groups: Vec<WantedGroup>,
    /// Group, user, who says so.
    members: Vec<(String, String, String)>,
    /// `r` lines: when there are any, ids come from these only.
    ranges: Vec<(u32, u32)>,
}

/// Whether base-passwd brings an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Master,
    Added(Expiry),
}

struct PlacedUser {
    name: String,
    uid: u32,
    gid: u32,
    description: String,
    home: String,
    shell: String,
    source: Source,
}

struct PlacedGroup {
    name: String,
    gid: u32,
    members: BTreeSet<String>,
    source: Source,
}

struct Accounts {
    users: Vec<PlacedUser>,
    groups: Vec<PlacedGroup>,
}

impl Accounts {
    fn ids(&self) -> Ids {
        let users = self.users.iter().filter(|user| user.source != Source::Master);
        let groups = self.groups.iter().filter(|group| group.source != Source::Master);
        Ids {
            users: users.map(|user| (user.name.clone(), user.uid)).collect(),
            groups: groups.map(|group| (group.name.clone(), group.gid)).collect(),
        }
    }

    fn passwd(&self) -> String {
        let line = |user: &PlacedUser| {
            let PlacedUser { name, uid, gid, description, home, shell, .. } = user;
            format!("{name}:x:{uid}:{gid}:{description}:{home}:{shell}\n")
        };
        self.users.iter().map(line).collect()
    }

    fn shadow(&self) -> String {
        let line = |user: &PlacedUser| match user.source {
            Source::Master => format!("{}:*::0:99999:7:::\n", user.name),
            Source::Added(Expiry::Never) => format!("{}:!*:::::::\n", user.name),
            // Day 1: long ago (sysusers.d(5), `u!`).
            Source::Added(Expiry::Expired) => format!("{}:!*::::::1:\n", user.name),
        };
        self.users.iter().map(line).collect()
    }

    fn group(&self) -> String {
        let line = |group: &PlacedGroup| format!("{}:x:{}:{}\n", group.name, group.gid, group.members());
        self.groups.iter().map(line).collect()
    }

    fn gshadow(&self) -> String {
        let line = |group: &PlacedGroup| match group.source {
            Source::Master => format!("{}:*::{}\n", group.name, group.members()),
            Source::Added(_) => format!("{}:!*::{}\n", group.name, group.members()),
        };
        self.groups.iter().map(line).collect()
    }

    fn group_named(&self, name: &str) -> Option<&PlacedGroup> {
        self.groups.iter().find(|group| group.name == name)
    }
}

impl PlacedGroup {
    fn members(&self) -> String {
        self.members.iter().map(String::as_str).collect::<Vec<_>>().join(",")
    }
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

fn masters(tree: &Tree) -> Result<Accounts, Error> {
    let mut accounts = Accounts { users: Vec::new(), groups: Vec::new() };
    for (line, fields) in colon_lines(tree, GROUP_MASTER, 4)? {
        let gid = number(GROUP_MASTER, line, &fields, 2)?;
        let [name, _, _, members] = take(GROUP_MASTER, line, fields)?;
        let members = members.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        accounts.groups.push(PlacedGroup { name, gid, members, source: Source::Master });
    }
    for (line, fields) in colon_lines(tree, PASSWD_MASTER, 7)? {
        let (uid, gid) = (number(PASSWD_MASTER, line, &fields, 2)?, number(PASSWD_MASTER, line, &fields, 3)?);
        let [name, _, _, _, description, home, shell] = take(PASSWD_MASTER, line, fields)?;
        let source = Source::Master;
        accounts.users.push(PlacedUser { name, uid, gid, description, home, shell, source });
    }
    Ok(accounts)
}

fn colon_lines(tree: &Tree, path: &str, count: usize) -> Result<Vec<(u32, Vec<String>)>, Error> {
    let bytes = tree.read(&TreePath::new(path).map_err(tree::Error::from)?)?;
    let text = String::from_utf8_lossy(&bytes);
    (1..)
        .zip(text.lines())
        .filter(|(_, line)| !line.is_empty())
        .map(|(line, text)| {
            let fields: Vec<String> = text.split(':').map(str::to_owned).collect();
            match fields.len() == count {
                true => Ok((line, fields)),
                false => Err(bad(path, line, "wrong number of fields", text)),
            }
        })
        .collect()
}

fn number(path: &str, line: u32, fields: &[String], at: usize) -> Result<u32, Error> {
    let text = fields.get(at).map_or("", String::as_str);
    text.parse().map_err(|_| bad(path, line, "not an id", text))
}

fn take<const N: usize>(path: &str, line: u32, fields: Vec<String>) -> Result<[String; N], Error> {
    fields
        .try_into()
        .map_err(|fields: Vec<String>| bad(path, line, "wrong number of fields", &fields.join(":")))
}

fn bad(source: &str, line: u32, problem: &'static str, text: &str) -> Error {
    Error::Line { source_name: source.to_owned(), line, problem, text: text.to_owned() }
}

impl Wanted {
    fn read_line(&mut self, source: &str, line: u32, text: &str) -> Result<(), Error> {
        let wrong = |problem, text: &str| bad(source, line, problem, text);
        let by = format!("{source}:{line}");
        let (words, rest) = systemd_conf::words(text, 6).map_err(|error| Error::Words {
            source_name: source.to_owned(),
            line,
            source: error,
        })?;
        if !rest.is_empty() {
            return Err(wrong("more than six fields", rest));
        }
        let mut fields = words.into_iter().map(|word| match word.as_str() {
            "" | "-" => Ok(None),
            _ => match word.replace("%%", "").contains('%') {
                true => Err(wrong("specifiers are not supported", &word)),
                false => Ok(Some(word.replace("%%", "%"))),
            },
        });
        let mut next = || fields.next().unwrap_or(Ok(None));
        let (kind, name, id) = (next()?.unwrap_or_default(), next()?, next()?);
        let (description, home, shell) = (next()?, next()?, next()?);
        let named = || match &name {
            Some(name) if is_name(name) => Ok(name.clone()),
            other => Err(wrong("not an account name", other.as_deref().unwrap_or("-"))),
        };
        let no_more = || match description.as_ref().or(home.as_ref()).or(shell.as_ref()) {
            Some(extra) => Err(wrong("more fields than this type takes", extra)),
            None => Ok(()),
        };
        match kind.as_str() {
            "u" | "u!" => {
                let name = named()?;
                let description = description.unwrap_or_default();
                let expiry = if kind == "u!" { Expiry::Expired } else { Expiry::Never };
                for text in [Some(&description), home.as_ref(), shell.as_ref()].into_iter().flatten() {
                    if !is_field(text) {
                        return Err(wrong("a colon or a control character in a field", text));
                    }
                }
                for text in [home.as_ref(), shell.as_ref()].into_iter().flatten() {
                    if !text.starts_with('/') {
                        return Err(wrong("not an absolute path", text));
                    }
                }
                let (id, primary) = match id.as_deref() {
                    None => (Id::Any, Primary::Own),
                    Some(path) if path.starts_with('/') => (Id::OwnerOf(path.to_owned()), Primary::Own),
                    Some(text) => match text.split_once(':') {
                        None => {
                            (Id::Fixed(id_of(text).ok_or_else(|| wrong("not an id", text))?), Primary::Own)
                        }
                        Some((uid, group)) => {
                            let uid = match uid {
                                "-" => Id::Any,
                                uid => Id::Fixed(id_of(uid).ok_or_else(|| wrong("not an id", text))?),
                            };
                            let group = match id_of(group) {
                                Some(gid) => Primary::Gid(gid),
                                None if is_name(group) => Primary::Named(group.to_owned()),
                                None => return Err(wrong("not a group", text)),
                            };
                            (uid, group)
                        }
                    },
                };
                let shell = shell.unwrap_or_else(|| match name.as_str() {
                    "root" => "/bin/bash".to_owned(),
                    _ => NOLOGIN.to_owned(),
                });
                let home = home.unwrap_or_else(|| if name == "root" { "/root" } else { "/" }.to_owned());
                if !self.users.iter().any(|user| user.name == name) {
                    self.users.push(WantedUser { name, id, primary, description, home, shell, expiry, by });
                }
            }
            "g" => {
                no_more()?;
                let name = named()?;
                let id = match id.as_deref() {
                    None => Id::Any,
                    Some(path) if path.starts_with('/') => Id::OwnerOf(path.to_owned()),
                    Some(text) => Id::Fixed(id_of(text).ok_or_else(|| wrong("not an id", text))?),
                };
                if !self.groups.iter().any(|group| group.name == name) {
                    self.groups.push(WantedGroup { name, id, by });
                }
            }
            "m" => {
                no_more()?;
                let group = id.filter(|group| is_name(group)).ok_or_else(|| wrong("not a group", text))?;
                self.members.push((group, named()?, by));
            }
            "r" => {
                no_more()?;
                if let Some(name) = name {
                    return Err(wrong("a range takes no name", &name));
                }
                let range = id.as_deref().and_then(|text| {
                    let (low, high) = text.split_once('-').unwrap_or((text, text));
                    Some((id_of(low)?, id_of(high)?)).filter(|(low, high)| low <= high)
                });
                self.ranges.push(range.ok_or_else(|| wrong("not a range of ids", text))?);
            }
            other => return Err(wrong("unknown type", other)),
        }
        Ok(())
    }

    /// A membership makes the user and the group that it names (sysusers.d(5), `m`).
    fn imply_members(&mut self) {
        for (group, user, by) in self.members.clone() {
            if !self.groups.iter().any(|there| there.name == group) {
                self.groups.push(WantedGroup { name: group, id: Id::Any, by: by.clone() });
            }
            if !self.users.iter().any(|there| there.name == user) {
                self.users.push(WantedUser {
                    name: user,
                    id: Id::Any,
                    primary: Primary::Own,
                    description: String::new(),
                    home: "/".to_owned(),
                    shell: NOLOGIN.to_owned(),
                    expiry: Expiry::Never,
                    by,
                });
            }
        }
    }

    fn declare(&mut self, declared: &Declared, masters: &Accounts) -> Result<(), Error> {
        let by = "the recipe";
        for Group { name, gid } in &declared.groups {
            let wanted = self.groups.iter().find(|group| group.name == *name).map(|group| group.by.clone());
            let master = masters.group_named(name).map(|_| "base-passwd".to_owned());
            if let Some(other) = wanted.or(master) {
                return Err(Error::Declared { what: "group", name: name.clone(), other });
            }
            if !is_name(name) {
                return Err(bad(by, 0, "not an account name", name));
            }
            let id = gid.map_or(Id::Any, Id::Fixed);
            self.groups.push(WantedGroup { name: name.clone(), id, by: by.to_owned() });
        }
        for user in &declared.users {
            let User { name, uid, group, groups, description, home, shell } = user;
            let wanted = self.users.iter().find(|user| user.name == *name).map(|user| user.by.clone());
            let master =
                masters.users.iter().find(|user| user.name == *name).map(|_| "base-passwd".to_owned());
            if let Some(other) = wanted.or(master) {
                return Err(Error::Declared { what: "user", name: name.clone(), other });
            }
            let home = home.clone().unwrap_or_else(|| "/".to_owned());
            let shell = shell.clone().unwrap_or_else(|| NOLOGIN.to_owned());
            if !is_name(name) {
                return Err(bad(by, 0, "not an account name", name));
            }
            if let Some(text) = [description, &home, &shell].into_iter().find(|text| !is_field(text)) {
                return Err(bad(by, 0, "a colon or a control character in a field", text));
            }
            if let Some(text) = [&home, &shell].into_iter().find(|text| !text.starts_with('/')) {
                return Err(bad(by, 0, "not an absolute path", text));
            }
            for group in groups {
                let known = self.groups.iter().any(|there| there.name == *group)
                    || masters.group_named(group).is_some();
                if !known {
                    let wanted_by = format!("user {name:?} of the recipe");
                    return Err(Error::NoGroup { group: group.clone(), wanted_by });
                }
                self.members.push((group.clone(), name.clone(), by.to_owned()));
            }
            self.users.push(WantedUser {
                name: name.clone(),
                id: uid.map_or(Id::Any, Id::Fixed),
                primary: group.clone().map_or(Primary::Own, Primary::Named),
                description: description.clone(),
                home,
                shell,
                expiry: Expiry::Never,
                by: by.to_owned(),
            });
        }
        Ok(())
    }
}

/// A number that is an id: not one of the two that mean "none" (systemd `uid_is_valid`).
fn id_of(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|id| digits && *id != 0xffff && *id != u32::MAX)
}

/// Whether systemd takes this for a user name (`valid_user_group_name`, strict).
fn is_name(name: &str) -> bool {
    name.len() <= 31
        && name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

fn is_field(text: &str) -> bool {
    !text.contains(|letter: char| letter == ':' || letter.is_control())
}

/// Gives every wanted account an id, groups before users, in the order of systemd-sysusers.
struct Placing<'a> {
    tree: &'a Tree,
    accounts: Accounts,
    wanted: &'a Wanted,
    pinned: &'a Ids,
    unpinned: Unpinned,
}

impl Placing<'_> {
    fn run(mut self) -> Result<Accounts, Error> {
        let masters = (self.accounts.users.len(), self.accounts.groups.len());
        for group in &self.wanted.groups {
            self.place_group(&group.name, &group.id, None, Expiry::Never, &group.by)?;
        }
        for user in &self.wanted.users {
            self.place_user(user)?;
        }
        for (group, user, by) in &self.wanted.members {
            match self.accounts.groups.iter_mut().find(|there| there.name == *group) {
                Some(there) => there.members.insert(user.clone()),
                None => return Err(Error::NoGroup { group: group.clone(), wanted_by: by.clone() }),
            };
        }
        if let Some(added) = self.accounts.users.get_mut(masters.0..) {
            added.sort_by_key(|user| user.uid);
        }
        if let Some(added) = self.accounts.groups.get_mut(masters.1..) {
            added.sort_by_key(|group| group.gid);
        }
        Ok(self.accounts)
    }

    fn place_user(&mut self, wanted: &WantedUser) -> Result<(), Error> {
        let WantedUser { name, id, primary, description, home, shell, expiry, by } = wanted.clone();
        if self.accounts.users.iter().any(|user| user.name == name) {
            return Ok(());
        }
        let gid = match &primary {
            Primary::Own => {
                let hint = match id {
                    Id::Fixed(uid) => Some(uid),
                    _ => self.pinned.users.get(&name).copied(),
                };
                Some(self.place_group(&name, &Id::Any, hint, expiry, &by)?)
            }
            Primary::Gid(gid) => {
                self.accounts.groups.iter().find(|group| group.gid == *gid).map(|group| group.gid)
            }
            Primary::Named(group) => self.accounts.group_named(group).map(|group| group.gid),
        };
        let gid = gid.ok_or_else(|| Error::NoGroup {
            group: match &primary {
                Primary::Gid(gid) => gid.to_string(),
                Primary::Named(group) => group.clone(),
                Primary::Own => name.clone(),
            },
            wanted_by: by.clone(),
        })?;
        let pinned = self.pinned.users.get(&name).copied();
        let uid = self.id("user", &name, &id, pinned, Some(gid), &by)?;
        let source = Source::Added(expiry);
        self.accounts.users.push(PlacedUser { name, uid, gid, description, home, shell, source });
        Ok(())
    }

    fn place_group(
        &mut self,
        name: &str,
        id: &Id,
        hint: Option<u32>,
        expiry: Expiry,
        by: &str,
    ) -> Result<u32, Error> {
        if let Some(there) = self.accounts.group_named(name) {
            return Ok(there.gid);
        }
        let pinned = self.pinned.groups.get(name).copied();
        let gid = self.id("group", name, id, pinned, hint, by)?;
        let (name, members, source) = (name.to_owned(), BTreeSet::new(), Source::Added(expiry));
        self.accounts.groups.push(PlacedGroup { name, gid, members, source });
        Ok(gid)
    }

    fn id(
        &self,
        what: &'static str,
        name: &str,
        id: &Id,
        pinned: Option<u32>,
        hint: Option<u32>,
        by: &str,
    ) -> Result<u32, Error> {
        let refuse = self.unpinned == Unpinned::Refuse;
        if let (Id::Fixed(fixed), Some(pinned)) = (id.clone(), pinned)
            && refuse
            && pinned != fixed
        {
            let (name, wanted_by) = (name.to_owned(), by.to_owned());
            return Err(Error::StaleId { what, name, pinned, fixed, wanted_by });
        }
        let stale = || Error::Stale { what, name: name.to_owned(), wanted_by: by.to_owned() };
        if let Some(exact) = if let Id::Fixed(fixed) = *id { Some(fixed) } else { pinned } {
            return match self.owner(what, name, exact) {
                Some(owner) => Err(Error::Taken { what, name: name.to_owned(), id: exact, owner }),
                None if pinned.is_none() && refuse => Err(stale()),
                None => Ok(exact),
            };
        }
        if refuse {
            return Err(stale());
        }
        let of_path = match id {
            Id::OwnerOf(path) => {
                self.owner_of(path)?.map(|node| if what == "user" { node.uid } else { node.gid })
            }
            _ => None,
        };
        let free = |id: &u32| self.is_free(name, *id);
        if let Some(id) = of_path.filter(free).or(hint.filter(free)) {
            return Ok(id);
        }
        let mut ranges = self.wanted.ranges.clone();
        ranges.sort_unstable();
        if ranges.is_empty() {
            ranges.push((*SYSTEM_IDS.start(), *SYSTEM_IDS.end()));
        }
        let found = ranges.iter().rev().find_map(|&(low, high)| (low..=high).rev().find(free));
        found.ok_or_else(|| Error::Exhausted { what, name: name.to_owned() })
    }

    fn owner_of(&self, path: &str) -> Result<Option<&Node>, Error> {
        match self.tree.resolve(&TreePath::new(path).map_err(tree::Error::from)?) {
            Ok(path) => Ok(self.tree.get(&path)),
            Err(tree::Error::Missing(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Who of the same sort has this id.
    fn owner(&self, what: &str, name: &str, id: u32) -> Option<String> {
        let users = self.accounts.users.iter().filter(|user| user.uid == id).map(|user| &user.name);
        let groups = self.accounts.groups.iter().filter(|group| group.gid == id).map(|group| &group.name);
        let mut owners: Box<dyn Iterator<Item = &String>> =
            if what == "user" { Box::new(users) } else { Box::new(groups) };
        owners.find(|owner| *owner != name).cloned()
    }

    /// Whether nobody else has, wants or pins this id, as a user or as a group.
    fn is_free(&self, name: &str, id: u32) -> bool {
        let pinned = self.pinned.users.iter().chain(&self.pinned.groups);
        let fixed = |wanted: &Id| *wanted == Id::Fixed(id);
        let taken = self.owner("user", name, id).is_some()
            || self.owner("group", name, id).is_some()
            || pinned.into_iter().any(|(owner, &pinned)| pinned == id && owner != name)
            || self.wanted.users.iter().any(|user| user.name != name && fixed(&user.id))
            || self.wanted.groups.iter().any(|group| group.name != name && fixed(&group.id));
        !taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::Content;
    use crate::tree::Origin;

    const TRIXIE: &str = "g adm 4 -\nu root 0 - /root /bin/bash\nu messagebus - \"System Message Bus\" /nonexistent\n\
        g input -\nu sshd -:nogroup \"sshd user\" /run/sshd\ng systemd-journal - -\n\
        u! systemd-network - \"systemd Network Management\"\n";

    fn tree(files: &[(&str, &str)]) -> Tree {
        let mut tree = Tree::new(Origin::fix_up("test"));
        let mut put = |at: &str, text: &str| {
            let node = Node::file(0o644, Content::raw(text), Origin::debian("pkg", "1"));
            tree.insert(TreePath::new(at).unwrap(), node).unwrap();
        };
        put(
            PASSWD_MASTER,
            "root:*:0:0:root:/root:/bin/bash\nnobody:*:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
        );
        put(GROUP_MASTER, "root:*:0:\nadm:*:4:\nshadow:*:42:\nnogroup:*:65534:\n");
        for (name, text) in files {
            put(name, text);
        }
        tree
    }

    fn conf(text: &str) -> Tree {
        tree(&[("usr/lib/sysusers.d/a.conf", text)])
    }

    fn text(tree: &Tree, at: &str) -> String {
        String::from_utf8(tree.read(&TreePath::new(at).unwrap()).unwrap().into_owned()).unwrap()
    }

    fn pairs(table: &BTreeMap<String, u32>) -> Vec<(&str, u32)> {
        table.iter().map(|(name, id)| (name.as_str(), *id)).collect()
    }

    fn plan_of(conf_text: &str) -> Result<Ids, Error> {
        plan(&conf(conf_text), &Declared::default(), &Ids::default())
    }

    #[test]
    fn ids_go_down_from_999_groups_first_and_masters_are_not_in_the_plan() {
        let ids = plan_of(TRIXIE).unwrap();
        assert_eq!(
            pairs(&ids.groups),
            [("input", 999), ("messagebus", 997), ("systemd-journal", 998), ("systemd-network", 995)]
        );
        assert_eq!(pairs(&ids.users), [("messagebus", 997), ("sshd", 996), ("systemd-network", 995)]);
    }

    #[test]
    fn the_six_files_are_written_locked_and_without_a_clock() {
        let mut tree = conf(TRIXIE);
        let ids = plan(&tree, &Declared::default(), &Ids::default()).unwrap();
        apply(&mut tree, &Declared::default(), &ids).unwrap();
        assert_eq!(
            text(&tree, "etc/passwd"),
            "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n\
             systemd-network:x:995:995:systemd Network Management:/:/usr/sbin/nologin\n\
             sshd:x:996:65534:sshd user:/run/sshd:/usr/sbin/nologin\n\
             messagebus:x:997:997:System Message Bus:/nonexistent:/usr/sbin/nologin\n"
        );
        assert_eq!(
            text(&tree, "etc/shadow"),
            "root:*::0:99999:7:::\nnobody:*::0:99999:7:::\nsystemd-network:!*::::::1:\nsshd:!*:::::::\n\
             messagebus:!*:::::::\n"
        );
        assert!(text(&tree, "etc/group").ends_with("nogroup:x:65534:\nsystemd-network:x:995:\nmessagebus:x:997:\nsystemd-journal:x:998:\ninput:x:999:\n"));
        assert!(text(&tree, "etc/gshadow").starts_with("root:*::\n"));
        assert!(text(&tree, "etc/gshadow").ends_with("input:!*::\n"));
        for at in ["etc/shadow", "etc/gshadow"] {
            let node = tree.get(&TreePath::new(at).unwrap()).unwrap();
            assert_eq!((node.mode, node.uid, node.gid), (0o640, 0, 42));
        }
        assert_eq!(text(&tree, "etc/subuid") + &text(&tree, "etc/subgid"), "");
        let read = read(&tree).unwrap();
        assert_eq!((read.users["sshd"], read.groups["adm"]), (996, 4));
    }

    #[test]
    fn a_pinned_id_stays_when_a_package_comes_before_it() {
        let before = plan_of(TRIXIE).unwrap();
        let more = conf(&format!("g aaa -\nu bbb -\n{TRIXIE}"));
        let after = plan(&more, &Declared::default(), &before).unwrap();
        for (name, id) in &before.groups {
            assert_eq!(after.groups[name], *id);
        }
        assert_eq!((after.groups["aaa"], after.users["bbb"]), (994, 993));
        assert_eq!(plan(&conf(TRIXIE), &Declared::default(), &after).unwrap(), before);
    }

    #[test]
    fn an_account_that_the_lock_does_not_know_is_refused() {
        let mut tree = conf("u new -\n");
        let error = apply(&mut tree, &Declared::default(), &Ids::default()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the lock is stale: group \"new\" (/usr/lib/sysusers.d/a.conf:1) has no id in it"
        );
        let fixed = apply(&mut conf("g new 300\n"), &Declared::default(), &Ids::default());
        assert!(matches!(fixed, Err(Error::Stale { .. })));
        let pinned = Ids { groups: BTreeMap::from([("new".into(), 301)]), ..Ids::default() };
        let error = apply(&mut conf("g new 300\n"), &Declared::default(), &pinned).unwrap_err();
        assert!(matches!(error, Error::StaleId { pinned: 301, fixed: 300, .. }));
        let planned = plan(&conf("g new 300\n"), &Declared::default(), &pinned).unwrap();
        assert_eq!(planned.groups["new"], 300);
    }

    #[test]
    fn files_of_stronger_roots_and_first_lines_win() {
        let tree = tree(&[
            ("usr/lib/sysusers.d/a.conf", "u a 300\n"),
            ("etc/sysusers.d/a.conf", "u a 301\nu a 302\n"),
        ]);
        assert_eq!(plan(&tree, &Declared::default(), &Ids::default()).unwrap().users["a"], 301);
    }

    #[test]
    fn every_form_of_id_is_understood() {
        let mut tree = conf(
            "u a 300\nu b 301:4\nu c 302:adm\nu d -:adm\nu e /srv/e\ng f /srv/e\nu g /none\nm h adm\nm a newgroup\n\
             u i - \"a %% sign\"\n",
        );
        let srv = Node::directory(0o755, Origin::fix_up("t")).owned_by(400, 401);
        tree.insert(TreePath::new("srv/e").unwrap(), srv).unwrap();
        let ids = plan(&tree, &Declared::default(), &Ids::default()).unwrap();
        apply(&mut tree, &Declared::default(), &ids).unwrap();
        let passwd = text(&tree, "etc/passwd");
        for line in ["a:x:300:300:", "b:x:301:4:", "c:x:302:4:", "e:x:400:", "i:x:"] {
            assert!(passwd.contains(line), "{line}: {passwd}");
        }
        assert!(passwd.contains(":a % sign:"));
        assert_eq!((ids.groups["f"], ids.groups["a"]), (401, 300));
        let group = text(&tree, "etc/group");
        assert!(group.contains("adm:x:4:h\n") && group.contains(":a\n"), "{group}");
        assert!(ids.users.contains_key("h") && ids.groups.contains_key("newgroup"));
    }

    #[test]
    fn ranges_limit_the_choice() {
        let ids = plan_of("r - 500-501\nr - 400\nu a -\nu b -\nu c -\n").unwrap();
        assert_eq!(pairs(&ids.users), [("a", 501), ("b", 500), ("c", 400)]);
        assert!(matches!(plan_of("r - 500\nu a -\nu b -\n"), Err(Error::Exhausted { what: "group", .. })));
    }

    #[test]
    fn accounts_of_scripts_come_from_the_table_when_their_package_is_there() {
        let mut tree = tree(&[("usr/lib/udev/rules.d/60-tpm-udev.rules", ""), ("usr/bin/ssh-agent", "")]);
        let ids = plan(&tree, &Declared::default(), &Ids::default()).unwrap();
        apply(&mut tree, &Declared::default(), &ids).unwrap();
        assert!(
            text(&tree, "etc/passwd").contains("tss:x:999:999:TPM software stack:/var/lib/tpm:/bin/false\n")
        );
        assert!(text(&tree, "etc/group").contains("_ssh:x:998:\n"));
    }

    #[test]
    fn the_recipe_declares_users_and_groups() {
        let declared = Declared {
            groups: vec![Group { name: "data".into(), gid: Some(800) }],
            users: vec![User {
                name: "claw".into(),
                uid: Some(801),
                groups: vec!["data".into(), "adm".into()],
                description: "the gateway".into(),
                home: Some("/var/lib/claw".into()),
                ..User::default()
            }],
        };
        let mut tree = conf("");
        let ids = plan(&tree, &declared, &Ids::default()).unwrap();
        apply(&mut tree, &declared, &ids).unwrap();
        assert!(
            text(&tree, "etc/passwd")
                .ends_with("claw:x:801:801:the gateway:/var/lib/claw:/usr/sbin/nologin\n")
        );
        let group = text(&tree, "etc/group");
        assert!(group.contains("data:x:800:claw\n") && group.contains("adm:x:4:claw\n"));
    }

    #[test]
    fn a_recipe_cannot_redefine_break_out_or_name_what_does_not_exist() {
        let user = |name: &str| User { name: name.into(), ..User::default() };
        let planned = |user: User| {
            plan(&conf("u a -\n"), &Declared { users: vec![user], ..Declared::default() }, &Ids::default())
        };
        assert!(matches!(planned(user("a")), Err(Error::Declared { .. })));
        assert!(matches!(planned(user("root")), Err(Error::Declared { .. })));
        for name in ["", "1a", "a:b", "a b", "a\n", &"a".repeat(32)] {
            assert!(matches!(planned(user(name)), Err(Error::Line { .. })), "{name:?}");
        }
        assert!(planned(User { description: "a:b".into(), ..user("x") }).is_err());
        assert!(planned(User { home: Some("srv".into()), ..user("x") }).is_err());
        assert!(planned(User { shell: Some("/bin/sh\nroot::0:0".into()), ..user("x") }).is_err());
        assert!(matches!(
            planned(User { groups: vec!["none".into()], ..user("x") }),
            Err(Error::NoGroup { .. })
        ));
        assert!(matches!(
            planned(User { group: Some("none".into()), ..user("x") }),
            Err(Error::NoGroup { .. })
        ));
        assert!(matches!(planned(User { uid: Some(0), ..user("x") }), Err(Error::Taken { id: 0, .. })));
        let groups =
            Declared { groups: vec![Group { name: "adm".into(), gid: None }], ..Declared::default() };
        assert!(matches!(plan(&conf(""), &groups, &Ids::default()), Err(Error::Declared { .. })));
    }

    #[test]
    fn lines_that_are_not_understood_are_refused() {
        for line in [
            "u",
            "x a -",
            "u a b",
            "u a 65535",
            "u a 4294967295",
            "u a 300:",
            "g a - \"text\"",
            "m a",
            "m a -",
            "r a 1-2",
            "r - 5-4",
            "r - x",
            "u a - b /c /d e",
            "u a - %H",
            "u a - b c",
            "u a - b /c d",
            "u 1a -",
            "u a - a:b",
        ] {
            assert!(matches!(plan_of(line), Err(Error::Line { line: 1, .. })), "{line}");
        }
        assert!(matches!(plan_of("u \"a"), Err(Error::Words { .. })));
        assert!(matches!(plan_of("u a 300:none"), Err(Error::NoGroup { .. })));
        assert!(matches!(plan_of("u a 300:77"), Err(Error::NoGroup { .. })));
        assert!(matches!(plan_of("u a 300\nu b 300"), Err(Error::Taken { .. })));
    }

    #[test]
    fn masters_that_are_missing_or_damaged_are_refused() {
        let mut none = Tree::new(Origin::fix_up("test"));
        assert!(matches!(apply(&mut none, &Declared::default(), &Ids::default()), Err(Error::Tree(_))));
        for text in ["root:*:0\n", "root:*:x:\n"] {
            let mut tree = conf("");
            let node = Node::file(0o644, Content::raw(text), Origin::fix_up("t"));
            tree.replace(TreePath::new(GROUP_MASTER).unwrap(), node).unwrap();
            assert!(matches!(plan(&tree, &Declared::default(), &Ids::default()), Err(Error::Line { .. })));
        }
    }
}
