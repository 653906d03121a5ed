use alloc::string::ToString;
use alloc::vec::Vec;

use super::*;
use crate::log::Bank;

const SHA384: Algorithm = Algorithm::Sha384;
const SHA384_BANK: Bank = Bank { id: 0x0c, length: 48 };

fn entry(index: u32, kind: EventType, digest: Digest, data: &[u8]) -> Entry {
    Entry { offset: 0, index, kind, digests: [digest].into(), data_at: 0, data: Some(data.into()) }
}

/// An event whose digest is that of its data.
fn plain(index: u32, kind: EventType, data: &[u8]) -> Entry {
    entry(index, kind, SHA384.of(data), data)
}

fn log(kind: RegisterKind, entries: Vec<Entry>) -> Log {
    Log { kind, banks: [SHA384_BANK].into(), entries, length: 0 }
}

fn variable(name: &str, value: &[u8]) -> Vec<u8> {
    let mut bytes = [7u8; 16].to_vec();
    let units: Vec<u16> = name.encode_utf16().collect();
    bytes.extend((units.len() as u64).to_le_bytes());
    bytes.extend((value.len() as u64).to_le_bytes());
    bytes.extend(units.iter().flat_map(|unit| unit.to_le_bytes()));
    bytes.extend(value);
    bytes
}

