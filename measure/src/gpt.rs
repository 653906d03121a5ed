//! The event of a partition table, from a disk's first sectors.
