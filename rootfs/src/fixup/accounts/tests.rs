//! Tests of the accounts, from definitions to files.

use super::*;
use crate::content::Content;
use crate::tree::{Node, Origin};

const TRIXIE: &str = "g adm 4 -\nu root 0 - /root /bin/bash\nu messagebus - \"System Message Bus\" /nonexistent\n\
    g input -\nu sshd -:nogroup \"sshd user\" /run/sshd\ng systemd-journal - -\n\
    u! systemd-network - \"systemd Network Management\"\n";

fn tree(files: &[(&str, &str)]) -> Tree {
    let mut tree = Tree::new(Origin::fix_up("test"));
    let mut put = |at: &str, text: &str| {
        let node = Node::file(0o644, Content::raw(text), Origin::debian("pkg", "1"));
        tree.insert(TreePath::new(at).unwrap(), node).unwrap();
    };
    put(
        PASSWD_MASTER,
        "root:*:0:0:root:/root:/bin/bash\nnobody:*:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    );
    put(GROUP_MASTER, "root:*:0:\nadm:*:4:\nshadow:*:42:\nnogroup:*:65534:\n");
    for (name, text) in files {
        put(name, text);
    }
    tree
}

fn conf(text: &str) -> Tree {
    tree(&[("usr/lib/sysusers.d/a.conf", text)])
}

fn text(tree: &Tree, at: &str) -> String {
    String::from_utf8(tree.read(&TreePath::new(at).unwrap()).unwrap().into_owned()).unwrap()
}

fn pairs(table: &BTreeMap<String, u32>) -> Vec<(&str, u32)> {
    table.iter().map(|(name, id)| (name.as_str(), *id)).collect()
}

fn plan_of(conf_text: &str) -> Result<Ids, Error> {
    plan(&conf(conf_text), &Declared::default(), &Ids::default())
}

#[test]
fn ids_count_down_from_999_groups_first_and_masters_are_not_in_the_plan() {
    let ids = plan_of(TRIXIE).unwrap();
    assert_eq!(
        pairs(&ids.groups),
        [("input", 999), ("messagebus", 997), ("systemd-journal", 998), ("systemd-network", 995)]
    );
    assert_eq!(pairs(&ids.users), [("messagebus", 997), ("sshd", 996), ("systemd-network", 995)]);
}

#[test]
fn the_six_files_are_written_locked_and_without_a_clock() {
    let mut tree = conf(TRIXIE);
    let ids = plan(&tree, &Declared::default(), &Ids::default()).unwrap();
    apply(&mut tree, &Declared::default(), &ids).unwrap();
    assert_eq!(
        text(&tree, "etc/passwd"),
        "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n\
         systemd-network:x:995:995:systemd Network Management:/:/usr/sbin/nologin\n\
         sshd:x:996:65534:sshd user:/run/sshd:/usr/sbin/nologin\n\
         messagebus:x:997:997:System Message Bus:/nonexistent:/usr/sbin/nologin\n"
    );
    assert_eq!(
        text(&tree, "etc/shadow"),
        "root:*::0:99999:7:::\nnobody:*::0:99999:7:::\nsystemd-network:!*::::::1:\nsshd:!*:::::::\n\
         messagebus:!*:::::::\n"
    );
    assert!(text(&tree, "etc/group").ends_with(
        "nogroup:x:65534:\nsystemd-network:x:995:\nmessagebus:x:997:\nsystemd-journal:x:998:\ninput:x:999:\n"
    ));
    assert!(text(&tree, "etc/gshadow").starts_with("root:*::\n"));
    assert!(text(&tree, "etc/gshadow").ends_with("input:!*::\n"));
    for at in ["etc/shadow", "etc/gshadow"] {
        let node = tree.get(&TreePath::new(at).unwrap()).unwrap();
        assert_eq!((node.mode, node.uid, node.gid), (0o640, 0, 42));
    }
    assert_eq!(text(&tree, "etc/subuid") + &text(&tree, "etc/subgid"), "");
    let read = read(&tree).unwrap();
    assert_eq!((read.users["sshd"], read.groups["adm"]), (996, 4));
}

#[test]
fn a_pinned_id_stays_when_an_earlier_package_is_added() {
    let before = plan_of(TRIXIE).unwrap();
    let more = conf(&format!("g aaa -\nu bbb -\n{TRIXIE}"));
    let after = plan(&more, &Declared::default(), &before).unwrap();
    for (name, id) in &before.groups {
        assert_eq!(after.groups[name], *id);
    }
    assert_eq!((after.groups["aaa"], after.users["bbb"]), (994, 993));
    assert_eq!(plan(&conf(TRIXIE), &Declared::default(), &after).unwrap(), before);
}

#[test]
fn an_account_that_is_not_in_the_lock_is_refused() {
    let mut tree = conf("u new -\n");
    let error = apply(&mut tree, &Declared::default(), &Ids::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the lock is stale: it has no id for group \"new\" (/usr/lib/sysusers.d/a.conf:1)"
    );
    let fixed = apply(&mut conf("g new 300\n"), &Declared::default(), &Ids::default());
    assert!(matches!(fixed, Err(Error::Stale { .. })));
    let pinned = Ids { groups: BTreeMap::from([("new".into(), 301)]), ..Ids::default() };
    let error = apply(&mut conf("g new 300\n"), &Declared::default(), &pinned).unwrap_err();
    assert!(matches!(error, Error::StaleId { pinned: 301, fixed: 300, .. }));
    let planned = plan(&conf("g new 300\n"), &Declared::default(), &pinned).unwrap();
    assert_eq!(planned.groups["new"], 300);
}

#[test]
fn files_of_stronger_roots_and_first_lines_win() {
    let tree =
        tree(&[("usr/lib/sysusers.d/a.conf", "u a 300\n"), ("etc/sysusers.d/a.conf", "u a 301\nu a 302\n")]);
    assert_eq!(plan(&tree, &Declared::default(), &Ids::default()).unwrap().users["a"], 301);
}

#[test]
fn every_form_of_id_is_accepted() {
    let mut tree = conf(
        "u a 300\nu b 301:4\nu c 302:adm\nu d -:adm\nu e /srv/e\ng f /srv/e\nu g /none\nm h adm\nm a newgroup\n\
         u i - \"a %% sign\"\n",
    );
    let srv = Node::directory(0o755, Origin::fix_up("t")).owned_by(400, 401);
    tree.insert(TreePath::new("srv/e").unwrap(), srv).unwrap();
    let ids = plan(&tree, &Declared::default(), &Ids::default()).unwrap();
    apply(&mut tree, &Declared::default(), &ids).unwrap();
    let passwd = text(&tree, "etc/passwd");
    for line in ["a:x:300:300:", "b:x:301:4:", "c:x:302:4:", "e:x:400:", "i:x:"] {
        assert!(passwd.contains(line), "{line}: {passwd}");
    }
    assert!(passwd.contains(":a % sign:"));
    assert_eq!((ids.groups["f"], ids.groups["a"]), (401, 300));
    let group = text(&tree, "etc/group");
    assert!(group.contains("adm:x:4:h\n") && group.contains(":a\n"), "{group}");
    assert!(ids.users.contains_key("h") && ids.groups.contains_key("newgroup"));
}

#[test]
fn ranges_limit_the_choice() {
    let ids = plan_of("r - 500-501\nr - 400\nu a -\nu b -\nu c -\n").unwrap();
    assert_eq!(pairs(&ids.users), [("a", 501), ("b", 500), ("c", 400)]);
    assert!(matches!(plan_of("r - 500\nu a -\nu b -\n"), Err(Error::Exhausted { what: "group", .. })));
}

#[test]
fn accounts_of_scripts_come_from_the_table_if_their_package_is_present() {
    let mut tree = tree(&[("usr/lib/udev/rules.d/60-tpm-udev.rules", ""), ("usr/bin/ssh-agent", "")]);
    let ids = plan(&tree, &Declared::default(), &Ids::default()).unwrap();
    apply(&mut tree, &Declared::default(), &ids).unwrap();
    assert!(text(&tree, "etc/passwd").contains("tss:x:999:999:TPM software stack:/var/lib/tpm:/bin/false\n"));
    assert!(text(&tree, "etc/group").contains("_ssh:x:998:\n"));
}

#[test]
fn the_recipe_declares_users_and_groups() {
    let declared = Declared {
        groups: vec![Group { name: "data".into(), gid: Some(800) }],
        users: vec![User {
            name: "claw".into(),
            uid: Some(801),
            groups: vec!["data".into(), "adm".into()],
            description: "the gateway".into(),
            home: Some("/var/lib/claw".into()),
            ..User::default()
        }],
    };
    let mut tree = conf("");
    let ids = plan(&tree, &declared, &Ids::default()).unwrap();
    apply(&mut tree, &declared, &ids).unwrap();
    assert!(
        text(&tree, "etc/passwd").ends_with("claw:x:801:801:the gateway:/var/lib/claw:/usr/sbin/nologin\n")
    );
    let group = text(&tree, "etc/group");
    assert!(group.contains("data:x:800:claw\n") && group.contains("adm:x:4:claw\n"));
}

#[test]
fn a_recipe_cannot_redefine_inject_or_name_missing_groups() {
    let user = |name: &str| User { name: name.into(), ..User::default() };
    let planned = |user: User| {
        plan(&conf("u a -\n"), &Declared { users: vec![user], ..Declared::default() }, &Ids::default())
    };
    assert!(matches!(planned(user("a")), Err(Error::Declared { .. })));
    assert!(matches!(planned(user("root")), Err(Error::Declared { .. })));
    for name in ["", "1a", "a:b", "a b", "a\n", &"a".repeat(32)] {
        assert!(matches!(planned(user(name)), Err(Error::Line { .. })), "{name:?}");
    }
    assert!(planned(User { description: "a:b".into(), ..user("x") }).is_err());
    assert!(planned(User { home: Some("srv".into()), ..user("x") }).is_err());
    assert!(planned(User { shell: Some("/bin/sh\nroot::0:0".into()), ..user("x") }).is_err());
    assert!(matches!(planned(User { groups: vec!["none".into()], ..user("x") }), Err(Error::NoGroup { .. })));
    assert!(matches!(planned(User { group: Some("none".into()), ..user("x") }), Err(Error::NoGroup { .. })));
    assert!(matches!(planned(User { uid: Some(0), ..user("x") }), Err(Error::Taken { id: 0, .. })));
    let groups = Declared { groups: vec![Group { name: "adm".into(), gid: None }], ..Declared::default() };
    assert!(matches!(plan(&conf(""), &groups, &Ids::default()), Err(Error::Declared { .. })));
}

#[test]
fn invalid_lines_are_refused() {
    for line in [
        "u",
        "x a -",
        "u a b",
        "u a 65535",
        "u a 4294967295",
        "u a 300:",
        "g a - \"text\"",
        "m a",
        "m a -",
        "r a 1-2",
        "r - 5-4",
        "r - x",
        "u a - b /c /d e",
        "u a - %H",
        "u a - b c",
        "u a - b /c d",
        "u 1a -",
        "u a - a:b",
    ] {
        assert!(matches!(plan_of(line), Err(Error::Line { line: 1, .. })), "{line}");
    }
    assert!(matches!(plan_of("u \"a"), Err(Error::Words { .. })));
    assert!(matches!(plan_of("u a 300:none"), Err(Error::NoGroup { .. })));
    assert!(matches!(plan_of("u a 300:77"), Err(Error::NoGroup { .. })));
    assert!(matches!(plan_of("u a 300\nu b 300"), Err(Error::Taken { .. })));
}

#[test]
fn masters_that_are_missing_or_damaged_are_refused() {
    let mut none = Tree::new(Origin::fix_up("test"));
    assert!(matches!(apply(&mut none, &Declared::default(), &Ids::default()), Err(Error::Tree(_))));
    for text in ["root:*:0\n", "root:*:x:\n"] {
        let mut tree = conf("");
        let node = Node::file(0o644, Content::raw(text), Origin::fix_up("t"));
        tree.replace(TreePath::new(GROUP_MASTER).unwrap(), node).unwrap();
        assert!(matches!(plan(&tree, &Declared::default(), &Ids::default()), Err(Error::Line { .. })));
    }
}
