//! Yields the text of the six files from accounts with their ids, and the accounts of Debian's masters.

use std::collections::BTreeSet;

use super::{Error, GROUP_MASTER, Ids, PASSWD_MASTER, bad};
use crate::path::TreePath;
use crate::tree::{self, Tree};

/// Whether a locked account is also expired (`u!`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expiry {
    Never,
    Expired,
}

/// Whether an account is from base-passwd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Master,
    Added(Expiry),
}

pub(super) struct PlacedUser {
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) description: String,
    pub(super) home: String,
    pub(super) shell: String,
    pub(super) source: Source,
}

pub(super) struct PlacedGroup {
    pub(super) name: String,
    pub(super) gid: u32,
    pub(super) members: BTreeSet<String>,
    pub(super) source: Source,
}

pub(super) struct Accounts {
    pub(super) users: Vec<PlacedUser>,
    pub(super) groups: Vec<PlacedGroup>,
}

impl Accounts {
    pub(super) fn ids(&self) -> Ids {
        let users = self.users.iter().filter(|user| user.source != Source::Master);
        let groups = self.groups.iter().filter(|group| group.source != Source::Master);
        Ids {
            users: users.map(|user| (user.name.clone(), user.uid)).collect(),
            groups: groups.map(|group| (group.name.clone(), group.gid)).collect(),
        }
    }

    pub(super) fn passwd(&self) -> String {
        let line = |user: &PlacedUser| {
            let PlacedUser { name, uid, gid, description, home, shell, .. } = user;
            format!("{name}:x:{uid}:{gid}:{description}:{home}:{shell}\n")
        };
        self.users.iter().map(line).collect()
    }

    pub(super) fn shadow(&self) -> String {
        let line = |user: &PlacedUser| match user.source {
            Source::Master => format!("{}:*::0:99999:7:::\n", user.name),
            Source::Added(Expiry::Never) => format!("{}:!*:::::::\n", user.name),
            // Day 1: long ago (sysusers.d(5), `u!`).
            Source::Added(Expiry::Expired) => format!("{}:!*::::::1:\n", user.name),
        };
        self.users.iter().map(line).collect()
    }

    pub(super) fn group(&self) -> String {
        let line = |group: &PlacedGroup| format!("{}:x:{}:{}\n", group.name, group.gid, group.members());
        self.groups.iter().map(line).collect()
    }

    pub(super) fn gshadow(&self) -> String {
        let line = |group: &PlacedGroup| match group.source {
            Source::Master => format!("{}:*::{}\n", group.name, group.members()),
            Source::Added(_) => format!("{}:!*::{}\n", group.name, group.members()),
        };
        self.groups.iter().map(line).collect()
    }

    pub(super) fn group_named(&self, name: &str) -> Option<&PlacedGroup> {
        self.groups.iter().find(|group| group.name == name)
    }
}

impl PlacedGroup {
    fn members(&self) -> String {
        self.members.iter().map(String::as_str).collect::<Vec<_>>().join(",")
    }
}

pub(super) fn masters(tree: &Tree) -> Result<Accounts, Error> {
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

pub(super) fn colon_lines(tree: &Tree, path: &str, count: usize) -> Result<Vec<(u32, Vec<String>)>, Error> {
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

pub(super) fn number(path: &str, line: u32, fields: &[String], at: usize) -> Result<u32, Error> {
    let text = fields.get(at).map_or("", String::as_str);
    text.parse().map_err(|_| bad(path, line, "not an id", text))
}

fn take<const N: usize>(path: &str, line: u32, fields: Vec<String>) -> Result<[String; N], Error> {
    fields
        .try_into()
        .map_err(|fields: Vec<String>| bad(path, line, "wrong number of fields", &fields.join(":")))
}
