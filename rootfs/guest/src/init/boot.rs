//! The verified root filesystem and its first program, from the initrd and the command line.
//!
//! # Shape
//!
//! ```text
//! /proc/cmdline -> modules -> two partitions -> dm-verity -> mount -> switch root -> /sbin/init
//! ```
//!
//! Each step either succeeds or ends the boot: one line on the console names the step, the kernel's answer
//! and its likely meaning; then process 1 ends and the kernel panics. There is no shell and no fallback.
//!
//! # Source
//!
//! The root is switched as by `switch_root(8)`: the new root is moved over `/`, then entered. Only the known
//! files of the initrd (the init, the list, the modules) are removed, so nothing here walks folders; any
//! other files of a boot loader (systemd-stub's `/.extra`) stay below the new root, out of reach.
//!
//! # Not here
//!
//! Everything else that a boot needs (encrypted disks, the network, attestation): the verified system does
//! it.

#![allow(clippy::result_large_err)] // there is no heap to box it on, and it occurs once

use super::cmdline::{self, Boot, PartUuid, Profile};
use super::line::Line;
use super::modules::{self, Hardware};
use super::partition::{self, Device};
use super::sys::{self, Errno, File};
use super::verity::{Command, Request};
use core::convert::Infallible;
use core::ffi::CStr;
use core::fmt;

/// How long the two partitions may take to appear, in milliseconds.
const PATIENCE: u64 = 30_000;
/// How long to sleep between two looks, in milliseconds.
const PAUSE: u64 = 10;

const LIST: &CStr = c"/modules.load";
const INIT: &CStr = c"/sbin/init";
const SYSTEMD: &CStr = c"/usr/lib/systemd/systemd";
const ENVIRONMENT: [&CStr; 3] = [c"PATH=/usr/sbin:/usr/bin:/sbin:/bin", c"HOME=/", c"TERM=linux"];

/// Tells why the boot ended: the step, the answer, and its likely meaning.
#[derive(Debug)]
pub struct Refusal {
    step: Line<160>,
    cause: Cause,
    hint: &'static str,
}

#[derive(Debug)]
enum Cause {
    Kernel(Errno),
    CommandLine(cmdline::Error),
    Modules(modules::Error),
    Absent(&'static str),
    Bug,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "refusing to boot: {}: ", self.step)?;
        match &self.cause {
            Cause::Kernel(errno) => write!(f, "{errno}")?,
            Cause::CommandLine(error) => write!(f, "{error}")?,
            Cause::Modules(error) => write!(f, "{error}")?,
            Cause::Absent(what) => write!(f, "{what} did not appear within {} s", PATIENCE / 1000)?,
            Cause::Bug => write!(f, "a text is too long")?,
        }
        write!(f, "; {}", self.hint)
    }
}

/// Adds the step and the likely meaning to the kernel's refusal.
fn refuse(step: fmt::Arguments<'_>, hint: &'static str) -> impl FnOnce(Errno) -> Refusal {
    let step = Line::of(step).unwrap_or_default();
    move |errno| Refusal { step, cause: Cause::Kernel(errno), hint }
}

fn shown(path: &CStr) -> &str {
    path.to_str().unwrap_or("?")
}

fn bug(step: &'static str) -> Refusal {
    Refusal { step: Line::cut(step.as_bytes()), cause: Cause::Bug, hint: "this is a bug of proofmark-init" }
}

/// Boots, or returns why it cannot.
pub fn boot() -> Result<Infallible, Refusal> {
    mount_kernel_filesystems()?;
    let boot = command_line()?;
    load_modules()?;
    let (data, tree) = partitions(&boot)?;
    let root = verify(&boot, data, tree)?;
    mount_root(&boot, root)?;
    say("<5>", format_args!("root is {root}, verified by {}, at {} ms", boot.root_hash, sys::milliseconds()));
    if boot.profile == Some(Profile::Debug) {
        say("<4>", format_args!("this is a DEBUG image: it may let anybody in"));
    }
    switch_root()
}

/// Writes one line to the kernel's log, else to the console; `level` is that of `printk`.
pub fn say(level: &str, text: fmt::Arguments<'_>) {
    let line = Line::<900>::of(format_args!("{level}proofmark-init: {text}\n"));
    let line = line.unwrap_or_else(|| Line::cut(b"<2>proofmark-init: a message is too long"));
    let written = File::open(c"/dev/kmsg", sys::WRITE).and_then(|log| log.write(line.as_bytes()));
    if written.is_err() {
        sys::console(line.as_bytes());
    }
}

