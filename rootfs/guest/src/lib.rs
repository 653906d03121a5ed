//! The programs that live inside the image.
