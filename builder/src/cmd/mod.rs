//! The verbs of the command line, one per file.

pub mod appraise;
pub mod audit;
pub mod build;
pub mod completions;
pub mod diff;
pub mod eventlog;
pub mod export;
pub mod fetch;
pub mod inputs;
pub mod key;
pub mod lock;
pub mod log;
pub mod man;
pub mod measure;
pub mod new;
pub mod publish;
pub mod rebuild;
pub mod run;
pub mod scan;
pub mod schema;
pub mod size;
pub mod update;
pub mod vendor;
pub mod verify;
pub mod why;
