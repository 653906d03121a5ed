//! MRTD, from the sections of a firmware image.
