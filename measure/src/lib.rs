//! Reference values of a measured boot. Bytes in, digests out.
