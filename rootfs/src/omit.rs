//! Yields which files stay out of the image, from globs, and a tally of each rule.
//!
//! # Shape
//! A glob matches a path relative to a root, such as `usr/share/doc/libc6/README` for the image, or
//! `node_modules/openclaw/docs/index.md` for an application. `*` and `?` match within one component, `**` as a whole
//! component matches zero or more components, `{a,b}` matches either, `[ab]` and `[!ab]` match one character. Matching
//! is case-sensitive. A `keep` glob exempts files from its own rule. The first rule that matches a file counts it.
//! Globs match files and links, never directories; a directory whose files are all omitted is omitted too.
//!
//! # Not here
//! The reason for each rule, which the recipe holds; its effect on the program, which a test of the recipe shows.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

/// Why a rule is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A glob that cannot be read.
    #[error("omit glob {glob:?} cannot be read: {reason}")]
    Glob {
        /// The glob.
        glob: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A glob that cannot match anything below the root.
    #[error("omit glob {0:?} is not relative to the root: no `/` at either end, no `.` or `..` in it")]
    NotRelative(String),
}

/// One rule: what it omits, and its exceptions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    /// Globs of files to omit.
    pub paths: Vec<String>,
    /// Globs of files that stay.
    pub keep: Vec<String>,
}

impl Rule {
    /// A rule of one glob, without exceptions.
    pub fn new(glob: &str) -> Self {
        Rule { paths: vec![glob.to_owned()], keep: Vec::new() }
    }
}

/// What one rule, or all rules, left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Omitted {
    /// Number of files and links.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// The compiled rules of one root.
#[derive(Debug, Clone)]
pub struct Omit {
    globs: GlobSet,
    /// For each glob the number of its rule.
    owners: Vec<usize>,
    /// The exceptions of each rule; `None` if there are none.
    keep: Vec<Option<GlobSet>>,
    /// Folders that are omitted whole, each with the number of its rule.
    folders: (GlobSet, Vec<usize>),
}

impl Omit {
    /// Rules that omit nothing.
    pub fn nothing() -> Self {
        Omit {
            globs: GlobSet::empty(),
            owners: Vec::new(),
            keep: Vec::new(),
            folders: (GlobSet::empty(), Vec::new()),
        }
    }

    /// Compiles the rules; their order decides which one counts a file.
    ///
    /// # Errors
    /// [`Error`] of the first glob that is refused.
    pub fn new<'a>(rules: impl IntoIterator<Item = &'a Rule>) -> Result<Self, Error> {
        let (mut globs, mut owners, mut keep) = (Vec::new(), Vec::new(), Vec::new());
        let (mut folders, mut folder_owners) = (Vec::new(), Vec::new());
        for (number, rule) in rules.into_iter().enumerate() {
            if rule.keep.is_empty() {
                let whole = rule.paths.iter().filter_map(|glob| glob.strip_suffix("/**"));
                folders.extend(whole.filter(|folder| !folder.ends_with('\\')));
                folder_owners.resize(folders.len(), number);
            }
            globs.extend(rule.paths.iter().map(String::as_str));
            owners.resize(globs.len(), number);
            let left = (!rule.keep.is_empty()).then(|| set(rule.keep.iter().map(String::as_str)));
            keep.push(left.transpose()?);
        }
        let globs = set(globs)?;
        Ok(Omit { globs, owners, keep, folders: (set(folders)?, folder_owners) })
    }

    /// The number of a rule that omits everything below `folder`, so that its files need not be matched.
    pub fn whole(&self, folder: &str) -> Option<usize> {
        let (globs, owners) = &self.folders;
        let above = std::iter::successors(Some(folder), |path| Some(path.rsplit_once('/')?.0));
        above.flat_map(|path| globs.matches(path)).filter_map(|glob| owners.get(glob).copied()).min()
    }

    /// Number of rules.
    pub fn len(&self) -> usize {
        self.keep.len()
    }

    /// Whether there is no rule.
    pub fn is_empty(&self) -> bool {
        self.keep.is_empty()
    }

    /// The number of the first rule that omits `path`, given relative to the root.
    pub fn rule(&self, path: &str) -> Option<usize> {
        let matching = self.globs.matches(path).into_iter();
        matching.filter_map(|glob| self.owners.get(glob).copied()).find(|&rule| {
            let keep = self.keep.get(rule).and_then(Option::as_ref);
            !keep.is_some_and(|keep| keep.is_match(path))
        })
    }
}

/// What each rule left out, by number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally(Vec<Omitted>);

impl Tally {
    /// An empty tally for `rules` rules.
    pub fn new(rules: usize) -> Self {
        Tally(vec![Omitted::default(); rules])
    }

    /// Counts a file of `bytes` bytes for a rule.
    pub fn count(&mut self, rule: usize, bytes: u64) {
        if let Some(omitted) = self.0.get_mut(rule) {
            omitted.files += 1;
            omitted.bytes += bytes;
        }
    }

    /// Restores a tally, rule by rule.
    pub fn from_rules(rules: Vec<Omitted>) -> Self {
        Tally(rules)
    }

