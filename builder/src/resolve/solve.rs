//! The packages that a set of roots needs, from the packages of several suites: apt's choice, with a reason for each.
//!
//! # Shape
//! ```text
//! suites, in the order of sources.list --Universe::merge--> one candidate per name (highest version, first suite on a tie)
//! roots marked first, in apt's cache order; then each root's Pre-Depends and Depends, depth first:
//!   satisfied by something chosen -> next
//!   else each alternative in order, each one's providers in apt's order of preference, the first that installs
//! ```
//! The result equals `apt-get install --no-install-recommends ROOTS` onto an empty system.
//!
//! # Source
//! apt 2.6.1: `depcache.cc` (`MarkInstall`, `CompareProviders`), `pkgcachegen.cc` and `deblistparser.cc` (the order
//! in which names enter the cache, which is the last tie-break), `private-install.cc` (`doAutoInstall`).
//!
//! # Not here
//! apt's problem resolver: where a conflict leaves no first choice, this refuses and says why instead of removing
//! packages until something fits. Foreign architectures, pins and versions other than the candidate.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::packages::{MultiArch, Package};
use super::relation::{self, Alternative, Group, RelationError};
use crate::trust::debian::version::Version;

/// Package indexes of one suite.
#[derive(Debug, Clone)]
pub struct Suite<'a> {
    /// Its name in messages and the lock, for example `trixie-security`.
    pub name: &'a str,
    /// Its packages, in the order of its index.
    pub packages: Vec<Package<'a>>,
}

/// A set that cannot be resolved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SolveError {
    /// The same version of a package has two different archives.
    #[error("{first} and {second} both have {package} {version}, with different digests")]
    TwoArchives {
        /// The package.
        package: String,
        /// The version.
        version: String,
        /// The suite that comes first.
        first: String,
        /// The suite that disagrees.
        second: String,
    },
    /// A relationship field cannot be read.
    #[error("package `{package}` has a bad {field} field")]
    Relation {
        /// The package.
        package: String,
        /// The field.
        field: &'static str,
        /// Why it cannot be read.
        source: RelationError,
    },
    /// No suite has the package that a root or an exclude names.
    #[error("no suite has a package `{name}`{}", Near(.near))]
    Unknown {
        /// The name as asked for.
        name: String,
        /// Existing names that resemble it, the likeliest first.
        near: Vec<String>,
    },
    /// A root is virtual and has more than one provider.
    #[error("`{name}` is virtual, name one of its providers: {}", .providers.join(", "))]
    Virtual {
        /// The name as asked for.
        name: String,
        /// The packages that provide it.
        providers: Vec<String>,
    },
    /// A package is both requested and excluded.
    #[error("package `{0}` is both a root and excluded")]
    ExcludedRoot(String),
    /// Two chosen packages exclude each other.
    #[error(transparent)]
    Conflict(Conflict),
    /// Nothing satisfies a relation.
    #[error(transparent)]
    Unsatisfied(Box<Unsatisfied>),
}

/// Two packages that exclude each other; `chosen` came first.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{newcomer} cannot be installed with {chosen}: {owner} has {field}: {relation}")]
pub struct Conflict {
    /// The package that was to be added.
    pub newcomer: String,
    /// The package that was chosen before.
    pub chosen: String,
    /// Which of the two forbids the other.
    pub owner: String,
    /// `Conflicts` or `Breaks`.
    pub field: &'static str,
    /// The relation as written.
    pub relation: String,
}

/// A relation without a solution, with everything that was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsatisfied {
    /// The path from the root: each package with the relation through which the next one was tried.
    pub chain: Vec<(String, String)>,
    /// Every candidate with the reason why it fails; empty if the archive has none.
    pub attempts: Vec<(String, Failure)>,
    /// Existing names that resemble a name that does not exist.
    pub near: Vec<String>,
}

/// Why one candidate fails.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The candidate's version is outside the relation's bounds.
    #[error("the archive has {0}")]
    Version(String),
    /// No package has the name, and none provides it.
    #[error("no suite has it")]
    Absent,
    /// It excludes a chosen package, or a chosen package excludes it.
    #[error(transparent)]
    Conflict(Conflict),
    /// It needs something that is not available.
    #[error("({0})")]
    Needs(Box<Unsatisfied>),
}

