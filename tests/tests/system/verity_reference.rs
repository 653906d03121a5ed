//! Compares `dm-verity-tool` with `veritysetup` (Debian package `cryptsetup-bin`): the same bytes, the same verdict.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::process::{Command, Output};

use dm_verity_tool::{BlockSize, HashOffset, HashTree, Hasher, Parameters, Salt, Verdict, verify};
use system_tests::program;
use system_tests::tool::find;
use tempfile::TempDir;

const UUID: &str = "00112233-4455-6677-8899-aabbccddeeff";

fn veritysetup(arguments: &[&str]) -> Output {
    Command::new("veritysetup").args(arguments).output().unwrap()
}

fn root_of(output: &Output) -> String {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let line = text.lines().find_map(|line| line.strip_prefix("Root hash:"));
    line.unwrap().trim().to_owned()
}

/// Bytes that differ between blocks and between runs of 256: a linear congruential sequence.
fn image(length: usize) -> Vec<u8> {
    let mut state = 12345_u32;
    (0..length)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect()
}

fn salt(length: usize) -> Salt {
    Salt::new((0..length).map(|at| (at * 37 + 11) as u8).collect::<Vec<_>>()).unwrap()
}

fn parameters(data: u32, hash: u32, salt_length: usize) -> Parameters {
    Parameters {
        salt: salt(salt_length),
        data_block_size: BlockSize::new(data).unwrap(),
        hash_block_size: BlockSize::new(hash).unwrap(),
        uuid: Some(UUID.parse().unwrap()),
    }
}

fn tree(parameters: &Parameters, data: &[u8]) -> HashTree {
    let mut hasher = Hasher::new(parameters);
    // Odd chunks, so that blocks cross their ends.
    data.chunks(1_000_003).for_each(|chunk| hasher.update(chunk));
    hasher.finish().unwrap()
}

/// Formats the same data with both, and compares what each wrote to the file, from the hash offset on.
fn compare(folder: &Path, parameters: &Parameters, data: &[u8], offset: u64) {
    let what = format!(
        "{} bytes, blocks {}/{}, salt {}, offset {offset}",
        data.len(),
        parameters.data_block_size,
        parameters.hash_block_size,
        parameters.salt.as_bytes().len()
    );
    let offset = HashOffset::new(offset).unwrap();
    let data_path = folder.join("data");
    fs::write(&data_path, data).unwrap();
    let hash_path = if offset == HashOffset::ZERO { folder.join("hash") } else { data_path.clone() };
    if offset == HashOffset::ZERO {
        File::create(&hash_path).unwrap();
    }
    let blocks = data.len() as u64 / u64::from(parameters.data_block_size.bytes());
    let theirs = veritysetup(&[
        "format",
        data_path.to_str().unwrap(),
        hash_path.to_str().unwrap(),
        &format!("--salt={}", parameters.salt),
        &format!("--uuid={UUID}"),
        &format!("--data-block-size={}", parameters.data_block_size),
        &format!("--hash-block-size={}", parameters.hash_block_size),
        &format!("--data-blocks={blocks}"),
        &format!("--hash-offset={offset}"),
    ]);
    let tree = tree(parameters, data);
    assert_eq!(tree.root_hash().to_string(), root_of(&theirs), "{what}");
    let mut ours = Vec::new();
    tree.write_to(&mut ours, offset).unwrap();
    let whole = fs::read(&hash_path).unwrap();
    let theirs = &whole[offset.bytes() as usize..];
    // With a single data block there is no tree, and veritysetup stops after 4096 bytes even where a hash
    // block is larger; the kernel refuses a device that short. Ours has the size that veritysetup reports.
    let (head, padding) = ours.split_at(theirs.len().min(ours.len()));
    assert!(theirs == head, "{what}: the hash areas differ");
    assert!(padding.is_empty() || blocks == 1 && parameters.hash_block_size.bytes() > 4096, "{what}");
    assert!(padding.iter().all(|byte| *byte == 0), "{what}");
    let verdict = verify(data, &ours[..], offset, tree.root_hash(), 1).unwrap();
    assert_eq!(verdict, Verdict::Intact, "{what}");
}

#[test]
fn every_block_size_gives_the_bytes_of_veritysetup() {
    if find("veritysetup").is_none() {
        return;
    }
    let folder = TempDir::new().unwrap();
    for data in [512, 1024, 2048, 4096, 8192, 65536, 524_288] {
        for hash in [512, 1024, 4096, 65536, 524_288] {
            compare(folder.path(), &parameters(data, hash, 32), &image(3 * 524_288), 0);
        }
    }
}

