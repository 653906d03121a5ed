//! The dm-verity hash tree of an image, and its root hash.
