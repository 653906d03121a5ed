//! Yields `sbom.cdx.json` from a [`Bom`]: CycloneDX 1.6, one component per line.
//!
//! # Shape
//! ```text
//! metadata.component              the image; inside it its layers, with the sections of the UKI inside theirs
//! components[]                    packages; inside them what their archives bundle
//!   .evidence.occurrences[]       one per file: location, and "sha256:HEX PLACE" as additionalContext
//!   .properties proofmark:layer   each layer that the package lies in
//! components[] "no-package"       inside it, a component of type file for each file that belongs to no package
//! dependencies[]                  image -> layers and what the recipe asks for; layer -> its packages; package -> packages
//! ```
//! Files of packages are occurrences, not components: validators compare components in pairs, and take
//! minutes for 20,000 of them. For the same reason, npm homepages and all archive addresses are in
//! `sbom.spdx.json` only: validators parse each with a grammar.
//!
//! # Source
//! CycloneDX 1.6, `bom-1.6.schema.json`; the property taxonomy for `cdx:npm:…`.
//!
//! # Not here
//! What is in the image: `inventory`.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{Algorithm, Bom, Fact, Layer, LooseFile, Package, Role, row, rows};

const IMAGE: &str = "image";
const NO_PACKAGE: &str = "no-package";

#[derive(Serialize)]
struct Hash<'a> {
    alg: &'static str,
    content: &'a str,
}

#[derive(Serialize)]
struct Property<'a> {
    name: &'a str,
    value: &'a str,
}

#[derive(Serialize)]
struct Named<'a> {
    name: &'a str,
}

#[derive(Serialize)]
struct Reference<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    url: &'a str,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Licence<'a> {
    Expression { expression: &'a str, acknowledgement: &'static str },
    Named { license: NamedLicence<'a> },
}

#[derive(Serialize)]
struct NamedLicence<'a> {
    name: &'a str,
    acknowledgement: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Occurrence<'a> {
    location: &'a str,
    additional_context: String,
}

#[derive(Serialize)]
struct Evidence<'a> {
    occurrences: Vec<Occurrence<'a>>,
}

#[derive(Serialize)]
struct Ancestor<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    name: &'a str,
    version: &'a str,
    purl: &'a str,
}

#[derive(Serialize)]
struct Pedigree<'a> {
    ancestors: Vec<Ancestor<'a>>,
}

#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
struct Component<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(rename = "bom-ref", skip_serializing_if = "Option::is_none")]
    reference: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    supplier: Option<Named<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    publisher: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<&'a str>,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hashes: Vec<Hash<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    licenses: Vec<Licence<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpe: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    purl: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pedigree: Option<Pedigree<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    external_references: Vec<Reference<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    components: Vec<Component<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    evidence: Option<Evidence<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    properties: Vec<Property<'a>>,
}

#[derive(Serialize)]
struct Lifecycle {
    phase: &'static str,
}

#[derive(Serialize)]
struct Tools<'a> {
    components: Vec<Component<'a>>,
}

#[derive(Serialize)]
struct Metadata<'a> {
    timestamp: String,
    lifecycles: [Lifecycle; 1],
    tools: Tools<'a>,
    component: Component<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Dependency<'a> {
    #[serde(rename = "ref")]
    reference: &'a str,
    depends_on: Vec<&'a str>,
}

#[derive(Serialize)]
struct Composition<'a> {
    aggregate: &'static str,
    assemblies: [&'a str; 1],
}

/// Returns the document, which ends with a newline.
pub fn document(bom: &Bom) -> String {
    let references: Vec<String> = bom.layers.iter().map(|layer| format!("layer:{}", layer.id)).collect();
    let mut bundles: BTreeMap<usize, Vec<&Package>> = BTreeMap::new();
    for package in &bom.packages {
        if let Some(owner) = package.within {
            bundles.entry(owner).or_default().push(package);
        }
    }
    let files: usize = bom.packages.iter().map(|package| package.files.len()).sum();
    let mut text = String::with_capacity(250 * files + 2000 * bom.packages.len() + 500 * bom.loose.len());
    text.push_str("{\"$schema\":\"http://cyclonedx.org/schema/bom-1.6.schema.json\",\n");
    text.push_str("\"bomFormat\":\"CycloneDX\",\n\"specVersion\":\"1.6\",\n");
    text.push_str(&format!("\"serialNumber\":\"urn:uuid:{}\",\n\"version\":1,\n", bom.serial));
    text.push_str(&format!("\"metadata\":{},\n", row(&metadata(bom, &references))));
    let own = bom.packages.iter().enumerate().filter(|(_, package)| package.within.is_none());
    let components = own.map(|(number, package)| {
        let inside = bundles.get(&number).map(Vec::as_slice).unwrap_or_default();
        Component {
            components: inside.iter().map(|package| component(package)).collect(),
            ..component(package)
        }
    });
    rows(&mut text, "components", components.chain([no_package(bom)]));
    text.push_str(",\n");
    rows(&mut text, "dependencies", dependencies(bom, &references).into_iter());
    text.push_str(",\n");
    rows(&mut text, "compositions", [Composition { aggregate: "complete", assemblies: [IMAGE] }].into_iter());
    text.push_str("}\n");
    text
}