impl fmt::Display for Unsatisfied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let asked = self.chain.iter().map(|(package, relation)| format!("{package} needs {relation}"));
        f.write_str(&asked.collect::<Vec<_>>().join(", "))?;
        for (candidate, failure) in &self.attempts {
            write!(f, "; {candidate}: {failure}")?;
        }
        Near(&self.near).fmt(f)
    }
}

impl std::error::Error for Unsatisfied {}

struct Near<'n>(&'n [String]);

impl fmt::Display for Near<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "; near: {}", self.0.join(", ")) }
    }
}

/// Whether the packages marked `Essential: yes` are roots as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Essential {
    /// As on every Debian system.
    Included,
    /// Only the essential packages that something needs.
    OnlyIfNeeded,
}

/// The request.
#[derive(Debug, Clone, Copy)]
pub struct Request<'r> {
    /// The packages to install; as in apt, the alternatives chosen for an earlier one bind the later ones.
    pub roots: &'r [&'r str],
    /// Whether the essential set is included.
    pub essential: Essential,
    /// Packages to leave out: a relation that would take one counts as satisfied and is reported.
    pub exclude: &'r [&'r str],
}

/// Why a package is in the set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why<'a> {
    /// The request names it.
    Root,
    /// It is `Essential: yes`.
    Essential,
    /// Another package needs it.
    Needed {
        /// That package.
        by: &'a str,
        /// `Pre-Depends` or `Depends`.
        field: &'static str,
        /// The relation as written.
        relation: &'a str,
    },
}

/// A package of the set.
#[derive(Debug, Clone)]
pub struct Chosen<'u, 'a> {
    /// The package.
    pub package: &'u Package<'a>,
    /// The suite that it comes from.
    pub suite: &'a str,
    /// Why it is in the set: the first reason found.
    pub why: Why<'a>,
}

/// A relation that counts as satisfied only because of an exclude.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Waived<'a> {
    /// The excluded package that would have been taken.
    pub excluded: &'a str,
    /// The package that has the relation; `None` for the essential set.
    pub by: Option<&'a str>,
    /// The relation as written.
    pub relation: &'a str,
}

/// A consistent set.
#[derive(Debug, Clone)]
pub struct Solution<'u, 'a> {
    /// The packages, by name.
    pub chosen: Vec<Chosen<'u, 'a>>,
    /// What the excludes cut off, by excluded package.
    pub waived: Vec<Waived<'a>>,
    /// Excludes that nothing would have taken.
    pub unused_excludes: Vec<&'a str>,
}

/// Index of a package in the list of all packages of all suites.
type Id = usize;

/// All packages of all suites, with one candidate per name.
#[derive(Debug)]
pub struct Universe<'a> {
    packages: Vec<(&'a str, Package<'a>)>,
    candidates: BTreeMap<&'a str, Id>,
    /// Virtual name to the candidates that provide it, with the version they provide.
    providers: BTreeMap<&'a str, Vec<(Id, Option<Version<'a>>)>>,
}

impl<'a> Universe<'a> {
    /// Merges suites given in the order of sources.list; the highest version of a name is its candidate.
    pub fn merge(suites: Vec<Suite<'a>>) -> Result<Self, SolveError> {
        let packages: Vec<(&str, Package)> = suites
            .into_iter()
            .flat_map(|suite| suite.packages.into_iter().map(move |package| (suite.name, package)))
            .collect();
        let mut candidates: BTreeMap<&str, (Id, &str, &Package)> = BTreeMap::new();
        for (id, (suite, package)) in packages.iter().enumerate() {
            let Some(&(_, first, other)) = candidates.get(package.name) else {
                candidates.insert(package.name, (id, suite, package));
                continue;
            };
            if package.version.as_str() == other.version.as_str()
                && package.architecture == other.architecture
                && package.sha256 != other.sha256
            {
                return Err(SolveError::TwoArchives {
                    package: package.name.into(),
                    version: package.version.as_str().into(),
                    first: first.into(),
                    second: (*suite).into(),
                });
            }
            if package.version > other.version {
                candidates.insert(package.name, (id, suite, package));
            }
        }
        let mut providers: BTreeMap<&str, Vec<_>> = BTreeMap::new();
        for &(id, _, package) in candidates.values() {
            for group in read_field(package, "Provides", package.provides)? {
                for provided in group.alternatives {
                    let version = provided.constraint.as_ref().map(|(_, version)| *version);
                    providers.entry(provided.name).or_default().push((id, version));
                }
            }
        }
        let candidates = candidates.into_iter().map(|(name, (id, _, _))| (name, id)).collect();
        Ok(Universe { packages, candidates, providers })
    }

