//! Yields the wanted accounts, from sysusers.d, the built-in table and the recipe.

use super::table::{Accounts, Expiry};
use super::{Declared, Error, Group, NOLOGIN, User, bad};
use crate::fixup::systemd_conf;

/// The id in a definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Id {
    Any,
    Fixed(u32),
    /// The owner of this path.
    OwnerOf(String),
}

/// The primary group in a definition.
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

/// Definitions in their order; the first one of a name counts.
#[derive(Default)]
pub(super) struct Wanted {
    pub(super) users: Vec<WantedUser>,
    pub(super) groups: Vec<WantedGroup>,
    /// Group, user, and where the membership is defined.
    pub(super) members: Vec<(String, String, String)>,
    /// `r` lines; if there are any, ids come only from these ranges.
    pub(super) ranges: Vec<(u32, u32)>,
}

impl Wanted {
    /// Adds what one line of sysusers.d defines.
    pub(super) fn read_line(&mut self, source: &str, line: u32, text: &str) -> Result<(), Error> {
        let line = Line::parse(source, line, text)?;
        match line.kind.as_str() {
            "u" | "u!" => {
                let user = line.user()?;
                if !self.users.iter().any(|there| there.name == user.name) {
                    self.users.push(user);
                }
            }
            "g" => {
                let group = line.group()?;
                if !self.groups.iter().any(|there| there.name == group.name) {
                    self.groups.push(group);
                }
            }
            "m" => self.members.push(line.member()?),
            "r" => self.ranges.push(line.range()?),
            other => return Err(line.wrong("unknown type", other)),
        }
        Ok(())
    }

    /// A membership creates its user and its group (sysusers.d(5), `m`).
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

/// A line of sysusers.d, split into its fields; a field that is empty or `-` is `None`.
struct Line<'a> {
    source: &'a str,
    number: u32,
    text: &'a str,
    kind: String,
    name: Option<String>,
    id: Option<String>,
    description: Option<String>,
    home: Option<String>,
    shell: Option<String>,
}

impl<'a> Line<'a> {
    fn parse(source: &'a str, number: u32, text: &'a str) -> Result<Self, Error> {
        let wrong = |problem, text: &str| bad(source, number, problem, text);
        let (words, rest) = systemd_conf::words(text, 6).map_err(|error| Error::Words {
            source_name: source.to_owned(),
            line: number,
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
        Ok(Line { source, number, text, kind, name, id, description, home, shell })
    }

    fn wrong(&self, problem: &'static str, text: &str) -> Error {
        bad(self.source, self.number, problem, text)
    }

    /// The place of the definition, for errors.
    fn by(&self) -> String {
        format!("{}:{}", self.source, self.number)
    }

    fn account_name(&self) -> Result<String, Error> {
        match &self.name {
            Some(name) if is_name(name) => Ok(name.clone()),
            other => Err(self.wrong("not an account name", other.as_deref().unwrap_or("-"))),
        }
    }

    /// Refuses the fields that only a user has.
    fn no_more(&self) -> Result<(), Error> {
        match self.description.as_ref().or(self.home.as_ref()).or(self.shell.as_ref()) {
            Some(extra) => Err(self.wrong("more fields than this type takes", extra)),
            None => Ok(()),
        }
    }

    fn fixed_id(&self, id: &str, field: &str) -> Result<Id, Error> {
        id_of(id).map(Id::Fixed).ok_or_else(|| self.wrong("not an id", field))
    }

    fn user(&self) -> Result<WantedUser, Error> {
        let name = self.account_name()?;
        let description = self.description.clone().unwrap_or_default();
        let (home, shell) = (self.home.as_ref(), self.shell.as_ref());
        if let Some(text) =
            [Some(&description), home, shell].into_iter().flatten().find(|text| !is_field(text))
        {
            return Err(self.wrong("a colon or a control character in a field", text));
        }
        if let Some(text) = [home, shell].into_iter().flatten().find(|text| !text.starts_with('/')) {
            return Err(self.wrong("not an absolute path", text));
        }
        let (id, primary) = self.user_id()?;
        let (own_home, own_shell) = if name == "root" { ("/root", "/bin/bash") } else { ("/", NOLOGIN) };
        Ok(WantedUser {
            id,
            primary,
            description,
            home: home.map_or(own_home, String::as_str).to_owned(),
            shell: shell.map_or(own_shell, String::as_str).to_owned(),
            expiry: if self.kind == "u!" { Expiry::Expired } else { Expiry::Never },
            by: self.by(),
            name,
        })
    }

    /// `-`, `UID`, `UID:GID`, `UID:GROUP`, `-:GROUP` or a path.
    fn user_id(&self) -> Result<(Id, Primary), Error> {
        let text = match self.id.as_deref() {
            None => return Ok((Id::Any, Primary::Own)),
            Some(path) if path.starts_with('/') => return Ok((Id::OwnerOf(path.to_owned()), Primary::Own)),
            Some(text) => text,
        };
        let Some((uid, group)) = text.split_once(':') else {
            return Ok((self.fixed_id(text, text)?, Primary::Own));
        };
        let uid = if uid == "-" { Id::Any } else { self.fixed_id(uid, text)? };
        let group = match id_of(group) {
            Some(gid) => Primary::Gid(gid),
            None if is_name(group) => Primary::Named(group.to_owned()),
            None => return Err(self.wrong("not a group", text)),
        };
        Ok((uid, group))
    }

    fn group(&self) -> Result<WantedGroup, Error> {
        self.no_more()?;
        let name = self.account_name()?;
        let id = match self.id.as_deref() {
            None => Id::Any,
            Some(path) if path.starts_with('/') => Id::OwnerOf(path.to_owned()),
            Some(text) => self.fixed_id(text, text)?,
        };
        Ok(WantedGroup { name, id, by: self.by() })
    }

    /// The group, the user, and where the membership is defined.
    fn member(&self) -> Result<(String, String, String), Error> {
        self.no_more()?;
        let group = self.id.clone().filter(|group| is_name(group));
        let group = group.ok_or_else(|| self.wrong("not a group", self.text))?;
        Ok((group, self.account_name()?, self.by()))
    }

    fn range(&self) -> Result<(u32, u32), Error> {
        self.no_more()?;
        if let Some(name) = &self.name {
            return Err(self.wrong("a range takes no name", name));
        }
        let range = self.id.as_deref().and_then(|text| {
            let (low, high) = text.split_once('-').unwrap_or((text, text));
            Some((id_of(low)?, id_of(high)?)).filter(|(low, high)| low <= high)
        });
        range.ok_or_else(|| self.wrong("not a range of ids", self.text))
    }
}

/// Parses an id; the two numbers that mean "no id" are not valid (systemd `uid_is_valid`).
fn id_of(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|id| digits && *id != 0xffff && *id != u32::MAX)
}

/// Whether systemd accepts this as an account name (`valid_user_group_name`, strict).
fn is_name(name: &str) -> bool {
    name.len() <= 31
        && name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

fn is_field(text: &str) -> bool {
    !text.contains(|letter: char| letter == ':' || letter.is_control())
}
