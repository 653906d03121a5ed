//! Yields `sbom.spdx.json` from a [`Bom`]: SPDX 2.3, one element per line.
//!
//! # Shape
//! ```text
//! DOCUMENT -DESCRIBES-> image -CONTAINS-> layers -CONTAINS-> packages -CONTAINS-> what they bundle
//!                         └-CONTAINS-> "files of no package" -CONTAINS-> files
//! image -DEPENDS_ON-> what the recipe asks for;  package -DEPENDS_ON-> package
//! ```
//!
//! # Source
//! SPDX 2.3, clauses 6 (document), 7 (package), 8 (file), 10 (other licensing information), 11 (relationships); the
//! package verification code of 7.9.
//!
//! # Not here
//! The files of packages: `cyclonedx` lists them.

use std::collections::BTreeMap;

use rootfs::content::Sha256Digest;
use serde::Serialize;
use sha1::{Digest, Sha1};

use super::{Algorithm, Bom, Package, Role, Supplier, row, rows};

const NO_ASSERTION: &str = "NOASSERTION";
const DOCUMENT: &str = "SPDXRef-DOCUMENT";
const IMAGE: &str = "SPDXRef-Image";
const NO_PACKAGE: &str = "SPDXRef-NoPackage";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Creation<'a> {
    created: String,
    creators: Vec<String>,
    license_list_version: String,
    comment: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Checksum<'a> {
    algorithm: &'static str,
    checksum_value: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct External<'a> {
    reference_category: &'static str,
    reference_type: &'static str,
    reference_locator: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Verification {
    package_verification_code_value: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Element<'a> {
    #[serde(rename = "SPDXID")]
    id: &'a str,
    name: &'a str,
    version_info: &'a str,
    supplier: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    originator: Option<String>,
    download_location: &'a str,
    files_analyzed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    package_verification_code: Option<Verification>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    checksums: Vec<Checksum<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    homepage: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_info: Option<String>,
    license_concluded: &'static str,
    license_declared: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    license_comments: Option<&'a str>,
    copyright_text: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    summary: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    comment: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    external_refs: Vec<External<'a>>,
    primary_package_purpose: &'static str,
}

