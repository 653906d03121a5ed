//! The Authenticode digest and the sections of a PE image, from its bytes.
