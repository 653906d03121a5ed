//! Every effect on the world, one file per power.

mod advice;
pub mod built;
pub mod carried;
pub mod clock;
pub mod configuration;
pub mod disk_file;
pub mod earlier_build;
pub mod fetch;
pub mod files;
pub mod firmware;
pub mod fulcio;
pub mod http;
pub mod locking;
pub mod machine;
pub mod material;
pub mod mirror;
pub mod npm_registry;
pub mod npm_resolver;
pub mod osv;
pub mod output;
pub mod outputs;
pub mod pages;
pub mod progress;
pub mod publication;
pub mod raw_disk;
pub mod recipe_folder;
pub mod signer;
pub mod small_file;
pub mod stamp;
pub mod starter;
pub mod store;
pub mod tlog;
pub mod tool;

/// Formats an error and its causes on one line, for lists of attempts.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}
