//! Yields the accounts that are wanted, from sysusers.d, the built-in table and the recipe.

use super::table::{Accounts, Expiry};
use super::{Declared, Error, Group, NOLOGIN, User, bad};
use crate::fixup::systemd_conf;

/// How a definition gives an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Id {
    Any,
    Fixed(u32),
    /// As the owner of this path.
    OwnerOf(String),
}

/// A primary group as a definition gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Primary {
    Own,
    Gid(u32),
    Named(String),
}

#[derive(Debug, Clone)]
pub(super) struct WantedUser {
    pub(super) name: String,
    pub(super) id: Id,
    pub(super) primary: Primary,
    pub(super) description: String,
    pub(super) home: String,
    pub(super) shell: String,
    pub(super) expiry: Expiry,
    pub(super) by: String,
}

#[derive(Debug, Clone)]
pub(super) struct WantedGroup {
    pub(super) name: String,
    pub(super) id: Id,
    pub(super) by: String,
}

/// Definitions in the order in which they come; the first one of a name counts.
#[derive(Default)]
pub(super) struct Wanted {
    pub(super) users: Vec<WantedUser>,
    pub(super) groups: Vec<WantedGroup>,
    /// Group, user, who says so.
    pub(super) members: Vec<(String, String, String)>,
    /// `r` lines: when there are any, ids come from these only.
    pub(super) ranges: Vec<(u32, u32)>,
}

impl Wanted {
    pub(super) fn read_line(&mut self, source: &str, line: u32, text: &str) -> Result<(), Error> {
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
    pub(super) fn imply_members(&mut self) {
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

    pub(super) fn declare(&mut self, declared: &Declared, masters: &Accounts) -> Result<(), Error> {
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
