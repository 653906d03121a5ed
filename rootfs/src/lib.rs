//! Packages in, filesystem image out.
