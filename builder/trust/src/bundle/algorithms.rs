//! Yields the verdict on one raw signature for `sigstore-crypto`, with the algorithms that `pgp` brings in.
//!
//! # Shape
//! One value that implements `sigstore_crypto::CryptoProvider`: SHA-2; ECDSA P-256 and P-384 with DER
//! signatures; Ed25519; RSA PKCS #1 v1.5 and PSS with 2048 to 8192 bits.
//!
//! # Source
//! FIPS 186-5 §6.4 (ECDSA); RFC 8032 §5.1.7, in its strict form (small-order keys are refused); RFC 8017
//! §8.1.2 and §8.2.2, with a salt as long as the digest in PSS. The trait's documentation gives the key
//! formats.
//!
//! # Not here
//! Signing; ML-DSA, which no log or authority in today's roots uses: such a signature is refused.

use rsa::pkcs1::der::Decode;
use rsa::{BigUint, Pkcs1v15Sign, Pss, RsaPublicKey};
use sha2::{Digest, Sha256, Sha384, Sha512};
use sigstore_crypto::{CryptoProvider, Error, HashContext, Result, SigningScheme};
use sigstore_types::HashAlgorithm;

/// The largest accepted RSA modulus, in bits.
const MOST_RSA_BITS: usize = 8192;
/// The smallest accepted RSA modulus, in bits.
const LEAST_RSA_BITS: usize = 2048;

/// The provider.
#[derive(Debug)]
struct Algorithms;

static ALGORITHMS: Algorithms = Algorithms;

/// Installs the algorithms in `sigstore-crypto`; repeated calls do no harm.
pub(super) fn install() {
    // This fails if a provider is already installed. That one is ours: nothing else installs another.
    let _ = sigstore_crypto::install_default_provider(&ALGORITHMS);
}

struct Hashing<D>(D);

impl<D: Digest + Send> HashContext for Hashing<D> {
    fn update(&mut self, data: &[u8]) {
        Digest::update(&mut self.0, data);
    }

    fn finalize(self: Box<Self>) -> Vec<u8> {
        self.0.finalize().to_vec()
    }
}

fn invalid(scheme: SigningScheme) -> Error {
    Error::Verification(format!("{} signature invalid", scheme.name()))
}

fn unsupported(scheme: SigningScheme) -> Error {
    Error::UnsupportedAlgorithm(scheme.name().to_owned())
}

fn digest(algorithm: HashAlgorithm, data: &[u8]) -> Result<Vec<u8>> {
    Ok(match algorithm {
        HashAlgorithm::Sha2256 => Sha256::digest(data).to_vec(),
        HashAlgorithm::Sha2384 => Sha384::digest(data).to_vec(),
        HashAlgorithm::Sha2512 => Sha512::digest(data).to_vec(),
        other => return Err(Error::UnsupportedAlgorithm(other.to_string())),
    })
}

/// Reads a PKCS #1 key and checks its size.
fn rsa_key(bytes: &[u8]) -> Option<RsaPublicKey> {
    let key = rsa::pkcs1::RsaPublicKey::from_der(bytes).ok()?;
    let modulus = BigUint::from_bytes_be(key.modulus.as_bytes());
    let exponent = BigUint::from_bytes_be(key.public_exponent.as_bytes());
    if !(LEAST_RSA_BITS..=MOST_RSA_BITS).contains(&modulus.bits()) {
        return None;
    }
    RsaPublicKey::new_with_max_size(modulus, exponent, MOST_RSA_BITS).ok()
}

fn p256(key: &[u8], digest: &[u8], signature: &[u8]) -> Option<()> {
    use p256::ecdsa::signature::hazmat::PrehashVerifier;
    let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(key).ok()?;
    let signature = p256::ecdsa::Signature::from_der(signature).ok()?;
    key.verify_prehash(digest, &signature).ok()
}