    /// Returns the candidate of a real package.
    pub fn candidate(&self, name: &str) -> Option<&Package<'a>> {
        self.candidates.get(name).and_then(|&id| self.package(id))
    }

    fn package(&self, id: Id) -> Option<&Package<'a>> {
        self.packages.get(id).map(|(_, package)| package)
    }

    /// Finds existing names within two edits of `name`, or that begin with it; the likeliest first.
    fn near(&self, name: &str) -> Vec<String> {
        let names = self.candidates.keys().chain(self.providers.keys());
        let mut near: Vec<(usize, &str)> = names
            .filter_map(|other| {
                let edits = if other.len().abs_diff(name.len()) <= 2 {
                    strsim::levenshtein(name, other)
                } else {
                    usize::MAX
                };
                let begins = name.len() >= 3 && other.starts_with(name);
                (edits <= 2 || begins).then_some((edits, *other))
            })
            .collect();
        near.sort_unstable();
        near.dedup();
        near.into_iter().take(5).map(|(_, name)| name.to_owned()).collect()
    }

    /// Finds where each of `names` first enters apt's cache: as a package's own name or in a relation.
    fn first_mentions(&self, names: &BTreeSet<&str>) -> BTreeMap<&'a str, (Id, usize)> {
        let mut found = BTreeMap::new();
        for (id, (_, package)) in self.packages.iter().enumerate() {
            if found.len() == names.len() {
                break;
            }
            let mut note = |name: &'a str, place: usize| {
                if names.contains(name) {
                    found.entry(name).or_insert((id, place));
                }
            };
            note(package.name, 0);
            let [recommends, suggests, replaces, enhances] = package.mentions;
            let fields = [
                package.pre_depends,
                package.depends,
                package.conflicts,
                package.breaks,
                recommends,
                suggests,
                replaces,
                enhances,
                package.provides,
            ];
            let mentions = fields.into_iter().flat_map(|field| field.split([',', '|']));
            for (place, mention) in mentions.enumerate() {
                let mention = mention.trim_start();
                let end = mention.bytes().position(|byte| b" (\n".contains(&byte)).unwrap_or(mention.len());
                // To apt, a qualified name (`a:any`) is a separate package.
                note(mention.get(..end).unwrap_or(mention), place + 1);
            }
        }
        found
    }
}

fn read_field<'a>(
    package: &Package<'a>,
    field: &'static str,
    text: &'a str,
) -> Result<Vec<Group<'a>>, SolveError> {
    relation::read(text).map_err(|source| SolveError::Relation {
        package: package.name.into(),
        field,
        source,
    })
}

/// Resolves a request; the same universe and request give the same solution in the same order.
pub fn solve<'u, 'a>(
    universe: &'u Universe<'a>,
    request: &Request<'_>,
) -> Result<Solution<'u, 'a>, SolveError> {
    let mut search = Search::new(universe, request)?;
    let roots = search.roots(request)?;
    for (id, why) in &roots {
        search.mark(*id, why.clone()).map_err(Stop::into_error)?;
    }
    for (id, _) in &roots {
        search.expand(*id).map_err(Stop::into_error)?;
    }
    Ok(search.finish())
}

/// Why a package could not be added.
enum Stop {
    Conflict(Conflict),
    Unsatisfied(Box<Unsatisfied>),
    Fatal(SolveError),
}

impl Stop {
    fn into_error(self) -> SolveError {
        match self {
            Stop::Conflict(conflict) => SolveError::Conflict(conflict),
            Stop::Unsatisfied(unsatisfied) => SolveError::Unsatisfied(unsatisfied),
            Stop::Fatal(error) => error,
        }
    }
}

/// A relation of a chosen package that forbids others.
struct Negative<'a> {
    owner: Id,
    field: &'static str,
    forbidden: Alternative<'a>,
}

/// Lengths of the search's lists, to cut them back to.
#[derive(Clone, Copy)]
struct Lengths {
    order: usize,
    negatives: usize,
    waived: usize,
}

/// A package whose relations are being satisfied.
struct Frame<'u, 'a> {
    id: Id,
    package: &'u Package<'a>,
    groups: std::vec::IntoIter<(&'static str, Group<'a>)>,
    pending: Option<Pending<'a>>,
    before: Lengths,
}

