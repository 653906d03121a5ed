use super::accelerator::{probe, probe_rom};
use super::*;

fn number(number: u16) -> NonZeroU16 {
    NonZeroU16::new(number).unwrap()
}

fn with_path(folder: &Path) -> Environment {
    Environment { path: folder.into(), variables: BTreeMap::new() }
}

fn touch(path: PathBuf) -> PathBuf {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, "x").unwrap();
    path
}

#[test]
fn qemu_is_told_everything_and_commas_are_doubled() {
    let firmware = Firmware { code: "/fw/CODE.fd".into(), variables: Some("/t/variables.fd".into()) };
    let forwards = ["8080:80", "2222:22"].map(|text| text.parse::<Forward>().unwrap());
    let plan = Plan {
        accelerator: Accelerator::Tcg,
        vcpus: number(2),
        memory: "2G".parse().unwrap(),
        firmware: &firmware,
        disk: Path::new("/out/a,b c/disk.raw"),
        kernel: None,
        drives: &["/state".into()],
        forwards: &forwards,
        strings: &["/t/string0".into()],
        tpm: Some(Path::new("/t/tpm.socket")),
        control: Path::new("/t/control"),
    };
    let expected = "-name|proofmark|-nodefaults|-no-user-config|-no-reboot|-display|none|-machine|q35\
        |-accel|tcg,thread=multi|-cpu|max,-cx16|-smp|2|-m|2048M\
        |-drive|if=pflash,unit=0,format=raw,readonly=on,file=/fw/CODE.fd\
        |-drive|if=pflash,unit=1,format=raw,file=/t/variables.fd\
        |-drive|if=none,id=root,format=raw,snapshot=on,file=/out/a,,b c/disk.raw\
        |-device|virtio-blk-pci,drive=root,serial=proofmark-root,bootindex=0\
        |-drive|if=none,id=drive0,format=raw,file=/state\
        |-device|virtio-blk-pci,drive=drive0,serial=proofmark-drive0\
        |-netdev|user,id=network,hostfwd=tcp:127.0.0.1:8080-:80,hostfwd=tcp:127.0.0.1:2222-:22\
        |-device|virtio-net-pci,netdev=network,romfile=|-device|virtio-rng-pci\
        |-chardev|stdio,id=console,signal=off|-serial|chardev:console\
        |-chardev|socket,id=control,path=/t/control|-mon|chardev=control,mode=control\
        |-smbios|type=11,path=/t/string0\
        |-chardev|socket,id=tpm,path=/t/tpm.socket\
        |-tpmdev|emulator,id=tpm0,chardev=tpm|-device|tpm-crb,tpmdev=tpm0";
    let said: Vec<_> = command(&plan).into_iter().map(|word| word.into_string().unwrap()).collect();
    assert_eq!(said.join("|"), expected);
}

#[test]
fn firmware_in_one_file_and_kvm_are_told_as_such() {
    let firmware = Firmware { code: "/fw/a,b.fd".into(), variables: None };
    let plan = Plan {
        accelerator: Accelerator::Kvm,
        vcpus: number(1),
        memory: "512M".parse().unwrap(),
        firmware: &firmware,
        disk: Path::new("/disk"),
        kernel: Some(Path::new("/a,b.efi")),
        drives: &[],
        forwards: &[],
        strings: &[],
        tpm: None,
        control: Path::new("/c"),
    };
    let said = command(&plan).join(&OsString::from(" ")).into_string().unwrap();
    for part in [
        "-accel kvm -cpu host -smp 1 -m 512M -bios /fw/a,b.fd -kernel /a,b.efi -drive",
        "bootindex=1 -netdev user,id=network -device",
    ] {
        assert!(said.contains(part), "{said}");
    }
    assert!(!said.contains("tpm") && !said.contains("smbios") && !said.contains("pflash"), "{said}");
}

#[test]
fn sizes_are_read_and_others_refused() {
    for (text, size) in [("512M", 512), ("2G", 2048), ("3g", 3072), ("1m", 1)] {
        assert_eq!(text.parse::<Memory>().unwrap(), Memory(size));
    }
    for text in ["", "G", "2", "2048", "0G", "-1G", "2T", "1.5G", "4294967295G", "2GiB"] {
        let error = text.parse::<Memory>().unwrap_err().to_string();
        assert_eq!(error, format!("expected a size such as 512M or 2G, found {text:?}"));
    }
}