fn p384(key: &[u8], digest: &[u8], signature: &[u8]) -> Option<()> {
    use p384::ecdsa::signature::hazmat::PrehashVerifier;
    let key = p384::ecdsa::VerifyingKey::from_sec1_bytes(key).ok()?;
    let signature = p384::ecdsa::Signature::from_der(signature).ok()?;
    key.verify_prehash(digest, &signature).ok()
}

fn ed25519(key: &[u8], data: &[u8], signature: &[u8]) -> Option<()> {
    let key = ed25519_dalek::VerifyingKey::from_bytes(key.try_into().ok()?).ok()?;
    let signature = ed25519_dalek::Signature::from_slice(signature).ok()?;
    key.verify_strict(data, &signature).ok()
}

impl CryptoProvider for Algorithms {
    fn hash(&self, algorithm: HashAlgorithm) -> Result<Box<dyn HashContext>> {
        Ok(match algorithm {
            HashAlgorithm::Sha2256 => Box::new(Hashing(Sha256::new())),
            HashAlgorithm::Sha2384 => Box::new(Hashing(Sha384::new())),
            HashAlgorithm::Sha2512 => Box::new(Hashing(Sha512::new())),
            other => return Err(Error::UnsupportedAlgorithm(other.to_string())),
        })
    }

    fn verify_raw(&self, scheme: SigningScheme, key: &[u8], data: &[u8], signature: &[u8]) -> Result<()> {
        match scheme.hash_algorithm() {
            Some(algorithm) => self.verify_prehashed(scheme, key, &digest(algorithm, data)?, signature),
            None if scheme == SigningScheme::Ed25519 => {
                ed25519(key, data, signature).ok_or_else(|| invalid(scheme))
            }
            None => Err(unsupported(scheme)),
        }
    }