fn metadata<'a>(bom: &'a Bom, references: &'a [String]) -> Metadata<'a> {
    let layer = |(layer, reference): (&'a Layer, &'a String)| Component {
        kind: "file",
        reference: Some(reference),
        name: &layer.id,
        description: Some(&layer.description),
        hashes: layer.sha256.iter().map(|content| Hash { alg: "SHA-256", content }).collect(),
        properties: properties(&layer.facts),
        ..Component::default()
    };
    let all = || bom.layers.iter().zip(references);
    let layers = all().filter(|(layer, _)| layer.parent().is_none()).map(|(outer, reference)| Component {
        components: all().filter(|(inner, _)| inner.parent() == Some(&outer.id)).map(layer).collect(),
        ..layer((outer, reference))
    });
    Metadata {
        timestamp: bom.created(),
        lifecycles: [Lifecycle { phase: "build" }],
        tools: Tools {
            components: vec![Component {
                kind: "application",
                supplier: Some(Named { name: "Proofmark" }),
                name: bom.tool.name,
                version: Some(bom.tool.version),
                properties: vec![Property { name: "proofmark:compressor", value: &bom.tool.compressor }],
                ..Component::default()
            }],
        },
        component: Component {
            kind: "operating-system",
            reference: Some(IMAGE),
            name: &bom.name,
            version: Some(&bom.version),
            components: layers.collect(),
            properties: properties(&bom.facts),
            ..Component::default()
        },
    }
}

fn properties(facts: &[Fact]) -> Vec<Property<'_>> {
    facts.iter().map(|fact| Property { name: fact.name, value: &fact.value }).collect()
}

fn component(package: &Package) -> Component<'_> {
    let (group, name) = match package.name.split_once('/') {
        Some((group, name)) => (Some(group), name),
        None => (None, package.name.as_str()),
    };
    let licences = match (&package.licence, &package.licence_text) {
        (Some(expression), _) => vec![Licence::Expression { expression, acknowledgement: "declared" }],
        (None, Some(name)) => {
            vec![Licence::Named { license: NamedLicence { name, acknowledgement: "declared" } }]
        }
        (None, None) => Vec::new(),
    };
    let mut properties = properties(&package.facts);
    properties.extend(package.layers.iter().map(|value| Property { name: "proofmark:layer", value }));
    let occurrences: Vec<Occurrence<'_>> = package
        .files
        .iter()
        .map(|file| Occurrence {
            location: &file.path,
            additional_context: format!("sha256:{} {}", file.sha256, file.place),
        })
        .collect();
    Component {
        kind: match package.role {
            Role::Application => "application",
            Role::Firmware => "firmware",
            Role::Library => "library",
        },
        reference: Some(&package.reference),
        supplier: Some(Named { name: package.supplier.name() }),
        publisher: package.maintainer.as_deref(),
        group,
        name,
        version: Some(&package.version),
        description: package.description.as_deref(),
        scope: (package.role == Role::Firmware).then_some("excluded"),
        hashes: package
            .hashes
            .iter()
            .map(|(algorithm, content)| {
                let alg = match algorithm {
                    Algorithm::Sha256 => "SHA-256",
                    Algorithm::Sha512 => "SHA-512",
                };
                Hash { alg, content }
            })
            .collect(),
        licenses: licences,
        cpe: package.cpe.as_deref(),
        purl: Some(&package.purl),
        pedigree: package.source.as_ref().map(|source| Pedigree {
            ancestors: vec![Ancestor {
                kind: "library",
                name: &source.name,
                version: &source.version,
                purl: &source.purl,
            }],
        }),
        external_references: package
            .homepage
            .iter()
            .filter(|_| package.source.is_some())
            .map(|url| Reference { kind: "website", url })
            .collect(),
        components: Vec::new(),
        evidence: (!occurrences.is_empty()).then_some(Evidence { occurrences }),
        properties,
    }
}

fn no_package(bom: &Bom) -> Component<'_> {
    Component {
        kind: "data",
        reference: Some(NO_PACKAGE),
        name: "files of no package",
        description: Some("Files that a line of the recipe or a step of the builder made"),
        components: bom.loose.iter().map(loose_file).collect(),
        ..Component::default()
    }
}

fn loose_file(loose: &LooseFile) -> Component<'_> {
    Component {
        kind: "file",
        name: &loose.file.path,
        hashes: vec![Hash { alg: "SHA-256", content: &loose.file.sha256 }],
        properties: vec![
            Property { name: "proofmark:origin", value: &loose.origin },
            Property { name: "proofmark:place", value: &loose.file.place },
        ],
        ..Component::default()
    }
}

fn dependencies<'a>(bom: &'a Bom, references: &'a [String]) -> Vec<Dependency<'a>> {
    let name = |number: usize| bom.packages.get(number).map(|package| package.reference.as_str());
    let sorted = |names: BTreeSet<&'a str>| names.into_iter().collect::<Vec<_>>();
    let layers = references.iter().map(String::as_str);
    let mut all = vec![
        Dependency {
            reference: IMAGE,
            depends_on: sorted(layers.chain(bom.roots().filter_map(name)).collect()),
        },
        Dependency { reference: NO_PACKAGE, depends_on: Vec::new() },
    ];
    for (layer, reference) in bom.layers.iter().zip(references) {
        let packages = bom.packages.iter().filter(|package| package.within.is_none());
        let here = packages.filter(|package| package.layers.contains(&layer.id));
        let mut names: BTreeSet<&str> = here.map(|package| package.reference.as_str()).collect();
        if bom
            .loose
            .iter()
            .any(|loose| loose.file.place.split(',').next().is_some_and(|place| is_in(place, &layer.id)))
        {
            names.insert(NO_PACKAGE);
        }
        all.push(Dependency { reference, depends_on: sorted(names) });
    }
    for package in &bom.packages {
        let names = package.needs.iter().copied().filter_map(name).collect();
        all.push(Dependency { reference: &package.reference, depends_on: sorted(names) });
    }
    all.sort_by(|a, b| a.reference.cmp(b.reference));
    all
}

/// Returns whether a place is directly in a layer, not in a layer inside it.
fn is_in(place: &str, layer: &str) -> bool {
    match place.strip_prefix("root:") {
        Some(_) => layer == "root",
        None => place == layer,
    }
}