fn wide(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

#[test]
fn a_register_is_the_hash_of_itself_and_the_digest() {
    let separator = plain(2, EventType::EV_SEPARATOR, &[0; 4]);
    let registers = replay(&log(RegisterKind::Tdx, [separator.clone()].into()), SHA384).unwrap();
    assert_eq!(registers.len(), 4);
    let mut bytes = [0u8; 96];
    bytes[48..].copy_from_slice(separator.digests[0].as_bytes());
    assert_eq!(registers[&Register::Rtmr(1)], SHA384.of(&bytes));
    assert_eq!(registers[&Register::Rtmr(0)], SHA384.zero());
}

#[test]
fn ev_no_action_extends_nothing_whatever_its_register() {
    let told: Vec<Entry> =
        [0, 5, u32::MAX].map(|index| plain(index, EventType::EV_NO_ACTION, b"SP800-155 Event3")).into();
    let registers = replay(&log(RegisterKind::Tdx, told), SHA384).unwrap();
    assert!(registers.values().all(|value| *value == SHA384.zero()));
}

#[test]
fn pcr_0_starts_with_the_startup_locality() {
    let start = plain(0, EventType::EV_NO_ACTION, b"StartupLocality\0\x03");
    let registers = replay(&log(RegisterKind::Tpm, [start.clone()].into()), SHA384).unwrap();
    assert_eq!(registers[&Register::Pcr(0)].as_bytes()[47], 3);
    assert_eq!(registers[&Register::Pcr(1)], SHA384.zero());
    let registers = replay(&log(RegisterKind::Tdx, [start].into()), SHA384).unwrap();
    assert_eq!(registers[&Register::Rtmr(0)], SHA384.zero());
}

#[test]
fn pcrs_17_to_22_start_as_zeros_if_there_was_a_dynamic_launch_and_are_ones_if_not() {
    let event = plain(17, EventType::EV_SEPARATOR, &[0; 4]);
    let registers = replay(&log(RegisterKind::Tpm, [event.clone()].into()), SHA384).unwrap();
    assert_eq!(registers[&Register::Pcr(17)], SHA384.zero().extended(&event.digests[0]));
    assert_eq!(registers[&Register::Pcr(22)], SHA384.zero());
    assert_eq!(registers.len(), 22);
    let without = log(RegisterKind::Tpm, [plain(16, EventType::EV_SEPARATOR, &[0; 4])].into());
    assert!(!replay(&without, SHA384).unwrap().contains_key(&Register::Pcr(17)));
    assert_eq!(reset_value(Register::Pcr(17), SHA384), Digest::Sha384([0xff; 48]));
}

/// Not of the data does not mean changed.
#[test]
fn honest_firmware_that_hashes_other_bytes_than_it_logs_is_not_accused() {
    let certificate = variable("Shim", b"certificate");
    let surplus = [&certificate[..], &[0]].concat();
    let kind = EventType::EV_EFI_VARIABLE_AUTHORITY;
    let shim = entry(7, kind, SHA384.of(&certificate), &surplus);
    assert_eq!(derive(&shim, SHA384), Derivation::Derived(Rule::VariableWithoutSurplus));
    let padded = [&surplus[..], &[0; 5]].concat();
    for hashed in [&padded[..padded.len() - 1], &certificate] {
        let shim = entry(7, kind, SHA384.of(hashed), &padded);
        assert_eq!(derive(&shim, SHA384), Derivation::Derived(Rule::VariableWithoutSurplus));
    }
    assert!(subject(&shim).contains("Shim"), "{}", subject(&shim));
    let mut changed = surplus.clone();
    changed[40] ^= 1;
    let long = [&surplus[..], &[0; 8]].concat();
    for data in [changed, long, certificate[..certificate.len() - 1].to_vec()] {
        let record = entry(7, kind, SHA384.of(&certificate), &data);
        assert!(matches!(derive(&record, SHA384), Derivation::Contradicted { .. }), "{data:?}");
    }
    for kind in [EventType::EV_S_CRTM_VERSION, EventType::EV_ACTION] {
        assert_eq!(derive(&plain(0, kind, b"text"), SHA384), Derivation::Derived(Rule::EventData));
        let other = entry(0, kind, SHA384.of(b"other"), b"text");
        assert_eq!(derive(&other, SHA384), Derivation::NotDerivable(WhyNot::FirmwareText));
        assert_eq!(findings(&log(RegisterKind::Tpm, [other].into()), SHA384), Ok(Vec::new()));
    }
}

#[test]
fn records_for_registers_that_do_not_exist_are_refused() {
    let of = |index, kind| replay(&log(kind, [plain(index, EventType::EV_IPL, b"x")].into()), SHA384);
    assert_eq!(of(0, RegisterKind::Tdx), Err(Error::ExtendsMrtd { offset: 0 }));
    assert_eq!(of(5, RegisterKind::Tdx), Err(Error::NoRegister { offset: 0, found: 5 }));
    assert_eq!(of(24, RegisterKind::Tpm), Err(Error::NoRegister { offset: 0, found: 24 }));
    let sha256 = replay(&log(RegisterKind::Tpm, Vec::new()), Algorithm::Sha256);
    assert_eq!(sha256, Err(Error::NoBank { expected: Algorithm::Sha256 }));
    let without = Entry { digests: Vec::new(), ..plain(1, EventType::EV_IPL, b"x") };
    let without = replay(&log(RegisterKind::Tdx, [without].into()), SHA384);
    assert_eq!(without, Err(Error::NoDigest { offset: 0, expected: SHA384 }));
}

#[test]
fn digests_of_the_data_are_derived_and_changed_data_contradict() {
    let boot = variable("Boot0000", b"value");
    let mut aael = 0x4141_454cu32.to_le_bytes().to_vec();
    aael.extend(4u32.to_le_bytes());
    aael.extend(b"a b ");
    let cases: [(EventType, &[u8], Vec<u8>, Rule); 10] = [
        (EventType::EV_SEPARATOR, &[0; 4], [0; 4].into(), Rule::EventData),
        (EventType::EV_EFI_ACTION, b"Calling", b"Calling".into(), Rule::EventData),
        (EventType::EV_EFI_GPT_EVENT, b"gpt", b"gpt".into(), Rule::EventData),
        (EventType::EV_EFI_VARIABLE_DRIVER_CONFIG, &boot, boot.clone(), Rule::EventData),
        (EventType::EV_EFI_VARIABLE_AUTHORITY, &boot, boot.clone(), Rule::EventData),
        (EventType::EV_EFI_VARIABLE_BOOT, b"value", boot.clone(), Rule::VariableValue),
        (EventType::EV_EFI_VARIABLE_BOOT2, &boot, boot.clone(), Rule::EventData),
        (EventType::EV_IPL, b"set a=1", b"grub_cmd: set a=1\0".into(), Rule::LabelledText),
        (EventType::EV_IPL, b"set a=1\0", b"grub_cmd set a=1\0?".into(), Rule::LabelledTextNul),
        (EventType::EV_EVENT_TAG, &aael, aael.clone(), Rule::EventData),
    ];
    for (kind, hashed, data, rule) in cases {
        let honest = entry(1, kind, SHA384.of(hashed), &data);
        assert_eq!(derive(&honest, SHA384), Derivation::Derived(rule), "{kind}");
        // For grub, the first character after the label.
        let place = if kind == EventType::EV_IPL { 11 } else { data.len() - 1 };
        let mut changed = data;
        changed[place] ^= 1;
        let changed = entry(1, kind, SHA384.of(hashed), &changed);
        assert!(matches!(derive(&changed, SHA384), Derivation::Contradicted { .. }), "{kind}");
    }
}

#[test]
fn a_section_s_name_is_derived_and_its_content_is_not() {
    let data = wide(".linux\0");
    let name = entry(3, EventType::EV_IPL, SHA384.of(b".linux\0"), &data);
    assert_eq!(derive(&name, SHA384), Derivation::Derived(Rule::SectionName));
    let content = entry(3, EventType::EV_IPL, SHA384.of(b"MZ"), &data);
    assert_eq!(derive(&content, SHA384), Derivation::NotDerivable(WhyNot::SectionContent));
    assert_eq!(subject(&content), "section .linux");
}

#[test]
fn digests_of_what_the_log_does_not_hold_are_not_derivable() {
    let mut initrd = 0x8f3b_22ecu32.to_le_bytes().to_vec();
    initrd.extend(13u32.to_le_bytes());
    initrd.extend(b"Linux initrd\0");
    let cases: [(EventType, &[u8], WhyNot); 6] = [
        (EventType::EV_EFI_BOOT_SERVICES_APPLICATION, b"path", WhyNot::PeFile),
        (EventType::EV_EFI_HANDOFF_TABLES2, b"\x08TdxTable", WhyNot::Table),
        (EventType::EV_EFI_PLATFORM_FIRMWARE_BLOB2, b"\x02Fv", WhyNot::FirmwareVolume),
        (EventType::EV_PLATFORM_CONFIG_FLAGS, b"ACPI DATA", WhyNot::Label),
        (EventType::EV_EVENT_TAG, &initrd, WhyNot::Initrd),
        (EventType::EV_EVENT_TAG, b"LOADED_IMAGE::LoadOptions\0", WhyNot::Malformed),
    ];
    for (kind, data, why) in cases {
        let found = derive(&entry(1, kind, SHA384.of(b"?"), data), SHA384);
        assert_eq!(found, Derivation::NotDerivable(why), "{kind}");
    }
    let stripped = Entry { data: None, ..plain(1, EventType::EV_SEPARATOR, &[0; 4]) };
    assert_eq!(derive(&stripped, SHA384), Derivation::NotDerivable(WhyNot::NoData));
}

#[test]
fn a_dstack_runtime_event_hashes_type_name_and_value() {
    let mut hashed = 0x0800_0001u32.to_le_bytes().to_vec();
    hashed.extend(b":app-id:value");
    let event = entry(4, EventType(0x0800_0001), SHA384.of(&hashed), b":app-id:value");
    assert_eq!(derive(&event, SHA384), Derivation::Derived(Rule::DstackRuntime));
    let event = entry(4, EventType(0x0800_0001), SHA384.of(&hashed), b":app-id:other");
    assert!(matches!(derive(&event, SHA384), Derivation::Contradicted { .. }));
}

#[test]
fn subjects_name_variables_files_and_sections() {
    let named = |kind, data: &[u8]| subject(&plain(1, kind, data));
    assert_eq!(named(EventType::EV_SEPARATOR, &[0; 4]), "separator");
    assert_eq!(
        named(EventType::EV_EFI_VARIABLE_DRIVER_CONFIG, &variable("SecureBoot", &[1])),
        "variable SecureBoot"
    );
    let mut option = [1, 0, 0, 0, 4, 0].to_vec();
    option.extend(wide("UiApp\0"));
    option.extend([0x7f, 0xff, 4, 0]);
    let option = variable("Boot0000", &option);
    assert_eq!(named(EventType::EV_EFI_VARIABLE_BOOT, &option), "variable Boot0000 (UiApp)");
    let mut node = [4, 4].to_vec();
    let path = wide("\\EFI\\BOOT\\BOOTX64.EFI\0");
    node.extend(((path.len() + 4) as u16).to_le_bytes());
    node.extend(path);
    node.extend([0x7f, 0xff, 4, 0]);
    let mut image = [0; 24].to_vec();
    image.extend((node.len() as u64).to_le_bytes());
    image.extend(node);
    let application = EventType::EV_EFI_BOOT_SERVICES_APPLICATION;
    assert_eq!(named(application, &image), "PE file \\EFI\\BOOT\\BOOTX64.EFI");
    assert_eq!(named(application, &[]), "PE file from memory");
    assert_eq!(named(EventType::EV_EFI_ACTION, b"Calling"), "Calling");
    assert_eq!(named(EventType::EV_EFI_ACTION, b"\x1b[2J"), "EV_EFI_ACTION");
    assert_eq!(named(EventType(0x7777), &[]), "0x7777");
    let item = b"QEMU FW CFG\0BootMenu\0\0\0";
    assert_eq!(named(EventType::EV_PLATFORM_CONFIG_FLAGS, item), "QEMU FW CFG BootMenu");
    let long: Vec<u8> = core::iter::repeat_n(b'a', 5000).collect();
    assert!(named(EventType::EV_EFI_ACTION, &long).chars().count() <= 121);
}

#[test]
fn findings_name_a_second_separator_and_a_contradiction() {
    let changed = entry(2, EventType::EV_EFI_ACTION, SHA384.of(b"a"), b"b");
    let separator = |index| plain(index, EventType::EV_SEPARATOR, &[0; 4]);
    let entries = [separator(1), separator(2), changed, separator(1)];
    let found = findings(&log(RegisterKind::Tdx, entries.into()), SHA384).unwrap();
    assert!(matches!(found[0], Finding::Contradicted { .. }));
    assert!(matches!(found[1], Finding::SecondSeparator { register: Register::Rtmr(0), .. }));
    assert_eq!(found.len(), 2);
    assert!(found[1].to_string().contains("a second separator in rtmr0"));
}