    fn verify_prehashed(
        &self,
        scheme: SigningScheme,
        key: &[u8],
        digest: &[u8],
        signature: &[u8],
    ) -> Result<()> {
        // The SHA-2 version that `rsa` uses; only its names and lengths matter here.
        use rsa::sha2::{Sha256, Sha384, Sha512};
        let rsa = || rsa_key(key).ok_or_else(|| invalid(scheme));
        let verified = match scheme {
            SigningScheme::EcdsaP256Sha256 | SigningScheme::EcdsaP256Sha384 => p256(key, digest, signature),
            SigningScheme::EcdsaP384Sha256 | SigningScheme::EcdsaP384Sha384 => p384(key, digest, signature),
            SigningScheme::RsaPkcs1Sha256 => {
                rsa()?.verify(Pkcs1v15Sign::new::<Sha256>(), digest, signature).ok()
            }
            SigningScheme::RsaPkcs1Sha384 => {
                rsa()?.verify(Pkcs1v15Sign::new::<Sha384>(), digest, signature).ok()
            }
            SigningScheme::RsaPkcs1Sha512 => {
                rsa()?.verify(Pkcs1v15Sign::new::<Sha512>(), digest, signature).ok()
            }
            SigningScheme::RsaPssSha256 => rsa()?.verify(Pss::new::<Sha256>(), digest, signature).ok(),
            SigningScheme::RsaPssSha384 => rsa()?.verify(Pss::new::<Sha384>(), digest, signature).ok(),
            SigningScheme::RsaPssSha512 => rsa()?.verify(Pss::new::<Sha512>(), digest, signature).ok(),
            _ => return Err(unsupported(scheme)),
        };
        verified.ok_or_else(|| invalid(scheme))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use rsa::pkcs1::EncodeRsaPublicKey;
    use rsa::{Pkcs1v15Sign, Pss};

    const MESSAGE: &[u8] = b"a message";

    /// Checks that a signature verifies, but not with another message, a changed bit or another scheme.
    fn holds(scheme: SigningScheme, key: &[u8], signature: &[u8]) {
        ALGORITHMS.verify_raw(scheme, key, MESSAGE, signature).unwrap();
        assert!(ALGORITHMS.verify_raw(scheme, key, b"another message", signature).is_err());
        for at in [0, signature.len() / 2, signature.len() - 1] {
            let mut changed = signature.to_vec();
            changed[at] ^= 1;
            assert!(ALGORITHMS.verify_raw(scheme, key, MESSAGE, &changed).is_err(), "{at}");
        }
        assert!(ALGORITHMS.verify_raw(scheme, key, MESSAGE, &signature[1..]).is_err());
        assert!(ALGORITHMS.verify_raw(scheme, &key[1..], MESSAGE, signature).is_err());
        assert!(ALGORITHMS.verify_raw(SigningScheme::MlDsa44, key, MESSAGE, signature).is_err());
    }

    #[test]
    fn elliptic_curve_signatures_are_judged() {
        use p256::ecdsa::signature::hazmat::PrehashSigner;
        let mut random = StdRng::seed_from_u64(1);
        let key = p256::ecdsa::SigningKey::random(&mut random);
        let public = key.verifying_key().to_encoded_point(false);
        for (scheme, digest) in [
            (SigningScheme::EcdsaP256Sha256, Sha256::digest(MESSAGE).to_vec()),
            (SigningScheme::EcdsaP256Sha384, Sha384::digest(MESSAGE).to_vec()),
        ] {
            let signature: p256::ecdsa::Signature = key.sign_prehash(&digest).unwrap();
            holds(scheme, public.as_bytes(), signature.to_der().as_bytes());
        }
        let key = p384::ecdsa::SigningKey::random(&mut random);
        let public = key.verifying_key().to_encoded_point(false);
        for (scheme, digest) in [
            (SigningScheme::EcdsaP384Sha256, Sha256::digest(MESSAGE).to_vec()),
            (SigningScheme::EcdsaP384Sha384, Sha384::digest(MESSAGE).to_vec()),
        ] {
            let signature: p384::ecdsa::Signature = key.sign_prehash(&digest).unwrap();
            holds(scheme, public.as_bytes(), signature.to_der().as_bytes());
        }
    }

    #[test]
    fn edwards_curve_signatures_are_judged() {
        use ed25519_dalek::Signer;
        let key = ed25519_dalek::SigningKey::from_bytes(&[7; 32]);
        let signature = key.sign(MESSAGE).to_bytes();
        holds(SigningScheme::Ed25519, key.verifying_key().as_bytes(), &signature);
        assert!(
            ALGORITHMS
                .verify_prehashed(
                    SigningScheme::Ed25519,
                    key.verifying_key().as_bytes(),
                    &[0; 32],
                    &signature
                )
                .is_err()
        );
    }

    #[test]
    fn rsa_signatures_are_judged_and_short_keys_refused() {
        use rsa::sha2::{Sha256 as Old256, Sha512 as Old512};
        let mut random = StdRng::seed_from_u64(2);
        let key = rsa::RsaPrivateKey::new(&mut random, 2048).unwrap();
        let public = key.to_public_key().to_pkcs1_der().unwrap();
        let (short, long) = (Sha256::digest(MESSAGE), Sha512::digest(MESSAGE));
        let signature = key.sign(Pkcs1v15Sign::new::<Old256>(), &short).unwrap();
        holds(SigningScheme::RsaPkcs1Sha256, public.as_bytes(), &signature);
        assert!(
            ALGORITHMS
                .verify_raw(SigningScheme::RsaPkcs1Sha512, public.as_bytes(), MESSAGE, &signature)
                .is_err()
        );
        let signature = key.sign_with_rng(&mut random, Pss::new::<Old512>(), &long).unwrap();
        holds(SigningScheme::RsaPssSha512, public.as_bytes(), &signature);
        let weak = rsa::RsaPrivateKey::new(&mut random, 1024).unwrap();
        let public = weak.to_public_key().to_pkcs1_der().unwrap();
        let signature = weak.sign(Pkcs1v15Sign::new::<Old256>(), &short).unwrap();
        assert!(
            ALGORITHMS
                .verify_raw(SigningScheme::RsaPkcs1Sha256, public.as_bytes(), MESSAGE, &signature)
                .is_err()
        );
    }
}