/// The relation of a frame that a deeper frame is trying to satisfy.
struct Pending<'a> {
    field: &'static str,
    group: Group<'a>,
    untried: std::vec::IntoIter<Id>,
    attempts: Vec<(String, Failure)>,
    /// Why the last candidate failed; the explanation continues with it if it was the only candidate.
    only: Option<Box<Unsatisfied>>,
}

impl Pending<'_> {
    fn failed(&mut self, name: &str, unsatisfied: Box<Unsatisfied>) {
        self.attempts.push((name.to_owned(), Failure::Needs(unsatisfied.clone())));
        self.only = Some(unsatisfied);
    }
}

/// What is chosen so far; the lists only grow, so cutting them back undoes a failed attempt.
struct Search<'u, 'a> {
    universe: &'u Universe<'a>,
    excluded: BTreeSet<Id>,
    order: Vec<Id>,
    why: BTreeMap<Id, Why<'a>>,
    negatives: Vec<Negative<'a>>,
    waived: Vec<Waived<'a>>,
    /// Packages that failed once; like apt, the search does not try them again.
    discarded: BTreeMap<Id, Box<Unsatisfied>>,
}

impl<'u, 'a> Search<'u, 'a> {
    fn new(universe: &'u Universe<'a>, request: &Request<'_>) -> Result<Self, SolveError> {
        let mut excluded = BTreeSet::new();
        for &name in request.exclude {
            if request.roots.contains(&name) {
                return Err(SolveError::ExcludedRoot(name.into()));
            }
            let id = universe
                .candidates
                .get(name)
                .ok_or_else(|| SolveError::Unknown { name: name.into(), near: universe.near(name) })?;
            excluded.insert(*id);
        }
        Ok(Search {
            universe,
            excluded,
            order: Vec::new(),
            why: BTreeMap::new(),
            negatives: Vec::new(),
            waived: Vec::new(),
            discarded: BTreeMap::new(),
        })
    }

    /// Finds the roots' candidates: the essential set by name, then the requested packages in their order.
    fn roots(&mut self, request: &Request<'_>) -> Result<Vec<(Id, Why<'a>)>, SolveError> {
        let mut asked: Vec<Id> = Vec::with_capacity(request.roots.len());
        for &name in request.roots {
            let id = self.root(name)?;
            if self.excluded.contains(&id) {
                return Err(SolveError::ExcludedRoot(name.into()));
            }
            asked.push(id);
        }
        let mut roots = Vec::new();
        if request.essential == Essential::Included {
            for (&name, &id) in &self.universe.candidates {
                if !self.package(id)?.essential {
                    continue;
                }
                if self.excluded.contains(&id) {
                    self.waived.push(Waived { excluded: name, by: None, relation: "Essential: yes" });
                } else {
                    roots.push((id, if asked.contains(&id) { Why::Root } else { Why::Essential }));
                }
            }
        }
        for id in asked {
            if !roots.iter().any(|(other, _)| *other == id) {
                roots.push((id, Why::Root));
            }
        }
        Ok(roots)
    }

    /// Finds a root: a real package, or the only provider of a virtual one.
    fn root(&self, name: &str) -> Result<Id, SolveError> {
        if let Some(&id) = self.universe.candidates.get(name) {
            return Ok(id);
        }
        let providers: BTreeSet<Id> =
            self.universe.providers.get(name).into_iter().flatten().map(|&(id, _)| id).collect();
        let mut ids = providers.iter();
        match (ids.next(), ids.next()) {
            (Some(&only), None) => Ok(only),
            (None, _) => Err(SolveError::Unknown { name: name.into(), near: self.universe.near(name) }),
            _ => Err(SolveError::Virtual {
                name: name.into(),
                providers: providers.iter().map(|&id| self.name(id).to_owned()).collect(),
            }),
        }
    }

    fn package(&self, id: Id) -> Result<&'u Package<'a>, SolveError> {
        let package = self.universe.package(id);
        // Every id comes from the universe's own maps, so this never fails.
        package.ok_or_else(|| SolveError::Unknown { name: format!("#{id}"), near: Vec::new() })
    }

