//! The events of UEFI variables, from a variable store.
