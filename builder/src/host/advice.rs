//! Yields the next step to suggest for errors of fetching, certification and vulnerability databases.

use super::{fetch, fulcio, osv, tlog};
use crate::advice::{Advice, Advised};

impl Advised for fetch::Error {
    fn advice(&self) -> Option<Advice> {
        match self {
            fetch::Error::Nowhere { .. } => Some(Advice::outside(
                "mirrors drop old packages: run `proofmark update` for a newer lock, or name a \
                 vendored folder with --vendor DIR",
            )),
            fetch::Error::Offline { .. } => Some(Advice::outside(
                "run `proofmark fetch` on the recipe while online, or name a vendored folder with --vendor DIR",
            )),
            fetch::Error::Store(inner) => inner.advice(),
        }
    }
}

impl Advised for fulcio::Error {
    fn advice(&self) -> Option<Advice> {
        match self {
            fulcio::Error::Authority(tlog::Error::Status { .. }) => Some(Advice::outside(
                "get a new identity token: tokens are valid for minutes, and for one audience",
            )),
            fulcio::Error::Token { .. } => {
                Some(Advice::failed("write only the token into the file, as its issuer gives it"))
            }
            fulcio::Error::OtherKey | fulcio::Error::Certificate(_) => {
                Some(Advice::failed("nothing was signed: check that the address is that of a Fulcio server"))
            }
            _ => None,
        }
    }
}

impl Advised for osv::Error {
    fn advice(&self) -> Option<Advice> {
        self.hint().map(Advice::failed)
    }
}
