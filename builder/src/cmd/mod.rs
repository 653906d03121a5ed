//! What each verb does, one file each.

pub mod run;