#[test]
fn every_length_of_salt_gives_the_bytes_of_veritysetup() {
    if find("veritysetup").is_none() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let data = image(140 * 4096);
    for length in [0, 1, 2, 8, 16, 31, 32, 33, 55, 56, 63, 64, 65, 119, 127, 128, 129, 200, 255, 256] {
        compare(folder.path(), &parameters(4096, 4096, length), &data, 0);
    }
}

#[test]
fn every_boundary_of_the_levels_gives_the_bytes_of_veritysetup() {
    if find("veritysetup").is_none() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let data = image(16385 * 512);
    for blocks in [1, 2, 127, 128, 129, 255, 256, 257, 16383, 16384, 16385] {
        compare(folder.path(), &parameters(512, 4096, 5), &data[..blocks * 512], 0);
    }
    for blocks in [1, 15, 16, 17, 256, 257, 4096, 4097] {
        compare(folder.path(), &parameters(512, 512, 0), &data[..blocks * 512], 0);
    }
}

#[test]
fn every_offset_gives_the_bytes_of_veritysetup() {
    if find("veritysetup").is_none() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let data = image(130 * 4096);
    for gap in [0, 512, 1024, 3584, 4096, 4608, 1 << 20] {
        for blocks in [1, 130] {
            if blocks == 1 && gap % 4096 != 0 {
                // veritysetup 2.6.1 fails there itself: "Error during update of verity header".
                continue;
            }
            let data = &data[..blocks * 4096];
            let offset = data.len() as u64 + gap;
            compare(folder.path(), &parameters(4096, 4096, 32), data, offset);
            compare(folder.path(), &parameters(4096, 512, 32), data, offset);
            compare(folder.path(), &parameters(4096, 65536, 0), data, offset);
        }
    }
}

#[test]
fn the_program_and_veritysetup_write_and_accept_the_same_files() {
    if find("veritysetup").is_none() {
        return;
    }
    let program = program::dm_verity_tool();
    let run = |arguments: &[&str]| Command::new(&program).args(arguments).output().unwrap();
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (data, ours, theirs) = (path("data"), path("ours"), path("theirs"));
    fs::write(&data, image(300 * 4096)).unwrap();
    let options = ["--salt", "0123456789abcdef", "--uuid", UUID];

    let format = run(&[&["format", &data, &ours], &options[..]].concat());
    let root = root_of(&format);
    let reference = veritysetup(&[&["format", &data, &theirs], &options[..]].concat());
    assert_eq!(root, root_of(&reference));
    assert!(fs::read(&ours).unwrap() == fs::read(&theirs).unwrap());
    let text = |output: &Output| String::from_utf8(output.stdout.clone()).unwrap().replace(&ours, &theirs);
    assert_eq!(text(&format), text(&reference));
    assert_eq!(text(&run(&["dump", &ours])), text(&veritysetup(&["dump", &theirs])));

    // Behind the data, in the same file, with other bytes after it. Between superblock and tree, veritysetup
    // leaves what is there and we write zeros, so zeros are there.
    let (both, reference) = (path("both"), path("reference"));
    let mut bytes = image(320 * 4096);
    bytes[300 * 4096..301 * 4096].fill(0);
    fs::write(&both, bytes).unwrap();
    fs::copy(&both, &reference).unwrap();
    let place = ["--data-blocks", "300", "--hash-offset", "1228800"];
    let appended = run(&[&["format", &both, &both], &options[..], &place].concat());
    assert_eq!(root_of(&appended), root);
    root_of(&veritysetup(&[&["format", &reference, &reference], &options[..], &place].concat()));
    assert!(fs::read(&both).unwrap() == fs::read(&reference).unwrap());

    // Each accepts the other's tree, and both refuse one flipped bit.
    assert!(veritysetup(&["verify", &data, &ours, &root]).status.success());
    assert_eq!(run(&["verify", &data, &theirs, &root]).status.code(), Some(0));
    let mut file = File::options().write(true).open(&data).unwrap();
    file.seek(SeekFrom::Start(77 * 4096)).unwrap();
    file.write_all(&[image(78 * 4096)[77 * 4096] ^ 1]).unwrap();
    drop(file);
    assert!(!veritysetup(&["verify", &data, &ours, &root]).status.success());
    let refused = run(&["verify", &data, &theirs, &root]);
    assert_eq!(refused.status.code(), Some(4));
    assert!(text(&refused).starts_with("data block 77: "), "{}", text(&refused));
}