impl<'a> Element<'a> {
    fn new(id: &'a str, name: &'a str, version: &'a str, purpose: &'static str) -> Self {
        Element {
            id,
            name,
            version_info: version,
            supplier: NO_ASSERTION.to_owned(),
            originator: None,
            download_location: NO_ASSERTION,
            files_analyzed: false,
            package_verification_code: None,
            checksums: Vec::new(),
            homepage: None,
            source_info: None,
            license_concluded: NO_ASSERTION,
            license_declared: NO_ASSERTION,
            license_comments: None,
            copyright_text: NO_ASSERTION,
            summary: None,
            comment: None,
            external_refs: Vec::new(),
            primary_package_purpose: purpose,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FileElement<'a> {
    #[serde(rename = "SPDXID")]
    id: &'a str,
    file_name: String,
    checksums: [Checksum<'a>; 2],
    license_concluded: &'static str,
    license_info_in_files: [&'static str; 1],
    copyright_text: &'static str,
    comment: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Text<'a> {
    license_id: &'a str,
    name: &'a str,
    extracted_text: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Relationship<'a> {
    spdx_element_id: &'a str,
    relationship_type: &'static str,
    related_spdx_element: &'a str,
}

/// Returns the document, which ends with a newline.
pub fn document(bom: &Bom) -> String {
    let ids = Ids::of(bom);
    let mut text = String::new();
    text.push_str(
        "{\"SPDXID\":\"SPDXRef-DOCUMENT\",\n\"spdxVersion\":\"SPDX-2.3\",\n\"dataLicense\":\"CC0-1.0\",\n",
    );
    text.push_str(&format!("\"name\":{},\n", row(&format!("{}-{}", bom.name, bom.version))));
    let namespace = format!("{}/spdx/{}", env!("CARGO_PKG_REPOSITORY"), bom.serial);
    text.push_str(&format!("\"documentNamespace\":{},\n", row(&namespace)));
    let creation = Creation {
        created: bom.created(),
        creators: vec![
            format!("Tool: {}-{}", bom.tool.name, bom.tool.version),
            "Organization: Proofmark".to_owned(),
        ],
        license_list_version: ::spdx::license_version()
            .rsplit_once('.')
            .map_or("", |(short, _)| short)
            .to_owned(),
        comment: "The time is that of the newest Debian archive in the lock. Files of packages, with their digests and \
                  places, are listed in sbom.cdx.json and contents.json; the files here belong to no package.",
    };
    text.push_str(&format!("\"creationInfo\":{},\n", row(&creation)));
    let texts = bom.extracted.values().map(|extracted| Text {
        license_id: &extracted.id,
        name: &extracted.name,
        extracted_text: &extracted.text,
    });
    rows(&mut text, "hasExtractedLicensingInfos", texts);
    text.push_str(",\n");
    rows(&mut text, "packages", elements(bom, &ids).into_iter());
    text.push_str(",\n");
    rows(&mut text, "files", files(bom, &ids).into_iter());
    text.push_str(",\n");
    rows(&mut text, "relationships", relationships(bom, &ids).into_iter());
    text.push_str("}\n");
    text
}

/// Assigns SPDX identifiers, which contain only letters, digits, dots and hyphens.
struct Ids {
    layers: Vec<String>,
    packages: Vec<String>,
    files: Vec<String>,
}

impl Ids {
    fn of(bom: &Bom) -> Self {
        let id = |kind: &str, name: &str| {
            let digest = Sha256Digest::of(name.as_bytes()).to_string();
            let safe = |char: char| if char.is_ascii_alphanumeric() || char == '.' { char } else { '-' };
            let short: String = name.chars().map(safe).take(80).collect();
            format!("SPDXRef-{kind}-{}-{}", short.trim_matches('-'), digest.get(..12).unwrap_or_default())
        };
        Ids {
            layers: bom.layers.iter().map(|layer| id("Layer", &layer.id)).collect(),
            packages: bom.packages.iter().map(|package| id("Package", &package.reference)).collect(),
            files: bom.loose.iter().map(|loose| id("File", &loose.file.path)).collect(),
        }
    }
}

fn elements<'a>(bom: &'a Bom, ids: &'a Ids) -> Vec<Element<'a>> {
    let recipe = || format!("Organization: maintainers of the recipe {}", bom.name);
    let mut all = vec![Element {
        supplier: recipe(),
        comment: Some(bom.facts.iter().map(|fact| format!("{} {}\n", fact.name, fact.value)).collect()),
        ..Element::new(IMAGE, &bom.name, &bom.version, "OPERATING-SYSTEM")
    }];
    for (layer, id) in bom.layers.iter().zip(&ids.layers) {
        let facts: String =
            layer.facts.iter().map(|fact| format!("{} {}\n", fact.name, fact.value)).collect();
        all.push(Element {
            supplier: recipe(),
            checksums: layer.sha256.iter().map(|value| checksum("SHA256", value)).collect(),
            summary: Some(&layer.description),
            comment: Some(facts),
            ..Element::new(id, &layer.id, &bom.version, "FILE")
        });
    }
    if !bom.loose.is_empty() {
        all.push(Element {
            supplier: recipe(),
            files_analyzed: true,
            package_verification_code: Some(verification(bom)),
            comment: Some("Files that a line of the recipe or a step of the builder made.".to_owned()),
            ..Element::new(NO_PACKAGE, "files-of-no-package", &bom.version, "OTHER")
        });
    }
    all.extend(bom.packages.iter().zip(&ids.packages).map(|(package, id)| element(package, id)));
    all
}

fn checksum<'a>(algorithm: &'static str, checksum_value: &'a str) -> Checksum<'a> {
    Checksum { algorithm, checksum_value }
}

fn element<'a>(package: &'a Package, id: &'a str) -> Element<'a> {
    let purpose = match package.role {
        Role::Application => "APPLICATION",
        Role::Firmware => "FIRMWARE",
        Role::Library => "LIBRARY",
    };
    let supplier = match &package.supplier {
        Supplier::Organization(name) => format!("Organization: {}", plain(name)),
        Supplier::Person(name) => format!("Person: {}", plain(name)),
    };
    let mut external = vec![External {
        reference_category: "PACKAGE-MANAGER",
        reference_type: "purl",
        reference_locator: &package.purl,
    }];
    external.extend(package.cpe.iter().map(|cpe| External {
        reference_category: "SECURITY",
        reference_type: "cpe23Type",
        reference_locator: cpe,
    }));
    let layers = package.layers.iter().map(|layer| format!("proofmark:layer {layer}\n"));
    let facts = package.facts.iter().map(|fact| format!("{} {}\n", fact.name, fact.value));
    Element {
        supplier,
        originator: package.maintainer.as_ref().map(|maintainer| originator(maintainer)),
        download_location: package.download.as_deref().unwrap_or(NO_ASSERTION),
        checksums: package
            .hashes
            .iter()
            .map(|(algorithm, value)| match algorithm {
                Algorithm::Sha256 => checksum("SHA256", value),
                Algorithm::Sha512 => checksum("SHA512", value),
            })
            .collect(),
        homepage: package.homepage.as_deref(),
        source_info: package
            .source
            .as_ref()
            .map(|source| format!("built from source package {} {}", source.name, source.version)),
        license_declared: package.licence.as_deref().unwrap_or(NO_ASSERTION),
        license_comments: package.licence_text.as_deref(),
        summary: package.description.as_deref(),
        comment: Some(facts.chain(layers).collect()),
        external_refs: external,
        ..Element::new(id, &package.name, &package.version, purpose)
    }
}

/// Removes from a name what SPDX would read as an address.
fn plain(name: &str) -> String {
    name.replace(['(', ')', '<', '>'], " ").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Turns `Name <address>` into `Person: Name (address)`; teams and lists become organizations.
fn originator(maintainer: &str) -> String {
    let (name, address) = maintainer.split_once('<').unwrap_or((maintainer, ""));
    let address = address.trim_end().trim_end_matches('>').trim();
    let lower = maintainer.to_ascii_lowercase();
    let team =
        ["team", "maintainers", "lists", "group", "@packages."].iter().any(|word| lower.contains(word));
    let kind = if team { "Organization" } else { "Person" };
    match address {
        "" => format!("{kind}: {}", plain(name)),
        address => format!("{kind}: {} ({address})", plain(name)),
    }
}

/// Clause 7.9: SHA-1 over the sorted SHA-1s of all files.
fn verification(bom: &Bom) -> Verification {
    let mut digests: Vec<&str> = bom.loose.iter().map(|loose| loose.sha1.as_str()).collect();
    digests.sort_unstable();
    Verification { package_verification_code_value: hex::encode(Sha1::digest(digests.concat())) }
}

fn files<'a>(bom: &'a Bom, ids: &'a Ids) -> Vec<FileElement<'a>> {
    bom.loose
        .iter()
        .zip(&ids.files)
        .map(|(loose, id)| FileElement {
            id,
            file_name: format!("./{}", loose.file.path.trim_start_matches('/')),
            checksums: [checksum("SHA1", &loose.sha1), checksum("SHA256", &loose.file.sha256)],
            license_concluded: NO_ASSERTION,
            license_info_in_files: [NO_ASSERTION],
            copyright_text: NO_ASSERTION,
            comment: format!("proofmark:origin {}\nproofmark:place {}\n", loose.origin, loose.file.place),
        })
        .collect()
}

fn relationships<'a>(bom: &'a Bom, ids: &'a Ids) -> Vec<Relationship<'a>> {
    let relation = |from, relationship_type, to| Relationship {
        spdx_element_id: from,
        relationship_type,
        related_spdx_element: to,
    };
    let by_layer: BTreeMap<&str, &str> =
        bom.layers.iter().zip(&ids.layers).map(|(layer, id)| (layer.id.as_str(), id.as_str())).collect();
    let mut all = vec![relation(DOCUMENT, "DESCRIBES", IMAGE)];
    for (layer, id) in bom.layers.iter().zip(&ids.layers) {
        let outer = layer.parent().and_then(|parent| by_layer.get(parent)).copied().unwrap_or(IMAGE);
        all.push(relation(outer, "CONTAINS", id));
    }
    if !bom.loose.is_empty() {
        all.push(relation(IMAGE, "CONTAINS", NO_PACKAGE));
    }
    all.extend(ids.files.iter().map(|id| relation(NO_PACKAGE, "CONTAINS", id)));
    let id_of = |number: usize| ids.packages.get(number).map(String::as_str);
    for (package, id) in bom.packages.iter().zip(&ids.packages) {
        match package.within.and_then(id_of) {
            Some(owner) => all.push(relation(owner, "CONTAINS", id)),
            None => {
                let layers = package.layers.iter().filter_map(|layer| by_layer.get(layer.as_str()));
                all.extend(layers.map(|layer| relation(layer, "CONTAINS", id)));
            }
        }
        all.extend(package.needs.iter().filter_map(|need| Some(relation(id, "DEPENDS_ON", id_of(*need)?))));
    }
    all.extend(bom.roots().filter_map(|root| Some(relation(IMAGE, "DEPENDS_ON", id_of(root)?))));
    all
}
