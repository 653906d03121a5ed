//! Tests of enabling and masking units.

use super::*;
use crate::content::Content;

fn path(text: &str) -> TreePath {
    TreePath::new(text).unwrap()
}

fn origin() -> Origin {
    Origin::Recipe { file: "recipe.toml".into(), line: 7 }
}

fn unit(name: &str) -> Unit {
    Unit { name: name.into(), origin: origin() }
}

fn units(names: &[&str]) -> Vec<Unit> {
    names.iter().map(|name| unit(name)).collect()
}

fn tree(files: &[(&str, &str)]) -> Tree {
    let mut tree = Tree::new(Origin::fix_up("test"));
    for (name, text) in files {
        let at =
            if name.contains('/') { path(name) } else { path(&format!("usr/lib/systemd/system/{name}")) };
        let node = match text.strip_prefix("-> ") {
            Some(target) => Node::symlink(target, Origin::debian("pkg", "1")),
            None => Node::file(0o644, Content::raw(*text), Origin::debian("pkg", "1")),
        };
        tree.insert(at, node).unwrap();
    }
    tree
}

const UNITS: [(&str, &str); 18] = [
    ("multi-user.target", "[Unit]\n"),
    ("getty.target", "[Unit]\n"),
    ("sockets.target", "[Unit]\n"),
    ("plain.service", "[Service]\nWantedBy=no.target\n[Install]\nWantedBy=multi-user.target\n"),
    ("getty@.service", "[Install]\nWantedBy=getty.target\nDefaultInstance=tty1\n"),
    ("bare@.service", "[Install]\nWantedBy=multi-user.target\n"),
    ("broker.service", "[Install]\nAlias=dbus.service broker.service\n"),
    (
        "also.service",
        "[Install]\n# c\nWantedBy=multi-user.target \\\n  getty.target\nAlso=also.socket gone.service\n",
    ),
    ("also.socket", "[Install]\nWantedBy=sockets.target\n"),
    ("req.service", "[Install]\nRequiredBy=%p.target\nUpheldBy=multi-user.target\n"),
    ("static.service", "[Service]\n"),
    ("usr/lib/systemd/system/multi-user.target.wants/static.service", "-> ../static.service"),
    ("usr/lib/systemd/system/other.target", "-> multi-user.target"),
    ("usr/lib/systemd/system/off.service", "-> /dev/null"),
    ("empty.service", ""),
    ("reset.service", "[Install]\nWantedBy=a.target\nWantedBy=\nWantedBy=getty.target\n"),
    ("usr/lib/systemd/user/u.service", "[Install]\nWantedBy=default.target\n"),
    (
        "etc/systemd/system/multi-user.target.wants/shipped.service",
        "-> /usr/lib/systemd/system/shipped.service",
    ),
];

fn enable(names: &[&str]) -> Result<Vec<String>, Error> {
    let mut tree = tree(&UNITS);
    let report = apply(&mut tree, &Declared { enable: units(names), ..Declared::default() })?;
    for (path, target) in &report.links {
        let Kind::Symlink(there) = &tree.get(path).unwrap().kind else { panic!("{path}") };
        assert_eq!(**there, **target);
    }
    let strip = |text: &str| text.replace("/etc/systemd/system/", "").replace("/usr/lib/systemd/system/", "");
    Ok(report
        .links
        .iter()
        .map(|(path, to)| format!("{} > {}", strip(&path.to_string()), strip(to)))
        .collect())
}

