//! Yields the bytes of a `.bin` file of the index.

use std::collections::BTreeMap;

use super::Error;

const INDEX_MAGIC: u32 = 0xb007_f457;
const INDEX_VERSION: u32 = 0x0002_0001;
const HAS_PREFIX: u32 = 0x8000_0000;
const HAS_VALUES: u32 = 0x4000_0000;
const HAS_CHILDREN: u32 = 0x2000_0000;

#[derive(Debug, Default)]
pub(super) struct Trie {
    prefix: Vec<u8>,
    values: Vec<(u32, String)>,
    children: BTreeMap<u8, Trie>,
}

impl Trie {
    pub(super) fn insert(&mut self, key: &str, value: &str, priority: u32) -> Result<(), Error> {
        for text in [key, value] {
            if !text.is_ascii() {
                return Err(Error::NotAscii(text.to_owned()));
            }
        }
        let mut node = self;
        let mut rest = key.as_bytes();
        loop {
            let common = node.prefix.iter().zip(rest).take_while(|(a, b)| a == b).count();
            if let Some(&branch) = node.prefix.get(common) {
                let tail = node.prefix.split_off(common + 1);
                node.prefix.truncate(common);
                let child = Trie {
                    prefix: tail,
                    values: std::mem::take(&mut node.values),
                    children: std::mem::take(&mut node.children),
                };
                node.children.insert(branch, child);
            }
            rest = rest.get(common..).unwrap_or(&[]);
            let Some((&next, after)) = rest.split_first() else {
                let at = node.values.partition_point(|(other, _)| *other < priority);
                node.values.insert(at, (priority, value.to_owned()));
                return Ok(());
            };
            rest = after;
            node = node
                .children
                .entry(next)
                .or_insert_with(|| Trie { prefix: std::mem::take(&mut rest).to_vec(), ..Trie::default() });
            // A new node holds the rest of the key.
            if node.values.is_empty() && node.children.is_empty() {
                node.values.push((priority, value.to_owned()));
                return Ok(());
            }
        }
    }

    fn flags(&self) -> u32 {
        let mut flags = 0;
        if !self.children.is_empty() {
            flags |= HAS_CHILDREN;
        }
        if !self.prefix.is_empty() {
            flags |= HAS_PREFIX;
        }
        if !self.values.is_empty() {
            flags |= HAS_VALUES;
        }
        flags
    }

    /// First and last byte that has a child.
    fn span(&self) -> Option<(u8, u8)> {
        Some((*self.children.keys().next()?, *self.children.keys().next_back()?))
    }

    /// Appends this node and all below it.
    fn write(&self, out: &mut Vec<u8>) {
        if !self.prefix.is_empty() {
            out.extend(self.prefix.iter().chain(&[0]));
        }
        let mut table = out.len() + 2;
        if let Some((first, last)) = self.span() {
            out.extend([first, last]);
            out.resize(out.len() + 4 * (usize::from(last - first) + 1), 0);
        }
        if !self.values.is_empty() {
            out.extend((self.values.len() as u32).to_be_bytes());
            for (priority, value) in &self.values {
                out.extend(priority.to_be_bytes());
                out.extend(value.bytes().chain([0]));
            }
        }
        let Some((first, last)) = self.span() else { return };
        for byte in first..=last {
            if let Some(child) = self.children.get(&byte) {
                let offset = (out.len() as u32) | child.flags();
                if let Some(place) = out.get_mut(table..table + 4) {
                    place.copy_from_slice(&offset.to_be_bytes());
                }
                child.write(out);
            }
            table += 4;
        }
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(INDEX_MAGIC.to_be_bytes());
        out.extend(INDEX_VERSION.to_be_bytes());
        out.extend((12 | self.flags()).to_be_bytes());
        self.write(&mut out);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All values in the bytes of an index, found as libkmod reads them: by offsets and flags.
    fn walk(bytes: &[u8], offset: u32, key: Vec<u8>, found: &mut Vec<(String, u32, String)>) {
        let word = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        let text = |at: usize| bytes[at..].split(|&byte| byte == 0).next().unwrap();
        let (mut at, mut key) = ((offset & 0x0fff_ffff) as usize, key);
        if offset & HAS_PREFIX != 0 {
            key.extend(text(at));
            at += text(at).len() + 1;
        }
        let mut children = Vec::new();
        if offset & HAS_CHILDREN != 0 {
            let (first, last) = (bytes[at], bytes[at + 1]);
            at += 2;
            for byte in first..=last {
                children.push((byte, word(at)));
                at += 4;
            }
        }
        if offset & HAS_VALUES != 0 {
            let count = word(at);
            at += 4;
            for _ in 0..count {
                let value = String::from_utf8(text(at + 4).to_vec()).unwrap();
                found.push((String::from_utf8(key.clone()).unwrap(), word(at), value.clone()));
                at += 4 + value.len() + 1;
            }
        }
        for (byte, child) in children.into_iter().filter(|(_, child)| *child != 0) {
            walk(bytes, child, [key.clone(), vec![byte]].concat(), found);
        }
    }

    proptest::proptest! {
        #[test]
        fn an_index_reads_back_as_it_was_written(entries in proptest::collection::vec(("[a-c:_*]{0,6}", 0u32..4), 0..40)) {
            let mut trie = Trie::default();
            for (at, (key, priority)) in entries.iter().enumerate() {
                trie.insert(key, &format!("v{at}"), *priority).unwrap();
            }
            let bytes = trie.bytes();
            let mut found = Vec::new();
            walk(&bytes, u32::from_be_bytes(bytes[8..12].try_into().unwrap()), Vec::new(), &mut found);
            proptest::prop_assert!(found.windows(2).all(|pair| pair[0].0 != pair[1].0 || pair[0].1 <= pair[1].1));
            let mut want: Vec<(String, u32, String)> = entries
                .into_iter()
                .enumerate()
                .map(|(at, (key, priority))| (key, priority, format!("v{at}")))
                .collect();
            want.sort();
            found.sort();
            proptest::prop_assert_eq!(found, want);
        }
    }
}
