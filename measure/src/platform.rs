//! What a platform decides, from a file that says where each digest was read, and when.