#[test]
fn ports_are_read_and_others_refused() {
    let forward: Forward = "8080:80".parse().unwrap();
    assert_eq!(forward, Forward { host: number(8080), guest: number(80) });
    for text in
        ["", "80", ":", "0:80", "80:0", "65536:1", "1:65536", "a:b", "1:2:3", "0.0.0.0:80", "1:2,guestfwd=x"]
    {
        assert!(matches!(text.parse::<Forward>(), Err(Error::Forward { found }) if found == text));
    }
}

#[test]
fn credentials_are_read_and_others_refused_without_telling_the_value() {
    let given: Credential = "gateway.token=a=b@".parse().unwrap();
    assert!(given.name == "gateway.token" && given.value == Value::Given("a=b@".to_owned()));
    assert_eq!(format!("{given:?}"), "Credential(gateway.token)");
    let file: Credential = "x=@/secret".parse().unwrap();
    assert!(file.value == Value::File("/secret".into()));
    for text in ["", "token", "=secret", "a/b=secret", "a b=secret", "a,path=secret"] {
        let error = text.parse::<Credential>().unwrap_err().to_string();
        assert!(error.starts_with("expected NAME=VALUE or NAME=@FILE"), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
}

#[test]
fn a_credential_becomes_a_string_that_systemd_takes() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    fs::write(&file, b"\0\xff,\n").unwrap();
    let of_file = Credential { name: "a.b".to_owned(), value: Value::File(file) };
    assert_eq!(smbios_string(&of_file).unwrap(), "io.systemd.credential.binary:a.b=AP8sCg==");
    let missing = Credential { name: "a".to_owned(), value: Value::File("/no/such/file".into()) };
    assert_eq!(smbios_string(&missing).unwrap_err().to_string(), "cannot use /no/such/file");
}

#[test]
fn code_is_paired_with_its_own_variables() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for (code, variables) in [
        ("a/OVMF_CODE_4M.fd", "a/OVMF_VARS_4M.fd"),
        ("b/OVMF_CODE.4m.fd", "b/OVMF_VARS.4m.fd"),
        ("c/OVMF_CODE.secboot.fd", "c/OVMF_VARS.fd"),
        ("d/ovmf-x86_64-4m-code.bin", "d/ovmf-x86_64-4m-vars.bin"),
        ("e/edk2-x86_64-code.fd", "e/edk2-i386-vars.fd"),
    ] {
        let (code, variables) = (touch(at(code)), touch(at(variables)));
        assert_eq!(Firmware::given(&code).unwrap(), Firmware { code, variables: Some(variables) });
    }
    let whole = touch(at("f/OVMF.fd"));
    assert_eq!(Firmware::given(&whole).unwrap(), Firmware { code: whole, variables: None });
}

#[test]
fn code_without_variables_and_missing_firmware_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let code = touch(folder.path().join("OVMF_CODE.fd"));
    let error = Firmware::given(&code).unwrap_err();
    assert!(error.to_string().ends_with("OVMF_VARS.fd"), "{error}");
    assert!(matches!(Firmware::given(Path::new("/no/such")), Err(Error::File { .. })));
    let tried = vec![code, "/no/such".into()];
    let error = Firmware::first_of(tried.clone()).unwrap_err();
    assert!(matches!(&error, Error::NoFirmware { tried: told } if *told == tried));
    assert!(error.to_string().ends_with("\n  /no/such"), "{error}");
}

#[test]
fn firmware_that_qemu_brings_along_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    let qemu = touch(root.join("bin/qemu-system-x86_64"));
    assert!(places(&qemu).contains(&root.join("share/qemu/edk2-x86_64-code.fd")));
}

#[test]
fn a_program_that_is_in_no_folder_of_path_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let error = with_path(folder.path()).find(QEMU).unwrap_err();
    assert_eq!(error.to_string(), "qemu-system-x86_64 is not in PATH");
    assert!(matches!(with_path(Path::new("")).find(SWTPM), Err(Error::NoProgram { program: SWTPM })));
    let qemu = touch(folder.path().join(QEMU));
    assert_eq!(with_path(folder.path()).find(QEMU).unwrap(), qemu);
}