    /// Adds another tally of the same rules.
    pub fn add(&mut self, other: &Tally) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), Omitted::default());
        }
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            mine.files += theirs.files;
            mine.bytes += theirs.bytes;
        }
    }

    /// What each rule kept out, in the order of the rules.
    pub fn by_rule(&self) -> &[Omitted] {
        &self.0
    }

    /// What all rules together left out.
    pub fn total(&self) -> Omitted {
        self.0.iter().fold(Omitted::default(), |sum, one| Omitted {
            files: sum.files + one.files,
            bytes: sum.bytes + one.bytes,
        })
    }

    /// Numbers of the rules that left nothing out: stale, or shadowed by earlier rules.
    pub fn stale(&self) -> impl Iterator<Item = usize> {
        self.0.iter().enumerate().filter(|(_, omitted)| omitted.files == 0).map(|(rule, _)| rule)
    }
}

fn set<'a>(globs: impl IntoIterator<Item = &'a str>) -> Result<GlobSet, Error> {
    let wrong = |glob: &str, error: &globset::Error| Error::Glob {
        glob: glob.to_owned(),
        reason: error.kind().to_string(),
    };
    let mut set = GlobSetBuilder::new();
    for glob in globs {
        let escapes = glob.split('/').any(|part| matches!(part, ".." | "."));
        if glob.is_empty() || glob.starts_with('/') || glob.ends_with('/') || escapes {
            return Err(Error::NotRelative(glob.to_owned()));
        }
        let built = GlobBuilder::new(glob).literal_separator(true).backslash_escape(true).build();
        set.add(built.map_err(|error| wrong(glob, &error))?);
    }
    set.build().map_err(|error| wrong(error.glob().unwrap_or_default(), &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn omit(globs: &[&str]) -> Omit {
        Omit::new(&globs.iter().map(|glob| Rule::new(glob)).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn globs_match_paths_relative_to_the_root() {
        let table = [
            ("node_modules/**/*.map", "node_modules/a.map", true),
            ("node_modules/**/*.map", "node_modules/a/b/c.js.map", true),
            ("node_modules/**/*.map", "node_modules/a/b/c.map/d", false),
            ("node_modules/*/x", "node_modules/a/x", true),
            ("node_modules/*/x", "node_modules/a/b/x", false),
            ("node_modules/a/**", "node_modules/a/b/c", true),
            ("node_modules/a/**", "node_modules/ab/c", false),
            ("**/*.d.{ts,mts,cts}", "node_modules/@a/b/i.d.mts", true),
            ("**/*.d.{ts,mts,cts}", "node_modules/@a/b/i.D.mts", false),
            ("a/[!b]*", "a/cd", true),
            ("a/[!b]*", "a/bd", false),
            ("a/?", "a/b", true),
            ("*.map", "node_modules/a.map", false),
        ];
        for (glob, path, want) in table {
            assert_eq!(omit(&[glob]).rule(path).is_some(), want, "{glob} {path}");
        }
    }

    #[test]
    fn the_first_rule_counts_and_an_exception_leaves_the_file_to_later_rules() {
        let rules = [
            Rule { paths: vec!["b/**".into(), "a/**".into()], keep: vec!["a/keep/**".into()] },
            Rule::new("**/*.md"),
            Rule::new("none"),
        ];
        let omit = Omit::new(&rules).unwrap();
        assert_eq!((omit.rule("a/x.md"), omit.rule("b/x")), (Some(0), Some(0)));
        assert_eq!(omit.rule("a/keep/x"), None);
        assert_eq!(omit.rule("a/keep/x.md"), Some(1));
        assert_eq!((omit.len(), omit.is_empty()), (3, false));
    }

    #[test]
    fn a_folder_that_is_omitted_whole_need_not_be_matched() {
        let rules = [
            Rule::new("a/*.md"),
            Rule { paths: vec!["b/x/**".into(), "c/{d,e}/**".into()], keep: Vec::new() },
            Rule { paths: vec!["k/**".into()], keep: vec!["k/keep".into()] },
        ];
        let omit = Omit::new(&rules).unwrap();
        for (folder, want) in [
            ("b/x", Some(1)),
            ("b/x/deep/er", Some(1)),
            ("c/e", Some(1)),
            ("b", None),
            ("b/xy", None),
            ("c/f", None),
            ("a", None),
            ("k", None),
        ] {
            assert_eq!(omit.whole(folder), want, "{folder}");
        }
        assert_eq!(Omit::nothing().whole("a"), None);
    }

    #[test]
    fn a_tally_adds_up_and_names_stale_rules() {
        let mut tally = Tally::new(3);
        tally.count(1, 10);
        let mut other = Tally::new(3);
        other.count(1, 5);
        other.count(0, 1);
        tally.add(&other);
        assert_eq!(tally.by_rule()[1], Omitted { files: 2, bytes: 15 });
        assert_eq!(tally.total(), Omitted { files: 3, bytes: 16 });
        assert_eq!(tally.stale().collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn globs_that_cannot_match_are_refused() {
        let refused = |glob: &str| Omit::new(&[Rule::new(glob)]).unwrap_err();
        for glob in ["", "/a", "a/", "../a", "a/../b", "./a"] {
            assert_eq!(refused(glob), Error::NotRelative(glob.to_owned()));
        }
        let error = refused("a/[b");
        assert!(error.to_string().starts_with("omit glob \"a/[b\" cannot be read: "), "{error}");
        let rule = Rule { paths: vec!["a/**".into()], keep: vec!["{b".into()] };
        assert!(matches!(Omit::new(&[rule]), Err(Error::Glob { glob, .. }) if glob == "{b"));
    }
}
