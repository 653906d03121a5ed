//! The events of the kernel's EFI stub, from the command line and the initrd.
