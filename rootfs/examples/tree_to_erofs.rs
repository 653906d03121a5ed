//! Writes a tree as an EROFS image: `cargo run -p rootfs --example tree_to_erofs -- IMAGE`.

use std::error::Error;
use std::fs::File;
use std::io::Write;

use rootfs::content::{Content, Packing};
use rootfs::erofs::{Image, Label, Options};
use rootfs::path::TreePath;
use rootfs::tree::{Node, Origin, Tree};

fn main() -> Result<(), Box<dyn Error>> {
    let output = std::env::args_os().nth(1).ok_or("usage: tree_to_erofs IMAGE")?;

    // Every node knows where it comes from; parent directories are added as needed.
    let origin = Origin::Recipe { file: "example.toml".into(), line: 1 };
    let mut tree = Tree::new(origin.clone());
    let hello = Content::pack(b"#!/bin/sh\necho hello\n", Packing::Zstd(3));
    tree.insert(TreePath::new("usr/bin/hello")?, Node::file(0o755, hello, origin.clone()))?;
    tree.insert(TreePath::new("bin")?, Node::symlink("usr/bin", origin))?;

    // Equal trees and options give equal bytes: the UUID and the time are arguments.
    let label = Label::new("example").ok_or("the label has more than 16 bytes")?;
    let options = Options { uuid: [7; 16], mtime: 0, label, packing: Packing::Zstd(3) };
    let image = Image::new(&tree, &options)?;

    let mut file = File::create(output)?;
    image.write_to(|bytes| file.write_all(bytes))?;
    Ok(())
}