fn mount_kernel_filesystems() -> Result<(), Refusal> {
    let closed = sys::NOSUID | sys::NODEV | sys::NOEXEC;
    for (kind, target, flags, data) in [
        (c"devtmpfs", c"/dev", sys::NOSUID, c"mode=0755"),
        (c"proc", c"/proc", closed, c""),
        (c"sysfs", c"/sys", closed, c""),
    ] {
        let hint = "the kernel lacks what every Debian kernel has";
        match sys::mkdir(target) {
            Err(errno) if !errno.is(sys::EEXIST) => {
                return Err(refuse(format_args!("making {}", shown(target)), hint)(errno));
            }
            _ => {}
        }
        sys::mount(kind, target, kind, flags, data)
            .map_err(refuse(format_args!("mounting {}", shown(target)), hint))?;
    }
    sys::mkdir(c"/sysroot").map_err(refuse(format_args!("making /sysroot"), "the initrd must not hold it"))
}

fn command_line() -> Result<Boot, Refusal> {
    // The kernel silently cuts a longer line to 2047 bytes; `read` refuses a file that leaves no byte free.
    let mut buffer = [0; 2048];
    let step = "reading /proc/cmdline";
    let file = File::open(c"/proc/cmdline", sys::READ).and_then(|file| file.read(&mut buffer));
    let text = file.map_err(refuse(
        format_args!("{step}"),
        "it must have fewer than 2047 bytes, for the kernel cuts the rest",
    ))?;
    Boot::parse(text).map_err(|error| Refusal {
        step: Line::cut(step.as_bytes()),
        cause: Cause::CommandLine(error),
        hint: "the command line must be the one that the image was built with",
    })
}

fn load_modules() -> Result<(), Refusal> {
    let mut buffer = [0; 16384];
    let file = File::open(LIST, sys::READ).and_then(|file| file.read(&mut buffer));
    let text = file.map_err(refuse(
        format_args!("reading {}", shown(LIST)),
        "the initrd must hold it, in at most 16 KiB",
    ))?;
    for module in modules::list(text) {
        let module = module.map_err(|error| Refusal {
            step: Line::cut(b"reading /modules.load"),
            cause: Cause::Modules(error),
            hint: "the initrd must be the one that the image was built with",
        })?;
        let path = Line::<256>::of(format_args!("{}", module.path)).ok_or(bug("a module's path"))?;
        let loaded = File::open(path.as_c_str(), sys::READ).and_then(|file| file.load_module(module.packing));
        match loaded {
            Err(errno) if errno.is(sys::EEXIST) => {}
            Err(errno) if errno.is(sys::ENODEV) && module.hardware == Hardware::Optional => {}
            other => other.map_err(refuse(
                format_args!("loading {path}"),
                "the module must be of this kernel, after those that it depends on",
            ))?,
        }
        let _ = sys::unlink(path.as_c_str()); // frees the memory; a failure does no harm
    }
    let _ = (sys::unlink(LIST), sys::unlink(c"/init"));
    Ok(())
}

/// Waits for both partitions; dm-verity checks their content, whatever device numbers they have.
fn partitions(boot: &Boot) -> Result<(Device, Device), Refusal> {
    loop {
        let (mut data, mut tree) = (None, None);
        let mut buffer = [0; 32768];
        let list = File::open(c"/proc/partitions", sys::READ).and_then(|file| file.read(&mut buffer));
        let hint = "the machine has more block devices than the init takes";
        for device in
            partition::devices(list.map_err(refuse(format_args!("reading /proc/partitions"), hint))?)
        {
            match identify(device) {
                Some(uuid) if uuid == boot.root => partition::lowest(&mut data, device),
                Some(uuid) if uuid == boot.verity => partition::lowest(&mut tree, device),
                _ => {}
            }
        }
        let absent = match (data, tree) {
            (Some(data), Some(tree)) => return Ok((data, tree)),
            (None, _) => (boot.root, "the root partition"),
            (_, None) => (boot.verity, "the verity partition"),
        };
        if sys::milliseconds() >= PATIENCE {
            return Err(Refusal {
                step: Line::of(format_args!("waiting for PARTUUID={}", absent.0)).unwrap_or_default(),
                cause: Cause::Absent(absent.1),
                hint: "the disk is not attached, is another one, or its driver is not in /modules.load",
            });
        }
        sys::sleep(PAUSE);
    }
}

