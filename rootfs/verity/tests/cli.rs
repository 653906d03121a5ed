//! Tests of the program: files, text, exit codes.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

/// The result of a run.
struct Run {
    code: i32,
    out: String,
    err: String,
}

/// A folder with an image of 130 blocks in `data`.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(TempDir::new().unwrap());
        fs::write(place.path("data"), image()).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    fn run(&self, arguments: &str) -> Run {
        self.run_with(arguments, b"")
    }

    fn run_with(&self, arguments: &str, input: &[u8]) -> Run {
        let mut child = Command::new(env!("CARGO_BIN_EXE_dm-verity-tool"))
            .args(arguments.split_whitespace())
            .current_dir(self.0.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A program that refuses its arguments does not read its input.
        let _ = child.stdin.take().unwrap().write_all(input);
        let output = child.wait_with_output().unwrap();
        Run {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// The names in the folder, to find leftovers.
    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.0.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn image() -> Vec<u8> {
    (0..130 * 4096_usize).map(|at| (at / 4096 + at) as u8).collect()
}

/// The root hash from `veritysetup format --salt aabb` of [`image`].
const ROOT: &str = "117a1d23eb3a7273e8db1c36c687f6904c8f7f1db8085f31f6c6a747343565b8";
/// The SHA-256 of its hash file, with the UUID below.
const AREA: &str = "f7727c039506efd2f19c22e8d463775bba8613a52b8b6d4914e38af3b64a10a3";
const OPTIONS: &str = "--salt aabb --uuid 00112233-4455-6677-8899-aabbccddeeff";

#[test]
fn format_writes_the_pinned_bytes_and_says_so() {
    let place = Place::new();
    let run = place.run(&format!("format data hash {OPTIONS}"));
    assert_eq!((run.code, run.err.as_str()), (0, ""));
    let expected = format!(
        "VERITY header information for hash\n\
         UUID:            \t00112233-4455-6677-8899-aabbccddeeff\n\
         Hash type:       \t1\n\
         Data blocks:     \t130\n\
         Data block size: \t4096\n\
         Hash blocks:     \t3\n\
         Hash block size: \t4096\n\
         Hash algorithm:  \tsha256\n\
         Salt:            \taabb\n\
         Root hash:      \t{ROOT}\n\
         Hash device size: \t16384 [bytes]\n"
    );
    assert_eq!(run.out, expected);
    assert_eq!(hex::encode(Sha256::digest(place.read("hash"))), AREA);
    assert_eq!(place.names(), ["data", "hash"]);
    let dump = place.run("dump hash");
    let no_root: String =
        expected.lines().filter(|line| !line.contains("Root")).map(|line| format!("{line}\n")).collect();
    assert_eq!((dump.code, dump.out), (0, no_root));
}

#[test]
fn format_and_dump_print_json() {
    let place = Place::new();
    let run = place.run(&format!("format data hash --json {OPTIONS}"));
    let header = |root: &str| {
        format!(
            "{{\"uuid\":\"00112233-4455-6677-8899-aabbccddeeff\",\"hash_type\":1,\"data_blocks\":130,\
             \"data_block_size\":4096,\"hash_blocks\":3,\"hash_block_size\":4096,\
             \"hash_algorithm\":\"sha256\",\"salt\":\"aabb\",{root}\"hash_offset\":0,\
             \"hash_start_block\":1,\"hash_device_size\":16384}}\n"
        )
    };
    assert_eq!(run.out, header(&format!("\"root_hash\":\"{ROOT}\",")));
    assert_eq!(place.run("dump --json hash").out, header(""));
}

#[test]
fn two_runs_and_any_thread_count_give_the_same_bytes() {
    let place = Place::new();
    for threads in [1, 2, 5] {
        assert_eq!(place.run(&format!("format data hash{threads} --threads {threads}")).code, 0);
    }
    assert_eq!(place.read("hash1"), place.read("hash2"));
    assert_eq!(place.read("hash1"), place.read("hash5"));
}

#[test]
fn a_pipe_gives_the_same_bytes_as_a_file() {
    let place = Place::new();
    assert_eq!(place.run("format data hash").code, 0);
    let run = place.run_with("format /dev/stdin piped", &image());
    assert_eq!((run.code, run.err.as_str()), (0, ""));
    assert_eq!(place.read("hash"), place.read("piped"));
    let run = place.run_with("format /dev/stdin piped --data-blocks 200", &image());
    assert_eq!(run.code, 1);
    assert!(run.err.contains("532480 bytes, expected 819200"), "{}", run.err);
}

#[test]
fn a_tree_after_its_data_leaves_the_data_and_later_bytes_alone() {
    let place = Place::new();
    let mut bytes = image();
    bytes.extend([7; 5 * 4096]);
    fs::write(place.path("both"), &bytes).unwrap();
    let run = place.run(&format!("format both both --hash-offset 532480 --data-blocks 130 {OPTIONS}"));
    assert_eq!((run.code, run.err.as_str()), (0, ""));
    let both = place.read("both");
    assert_eq!(both.len(), bytes.len());
    assert_eq!(both[..532_480], image());
    assert_eq!(both[532_480 + 16384..], [7; 4096]);
    assert_eq!(hex::encode(Sha256::digest(&both[532_480..532_480 + 16384])), AREA);
    let run = place.run(&format!("verify both both {ROOT} --hash-offset 532480"));
    assert_eq!((run.code, run.out), (0, format!("intact: {ROOT}\n")));
    assert!(place.run("dump both --hash-offset 532480").out.contains("Data blocks:     \t130\n"));
}

#[test]
fn data_that_overlaps_its_tree_is_refused_untouched() {
    let place = Place::new();
    for options in ["", "--hash-offset 4096", "--hash-offset 532480 --data-blocks 131"] {
        let run = place.run(&format!("format data data {options}"));
        assert_eq!(run.code, 1, "{options}");
        assert!(run.err.starts_with("error: the data overlaps the hash area"), "{}", run.err);
        assert!(run.err.contains("hint: give --hash-offset"), "{}", run.err);
    }
    assert_eq!(place.read("data"), image());
}

#[test]
fn an_old_hash_file_is_replaced_whole_and_keeps_its_mode() {
    let place = Place::new();
    fs::write(place.path("hash"), [1; 100_000]).unwrap();
    fs::set_permissions(place.path("hash"), fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink("hash", place.path("link")).unwrap();
    assert_eq!(place.run(&format!("format data link {OPTIONS}")).code, 0);
    assert_eq!(hex::encode(Sha256::digest(place.read("hash"))), AREA);
    assert_eq!(fs::metadata(place.path("hash")).unwrap().permissions().mode() & 0o777, 0o640);
    assert!(fs::symlink_metadata(place.path("link")).unwrap().is_symlink());
    assert_eq!(place.names(), ["data", "hash", "link"]);
}

#[test]
fn a_failed_format_leaves_the_old_file_and_no_other() {
    let place = Place::new();
    fs::write(place.path("hash"), "old").unwrap();
    fs::write(place.path("odd"), [0; 5000]).unwrap();
    fs::write(place.path("empty"), []).unwrap();
    for (data, reason) in
        [("odd", "904 too many"), ("empty", "0 data blocks"), ("absent", "cannot open absent")]
    {
        let run = place.run(&format!("format {data} hash"));
        assert_eq!(run.code, 1);
        assert!(run.err.contains(reason), "{}", run.err);
    }
    let run = place.run("format data absent/hash");
    assert_eq!(run.code, 1);
    assert!(run.err.contains("cannot write absent/hash"), "{}", run.err);
    let run = place.run("format data .");
    assert!(run.err.contains("neither a file nor a block device"), "{}", run.err);
    let run = place.run("format data hash --data-blocks 131");
    assert!(run.err.contains("532480 bytes, expected 536576"), "{}", run.err);
    assert_eq!(place.read("hash"), b"old");
    assert_eq!(place.names(), ["data", "empty", "hash", "odd"]);
}

#[test]
fn a_corrupt_image_is_told_block_by_block_and_exits_with_4() {
    let place = Place::new();
    assert_eq!(place.run(&format!("format data hash {OPTIONS}")).code, 0);
    let mut data = image();
    for block in [3, 129] {
        data[block * 4096 + 77] ^= 4;
    }
    fs::write(place.path("data"), &data).unwrap();
    let run = place.run(&format!("verify data hash {ROOT}"));
    assert_eq!(run.code, 4);
    let lines: Vec<&str> = run.out.lines().collect();
    assert_eq!(lines.len(), 3);
    assert!(lines[0].starts_with("data block 3: "));
    assert!(lines[1].starts_with("data block 129: "));
    assert_eq!(lines[2], "corrupt: 2 faults, 2 of them listed");
    let run = place.run(&format!("verify data hash {ROOT} --limit 1 --json"));
    assert_eq!(run.code, 4);
    let answer: serde_json::Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(answer["verdict"], "corrupt");
    assert_eq!(answer["count"], 2);
    assert_eq!(answer["faults"].as_array().unwrap().len(), 1);
    assert_eq!((&answer["faults"][0]["kind"], &answer["faults"][0]["block"]), (&"data".into(), &3.into()));
}

#[test]
fn a_corrupt_tree_or_another_root_exits_with_4_and_an_unreadable_one_with_1() {
    let place = Place::new();
    assert_eq!(place.run(&format!("format data hash {OPTIONS}")).code, 0);
    let other = "0".repeat(64);
    assert_eq!(place.run(&format!("verify data hash {other}")).code, 4);
    let hash = place.read("hash");
    let mut corrupt = hash.clone();
    corrupt[8192] ^= 1;
    fs::write(place.path("hash"), &corrupt).unwrap();
    let run = place.run(&format!("verify data hash {ROOT} --json"));
    let answer: serde_json::Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!((run.code, &answer["faults"][0]["kind"]), (4, &"tree".into()));
    assert_eq!(answer["faults"][0]["data_blocks"], 128);
    fs::write(place.path("hash"), &hash[..12288]).unwrap();
    let run = place.run(&format!("verify data hash {ROOT}"));
    assert_eq!(run.code, 1);
    assert!(
        run.err.contains("caused by: the hash tree ends after 4096 bytes of level 0, expected 8192"),
        "{}",
        run.err
    );
    fs::write(place.path("hash"), &hash).unwrap();
    fs::write(place.path("data"), &image()[4096..]).unwrap();
    let run = place.run(&format!("verify data hash {ROOT}"));
    assert_eq!(run.code, 1);
    assert!(run.err.contains("528384 bytes, expected 532480"), "{}", run.err);
}

#[test]
fn bytes_that_are_not_a_superblock_are_refused_with_a_hint() {
    let place = Place::new();
    for verb in ["dump data".to_owned(), format!("verify data data {ROOT}")] {
        let run = place.run(&verb);
        assert_eq!(run.code, 1);
        assert!(run.err.contains("not a verity superblock"), "{}", run.err);
        assert!(run.err.contains("hint: a tree appended"), "{}", run.err);
        // The chain repeats nothing.
        assert_eq!(run.err.matches("not a verity superblock").count(), 1, "{}", run.err);
    }
}

#[test]
fn wrong_usage_exits_with_2() {
    let place = Place::new();
    for arguments in [
        "",
        "format data",
        "format data hash --salt xyz",
        &format!("format data hash --salt {}", "00".repeat(257)),
        "format data hash --data-block-size 1000",
        "format data hash --hash-block-size 256",
        "format data hash --hash-offset 100",
        "format data hash --uuid 1",
        "format data hash --threads 0",
        "verify data hash 00",
    ] {
        let run = place.run(arguments);
        assert_eq!((run.code, run.out.as_str()), (2, ""), "{arguments}");
        assert!(!run.err.is_empty());
    }
    assert_eq!(place.names(), ["data"]);
}

#[test]
fn bench_hashes_the_same_tree() {
    let place = Place::new();
    let run = place.run("bench data --salt aabb --rounds 1 --json");
    let rate: serde_json::Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!((run.code, &rate["root_hash"], &rate["bytes"]), (0, &ROOT.into(), &532_480.into()));
}