#[test]
fn the_end_of_a_machine_is_told_by_its_events() {
    let shutdown = |reason: &str| {
        format!(
            "{{\"timestamp\": {{}}, \"event\": \"SHUTDOWN\", \"data\": {{\"guest\": true, \"reason\": \"{reason}\"}}}}\r\n"
        )
    };
    assert_eq!(event(shutdown("guest-shutdown").as_bytes()), Some(Event::Shutdown));
    assert_eq!(event(shutdown("guest-reset").as_bytes()), Some(Event::Reset));
    assert_eq!(event(shutdown("guest-panic").as_bytes()), Some(Event::Reset));
    assert_eq!(event(b"{\"event\": \"STOP\"}"), Some(Event::Stop));
    for line in [
        "",
        "{",
        "[]",
        "{\"event\": 1}",
        "{\"event\": \"SHUTDOWN\"}",
        "{\"return\": {}}",
        &shutdown("host-signal"),
    ] {
        assert_eq!(event(line.as_bytes()), None);
    }
}

#[test]
fn the_probe_guest_ends_where_the_processor_begins() {
    let rom = probe_rom();
    assert_eq!(rom.len(), 1 << 16);
    // The jump at the reset vector leads to `cli`, the far jump to `finit`.
    assert_eq!(rom[0xfff0], 0xe9);
    let target = 0xfff3_u16.wrapping_add(u16::from_le_bytes([rom[0xfff1], rom[0xfff2]]));
    assert_eq!(rom[usize::from(target)], 0xfa);
    assert_eq!(rom[0xffae..0xffb1], [0x9b, 0xdb, 0xe3]);
}

/// Finds this machine's QEMU; `None`, with a loud message, if it is missing outside CI.
fn qemu() -> Option<(PathBuf, Environment)> {
    let environment = Environment::of_this_process();
    match environment.find(QEMU) {
        Ok(qemu) => Some((qemu, environment)),
        Err(error) => {
            assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{error}");
            eprintln!("SKIPPED: {error}; apt-get install qemu-system-x86");
            None
        }
    }
}

#[test]
fn the_probe_guest_runs_where_guests_run() {
    let Some((qemu, environment)) = qemu() else { return };
    let took = probe(Accelerator::Tcg, &qemu, &environment).unwrap();
    assert!(took.is_ok(), "{took:?}");
    // Whatever this machine's KVM does, there is a choice and a reason.
    let choice = choose(&qemu, &environment).unwrap();
    assert!(!choice.reason.is_empty());
    eprintln!("{choice:?}");
}

#[test]
fn a_disk_that_is_not_there_is_refused_and_a_used_port_is_told() {
    let Some((qemu, environment)) = qemu() else { return };
    let folder = tempfile::tempdir().unwrap();
    let rom = folder.path().join("rom");
    fs::write(&rom, [0xf4; 1 << 16]).unwrap();
    let used = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut request = Request {
        accelerator: Accelerator::Tcg,
        vcpus: number(1),
        memory: Memory(16),
        firmware: Firmware { code: rom.clone(), variables: None },
        disk: folder.path().join("none"),
        kernel: None,
        drives: Vec::new(),
        forwards: vec![Forward { host: number(used.local_addr().unwrap().port()), guest: number(80) }],
        credentials: Vec::new(),
        tpm: Tpm::Absent,
    };
    let start = |request: &Request| Machine::start(&qemu, request, &environment, Vec::new());
    assert!(matches!(start(&request), Err(Error::File { path, .. }) if path == request.disk));
    request.disk = rom;
    let said = match start(&request) {
        Err(Error::NotStarted { said, .. }) => said,
        Err(error) => panic!("{error}"),
        Ok(mut machine) => loop {
            match machine.end().unwrap() {
                Some(End::Lost(_, said)) => break said,
                Some(end) => panic!("{end:?}"),
                None => assert!(machine.age() < Duration::from_secs(60)),
            }
            thread::sleep(PAUSE);
        },
    };
    assert!(said.0.contains("host forwarding rule"), "{said}");
}
