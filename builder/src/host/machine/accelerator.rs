//! Yields the accelerator for guests on this machine: KVM if it can really run a small guest.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::super::tool::running::Running;
use super::{Environment, Error, PAUSE, private_folder};

/// Time limit of the KVM probe.
const PROBE: Duration = Duration::from_secs(3);

/// How the guest's instructions run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// On this processor, by the kernel.
    Kvm,
    /// Translated by QEMU: works everywhere, but ten to thirty times slower.
    Tcg,
}

impl Accelerator {
    /// Returns its name.
    pub fn name(self) -> &'static str {
        match self {
            Accelerator::Kvm => "kvm",
            Accelerator::Tcg => "tcg",
        }
    }

    pub(super) fn arguments(self) -> [&'static str; 4] {
        match self {
            Accelerator::Kvm => ["-accel", "kvm", "-cpu", "host"],
            // Translated CMPXCHG16B returned broken flags once in some hundred boots: the kernel panics.
            Accelerator::Tcg => ["-accel", "tcg,thread=multi", "-cpu", "max,-cx16"],
        }
    }
}

/// An accelerator, and why it was chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The accelerator.
    pub accelerator: Accelerator,
    /// Why, for people.
    pub reason: String,
}

/// Chooses KVM if a small guest really runs under it, else TCG.
///
/// # Errors
/// When QEMU itself cannot be started.
pub fn choose(qemu: &Path, environment: &Environment) -> Result<Choice, Error> {
    let tcg = |reason: String| Ok(Choice { accelerator: Accelerator::Tcg, reason });
    if let Err(error) = File::options().read(true).write(true).open("/dev/kvm") {
        return tcg(format!("/dev/kvm: {error}"));
    }
    match probe(Accelerator::Kvm, qemu, environment)? {
        Ok(took) => {
            let reason = format!("a probe guest ran under KVM in {:.1} s", took.as_secs_f64());
            Ok(Choice { accelerator: Accelerator::Kvm, reason })
        }
        Err(why) => tcg(format!("a probe guest did not run under KVM: {why}")),
    }
}

/// What the probe guest writes to isa-debug-exit; QEMU then exits with twice this plus 1.
const PROBE_ANSWER: u8 = 0x10;
/// Offset of the probe guest's code in its ROM.
const PROBE_AT: usize = 0xff80;

/// Builds the probe guest's ROM: 64 KiB that end at 4 GiB, where an x86 processor starts.
///
/// It enters protected mode, then uses the x87 unit and CPUID. Hypervisors that poorly emulate a real
/// kernel's first steps can run single instructions, and stop here.
pub(super) fn probe_rom() -> Vec<u8> {
    const CODE: [u8; 64] = [
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0, // ff80: segment 0: none
        0xff,
        0xff,
        0,
        0,
        0,
        0x9b,
        0xcf,
        0, // ff88: segment 8: 4 GiB of 32 bit code, accessed
        0x0f,
        0,
        0x80,
        0xff,
        0xff,
        0xff, // ff90: limit and base of this table
        0xfa, // ff96: cli
        0x2e,
        0x66,
        0x0f,
        0x01,
        0x16,
        0x90,
        0xff, // lgdt cs:[0xff90]
        0x0f,
        0x20,
        0xc0,
        0x0c,
        0x01,
        0x0f,
        0x22,
        0xc0, // cr0 |= 1
        0x66,
        0xea,
        0xae,
        0xff,
        0xff,
        0xff,
        8,
        0, // jmp 8:0xffffffae
        0x9b,
        0xdb,
        0xe3, // ffae: finit
        0xb8,
        1,
        0,
        0,
        0,
        0x0f,
        0xa2, // mov eax, 1; cpuid
        0xb0,
        PROBE_ANSWER,
        0xe6,
        0xf4, // mov al, answer; out 0xf4, al
        0xf4,
        0xeb,
        0xfd, // hlt, for ever
        0xf4, // filler
    ];
    /// fff0: jmp 0xff96.
    const RESET: [u8; 3] = [0xe9, 0xa3, 0xff];
    let mut rom = vec![0xf4; PROBE_AT];
    rom.extend_from_slice(&CODE);
    rom.resize(0xfff0, 0xf4);
    rom.extend_from_slice(&RESET);
    rom.resize(1 << 16, 0xf4);
    rom
}

/// Runs the probe guest; returns how long it took, or why it did not run.
pub(super) fn probe(
    accelerator: Accelerator,
    qemu: &Path,
    environment: &Environment,
) -> Result<Result<Duration, String>, Error> {
    let folder = private_folder()?;
    let rom = folder.path().join("probe.rom");
    fs::write(&rom, probe_rom()).map_err(|source| Error::File { path: rom.clone(), source })?;
    let mut arguments: Vec<OsString> = accelerator.arguments().map(OsString::from).into();
    arguments.extend(
        "-machine q35 -m 16 -nodefaults -no-user-config -display none -no-reboot -device \
         isa-debug-exit,iobase=0xf4,iosize=1 -bios"
            .split_whitespace()
            .map(OsString::from),
    );
    arguments.push(rom.into());
    let begun = Instant::now();
    let mut running = environment.start(qemu, arguments, folder.path())?;
    let said = |running: &Running| running.stderr().0.lines().next().unwrap_or_default().to_owned();
    loop {
        match running.ended()? {
            Some(status) if status.code() == Some(i32::from(PROBE_ANSWER) * 2 + 1) => {
                return Ok(Ok(begun.elapsed()));
            }
            Some(status) => {
                let said = said(&running);
                return Ok(Err(if said.is_empty() { status.to_string() } else { said }));
            }
            None => {}
        }
        // QEMU reports this, and then waits forever.
        if said(&running).contains("KVM internal error") || begun.elapsed() > PROBE {
            let said = said(&running);
            let silence = || format!("no answer within {} s", PROBE.as_secs());
            return Ok(Err(if said.is_empty() { silence() } else { said }));
        }
        thread::sleep(PAUSE);
    }
}