#[test]
fn an_install_section_becomes_links() {
    for (name, want) in [
        ("plain.service", vec!["multi-user.target.wants/plain.service > plain.service"]),
        ("getty@tty2.service", vec!["getty.target.wants/getty@tty2.service > getty@.service"]),
        ("getty@.service", vec!["getty.target.wants/getty@tty1.service > getty@.service"]),
        ("bare@x.service", vec!["multi-user.target.wants/bare@x.service > bare@.service"]),
        ("broker.service", vec!["dbus.service > broker.service"]),
        ("reset.service", vec!["getty.target.wants/reset.service > reset.service"]),
        (
            "req.service",
            vec![
                "multi-user.target.upholds/req.service > req.service",
                "req.target.requires/req.service > req.service",
            ],
        ),
        (
            "also.service",
            vec![
                "getty.target.wants/also.service > also.service",
                "multi-user.target.wants/also.service > also.service",
                "sockets.target.wants/also.socket > also.socket",
            ],
        ),
    ] {
        assert_eq!(enable(&[name]).unwrap(), want, "{name}");
    }
}

#[test]
fn a_unit_that_does_not_exist_is_refused_with_similar_names() {
    let error = enable(&["plan.service"]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "unit \"plan.service\" of recipe:recipe.toml:7 does not exist, is it plain.service?"
    );
    let error = enable(&["also.timer"]).unwrap_err();
    let Error::Missing { near, .. } = error else { panic!("{error}") };
    assert_eq!(near, ["also.service", "also.socket"]);
    assert!(matches!(enable(&["none@x.service"]), Err(Error::Missing { .. })));
}

#[test]
fn a_static_unit_is_refused_and_says_who_pulls_it_in() {
    let error = enable(&["static.service"]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "unit \"static.service\" of recipe:recipe.toml:7 is static: /usr/lib/systemd/system/static.service has no \
         [Install] section to enable; multi-user.target pulls it in already"
    );
}

#[test]
fn aliases_masks_bare_templates_and_bad_names_are_refused() {
    assert!(
        matches!(enable(&["other.target"]), Err(Error::Alias { real, .. }) if real == "multi-user.target")
    );
    assert!(matches!(enable(&["off.service"]), Err(Error::Masked { .. })));
    assert!(matches!(enable(&["empty.service"]), Err(Error::Masked { .. })));
    assert!(matches!(enable(&["bare@.service"]), Err(Error::Template { .. })));
    for name in ["plain", "plain.service/x", ".service", "a b.service", "x.unit", "@a.service"] {
        assert!(matches!(enable(&[name]), Err(Error::Name { .. })), "{name}");
    }
}

#[test]
fn install_sections_that_make_no_sense_are_refused() {
    for text in [
        "Alias=x.socket",
        "Alias=nothing",
        "WantedBy=%H.target",
        "WantedBy=a/b",
        "WantedBy=\"a",
        "Alias=x@i.service",
    ] {
        let mut tree = tree(&[("bad.service", &format!("[Install]\n{text}\n"))]);
        let declared = Declared { enable: units(&["bad.service"]), ..Declared::default() };
        assert!(matches!(apply(&mut tree, &declared), Err(Error::Install { .. })), "{text}");
    }
}

#[test]
fn drop_ins_add_to_the_install_section_and_a_masked_one_does_not() {
    let dir = "usr/lib/systemd/system";
    let mut tree = tree(&[
        ("a-b@.service", "[Install]\nWantedBy=one.target\n"),
        (&format!("{dir}/service.d/1.conf"), "[Install]\nWantedBy=two.target\n"),
        (&format!("{dir}/a-@.service.d/2.conf"), "[Install]\nWantedBy=three.target\n"),
        (&format!("{dir}/a-b@.service.d/3.conf"), "[Install]\nWantedBy=four.target\n"),
        (&format!("{dir}/a-b@x.service.d/4.conf"), "[Install]\nWantedBy=five.target\n"),
        (&format!("{dir}/a-b@y.service.d/5.conf"), "[Install]\nWantedBy=six.target\n"),
        ("etc/systemd/system/a-b@.service.d/3.conf", "-> /dev/null"),
    ]);
    // The mask comes from the recipe, not from a package.
    tree.edit(&path("etc/systemd/system/a-b@.service.d/3.conf")).unwrap().origin = origin();
    let declared = Declared { enable: units(&["a-b@x.service"]), ..Declared::default() };
    let report = apply(&mut tree, &declared).unwrap();
    let by: Vec<String> = report.links.keys().map(|path| path.parent().unwrap().name().to_owned()).collect();
    assert_eq!(by, ["five.target.wants", "one.target.wants", "three.target.wants", "two.target.wants"]);
}

