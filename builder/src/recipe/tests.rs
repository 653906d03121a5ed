//! Tests that recipes load, and that errors name their place.

use super::*;

const BASE: &str = r#"
[image]
name = "base"
version = "1"
[debian]
suite = "trixie"
packages = ["systemd"]
[kernel]
package = "linux-image-cloud-amd64"
"#;

fn load_files(files: &[(&str, &str)], profile: Profile) -> Result<Recipe, Error> {
    let files: BTreeMap<PathBuf, &str> =
        files.iter().map(|(path, text)| (PathBuf::from(path), *text)).collect();
    let read = |path: &Path| -> io::Result<Vec<u8>> {
        files.get(path).map(|text| text.as_bytes().to_vec()).ok_or(io::ErrorKind::NotFound.into())
    };
    load(Path::new("recipes/x/recipe.toml"), profile, &read)
}

fn load_one(text: &str) -> Result<Recipe, Error> {
    load_files(&[("recipes/x/recipe.toml", text)], Profile::Release)
}

fn refused(text: &str) -> String {
    match load_one(&format!("{BASE}{text}")) {
        Err(Error::Wrong { place, message, hint }) => {
            let hint = hint.map(|hint| format!(" ({hint})")).unwrap_or_default();
            format!("{}:{} {message}{hint}", place.line, place.column)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_small_recipe_loads_with_its_defaults() {
    let recipe = load_one(BASE).unwrap();
    assert_eq!((recipe.name.as_str(), recipe.hostname.as_str()), ("base", "base"));
    assert_eq!(recipe.compression, Some(3));
    assert_eq!(recipe.systemd.default_target, "multi-user.target");
    assert_eq!(recipe.kernel.stub_package, "systemd-boot-efi");
}

#[test]
fn an_unknown_key_is_refused_with_its_place_and_the_near_miss() {
    assert_eq!(
        refused("[filesystem]\ncompresion = \"zstd\"\n"),
        "11:1 unknown field `compresion`, expected `compression` or `level` (did you mean `compression`?)"
    );
}

#[test]
fn a_platform_that_takes_only_memory_refuses_what_is_for_qemu() {
    for (setting, option) in [
        ("vcpus = [2]", "vcpus"),
        ("qemu = [\"10.0\"]", "qemu"),
        ("direct = true", "direct"),
        ("devices = 4", "devices"),
    ] {
        let message = refused(&format!("[[measure.platforms]]\nplatform = \"gcp-c3\"\n{setting}\n"));
        let expected = format!("gcp-c3 takes only a memory size: {option} is for QEMU");
        assert!(message.ends_with(&expected), "{message}");
    }
}

#[test]
fn a_wrong_type_is_refused_with_its_place() {
    let message = refused("[systemd]\nenable = \"x.service\"\n");
    assert!(message.starts_with("11:10 invalid type: string"), "{message}");
}

#[test]
fn broken_syntax_is_refused_with_its_place() {
    let message = refused("[systemd\n");
    assert!(message.starts_with("10:9 "), "{message}");
}

#[test]
fn paths_that_escape_are_refused() {
    let message = refused("[[files]]\nsource = \"../../etc/shadow\"\ntarget = \"/a\"\n");
    assert_eq!(message, "10:1 source \"../../etc/shadow\" is not a path inside the recipe's folder");
    let message = refused("[[files]]\nsource = \"/etc/shadow\"\ntarget = \"/a\"\n");
    assert!(message.contains("is not a path inside"), "{message}");
    let message = refused("[[files]]\ntext = \"\"\ntarget = \"/a/../../b\"\n");
    assert!(message.contains("\"..\" component"), "{message}");
    let message = refused("[[files]]\ntext = \"\"\ntarget = \"a\"\n");
    assert!(message.contains("is not an absolute path"), "{message}");
}

#[test]
fn two_sources_of_one_path_are_refused_and_both_named() {
    let message =
        refused("[[files]]\ntext = \"1\"\ntarget = \"/a\"\n[[links]]\npath = \"//a/\"\ntarget = \"b\"\n");
    assert_eq!(message, "13:1 /a has two sources: recipe.toml:10:1 names it too");
}

#[test]
fn values_that_cannot_be_are_refused() {
    for (text, part) in [
        ("[[files]]\ntarget = \"/a\"\n", "either `source` or `text`"),
        ("[[files]]\ntext = \"\"\ntarget = \"/a\"\nmode = \"0999\"\n", "octal mode"),
        ("[filesystem]\nlevel = 20\n", "from 1 to 19"),
        ("[filesystem]\nlevel = 0\n", "from 1 to 19"),
        ("[disk]\nsize = \"2 apples\"\n", "as 512M or 2G"),
        ("[[users]]\nname = \"Root\"\n", "not a valid user name"),
        ("[[users]]\nname = \"a\"\n[[users]]\nname = \"a\"\n", "named twice"),
        ("[[npm]]\nname = \"a\"\nversion = \"1.0.0\"\ntarget = \"/a\"\n", "no [node]"),
        ("[[debian.omit]]\npaths = [\"a\"]\nreason = \" \"\n", "without a reason"),
        ("[[debian.omit]]\npaths = [\"a[\"]\nreason = \"x\"\n", "glob \"a[\""),
        (
            "[[debian.omit]]\npaths = [\"/usr/share/doc\"]\nreason = \"x\"\n",
            "\"/usr/share/doc\" is not relative",
        ),
        ("[[links]]\npath = \"/a\"\ntarget = \"\"\n", "needs a target"),
        ("[profiles.debug]\npackages = [1]\n", "invalid type"),
    ] {
        let message = refused(text);
        assert!(message.contains(part), "{text}: {message}");
    }
    let node = "[node]\nversion = \"22.19.0\"\ntarget = \"/opt/node\"\nnpm-client = \"10.9.3\"\n";
    let range = "[[npm]]\nname = \"a\"\nversion = \"^1.0.0\"\ntarget = \"/a\"\n";
    assert!(refused(&format!("{node}{range}")).contains("not an exact version"));
    let exclude = BASE.replace("packages", "exclude = [\"systemd\"]\npackages");
    assert!(matches!(load_one(&exclude), Err(Error::Wrong { message, .. }) if message.contains("excluded")));
    let odd = BASE.replace("\"systemd\"", "\"Systemd\"");
    assert!(
        matches!(load_one(&odd), Err(Error::Wrong { message, .. }) if message.contains("Debian package"))
    );
    let moment = BASE.replace("packages", "snapshot = \"today\"\npackages");
    assert!(matches!(load_one(&moment), Err(Error::Wrong { message, .. }) if message.contains("a time")));
}

#[test]
fn what_every_recipe_says_must_be_said() {
    for what in ["name", "version", "suite", "package"] {
        let text: String = BASE
            .lines()
            .filter(|line| !line.starts_with(&format!("{what} ")))
            .fold(String::new(), |text, line| text + line + "\n");
        let error = load_one(&text).unwrap_err();
        assert!(error.to_string().contains(&format!(".{what}")), "{error}");
    }
}

#[test]
fn a_recipe_adds_to_the_lists_of_its_base_and_overrides_its_values() {
    let base = "[image]\nname = \"base\"\nversion = \"1\"\n[debian]\nsuite = \"trixie\"\npackages = [\"aa\"]\n\
                [kernel]\npackage = \"k\"\ncommand-line = [\"quiet\"]\n[[files]]\nsource = \"f\"\ntarget = \"/f\"\n\
                [profiles.debug]\npackages = [\"dd\"]\ncommand-line = [\"debug\"]\n";
    let top =
        "extends = [\"../shared/recipe.toml\"]\n[image]\nname = \"top\"\n[debian]\npackages = [\"bb\"]\n";
    let files = [("recipes/shared/recipe.toml", base), ("recipes/x/recipe.toml", top)];
    let release = load_files(&files, Profile::Release).unwrap();
    assert_eq!((release.name.as_str(), release.version.as_str()), ("top", "1"));
    assert_eq!(release.debian.packages.keys().collect::<Vec<_>>(), ["aa", "bb"]);
    assert_eq!(release.kernel.command_line, ["quiet"]);
    let (path, entry) = release.entries.first_key_value().unwrap();
    assert_eq!(
        (path.as_str(), entry.origin().to_string().as_str()),
        ("f", "recipe:../shared/recipe.toml:10")
    );
    assert!(matches!(&entry.kind, EntryKind::File { content: Source::Path(path), .. }
        if path == Path::new("recipes/shared/f")));
    let debug = load_files(&files, Profile::Debug).unwrap();
    assert_eq!(debug.debian.packages.keys().collect::<Vec<_>>(), ["aa", "bb", "dd"]);
    assert_eq!(debug.kernel.command_line, ["quiet", "debug"]);
}

/// `BASE` ends inside `[kernel]`.
#[test]
fn words_of_the_command_line_that_the_kernel_does_not_get_are_refused_with_their_place() {
    for (word, part) in [
        ("\"a\\u0000b\"", "byte 0x00"),
        ("\"a\\nb\"", "byte 0x0a"),
        ("\"a\\tb\"", "byte 0x09"),
        ("\"\u{e4}\"", "byte 0xc3"),
        ("'a=\"b'", "quote that is not closed"),
        ("\"--\"", "word \"--\""),
    ] {
        let message = refused(&format!("command-line = [\n\"quiet\",\n{word},\n]\n"));
        assert!(message.starts_with("12:1 ") && message.contains(part), "{word}: {message}");
        let message = refused(&format!("[profiles.release]\ncommand-line = [{word}]\n"));
        assert!(message.starts_with("11:17 ") && message.contains(part), "{word}: {message}");
    }
    // The first word that the kernel cuts: 40 words of 51 bytes with their blanks leave room for 7.
    let word = |number| format!("\"a{number:02}={}\",\n", "x".repeat(46));
    let words: String = (0..41).map(word).collect();
    let message = refused(&format!("command-line = [\n{words}]\n"));
    assert!(message.starts_with("51:1 the command line has 2091 bytes up to this word"), "{message}");
}

#[test]
fn a_word_that_opens_a_release_image_is_refused_with_its_place_and_debug_may_have_it() {
    let word = "systemd.import_credentials=yes";
    let message = refused(&format!("command-line = [\n\"quiet\",\n\"{word}\",\n]\n"));
    assert!(message.starts_with("12:1 ") && message.contains("opens the machine to its host"), "{message}");
    let message = refused(&format!("[profiles.release]\ncommand-line = [\"{word}\"]\n"));
    assert!(message.starts_with("11:17 ") && message.contains("opens the machine to its host"), "{message}");
    load_one(&format!("{BASE}[profiles.debug]\ncommand-line = [\"{word}\"]\n")).unwrap();
    let message = refused("command-line = [\"proofmark.salt=-\"]\n");
    assert!(message.contains("reserved"), "{message}");
}

#[test]
fn recipes_that_extend_in_a_circle_or_into_nothing_are_refused() {
    let circle = load_one("extends = [\"../x\"]\n").unwrap_err();
    assert!(circle.to_string().contains("in a loop"), "{circle}");
    let nothing = load_one("extends = [\"../y\"]\n").unwrap_err();
    assert!(nothing.to_string().starts_with("recipe.toml:1:12: extends recipes/y/recipe.toml"), "{nothing}");
    let absolute = load_one("extends = [\"/y\"]\n").unwrap_err();
    assert!(absolute.to_string().contains("not a relative path"), "{absolute}");
}

#[test]
fn only_what_a_lock_depends_on_changes_its_digest() {
    let digest = |text: &str| lock_digest(&[load_one(text).unwrap()]);
    assert_eq!(digest(BASE), digest(&format!("{BASE}command-line = [\"quiet\"]\n")));
    assert_ne!(digest(BASE), digest(&BASE.replace("\"systemd\"", "\"systemd\", \"udev\"")));
}

#[test]
fn the_schema_names_every_table_and_refuses_others() {
    let schema: serde_json::Value = serde_json::from_str(&schema()).unwrap();
    assert_eq!(schema["additionalProperties"], false);
    for table in ["image", "debian", "kernel", "npm", "files", "profiles", "extends"] {
        assert!(schema["properties"].get(table).is_some(), "{table}");
    }
}
