//! The sections of a TDVF firmware image, from its bytes.
