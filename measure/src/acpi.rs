//! The ACPI tables that QEMU gives a machine of our shape, byte for byte.