    fn name(&self, id: Id) -> &'a str {
        self.universe.package(id).map_or("?", |package| package.name)
    }

    /// Adds a package without its dependencies, unless something chosen forbids it or it forbids something chosen.
    fn mark(&mut self, id: Id, why: Why<'a>) -> Result<(), Stop> {
        let package = self.package(id).map_err(Stop::Fatal)?;
        let mut negatives = Vec::new();
        for (field, text) in [("Conflicts", package.conflicts), ("Breaks", package.breaks)] {
            for group in read_field(package, field, text).map_err(Stop::Fatal)? {
                for forbidden in group.alternatives {
                    negatives.push(Negative { owner: id, field, forbidden });
                }
            }
        }
        let conflict = |negative: &Negative<'a>, chosen: Id| {
            Stop::Conflict(Conflict {
                newcomer: package.name.into(),
                chosen: self.name(chosen).into(),
                owner: self.name(negative.owner).into(),
                field: negative.field,
                relation: negative.forbidden.text.into(),
            })
        };
        for negative in &negatives {
            let hit = self
                .providing(&negative.forbidden)
                .into_iter()
                .find(|hit| *hit != id && self.why.contains_key(hit));
            if let Some(chosen) = hit {
                return Err(conflict(negative, chosen));
            }
        }
        for negative in &self.negatives {
            let named =
                negative.forbidden.name == package.name || package.provides.contains(negative.forbidden.name);
            if named && negative.owner != id && self.providing(&negative.forbidden).contains(&id) {
                return Err(conflict(negative, negative.owner));
            }
        }
        self.negatives.extend(negatives);
        self.order.push(id);
        self.why.insert(id, why);
        Ok(())
    }

    /// Lists the candidates that match an alternative's name and version, the real package first.
    fn providing(&self, alternative: &Alternative<'a>) -> Vec<Id> {
        let fits = |id: &Id| {
            self.universe.package(*id).is_some_and(|package| match alternative.qualifier {
                None | Some("native") => true,
                Some("any") => package.multi_arch == MultiArch::Allowed,
                Some(architecture) => package.architecture == architecture,
            })
        };
        let real = self.universe.candidates.get(alternative.name).copied().filter(|id| {
            self.universe.package(*id).is_some_and(|package| alternative.admits(&package.version))
        });
        let provided = self.universe.providers.get(alternative.name).into_iter().flatten();
        let provided = provided.filter(|(_, version)| match (&alternative.constraint, version) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(_), Some(version)) => alternative.admits(version),
        });
        real.into_iter().chain(provided.map(|&(id, _)| id)).filter(fits).collect()
    }

    /// Lists the candidates of a group in the order in which apt tries them.
    fn solutions(&self, group: &Group<'a>) -> Vec<Id> {
        let mut solutions: Vec<Id> = Vec::new();
        for alternative in &group.alternatives {
            let mut ids = self.providing(alternative);
            ids.sort_unstable();
            ids.dedup();
            if ids.len() > 1 {
                let rank = |id: &Id| {
                    self.universe.package(*id).map(|package| {
                        (
                            package.name != alternative.name,
                            !package.essential,
                            !package.protected,
                            package.priority,
                        )
                    })
                };
                let tied =
                    ids.iter().enumerate().any(|(n, a)| ids.iter().skip(n + 1).any(|b| rank(a) == rank(b)));
                let places = if tied {
                    self.universe.first_mentions(&ids.iter().map(|&id| self.name(id)).collect())
                } else {
                    BTreeMap::new()
                };
                ids.sort_by_key(|id| (rank(id), Reverse(places.get(self.name(*id)).copied())));
            }
            solutions.extend(ids);
        }
        let mut seen = BTreeSet::new();
        solutions.retain(|id| seen.insert(*id));
        solutions
    }

    /// Opens a marked package: its relations in apt's order, and the lengths to cut back to if it fails.
    fn open(&self, id: Id, before: Lengths) -> Result<Frame<'u, 'a>, Stop> {
        let package = self.package(id).map_err(Stop::Fatal)?;
        let mut groups = Vec::new();
        for (field, text) in [("Pre-Depends", package.pre_depends), ("Depends", package.depends)] {
            groups.extend(
                read_field(package, field, text).map_err(Stop::Fatal)?.into_iter().map(|g| (field, g)),
            );
        }
        Ok(Frame { id, package, groups: groups.into_iter(), pending: None, before })
    }

    fn lengths(&self) -> Lengths {
        Lengths { order: self.order.len(), negatives: self.negatives.len(), waived: self.waived.len() }
    }

    fn cut(&mut self, to: Lengths) {
        for undone in self.order.drain(to.order..) {
            self.why.remove(&undone);
        }
        self.negatives.truncate(to.negatives);
        self.waived.truncate(to.waived);
    }

    /// Adds everything that a marked root needs, depth first, with a stack that only memory bounds.
    fn expand(&mut self, root: Id) -> Result<(), Stop> {
        let mut stack = vec![self.open(root, self.lengths())?];
        while let Some(frame) = stack.last_mut() {
            if frame.pending.is_none() {
                match frame.groups.next() {
                    None => {
                        // All its relations hold, so the parent's pending relation is satisfied.
                        stack.pop();
                        if let Some(parent) = stack.last_mut() {
                            parent.pending = None;
                        }
                        continue;
                    }
                    Some((_, group))
                        if group.alternatives.iter().any(|alternative| self.is_chosen(alternative)) =>
                    {
                        continue;
                    }
                    Some((field, group)) => {
                        let untried = self.solutions(&group).into_iter();
                        frame.pending =
                            Some(Pending { field, group, untried, attempts: Vec::new(), only: None });
                    }
                }
            }
            let Some(pending) = frame.pending.as_mut() else { continue };
            let Some(id) = pending.untried.next() else {
                let unsatisfied = self.explain(frame);
                let Some(failed) = stack.pop() else { continue };
                let Some(parent) = stack.last_mut() else { return Err(Stop::Unsatisfied(unsatisfied)) };
                self.cut(failed.before);
                self.discarded.insert(failed.id, unsatisfied.clone());
                if let Some(pending) = parent.pending.as_mut() {
                    pending.failed(failed.package.name, unsatisfied);
                }
                continue;
            };
            let name = self.name(id);
            if self.excluded.contains(&id) {
                let (by, relation) = (Some(frame.package.name), pending.group.text);
                self.waived.push(Waived { excluded: name, by, relation });
                frame.pending = None;
                continue;
            }
            if let Some(unsatisfied) = self.discarded.get(&id) {
                pending.failed(name, unsatisfied.clone());
                continue;
            }
            let before = self.lengths();
            let why =
                Why::Needed { by: frame.package.name, field: pending.field, relation: pending.group.text };
            match self.mark(id, why) {
                Ok(()) => stack.push(self.open(id, before)?),
                Err(Stop::Conflict(conflict)) => {
                    pending.attempts.push((name.into(), Failure::Conflict(conflict)));
                }
                Err(stop) => return Err(stop),
            }
        }
        Ok(())
    }

    fn is_chosen(&self, alternative: &Alternative<'a>) -> bool {
        self.providing(alternative).iter().any(|id| self.why.contains_key(id))
    }

    /// Says why the pending relation of a frame has no solution.
    fn explain(&self, frame: &mut Frame<'u, 'a>) -> Box<Unsatisfied> {
        let Some(Pending { group, mut attempts, only, .. }) = frame.pending.take() else {
            return Box::new(Unsatisfied { chain: Vec::new(), attempts: Vec::new(), near: Vec::new() });
        };
        let asked = (frame.package.name.to_owned(), group.text.to_owned());
        // If there was only one candidate, the chain continues through it.
        if let (Some(mut inner), [_]) = (only, attempts.as_slice()) {
            inner.chain.insert(0, asked);
            return inner;
        }
        let mut near = Vec::new();
        for alternative in &group.alternatives {
            if attempts.iter().any(|(name, _)| name == alternative.name) {
                continue;
            }
            match self.universe.candidate(alternative.name) {
                Some(package) => {
                    let version = package.version.as_str().to_owned();
                    attempts.push((alternative.name.into(), Failure::Version(version)));
                }
                None if self.universe.providers.contains_key(alternative.name) => {}
                None => {
                    attempts.push((alternative.name.into(), Failure::Absent));
                    near.extend(self.universe.near(alternative.name));
                }
            }
        }
        Box::new(Unsatisfied { chain: vec![asked], attempts, near })
    }

    fn finish(self) -> Solution<'u, 'a> {
        let universe = self.universe;
        let mut chosen: Vec<Chosen<'u, 'a>> = self
            .why
            .into_iter()
            .filter_map(|(id, why)| {
                universe.packages.get(id).map(|(suite, package)| Chosen { package, suite, why })
            })
            .collect();
        chosen.sort_by_key(|chosen| chosen.package.name);
        let mut waived = self.waived;
        waived.sort();
        let used: BTreeSet<&str> = waived.iter().map(|waived| waived.excluded).collect();
        let unused = self.excluded.iter().filter_map(|&id| universe.package(id).map(|package| package.name));
        let mut unused_excludes: Vec<&str> = unused.filter(|name| !used.contains(name)).collect();
        unused_excludes.sort_unstable();
        Solution { chosen, waived, unused_excludes }
    }
}

#[cfg(test)]
mod tests;
