//! Yields when a witness saw a checkpoint, from its signature on the checkpoint's note.
//!
//! # Shape
//! ```text
//! signature   time u64 (big-endian, seconds since 1970) || Ed25519 signature: 64 bytes
//! message     "cosignature/v1\n" "time <decimal>\n" and the note's whole text
//! ```
//! It says: at that time, this was the log's largest state that the witness had seen, and every earlier state
//! that it saw is a prefix of this one.
//!
//! # Source
//! C2SP `tlog-cosignature`, Ed25519. Confirmed with cosignatures by torchwood's litewitness on a Rekor v2.
//!
//! # Not here
//! Which witnesses are trusted: `tlog_policy`. What a witness checks before it signs: `witness`.

use super::note::{Error, Material, Note, Role, Signature, SigningKey, VerifierKey};

/// The largest valid time.
const MOST_TIME: u64 = i64::MAX as u64;

fn message(time: u64, text: &str) -> Vec<u8> {
    format!("cosignature/v1\ntime {time}\n{text}").into_bytes()
}

/// Verifies a cosignature and gives its time. Every signature under the witness's name and ID must be valid;
/// if there are several, the earliest counts: the witness saw the checkpoint then.
///
/// # Errors
/// [`Error::Unsigned`], [`Error::Invalid`]; [`Error::Key`] when the key is not a witness's.
pub fn verify(note: &Note, key: &VerifierKey) -> Result<u64, Error> {
    let Material::Cosignature(public) = key.material() else {
        return Err(Error::Key { name: key.name().to_owned(), reason: "not a witness's key" });
    };
    let invalid = || Error::Invalid { name: key.name().to_owned(), id: key.id() };
    let mut times = Vec::new();
    for signature in note.by(key)? {
        let (time, rest) = signature.bytes.split_first_chunk().ok_or_else(invalid)?;
        let time = u64::from_be_bytes(*time);
        let signature = ed25519_dalek::Signature::from_slice(rest).map_err(|_| invalid())?;
        if time > MOST_TIME || public.verify_strict(&message(time, note.text()), &signature).is_err() {
            return Err(invalid());
        }
        times.push(time);
    }
    times.into_iter().min().ok_or_else(invalid)
}

/// Cosigns a checkpoint's note as a witness, at a time in seconds since 1970.
///
/// # Errors
/// [`Error::Key`] when the key is not a witness's, or the time is outside the format's range.
pub fn sign(note: &Note, key: &SigningKey, time: u64) -> Result<Signature, Error> {
    let wrong = |reason| Error::Key { name: key.public().name().to_owned(), reason };
    if key.role() != Role::Witness {
        return Err(wrong("not a witness's key"));
    }
    if time > MOST_TIME {
        return Err(wrong("asked to sign a time beyond 2^63"));
    }
    let mut bytes = time.to_be_bytes().to_vec();
    bytes.extend_from_slice(&key.sign_raw(&message(time, note.text())));
    Ok(Signature { name: key.public().name().to_owned(), id: key.public().id(), bytes })
}

#[cfg(test)]
mod tests {
    use super::super::checkpoint::Checkpoint;
    use super::super::merkle::leaf;
    use super::super::note::tests::vectors;
    use super::*;

    fn signed() -> (Note, SigningKey) {
        let log = SigningKey::new("log.example", Role::Log, &[1; 32]).unwrap();
        let witness = SigningKey::new("witness.example", Role::Witness, &[2; 32]).unwrap();
        (Checkpoint::new("log.example", 1, leaf(b"x")).unwrap().sign(&log).unwrap(), witness)
    }

    #[test]
    fn a_cosignature_tells_its_time() {
        let (mut note, witness) = signed();
        assert!(matches!(verify(&note, witness.public()), Err(Error::Unsigned { .. })));
        note.add(sign(&note, &witness, 1_795_000_000).unwrap());
        let note = Note::parse(note.to_string().as_bytes()).unwrap();
        assert_eq!(verify(&note, witness.public()).unwrap(), 1_795_000_000);
    }

    #[test]
    fn of_two_cosignatures_the_earliest_counts() {
        let (mut note, key) = signed();
        for time in [300, 7, 200] {
            note.add(sign(&note, &key, time).unwrap());
        }
        assert_eq!(verify(&note, key.public()).unwrap(), 7);
    }

    #[test]
    fn a_changed_time_text_or_signature_is_refused() {
        let (note, witness) = signed();
        let good = sign(&note, &witness, 7).unwrap();
        for at in 0..good.bytes.len() {
            let mut forged = good.clone();
            forged.bytes[at] ^= 1;
            let mut note = note.clone();
            note.add(forged);
            assert!(matches!(verify(&note, witness.public()), Err(Error::Invalid { .. })), "{at}");
        }
        let mut short = good.clone();
        short.bytes.truncate(7);
        let mut cut = note.clone();
        cut.add(short);
        assert!(matches!(verify(&cut, witness.public()), Err(Error::Invalid { .. })));
        let mut other = Note::new("log.example\n2\nAAAA\n".to_owned()).unwrap();
        other.add(good);
        assert!(matches!(verify(&other, witness.public()), Err(Error::Invalid { .. })));
    }

    #[test]
    fn a_logs_key_is_no_witness() {
        let (note, witness) = signed();
        let log = SigningKey::new("log.example", Role::Log, &[1; 32]).unwrap();
        assert!(matches!(sign(&note, &log, 7), Err(Error::Key { .. })));
        assert!(matches!(verify(&note, log.public()), Err(Error::Key { .. })));
        assert!(matches!(sign(&note, &witness, u64::MAX), Err(Error::Key { .. })));
    }

    #[test]
    fn a_real_witness_of_a_real_log_is_believed() {
        let Some(folder) = vectors("sigstore/recorded-local/rekor-v2") else { return };
        let text = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
        let note = Note::parse(text("store/checkpoint").as_bytes()).unwrap();
        let log = VerifierKey::parse(text("log.vkey").trim()).unwrap();
        let witness = VerifierKey::parse(text("wit.vkey").trim()).unwrap();
        assert_eq!(Checkpoint::verified(&note, &log).unwrap().size(), 31);
        assert_eq!(verify(&note, &witness).unwrap(), 0x6b03_40ec);
    }
}
