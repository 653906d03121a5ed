//! Tests of the parser of package-lock.json.

use super::*;

/// A plain package `a` 1.0.0, or with the name in the location.
pub(crate) fn entry(location: &str) -> Entry {
    Entry {
        location: location.into(),
        name: place(location).unwrap().into(),
        version: "1.0.0".into(),
        integrity: Integrity::of(b""),
        bin: BTreeMap::new(),
        os: vec![],
        cpu: vec![],
        libc: vec![],
        wanted: Wanted::Always,
        has_install_script: false,
        engines: None,
        license: None,
        needs: BTreeMap::new(),
    }
}

/// A lock whose packages have the given JSON after `version` and `integrity`.
fn lock(packages: &[(&str, &str)]) -> Result<PackageLock, Error> {
    let integrity = Integrity::of(b"");
    let mut text =
        r#"{"name":"t","lockfileVersion":3,"requires":true,"packages":{"":{"dependencies":{"a":"1"}}"#
            .to_owned();
    for (location, more) in packages {
        text += &format!(r#","{location}":{{"version":"1.0.0","integrity":"{integrity}"{more}}}"#);
    }
    PackageLock::parse((text + "}}").as_bytes())
}

fn one(more: &str) -> Entry {
    lock(&[("node_modules/a", more)]).unwrap().entries().next().unwrap().clone()
}

fn selected(packages: &[(&str, &str)]) -> Vec<String> {
    let lock = lock(packages).unwrap();
    let entries = lock.select(&LINUX_X64_GLIBC).unwrap();
    entries.iter().map(|entry| entry.location.trim_start_matches("node_modules/").to_owned()).collect()
}

#[test]
fn an_entry_has_what_npm_wrote() {
    let more = r#","resolved":"https://r/a.tgz","license":"MIT","bin":{"a":"./cli.js"},"engines":{"node":">=18"},
        "hasInstallScript":true,"dependencies":{"b":"^1"},"optionalDependencies":{"c":"1"},
        "peerDependencies":{"d":"*","e":"*"},"peerDependenciesMeta":{"e":{"optional":true}},"funding":{"url":"x"}"#;
    let entry = one(more);
    assert_eq!((&*entry.name, &*entry.version, entry.depth()), ("a", "1.0.0", 1));
    assert_eq!(entry.bin, BTreeMap::from([("a".into(), "cli.js".into())]));
    assert_eq!((entry.engines.as_deref(), entry.license.as_deref()), (Some(">=18"), Some("MIT")));
    assert!(entry.has_install_script);
    let needs: Vec<_> = entry.needs.iter().map(|(name, need)| (&**name, *need)).collect();
    let (required, optional) = (Need::Required, Need::Optional);
    assert_eq!(needs, [("b", required), ("c", optional), ("d", required), ("e", optional)]);
}

#[test]
fn an_alias_is_fetched_by_its_own_name() {
    let lock =
        lock(&[("node_modules/a", ""), ("node_modules/a/node_modules/b", r#","name":"@s/real""#)]).unwrap();
    let paths: Vec<_> = lock.entries().map(Entry::tarball_path).collect();
    assert_eq!(paths, ["a/-/a-1.0.0.tgz", "@s/real/-/real-1.0.0.tgz"]);
    assert_eq!(lock.entries().map(Entry::depth).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn programs_are_named_as_npm_normalises_them() {
    let table = [
        (r#""cli.js""#, vec![("a", "cli.js")]),
        (r#"["bin/x.js","y"]"#, vec![("x.js", "bin/x.js"), ("y", "y")]),
        (r#"{"../../x":"../../../etc/passwd"}"#, vec![("x", "etc/passwd")]),
        (r#"{"c:\\d":"a\\b\\c.js"}"#, vec![("d", "a/b/c.js")]),
        (r#"{"..":"x","":"y","z":"","n":1,"ok":"./ok"}"#, vec![("ok", "ok")]),
    ];
    for (bin, want) in table {
        let entry = one(&format!(r#","bin":{bin}"#));
        let found: Vec<_> = entry.bin.iter().map(|(name, file)| (&**name, &**file)).collect();
        assert_eq!(found, want, "{bin}");
    }
}

#[test]
fn old_forms_of_engines_and_license_are_read() {
    let entry = one(r#","engines":["node >= 0.6"],"license":{"type":"BSD","url":"x"}"#);
    assert_eq!((entry.engines, entry.license.as_deref()), (None, Some("BSD")));
    assert_eq!(one(r#","license":["MIT"],"engines":{"npm":"1"}"#).license, None);
}

#[test]
fn platforms_are_matched_as_npm_does() {
    let fits = |more: &str| one(more).fits(&LINUX_X64_GLIBC);
    for more in [
        "",
        r#","os":["linux"]"#,
        r#","os":"linux""#,
        r#","os":["!win32"]"#,
        r#","os":["any"]"#,
        r#","cpu":["arm64","x64"],"libc":["glibc"]"#,
    ] {
        assert!(fits(more), "{more}");
    }
    for more in [
        r#","os":["darwin"]"#,
        r#","os":["!linux"]"#,
        r#","os":["linux","!linux"]"#,
        r#","cpu":["arm64"]"#,
        r#","libc":["musl"]"#,
        r#","cpu":["!arm","ia32"]"#,
    ] {
        assert!(!fits(more), "{more}");
    }
}

#[test]
fn packages_for_development_or_other_platforms_are_left_out() {
    let packages = [
        ("node_modules/a", r#","optionalDependencies":{"b":"1","c":"1","f":"1"}"#),
        ("node_modules/b", r#","optional":true,"os":["darwin"],"dependencies":{"only-b":"1","both":"1"}"#),
        ("node_modules/only-b", r#","optional":true"#),
        ("node_modules/both", r#","optional":true"#),
        ("node_modules/c", r#","optional":true,"cpu":["x64"],"dependencies":{"both":"1"}"#),
        ("node_modules/d", r#","dev":true,"os":["darwin"]"#),
        ("node_modules/f", r#","optional":true,"dependencies":{"g":"1"}"#),
        ("node_modules/f/node_modules/g", r#","devOptional":true,"os":["win32"]"#),
    ];
    assert_eq!(selected(&packages), ["a", "both", "c"]);
}

#[test]
fn a_required_package_for_another_platform_is_refused() {
    let lock = lock(&[("node_modules/a", r#","os":["darwin"],"libc":["musl"]"#)]).unwrap();
    let error = lock.select(&LINUX_X64_GLIBC).unwrap_err().to_string();
    assert_eq!(error, "node_modules/a is required, but supports darwin/any/musl, not linux/x64/glibc");
}

#[test]
fn links_and_bundled_packages_are_refused() {
    let refused = |more: &str| lock(&[("node_modules/a", more)]).unwrap_err();
    assert!(matches!(refused(r#","link":true"#), Error::Link { .. }));
    assert!(matches!(refused(r#","inBundle":true"#), Error::Bundled { .. }));
}

#[test]
fn locations_that_escape_or_that_npm_would_not_write_are_refused() {
    for location in [
        "packages/a",
        "node_modules/",
        "node_modules/..",
        "node_modules/../x",
        "node_modules/a/../b",
        "node_modules/a/b",
        "node_modules/@s",
        "node_modules/@s/a/b",
        "node_modules/.bin",
        "node_modules/a/node_modules/",
        "/node_modules/a",
        "node_modules/a b",
        "node_modules/node_modules",
    ] {
        let error = lock(&[(location, "")]).unwrap_err();
        assert_eq!(error, Error::Location(location.to_owned()), "{location}");
    }
    let deep = "node_modules/a/".repeat(MAX_DEPTH) + "node_modules/a";
    assert_eq!(lock(&[(&deep, "")]), Err(Error::Location(deep)));
    assert!(matches!(lock(&[("node_modules/a/node_modules/b", "")]), Err(Error::Orphan { .. })));
}

#[test]
fn invalid_names_versions_and_integrities_are_refused() {
    let raw = |json: &str| {
        let text = format!(r#"{{"lockfileVersion":3,"packages":{{"":{{}},"node_modules/a":{{{json}}}}}}}"#);
        PackageLock::parse(text.as_bytes()).unwrap_err()
    };
    assert!(matches!(raw(r#""name":"../a""#), Error::Name { .. }));
    assert!(matches!(raw(""), Error::PackageVersion { .. }));
    for version in ["1", "latest", "1.0.0/../x", "v1.0.0", " 1.0.0"] {
        assert!(
            matches!(raw(&format!(r#""version":"{version}""#)), Error::PackageVersion { .. }),
            "{version}"
        );
    }
    assert!(matches!(raw(r#""version":"1.0.0""#), Error::NoIntegrity { .. }));
    assert!(matches!(raw(r#""version":"1.0.0-rc.1","integrity":"sha1-x""#), Error::Integrity { .. }));
}

#[test]
fn documents_that_npm_does_not_write_are_refused() {
    let refused = |text: &str| PackageLock::parse(text.as_bytes()).unwrap_err();
    assert!(matches!(refused("{"), Error::Json(_)));
    assert!(matches!(refused("{}"), Error::Json(_)));
    assert_eq!(refused(r#"{"lockfileVersion":2,"dependencies":{}}"#), Error::Version { found: 2 });
    assert_eq!(refused(r#"{"lockfileVersion":3,"packages":{}}"#), Error::NoRoot);
    assert!(matches!(refused(r#"{"lockfileVersion":3,"packages":{"":{}},"more":1}"#), Error::Json(_)));
    assert!(matches!(refused(r#"{"lockfileVersion":3,"packages":{"":{"more":1}}}"#), Error::Json(_)));
    let twice = refused(r#"{"lockfileVersion":3,"packages":{"":{},"":{}}}"#);
    assert!(matches!(&twice, Error::Json(text) if text.contains("duplicate key")), "{twice}");
    let large = vec![b' '; MAX_DOCUMENT + 1];
    assert!(matches!(PackageLock::parse(&large), Err(Error::TooLarge { .. })));
}
