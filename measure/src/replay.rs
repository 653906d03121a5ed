//! The registers' values, from the events that were extended into them.
