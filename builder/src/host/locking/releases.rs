//! Yields an archive's suites, each with an InRelease signed by Debian and the package index that it names.

use std::io::Read;

use rootfs::content::Sha256Digest;
use rootfs::deb;

use super::super::fetch;
use super::super::store::Expected;
use super::{ARCHITECTURE, Error, Locking};
use crate::lock::{Archive, ArchiveKind, Lock, moment, moment_seconds};
use crate::recipe::Recipe;
use crate::trust::debian::inrelease::{self, InRelease};
use crate::trust::debian::keys::{Keyring, UnixTime};

/// Longest InRelease, in bytes; real ones are under 200 KB.
const MAX_INRELEASE: u64 = 8 << 20;
/// Longest unpacked package index, in bytes; it is 60 MB today.
const MAX_INDEX: u64 = 1 << 30;
/// An archive's dated snapshot is taken some hours after its InRelease; until then superseded files stay.
const SNAPSHOT_AFTER: u64 = 12 * 3600;

/// A verified suite.
pub struct Release {
    /// Its entry in the lock.
    pub archive: Archive,
    /// Its package index, decompressed.
    pub index: Vec<u8>,
}

impl Locking<'_> {
    /// Fetches and verifies the suites of a recipe's packages; none may be older than in `previous`.
    ///
    /// # Errors
    /// [`Error`] of the first problem.
    pub fn releases(&self, recipe: &Recipe, previous: Option<&Lock>) -> Result<Vec<Release>, Error> {
        let suite = &recipe.debian.suite;
        let keyring = Keyring::debian()?;
        let stage = self.progress.stage("verify archives", 0);
        let wanted = [
            (ArchiveKind::Debian, suite.clone(), "main"),
            (ArchiveKind::Debian, format!("{suite}-updates"), "main"),
            (ArchiveKind::DebianSecurity, format!("{suite}-security"), "main"),
        ];
        let releases: Vec<Release> = wanted
            .iter()
            .map(|(kind, suite, component)| self.release(recipe, &keyring, *kind, suite, component, previous))
            .collect::<Result<_, _>>()?;
        stage.done(
            &releases
                .iter()
                .map(|r| format!("{} {}", r.archive.suite, r.archive.date))
                .collect::<Vec<_>>()
                .join(", "),
        );
        Ok(releases)
    }

    fn release(
        &self,
        recipe: &Recipe,
        keyring: &Keyring,
        kind: ArchiveKind,
        suite: &str,
        component: &str,
        previous: Option<&Lock>,
    ) -> Result<Release, Error> {
        let path = format!("dists/{suite}/InRelease");
        let asked = recipe.debian.snapshot.clone();
        let snapshot_now = asked.clone().unwrap_or_else(|| moment(self.now));
        // A snapshot is judged by its own time: what has expired since was valid then.
        let at =
            asked.as_deref().and_then(moment_seconds).map_or(self.now, |snapshot| snapshot.min(self.now));
        let same_source =
            previous.and_then(|lock| lock.archives.iter().find(|archive| archive.suite == suite));
        let before =
            same_source.filter(|_| asked.is_none()).and_then(|archive| moment_seconds(&archive.date));
        let expected = inrelease::Expected {
            suite,
            architecture: ARCHITECTURE,
            now: UnixTime(at),
            previous: before.map(UnixTime),
        };
        let judge = |(digest, size): fetch::Fetched| {
            let bytes = self.fetcher.store().read(&digest, &path).map_err(|error| error.to_string())?;
            let verified =
                inrelease::verify(&bytes, keyring, &expected).map_err(|error| crate::host::chain(&error))?;
            Ok((verified, digest, size))
        };
        let found = self.fetcher.judged(kind, &path, &snapshot_now, MAX_INRELEASE, &judge);
        let (verified, digest, size) = found.map_err(|error| match error {
            fetch::Error::Nowhere { attempts, .. } => Error::InRelease { suite: suite.to_owned(), attempts },
            other => other.into(),
        })?;
        let release: &InRelease = &verified;
        let name = format!("{component}/binary-{ARCHITECTURE}/Packages.xz");
        let entry =
            release.index(&name).map_err(|source| Error::Index { suite: suite.to_owned(), source })?;
        let index_digest = Sha256Digest(entry.sha256);
        let folder = format!("dists/{suite}/{component}/binary-{ARCHITECTURE}");
        let index_path = if release.acquire_by_hash {
            format!("{folder}/by-hash/SHA256/{index_digest}")
        } else {
            format!("{folder}/Packages.xz")
        };
        let date = release.date.0;
        let snapshot = asked.unwrap_or_else(|| moment(date + SNAPSHOT_AFTER));
        let expected = Expected::Sha256(index_digest, entry.size);
        self.fetcher.one(kind, &index_path, &snapshot, &expected, &format!("package index of {suite}"))?;
        let packed = self.fetcher.store().read(&index_digest, &index_path)?;
        let mut index = Vec::new();
        let decoded = deb::xz_reader(&packed).take(MAX_INDEX).read_to_end(&mut index);
        decoded.map_err(|source| Error::Decompress { suite: suite.to_owned(), source })?;
        let archive = Archive {
            name: kind.name().to_owned(),
            suite: suite.to_owned(),
            path,
            size,
            sha256: digest.to_string(),
            date: moment(date),
            signed_by: release.signers.iter().map(|signer| signer.to_string()).collect(),
            snapshot,
            index_path,
            index_size: entry.size,
            index_sha256: index_digest.to_string(),
        };
        Ok(Release { archive, index })
    }
}
