//! Yields an id for every wanted account: fixed, pinned, or chosen.

use std::collections::BTreeSet;

use super::table::{Accounts, Expiry, PlacedGroup, PlacedUser, Source};
use super::wanted::{Id, Primary, Wanted, WantedUser};
use super::{Error, Ids, SYSTEM_IDS};
use crate::path::TreePath;
use crate::tree::{self, Node, Tree};

/// What to do with an account that has an id neither in its definition nor in the lock.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Unpinned {
    Choose,
    Refuse,
}

/// Assigns an id to every wanted account, groups before users, in the order of systemd-sysusers.
pub(super) struct Placing<'a> {
    pub(super) tree: &'a Tree,
    pub(super) accounts: Accounts,
    pub(super) wanted: &'a Wanted,
    pub(super) pinned: &'a Ids,
    pub(super) unpinned: Unpinned,
}

impl Placing<'_> {
    pub(super) fn run(mut self) -> Result<Accounts, Error> {
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

    /// The other user or group that has this id.
    fn owner(&self, what: &str, name: &str, id: u32) -> Option<String> {
        let users = self.accounts.users.iter().filter(|user| user.uid == id).map(|user| &user.name);
        let groups = self.accounts.groups.iter().filter(|group| group.gid == id).map(|group| &group.name);
        let mut owners: Box<dyn Iterator<Item = &String>> =
            if what == "user" { Box::new(users) } else { Box::new(groups) };
        owners.find(|owner| *owner != name).cloned()
    }

    /// Whether no other user or group has, wants or pins this id.
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
