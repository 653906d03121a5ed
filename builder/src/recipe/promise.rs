//! Judges words of the kernel command line by what the release profile promises: the machine takes no shell, credential or
//! start target from its host.
//!
//! # Shape
//! ```text
//! proofmark.*                                       the builder's own, in every profile
//! systemd.import_credentials=, debug_shell= …       only with a value that means no
//! systemd.hostname=, systemd.log_level= …           always
//! any other systemd.*, init=, rescue …              never in the release profile
//! ```
//! `-` and `_` are the same in a name, as for systemd and the kernel; quotes do not count; a word may hold several.
//!
//! # Source
//! kernel-command-line(7), systemd(1), systemd-debug-generator(8), systemd-run-generator(8), systemd.system-credentials(7);
//! Linux Documentation/admin-guide/kernel-parameters.txt.
//!
//! # Not here
//! Units and files of a recipe that open a machine: they run as what they are, and are measured.

use super::Profile;

/// Why a word is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The builder writes it itself.
    #[error("{word:?} is written by the builder: words that begin with `proofmark.` are reserved")]
    Reserved {
        /// The word.
        word: String,
    },
    /// It opens a release image to its host.
    #[error("{word:?} opens the machine to its host, which the release profile promises not to do")]
    Opens {
        /// The word.
        word: String,
    },
}

/// Switches that open a machine unless they are off.
const OFF: [&str; 9] = [
    "systemd.confirm_spawn",
    "systemd.debug_shell",
    "systemd.firstboot",
    "systemd.getty_auto",
    "systemd.gpt_auto",
    "systemd.import_credentials",
    "systemd.journald.forward_to_console",
    "systemd.default_debug_tty",
    "systemd.tpm2_allow_clear",
];
/// Words of systemd that start nothing, and take nothing from the host. All others are refused, so that those of a later systemd
/// are too. An underscore at the end is that of a prefix.
const HARMLESS: [&str; 14] = [
    "systemd.cpu_affinity",
    "systemd.crash_action",
    "systemd.crash_reboot",
    "systemd.default_device_timeout_sec",
    "systemd.default_timeout_start_sec",
    "systemd.dump_core",
    "systemd.hostname",
    "systemd.journald.max_level_",
    "systemd.log_",
    "systemd.machine_id",
    "systemd.service_watchdogs",
    "systemd.show_status",
    "systemd.status_unit_format",
    "systemd.watchdog_",
];
/// Other words that choose what starts, or that give a shell or a debugger.
const NEVER: [&str; 24] = [
    "1",
    "2",
    "3",
    "4",
    "5",
    "S",
    "_b",
    "_s",
    "b",
    "emergency",
    "init",
    "kgdboc",
    "kgdbwait",
    "mount.usr",
    "rd.break",
    "rdinit",
    "rescue",
    "root",
    "roothash",
    "s",
    "single",
    "sysrq_always_enabled",
    "usrhash",
    "verity",
];

/// Checks one word of a recipe for a profile.
///
/// # Errors
/// [`Error`].
pub fn check(word: &str, profile: Profile) -> Result<(), Error> {
    let plain: String = word.chars().filter(|c| !matches!(c, '"' | '\'' | '\\')).collect();
    for part in plain.split_ascii_whitespace() {
        let (name, value) = part.split_once('=').map_or((part, None), |(name, value)| (name, Some(value)));
        let name = name.replace('-', "_");
        if name.starts_with("proofmark.") {
            return Err(Error::Reserved { word: word.to_owned() });
        }
        let off = matches!(value, Some("0" | "no" | "n" | "false" | "f" | "off"));
        let named = |all: &[&str]| {
            all.iter().any(|one| one.eq_ignore_ascii_case(&name) && (one.len() > 1 || **one == name))
        };
        let harmless = HARMLESS.iter().any(|one| match one.ends_with('_') {
            true => name.starts_with(one),
            false => name == *one,
        });
        let opens = match name.to_ascii_lowercase().starts_with("systemd.") {
            true => !(harmless || named(&OFF) && off),
            false => named(&NEVER),
        };
        if profile == Profile::Release && opens {
            return Err(Error::Opens { word: word.to_owned() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_opens_a_release_image_is_refused_however_it_is_written() {
        for word in [
            "systemd.import_credentials=yes",
            "systemd.import_credentials",
            "systemd.import-credentials=1",
            "systemd.import_credentials=",
            "\"systemd.import_credentials=yes\"",
            "systemd.\"import\"_credentials=yes",
            "'systemd.import_credentials=yes'",
            "quiet systemd.import_credentials=yes",
            "systemd.debug-shell=ttyS0",
            "systemd.getty_auto=yes",
            "systemd.unit=rescue.target",
            "systemd.set_credential=a:b",
            "systemd.set_credential_binary=a:b",
            "systemd.run=/bin/sh",
            "systemd.run_success_action=none",
            "systemd.mask=a.service",
            "systemd.wants=debug-shell.service",
            "systemd.setenv=A=b",
            "systemd.crash_shell",
            "systemd.ssh_listen=vsock::22",
            "systemd.journald.forward_to_console=1",
            "systemd.a_word_of_a_later_version",
            "Systemd.unit=rescue.target",
            "init=/bin/sh",
            "root=/dev/vda9",
            "rescue",
            "single",
            "-s",
            "1",
        ] {
            let opens = Error::Opens { word: word.to_owned() };
            assert_eq!(check(word, Profile::Release), Err(opens), "{word}");
            assert_eq!(check(word, Profile::Debug), Ok(()), "{word}");
        }
        for word in [
            "systemd.import_credentials=no",
            "systemd.gpt_auto=0",
            "systemd.log_level=debug",
            "systemd.show-status=error",
            "systemd.journald.max_level_store=info",
            "quiet",
            "panic=-1",
            "B",
            "loglevel=1",
            "debug",
        ] {
            assert_eq!(check(word, Profile::Release), Ok(()), "{word}");
        }
    }

    #[test]
    fn the_builders_own_words_are_reserved_in_every_profile() {
        for word in ["proofmark.roothash=00", "\"proofmark.salt\"=-", "quiet proofmark.profile=debug"] {
            for profile in Profile::ALL {
                assert_eq!(check(word, profile), Err(Error::Reserved { word: word.to_owned() }));
            }
        }
    }
}