#[test]
fn two_units_with_one_alias_are_refused() {
    let mut tree =
        tree(&[("a.service", "[Install]\nAlias=x.service"), ("b.service", "[Install]\nAlias=x.service")]);
    let declared = Declared { enable: units(&["a.service", "b.service"]), ..Declared::default() };
    assert!(matches!(apply(&mut tree, &declared), Err(Error::Conflict { .. })));
}

#[test]
fn masking_enabling_for_users_and_the_default_target_make_links() {
    let mut tree = tree(&UNITS);
    let declared = Declared {
        mask: units(&["static.service", "getty@tty1.service"]),
        enable_user: units(&["u.service"]),
        mask_user: vec![],
        enable: vec![],
        default_target: Some(unit("multi-user.target")),
    };
    let report = apply(&mut tree, &declared).unwrap();
    let links: Vec<String> = report.links.iter().map(|(path, to)| format!("{path} {to}")).collect();
    assert_eq!(
        links,
        [
            "/etc/systemd/system/default.target /usr/lib/systemd/system/multi-user.target",
            "/etc/systemd/system/getty@tty1.service /dev/null",
            "/etc/systemd/system/static.service /dev/null",
            "/etc/systemd/user/default.target.wants/u.service /usr/lib/systemd/user/u.service",
        ]
    );
    assert_eq!(report.dangling, BTreeSet::from([("default.target".into(), "u.service".into())]));
}

#[test]
fn a_unit_cannot_be_masked_and_enabled_and_a_mask_needs_a_unit() {
    let both = Declared {
        mask: units(&["plain.service"]),
        enable: units(&["plain.service"]),
        ..Declared::default()
    };
    assert!(matches!(apply(&mut tree(&UNITS), &both), Err(Error::Masked { .. })));
    let none = Declared { mask: units(&["none.service"]), ..Declared::default() };
    assert!(matches!(apply(&mut tree(&UNITS), &none), Err(Error::Missing { .. })));
    for target in ["none.target", "other.target", "off.service"] {
        let declared = Declared { default_target: Some(unit(target)), ..Declared::default() };
        assert!(apply(&mut tree(&UNITS), &declared).is_err(), "{target}");
    }
}

#[test]
fn links_of_packages_are_removed_and_the_preset_disables_the_rest() {
    let mut tree = tree(&UNITS);
    apply(&mut tree, &Declared { enable: units(&["plain.service"]), ..Declared::default() }).unwrap();
    assert!(tree.get(&path("etc/systemd/system/multi-user.target.wants/shipped.service")).is_none());
    assert!(tree.get(&path("usr/lib/systemd/system/multi-user.target.wants/static.service")).is_some());
    let preset = tree.read(&path("usr/lib/systemd/system-preset/00-proofmark.preset")).unwrap();
    assert!(preset.ends_with(b"\nenable plain.service\ndisable *\n"));
}

#[test]
fn a_unit_of_the_recipe_in_etc_overrides_the_packages() {
    let mut tree = tree(&UNITS);
    let node = Node::file(0o644, Content::raw("[Install]\nWantedBy=getty.target\n"), origin());
    tree.insert(path("etc/systemd/system/plain.service"), node).unwrap();
    let declared = Declared { enable: units(&["plain.service"]), ..Declared::default() };
    let report = apply(&mut tree, &declared).unwrap();
    let links: Vec<String> = report.links.iter().map(|(path, to)| format!("{path} {to}")).collect();
    assert_eq!(
        links,
        ["/etc/systemd/system/getty.target.wants/plain.service /etc/systemd/system/plain.service"]
    );
}
