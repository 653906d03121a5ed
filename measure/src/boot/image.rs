//! The image's part of a boot: which bytes of UKI and disk its events hash, and their digests.
//!
//! # Shape
//!
//! ```text
//! UKI, first sectors of a disk ─ Plan::read ─> preimages ─ hashed by the caller ─ Plan::hashed ─> Image
//! ```
//!
//! # Not here
//!
//! The order of the events ([`super`]).

use alloc::vec::Vec;

use super::Error;
use crate::digest::{Algorithm, Digest};
use crate::gpt::Gpt;
use crate::linux;
use crate::pe::Pe;
use crate::preimage::{self, Piece, Preimage};
use crate::secure_boot::Program;
use crate::stub::{self, Uki};

/// The preimages of an image's events, parsed but not hashed.
#[derive(Debug, Clone)]
pub struct Plan<'a> {
    preimages: Vec<Preimage<'a>>,
    parts: Vec<Part>,
    stub: stub::Version,
    /// Whether the stub appends to the command line what it finds on the machine.
    console: bool,
    pe: Pe<'a>,
}

/// An event of the image: its role, and its digest as a cut of a preimage.
#[derive(Debug, Clone)]
struct Part {
    role: Role,
    preimage: usize,
    cut: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Role {
    Gpt,
    Uki,
    Section(&'static str),
    Kernel,
    Options,
    Initrd,
}

impl<'a> Plan<'a> {
    /// Reads a UKI and the first sectors of the disk that it boots from, at least [`crate::gpt::TABLE`] bytes. Without a disk there
    /// is no partition table event.
    ///
    /// # Errors
    ///
    /// [`Error`]: an image that firmware would not boot, or that the rules do not cover.
    pub fn read(uki: &'a [u8], disk: Option<&'a [u8]>) -> Result<Self, Error> {
        let image = Uki::read(uki)?;
        let mut plan = Plan {
            preimages: Vec::new(),
            parts: Vec::new(),
            stub: image.version(),
            console: false,
            pe: image.pe().clone(),
        };
        if let Some(disk) = disk {
            plan.part(Role::Gpt, Gpt::read(disk)?.preimage());
        }
        plan.part(Role::Uki, image.pe().authenticode(0).map_err(stub::Error::from)?);
        let (initrd, cut) = linux::initrd(&image);
        let initrd_index = plan.preimages.len();
        plan.preimages.push(initrd);
        for (name, content) in image.sections() {
            match (*name, cut) {
                // The initrd starts with this section: one pass gives both digests.
                (".initrd", 1) => {
                    plan.parts.push(Part { role: Role::Section(name), preimage: initrd_index, cut: 0 });
                }
                _ => plan.part(Role::Section(name), Preimage::new(alloc::vec![content.clone()])),
            }
        }
        if let Some(Piece { offset: Some(offset), bytes: alloc::borrow::Cow::Borrowed(bytes) }) =
            image.section(".linux")
        {
            let kernel = Pe::read(bytes).map_err(Error::Kernel)?;
            plan.part(Role::Kernel, kernel.authenticode(*offset).map_err(Error::Kernel)?);
        }
        let cmdline = image.section(".cmdline").map(|piece| &*piece.bytes).unwrap_or_default();
        plan.part(
            Role::Options,
            Preimage::new(alloc::vec![Piece::made(linux::load_options(cmdline, image.version())?)]),
        );
        plan.parts.push(Part { role: Role::Initrd, preimage: initrd_index, cut });
        Ok(plan)
    }

    /// Returns the preimages. They can be hashed in parallel; the largest dominate.
    pub fn preimages(&self) -> &[Preimage<'a>] {
        &self.preimages
    }

    /// Combines the digests of all preimages, in order, into a hashed image.
    ///
    /// # Errors
    ///
    /// [`Error::Digests`]; [`Error::Stub`] for a certificate table that leaves no room for the sections.
    pub fn hashed(&self, algorithm: Algorithm, digests: &[Vec<Digest>]) -> Result<Image, Error> {
        let missing = Error::Digests { expected: self.preimages.len(), found: digests.len() };
        if digests.len() != self.preimages.len() {
            return Err(missing);
        }
        let mut parts = Vec::new();
        for part in &self.parts {
            let digest = digests
                .get(part.preimage)
                .and_then(|digests| digests.get(part.cut))
                .ok_or(missing.clone())?;
            let ranges = self.preimages.get(part.preimage).map(|preimage| preimage.ranges(part.cut));
            parts.push((part.role.clone(), *digest, ranges.unwrap_or_default()));
        }
        let uki = parts.iter().find(|(role, ..)| *role == Role::Uki).map(|(_, digest, _)| digest);
        let program = Program::read(&self.pe, uki).map_err(stub::Error::from)?;
        Ok(Image { algorithm, parts, stub: self.stub, console: self.console, program })
    }

    /// Hashes all preimages in one thread.
    ///
    /// # Errors
    ///
    /// As [`Plan::hashed`].
    pub fn hash(&self, algorithm: Algorithm) -> Result<Image, Error> {
        self.hashed(algorithm, &preimage::digests(&self.preimages, algorithm))
    }

    fn part(&mut self, role: Role, preimage: Preimage<'a>) {
        self.parts.push(Part { role, preimage: self.preimages.len(), cut: 0 });
        self.preimages.push(preimage);
    }
}

/// A part's role, its digest, and the ranges of its file that the digest covers.
type Hashed = (Role, Digest, Vec<(u64, u64)>);

/// A hashed image: everything that the events of its boot depend on, on any machine.
#[derive(Debug, Clone)]
pub struct Image {
    algorithm: Algorithm,
    parts: Vec<Hashed>,
    pub(super) stub: stub::Version,
    /// Whether the stub appends to the command line what it finds on the machine.
    pub(super) console: bool,
    /// The UKI as Secure Boot judges it.
    pub(super) program: Program,
}

impl Image {
    /// Returns the algorithm it was hashed with.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    pub(super) fn part(&self, role: &Role) -> Option<(&Digest, &[(u64, u64)])> {
        let part = self.parts.iter().find(|(found, ..)| found == role);
        part.map(|(_, digest, ranges)| (digest, ranges.as_slice()))
    }
}
