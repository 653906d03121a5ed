//! The events of a whole boot, from the firmware, the machine and the image.