/// The GUID of a partition, from its disk's table; `None` if it has none, or if the device vanishes or fails
/// meanwhile: it may be there the next time.
fn identify(device: Device) -> Option<PartUuid> {
    let mut buffers = [[0; 4096]; 4];
    let [uevent, number, disk, sector] = &mut buffers;
    let path = Line::<64>::of(format_args!("/sys/dev/block/{device}/uevent"))?;
    let index = partition::index(File::open(path.as_c_str(), sys::READ).ok()?.read(uevent).ok()?)?;
    let path = Line::<64>::of(format_args!("/sys/dev/block/{device}/../dev"))?;
    let parent = partition::device(File::open(path.as_c_str(), sys::READ).ok()?.read(number).ok()?)?;
    let path = Line::<64>::of(format_args!("/sys/dev/block/{parent}/uevent"))?;
    let name = partition::name(File::open(path.as_c_str(), sys::READ).ok()?.read(disk).ok()?)?;
    let path = Line::<64>::of(format_args!("/sys/dev/block/{parent}/queue/logical_block_size"))?;
    let sector = partition::sector(File::open(path.as_c_str(), sys::READ).ok()?.read(sector).ok()?)?;
    let path = Line::<128>::of(format_args!("/dev/{name}"))?;
    let disk = File::open(path.as_c_str(), sys::READ).ok()?;
    let (mut header, mut entry) = ([0; 92], [0; 32]);
    disk.read_at(sector, &mut header).ok()?;
    disk.read_at(partition::entry(&header, sector, index)?, &mut entry).ok()?;
    Some(partition::part_uuid(&entry))
}

fn verify(boot: &Boot, data: Device, tree: Device) -> Result<Device, Refusal> {
    let control = File::open(c"/dev/mapper/control", sys::READ_WRITE)
        .map_err(refuse(format_args!("opening /dev/mapper/control"), "dm-mod is not in /modules.load"))?;
    let mut request = Request::plain();
    control
        .device_mapper(Command::Create, &mut request)
        .map_err(refuse(format_args!("making the device mapper's device"), "dm-mod is not as expected"))?;
    let device = request.device();
    let mut table = Request::table(boot, data, tree).ok_or(bug("the table"))?;
    control.device_mapper(Command::Load, &mut table).map_err(refuse(
        format_args!("setting up dm-verity over {data} with the tree on {tree}"),
        "a partition is too small for the geometry of the command line, or dm-verity is not in /modules.load",
    ))?;
    control.device_mapper(Command::Resume, &mut Request::plain()).map_err(refuse(
        format_args!("starting dm-verity"),
        "the device mapper did not take its own table",
    ))?;
    Ok(device)
}

fn mount_root(boot: &Boot, root: Device) -> Result<(), Refusal> {
    let node = Line::<32>::of(format_args!("/dev/dm-{}", root.minor)).ok_or(bug("the device's path"))?;
    let kind = boot.filesystem.name();
    sys::mount(node.as_c_str(), c"/sysroot", kind, sys::RDONLY | sys::NODEV, c"").map_err(refuse(
        format_args!("mounting {node} as {}", shown(kind)),
        "the filesystem's module is not in /modules.load, or the image is not that filesystem",
    ))
}

fn switch_root() -> Result<Infallible, Refusal> {
    for (from, to) in [(c"/dev", c"/sysroot/dev"), (c"/proc", c"/sysroot/proc"), (c"/sys", c"/sysroot/sys")] {
        let hint = "the root filesystem lacks this folder";
        sys::mount(from, to, c"", sys::MOVE, c"")
            .map_err(refuse(format_args!("moving {} to {}", shown(from), shown(to)), hint))?;
    }
    let step = || refuse(format_args!("entering the root filesystem"), "this is a bug of proofmark-init");
    sys::chdir(c"/sysroot").map_err(step())?;
    sys::mount(c".", c"/", c"", sys::MOVE, c"").map_err(step())?;
    sys::chroot(c".").map_err(step())?;
    sys::chdir(c"/").map_err(step())?;
    let errno = sys::execute(INIT, ENVIRONMENT);
    let hint = "the root filesystem lacks it, or what it needs to run";
    if !errno.is(2) {
        return Err(refuse(format_args!("starting {}", shown(INIT)), hint)(errno));
    }
    let errno = sys::execute(SYSTEMD, ENVIRONMENT);
    Err(refuse(format_args!("starting {} or {}", shown(INIT), shown(SYSTEMD)), hint)(errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_the_step_the_answer_and_the_likely_meaning() {
        let error =
            File::open(c"/no/such/file", sys::READ).map_err(refuse(format_args!("opening it"), "it is gone"));
        assert_eq!(
            error.expect_err("refused").to_string(),
            "refusing to boot: opening it: error 2 (ENOENT, no such file); it is gone"
        );
    }

    #[test]
    fn the_longest_refusal_fits_into_a_line_of_the_kernels_log() {
        let step = Line::<160>::cut(&[b'x'; 200]);
        let word = Line::cut(&[b'y'; 200]);
        let cause = Cause::CommandLine(cmdline::Error::Unknown { offset: usize::MAX, word });
        let refusal = Refusal { step, cause, hint: &"z".repeat(100).leak()[..] };
        assert!(Line::<900>::of(format_args!("<2>proofmark-init: {refusal}\n")).is_some());
    }
}
