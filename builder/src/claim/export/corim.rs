//! Yields an image's values as a Concise Reference Integrity Manifest: CBOR, unsigned.
//!
//! # Shape
//! ```text
//! 501( corim: id, profile (TDX only), one CoMID for each machine )
//!   reference triple: environment = vendor, model      Intel, TDX       TCG, TPM 2.0
//!   measurement by name      mrtd, rtmr0 … rtmr3, pcr.0 …: digests       what Trustee reads
//!   measurement without name integrity-registers 0 … 3, tee.mrtee (-83)  what the Intel profile defines, TDX only
//! ```
//! Digest algorithms are those of IANA's "Named Information Hash Algorithm Registry": 1 is SHA-256, 7 SHA-384.
//!
//! # Source
//! draft-ietf-rats-corim-11; draft-cds-rats-intel-corim-profile-07, 8.3.5. Trustee's extractor `corim` reads measurements
//! with a name, as VENDOR/MODEL/NAME/digests.
//!
//! # Not here
//! A signature: the signed statement names the file's digest.

use std::collections::BTreeMap;

use corim::builder::{ComidBuilder, CorimBuilder};
use corim::cbor::value::Value;
use corim::profile::intel::{INTEL_PROFILE_OID_DER, MVAL_TEE_MRTEE};
use corim::types::common::{EntityMap, MeasuredElement, TagIdChoice};
use corim::types::corim::{CorimId, ProfileChoice};
use corim::types::environment::{ClassMap, EnvironmentMap};
use corim::types::measurement::{
    Digest as CorimDigest, IntegrityRegisterId, IntegrityRegisters, MeasurementMap, MeasurementValuesMap,
};
use corim::types::tags::COMID_ROLE_TAG_CREATOR;
use corim::types::triples::ReferenceTriple;
use ovmf_measure::digest::{Algorithm, Digest};
use ovmf_measure::event::Register;
use ovmf_measure::reference::{Platform, Reference, RegisterKind};
use rootfs::content::Sha256Digest;

use super::{Error, Exported, label, platforms, unknown};

/// Returns an algorithm's number in IANA's registry.
fn number(algorithm: Algorithm) -> i64 {
    match algorithm {
        Algorithm::Sha256 => 1,
        Algorithm::Sha384 => 7,
    }
}

fn digest(digest: &Digest) -> CorimDigest {
    CorimDigest::new(number(digest.algorithm()), digest.as_bytes().to_vec())
}

fn measurement(name: Option<String>, values: MeasurementValuesMap) -> MeasurementMap {
    MeasurementMap { mkey: name.map(MeasuredElement::Text), mval: values, authorized_by: None }
}

/// Returns the document.
///
/// # Errors
/// [`Error`] if there is no value to export, or the document cannot be encoded.
pub fn document(reference: &Reference, platform: Option<&str>) -> Result<Exported<Vec<u8>>, Error> {
    let platforms = platforms(reference, None, platform)?;
    let wrong = |error: &dyn std::fmt::Display| Error::Encode(error.to_string());
    let image = format!("{}/{}/{}", reference.image.name, reference.image.version, reference.image.profile);
    let mut builder = CorimBuilder::new(CorimId::Text(format!("proofmark/{image}")));
    if platforms.iter().all(|platform| platform.kind == RegisterKind::Tdx) {
        builder = builder.set_profile(ProfileChoice::Oid(INTEL_PROFILE_OID_DER.to_vec()));
    }
    let mut left_out = Vec::new();
    let mut any = false;
    for platform in platforms {
        left_out.extend(unknown(platform).iter().map(|one| format!("{one} of {}", label(platform))));
        let measurements = measurements(platform);
        if measurements.is_empty() {
            continue;
        }
        any = true;
        let environment = EnvironmentMap {
            class: Some(match platform.kind {
                RegisterKind::Tdx => ClassMap::new("Intel", "TDX"),
                RegisterKind::Tpm => ClassMap::new("TCG", "TPM 2.0"),
            }),
            instance: None,
            group: None,
        };
        // Two machines of one platform, or two banks, must have different names.
        let label = format!("{} {}", label(platform), platform.algorithm);
        let short = Sha256Digest::of(label.as_bytes()).to_string();
        let id = format!("proofmark/{image}/{}/{}", platform.name, short.get(..12).unwrap_or_default());
        let comid = ComidBuilder::new(TagIdChoice::Text(id))
            .set_tag_version(0)
            .add_entity(EntityMap {
                entity_name: "proofmark".to_owned(),
                reg_id: None,
                role: vec![COMID_ROLE_TAG_CREATOR],
            })
            .add_reference_triple(ReferenceTriple::new(environment, measurements))
            .build()
            .map_err(|error| wrong(&error))?;
        builder = builder.add_comid_tag(comid).map_err(|error| wrong(&error))?;
    }
    if !any {
        return Err(Error::Empty);
    }
    let document = builder.build_bytes().map_err(|error| wrong(&error))?;
    Ok(Exported { document, left_out })
}

fn measurements(platform: &Platform) -> Vec<MeasurementMap> {
    let named = |name: String, digests: Vec<CorimDigest>| {
        let mut values = MeasurementValuesMap::new();
        values.digests = Some(digests);
        measurement(Some(name), values)
    };
    let mrtd: Vec<CorimDigest> = platform.mrtd.iter().map(|mrtd| digest(&mrtd.digest)).collect();
    let mut all = Vec::new();
    if !mrtd.is_empty() {
        all.push(named("mrtd".to_owned(), mrtd.clone()));
    }
    all.extend(
        platform.registers.iter().map(|(register, value)| named(register.to_string(), vec![digest(value)])),
    );
    if platform.kind != RegisterKind::Tdx {
        return all;
    }
    let registers: BTreeMap<IntegrityRegisterId, Vec<CorimDigest>> = platform
        .registers
        .iter()
        .filter_map(|(register, value)| match register {
            Register::Rtmr(number) => {
                Some((IntegrityRegisterId::Uint(u64::from(*number)), vec![digest(value)]))
            }
            _ => None,
        })
        .collect();
    let mut values = MeasurementValuesMap::new();
    if !registers.is_empty() {
        values.integrity_registers = Some(IntegrityRegisters(registers));
    }
    if !platform.mrtd.is_empty() {
        let pair = |mrtd: &ovmf_measure::reference::Mrtd| {
            let number = Value::Integer(i128::from(number(mrtd.digest.algorithm())));
            Value::Array(vec![number, Value::Bytes(mrtd.digest.as_bytes().to_vec())])
        };
        values.extra_entries.insert(MVAL_TEE_MRTEE, Value::Array(platform.mrtd.iter().map(pair).collect()));
    }
    if values.integrity_registers.is_some() || !values.extra_entries.is_empty() {
        all.push(measurement(None, values));
    }
    all
}
