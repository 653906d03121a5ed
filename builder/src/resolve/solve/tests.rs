use super::super::packages;
use super::*;

/// Writes an index from one line per package: `name version; Field: value; ...`.
fn index(lines: &str) -> Vec<u8> {
    let mut text = String::new();
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let mut parts = line.split(';').map(str::trim);
        let (name, version) = parts.next().unwrap().split_once(' ').unwrap();
        let digest = format!("{:064x}", line.len());
        text += &format!("Package: {name}\nVersion: {version}\nArchitecture: amd64\n");
        text += &format!("Filename: pool/{name}.deb\nSize: 1\nSHA256: {digest}\n");
        parts.for_each(|field| text += &format!("{field}\n"));
        text += "\n";
    }
    text.into_bytes()
}

fn with<T>(lines: &str, check: impl FnOnce(&Universe<'_>) -> T) -> T {
    let bytes = index(lines);
    let suite = Suite { name: "main", packages: packages::read(&bytes, "amd64").unwrap() };
    check(&Universe::merge(vec![suite]).unwrap())
}

fn request<'r>(roots: &'r [&'r str]) -> Request<'r> {
    Request { roots, essential: Essential::OnlyIfNeeded, exclude: &[] }
}

fn names(lines: &str, request: &Request<'_>) -> Vec<String> {
    with(lines, |universe| {
        let solution = solve(universe, request).unwrap_or_else(|error| panic!("{error}"));
        solution.chosen.iter().map(|chosen| chosen.package.name.to_owned()).collect()
    })
}

fn error(lines: &str, request: &Request<'_>) -> SolveError {
    with(lines, |universe| solve(universe, request).unwrap_err())
}

#[test]
fn dependencies_are_followed_and_cycles_end() {
    let lines = "aa 1; Depends: bb\n bb 1; Pre-Depends: cc\n cc 1; Depends: aa\n dd 1";
    assert_eq!(names(lines, &request(&["aa"])), ["aa", "bb", "cc"]);
}

#[test]
fn the_first_alternative_wins_unless_another_is_there() {
    let lines = "aa 1; Depends: bb | cc\n bb 1\n cc 1\n dd 1; Depends: cc\n";
    assert_eq!(names(lines, &request(&["aa"])), ["aa", "bb"]);
    assert_eq!(names(lines, &request(&["aa", "cc"])), ["aa", "cc"]);
    let broken = "aa 1; Depends: bb | cc\n bb 1; Depends: none\n cc 1";
    assert_eq!(names(broken, &request(&["aa"])), ["aa", "cc"]);
}

#[test]
fn a_provider_is_chosen_by_essential_then_priority_then_last_place() {
    let lines = "aa 1; Depends: awk\n gawk 1; Provides: awk; Priority: optional\n mawk 1; Provides: awk; Priority: required\n zawk 1; Provides: awk; Priority: optional";
    assert_eq!(names(lines, &request(&["aa"])), ["aa", "mawk"]);
    let essential = lines.replace("zawk 1;", "zawk 1; Essential: yes;");
    assert_eq!(names(&essential, &request(&["aa"])), ["aa", "zawk"]);
    let tied = lines.replace("required", "optional");
    assert_eq!(names(&tied, &request(&["aa"])), ["aa", "zawk"]);
    // A name that an earlier package mentions enters apt's cache earlier, so it wins the tie.
    let mentioned = format!("first 1; Suggests: zawk\n{tied}");
    assert_eq!(names(&mentioned, &request(&["aa"])), ["aa", "mawk"]);
    let real = format!("awk 1; Priority: extra\n{lines}");
    assert_eq!(names(&real, &request(&["aa"])), ["aa", "awk"]);
}

#[test]
fn versions_and_qualifiers_restrict_candidates() {
    let provided =
        "aa 1; Depends: vv (>= 2)\n pp 9; Provides: vv (= 2)\n qq 9; Provides: vv; Priority: required";
    assert_eq!(names(provided, &request(&["aa"])), ["aa", "pp"]);
    let any = "aa 1; Depends: bb:any | cc:any\n bb 1\n cc 1; Multi-Arch: allowed";
    assert_eq!(names(any, &request(&["aa"])), ["aa", "cc"]);
}

#[test]
fn the_highest_version_of_all_suites_is_the_candidate() {
    let (main, security) = (index("aa 1; Depends: bb\n bb 1"), index("bb 2"));
    let read = |bytes| packages::read(bytes, "amd64").unwrap();
    let suites = vec![
        Suite { name: "main", packages: read(&main) },
        Suite { name: "security", packages: read(&security) },
    ];
    let universe = Universe::merge(suites).unwrap();
    let solution = solve(&universe, &request(&["aa"])).unwrap();
    let bb = &solution.chosen[1];
    assert_eq!((bb.package.version.as_str(), bb.suite), ("2", "security"));
    assert_eq!(universe.candidate("bb").unwrap().version.as_str(), "2");
}

#[test]
fn one_version_with_two_archives_is_refused() {
    let (one, two) = (index("aa 1"), index("aa 1; Priority: optional"));
    let read = |bytes| packages::read(bytes, "amd64").unwrap();
    let suites =
        vec![Suite { name: "one", packages: read(&one) }, Suite { name: "two", packages: read(&two) }];
    assert!(matches!(Universe::merge(suites), Err(SolveError::TwoArchives { .. })));
}

#[test]
fn every_package_has_its_reason() {
    let lines = "aa 1; Depends: bb (>= 1) | cc\n bb 1\n dash 1; Essential: yes; Pre-Depends: libc6\n libc6 1";
    with(lines, |universe| {
        let request = Request { essential: Essential::Included, ..request(&["aa"]) };
        let solution = solve(universe, &request).unwrap();
        let why: Vec<_> = solution.chosen.iter().map(|c| (c.package.name, c.why.clone())).collect();
        let needed = |by, field, relation| Why::Needed { by, field, relation };
        assert_eq!(
            why,
            [
                ("aa", Why::Root),
                ("bb", needed("aa", "Depends", "bb (>= 1) | cc")),
                ("dash", Why::Essential),
                ("libc6", needed("dash", "Pre-Depends", "libc6")),
            ]
        );
    });
}

#[test]
fn an_exclude_waives_what_would_have_taken_it() {
    let lines = "aa 1; Depends: bb, cc | dd\n bb 1; Depends: ee\n cc 1\n dd 1\n ee 1\n ff 1";
    with(lines, |universe| {
        let request = Request { exclude: &["bb", "cc", "ff"], ..request(&["aa"]) };
        let solution = solve(universe, &request).unwrap();
        assert_eq!(solution.chosen.len(), 1);
        let waived = |excluded, relation| Waived { excluded, by: Some("aa"), relation };
        assert_eq!(solution.waived, [waived("bb", "bb"), waived("cc", "cc | dd")]);
        assert_eq!(solution.unused_excludes, ["ff"]);
    });
    // A package that something else brings is used: the exclude limits only apt's own choice.
    let request = Request { exclude: &["cc"], ..request(&["aa", "dd"]) };
    assert_eq!(names(lines, &request), ["aa", "bb", "dd", "ee"]);
}

#[test]
fn an_excluded_essential_package_is_waived() {
    with("aa 1; Essential: yes\n bb 1", |universe| {
        let request = Request { essential: Essential::Included, exclude: &["aa"], ..request(&["bb"]) };
        let solution = solve(universe, &request).unwrap();
        assert_eq!(solution.waived, [Waived { excluded: "aa", by: None, relation: "Essential: yes" }]);
    });
}

#[test]
fn contradictory_or_unknown_requests_are_refused_with_near_misses() {
    let lines =
        "openssh-server 1\n openssh-client 1\n mm 1; Provides: vv\n nn 1; Provides: vv\n oo 1; Provides: ww";
    let excluded = Request { exclude: &["mm"], ..request(&["mm"]) };
    assert_eq!(error(lines, &excluded), SolveError::ExcludedRoot("mm".into()));
    let unknown = error(lines, &request(&["opensh-server"]));
    let near = vec!["openssh-server".to_owned()];
    assert_eq!(unknown, SolveError::Unknown { name: "opensh-server".into(), near });
    assert_eq!(unknown.to_string(), "no suite has a package `opensh-server`; near: openssh-server");
    let exclude = Request { exclude: &["openssh-clien"], ..request(&["mm"]) };
    assert!(
        matches!(error(lines, &exclude), SolveError::Unknown { near, .. } if near[0] == "openssh-client")
    );
    let providers = vec!["mm".to_owned(), "nn".to_owned()];
    assert_eq!(error(lines, &request(&["vv"])), SolveError::Virtual { name: "vv".into(), providers });
    assert_eq!(names(lines, &request(&["ww"])), ["oo"]);
}

#[test]
fn an_unsatisfiable_root_is_explained_from_the_root_on() {
    let lines = "aa 1; Depends: bb\n bb 1; Depends: libfoo1 (>= 2)\n libfoo1 1";
    let text = error(lines, &request(&["aa"])).to_string();
    assert_eq!(text, "aa needs bb, bb needs libfoo1 (>= 2); libfoo1: the archive has 1");
    let lines =
        "aa 1; Depends: bb | cc\n bb 1; Depends: libfo1\n cc 1; Depends: dd (<< 1)\n dd 1\n libfoo1 1";
    let text = error(lines, &request(&["aa"])).to_string();
    assert_eq!(
        text,
        "aa needs bb | cc; bb: (bb needs libfo1; libfo1: no suite has it; near: libfoo1); \
             cc: (cc needs dd (<< 1); dd: the archive has 1)"
    );
}

#[test]
fn conflicts_are_found_in_both_directions_and_through_provides() {
    for lines in [
        "aa 1; Conflicts: bb\n bb 1",
        "aa 1\n bb 1; Breaks: aa (<< 2)",
        "aa 1; Conflicts: vv\n bb 1; Provides: vv",
        "aa 1; Provides: vv; Conflicts: vv\n bb 1; Provides: vv; Conflicts: vv",
    ] {
        assert!(matches!(error(lines, &request(&["aa", "bb"])), SolveError::Conflict(_)), "{lines}");
    }
    for lines in [
        "aa 1; Conflicts: bb (<< 1)\n bb 1",
        "aa 1; Provides: vv; Conflicts: vv\n bb 1",
        "aa 1; Conflicts: vv (<< 9)\n bb 1; Provides: vv",
    ] {
        assert_eq!(names(lines, &request(&["aa", "bb"])), ["aa", "bb"], "{lines}");
    }
    let text = error("aa 1\n bb 1; Breaks: aa (<< 2)", &request(&["aa", "bb"])).to_string();
    assert_eq!(text, "bb cannot be installed with aa: bb has Breaks: aa (<< 2)");
}

#[test]
fn a_failed_attempt_leaves_nothing_behind() {
    let lines =
        "aa 1; Depends: bb | cc\n bb 1; Depends: xx, dd\n xx 1; Conflicts: cc\n dd 1; Conflicts: aa\n cc 1";
    assert_eq!(names(lines, &request(&["aa"])), ["aa", "cc"]);
}

#[test]
fn a_bad_relation_names_package_and_field() {
    let error = error("aa 1; Depends: bb (1)\n bb 1", &request(&["aa"]));
    assert!(matches!(error, SolveError::Relation { field: "Depends", .. }), "{error}");
}

#[test]
fn a_very_long_chain_is_followed() {
    let mut lines: String = (0..20_000).map(|n| format!("p{n} 1; Depends: p{}\n", n + 1)).collect();
    assert!(matches!(error(&lines, &request(&["p19990"])), SolveError::Unsatisfied(_)));
    lines += "p20000 1";
    assert_eq!(names(&lines, &request(&["p0"])).len(), 20_001);
}
