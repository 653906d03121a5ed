//! The events of systemd-stub, from a UKI's sections.
